"""The models for images and tokens: parameters, what they compute, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mlefw.errors import UsageError
from mlefw.model.cnn import Cnn
from mlefw.model.linear import Linear
from mlefw.model.transformer import Transformer
from mlefw.objective.objective import Objective


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def randomized(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.double().eval()


def test_the_numbers_of_parameters_are_those_of_the_reference() -> None:
    assert count(Cnn((1, 28, 28), 10)) == 24_698
    assert count(Transformer(65, 64, (64,), 65)) == 112_577
    # Without a last matrix of its own.
    assert count(Transformer(65, 64, (64,), 65, tied=True)) == 112_577 - 64 * 65


# ------------------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 28, 28), [28, 14, 7]),
        ((3, 5, 9), [(5, 9), (2, 4), (1, 2)]),
        ((1, 1, 9), [(1, 9)] * 3),
        ((1, 2, 2), [(2, 2), (1, 1), (1, 1)]),
    ],
)
def test_resolution_is_halved_while_both_sides_have_two_pixels(shape, sizes) -> None:
    seen = []
    model = Cnn(shape, 2)
    for layer in model.body:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, x, out: seen.append(tuple(out.shape[2:])))
    model(torch.randn(3, *shape))
    assert seen == [size if isinstance(size, tuple) else (size, size) for size in sizes]


def groups_by_hand(z: np.ndarray, groups: int, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    parts = z.reshape(len(z), groups, -1)
    parts = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    return parts.reshape(z.shape) * gain[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (8, 4), (6, 3), (3, 1), (1, 1), (7, 1), (10, 5)])
def test_a_cnn_of_one_stage_by_hand(channels: int, groups: int) -> None:
    """A convolution as a sum over nine shifts, normalised in groups, SiLU, mean and maximum, a layer; in numpy."""
    model = randomized(Cnn((2, 4, 5), 3, channels=[channels]))
    convolution, norm = model.body[0], model.body[1]
    assert norm.num_groups == groups
    x = np.random.default_rng(0).normal(size=(6, 2, 4, 5))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = convolution.weight.detach().numpy()
    z = sum(
        np.einsum("oi,nihw->nohw", kernel[:, :, i, j], padded[:, :, i : i + 4, j : j + 5])
        for i in range(3)
        for j in range(3)
    )
    z = groups_by_hand(z, groups, norm.weight.detach().numpy(), norm.bias.detach().numpy())
    z = z / (1 + np.exp(-z))
    pooled = np.concatenate([z.mean((2, 3)), z.max((2, 3))], 1)
    expected = pooled @ model.last.weight.detach().numpy().T + model.last.bias.detach().numpy()
    np.testing.assert_allclose(model(torch.tensor(x)).detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(13,), (28, 28), (1, 1, 1), (3, 0, 4), (1, 2, 3, 4)])
def test_rows_that_are_no_images_are_refused(shape) -> None:
    with pytest.raises(UsageError, match=r"model=cnn: a row has shape .*expected an image \(channels, height, width\)"):
        Cnn(shape, 2)


@pytest.mark.parametrize("bad", [{"channels": []}, {"channels": [0]}, {"channels": [2.5]}, {"dropout": 1.0}])
def test_settings_of_a_cnn_out_of_range_are_refused(bad) -> None:
    with pytest.raises(UsageError, match=rf"model\.{next(iter(bad))}="):
        Cnn((1, 8, 8), 2, **bad)


# ------------------------------------------------------------------------------------------------------------ tokens


def normalised(z: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    return z * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def affine(z: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return z @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def by_hand(model: Transformer, x: np.ndarray, width: int, heads: int, causal: bool) -> np.ndarray:
    """The transformer one row, head and position at a time."""
    erf = np.vectorize(math.erf)
    rows = []
    for tokens in x:
        z = model.tokens.weight.detach().numpy()[tokens] + model.places.detach().numpy()[: len(tokens)]
        for block in model.blocks:
            query, key, value = np.split(affine(normalised(z, block.attention_norm), block.query_key_value), 3, axis=1)
            mixed = np.zeros_like(z)
            for head in np.split(np.arange(width), heads):
                for t in range(len(tokens)):
                    seen = slice(0, t + 1 if causal else len(tokens))
                    score = key[seen][:, head] @ query[t, head] / math.sqrt(len(head))
                    weight = np.exp(score - score.max())
                    mixed[t, head] = weight / weight.sum() @ value[seen][:, head]
            z = z + affine(mixed, block.project)
            inner = affine(normalised(z, block.mlp_norm), block.mlp[0])
            z = z + affine(inner * (1 + erf(inner / math.sqrt(2))) / 2, block.mlp[2])
        rows.append(normalised(z, model.norm))
    return np.stack(rows)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("positions", [(6,), ()])
def test_a_transformer_by_hand(layers: int, tied: bool, positions: tuple[int, ...]) -> None:
    model = randomized(Transformer(5, 6, positions, 5, width=8, layers=layers, heads=2, tied=tied))
    x = np.random.default_rng(0).integers(5, size=(3, 6))
    z = by_hand(model, x, 8, 2, bool(positions))
    z = z if positions else z.mean(1)
    weight, bias = (model.tokens.weight, model.bias) if tied else (model.last.weight, model.last.bias)
    expected = z @ weight.detach().numpy().T + bias.detach().numpy()
    np.testing.assert_allclose(model(torch.tensor(x)).detach(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [7, 64])
def test_later_tokens_change_no_output_to_the_last_bit(dtype: torch.dtype, length: int) -> None:
    model = randomized(Transformer(11, length, (length,), 11)).to(dtype)
    x = torch.randint(11, (8, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(x)
        for t in {0, 1, length // 2, length - 2}:
            other = torch.cat([x[:, : t + 1], (x[:, t + 1 :] + 1) % 11], 1)
            assert torch.equal(model(other)[:, : t + 1], whole[:, : t + 1])
            assert not torch.equal(model(other)[:, t + 1 :], whole[:, t + 1 :])


def test_with_one_target_every_token_counts() -> None:
    model = randomized(Transformer(11, 6, (), 3))
    x = torch.randint(11, (1, 6), generator=torch.Generator().manual_seed(0))
    for t in range(6):
        other = x.clone()
        other[0, t] = (x[0, t] + 1) % 11
        assert not torch.equal(model(other), model(x))


def test_a_shorter_window_gives_the_same_up_to_rounding() -> None:
    model = randomized(Transformer(11, 16, (16,), 11))
    x = torch.randint(11, (4, 16), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(model(x[:, :5]).detach(), model(x)[:, :5].detach(), rtol=1e-10, atol=1e-12)


def test_a_tied_matrix_is_one_weight() -> None:
    """The prior counts it once, and the zero start leaves nothing of it, since the gain before it is zero."""
    model = Transformer(5, 6, (6,), 5, width=8, heads=2, layers=0, tied=True)
    weights = list(Objective.weights(nn.ModuleDict({"model": model})))
    assert [tuple(w.shape) for w in weights] == [(6, 8), (5, 8)]
    assert not hasattr(model, "last")
    assert bool((model.tokens.weight != 0).all())


def test_gains_and_biases_are_no_weights() -> None:
    model = Transformer(5, 6, (6,), 5, width=8, heads=2, layers=1)
    weights = {id(w) for w in Objective.weights(nn.ModuleDict({"model": model}))}
    free = [name for name, p in model.named_parameters() if id(p) not in weights]
    assert free and all(name.endswith("bias") or "norm" in name for name in free)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"width": 63}, r"model\.width=63 is no multiple of model\.heads=4: expected one, such as model\.width=64"),
        ({"width": 2}, r"model\.width=2 is no multiple of model\.heads=4: expected one, such as model\.width=4"),
        ({"width": 0}, r"model\.width=0: expected a whole number of at least 1"),
        ({"heads": 0}, r"model\.heads=0: expected a whole number of at least 1"),
        ({"layers": -1}, r"model\.layers=-1: expected a whole number of at least 0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0: expected a probability"),
        ({"tied": True, "eta_dim": 4}, r"model\.tied=true: there are 5 tokens, and the head has 4 columns of eta"),
        ({"positions": (3,)}, r"rows of 6 tokens have targets of shape \(3,\): expected one target per row, or \(6,\)"),
    ],
)
def test_what_a_transformer_refuses(bad, match) -> None:
    with pytest.raises(UsageError, match=match):
        Transformer(**{"num_tokens": 5, "length": 6, "positions": (6,), "eta_dim": 5, **bad})


def test_a_linear_model_of_tokens_is_that_of_their_one_hot_codes() -> None:
    x = torch.randint(5, (4, 6), generator=torch.Generator().manual_seed(0))
    table, model = randomized(Linear(5, 3, num_tokens=5)), randomized(Linear(5, 3))
    codes = np.eye(5)[x.numpy()]
    expected = codes @ table.layer.weight.detach().numpy().T + table.layer.bias.detach().numpy()
    np.testing.assert_allclose(table(x).detach(), expected, rtol=1e-14)
    assert torch.allclose(model(torch.tensor(codes)), table(x), rtol=1e-14)
