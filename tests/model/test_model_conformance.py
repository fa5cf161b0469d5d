"""What every model must do, and the standardisation before it."""

import itertools
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from omegaconf import OmegaConf

import mlefw.model
from mlefw.errors import UsageError
from mlefw.model.linear import Linear
from mlefw.model.mlp import Mlp
from mlefw.objective.gradient import is_replayable
from mlefw.objective.tape import Tape
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized, feature_statistics, target_statistics
from mlefw.run.network import build_model
from mlefw.testing.model import check_model

CONF = Path(__file__).parents[2] / "conf" / "model"

TABLE, IMAGES = RowShape((4,)), RowShape((2, 5, 6))
TEXT, SENTENCES = RowShape((6,), (6,), 7, is_sequential=True), RowShape((6,), (), 7)

ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "elu")

EXAMPLES: dict[str, list[tuple[RowShape, dict[str, Any]]]] = {
    "linear": [(TABLE, {}), (TEXT, {})],
    "residual": [
        (TABLE, {}),
        (TABLE, {"hidden": [3], "linear": "trainable"}),
        (TABLE, {"hidden": [3, 2], "activation": "tanh", "dropout": 0.5, "layer_norm": True}),
    ],
    "mlp": [
        (TABLE, {}),
        (TABLE, {"hidden": []}),
        (TABLE, {"hidden": [3], "layer_norm": True}),
        *(
            (TABLE, {"hidden": [3, 2], "activation": a, "dropout": 0.5})
            for a in ("relu", "silu", "gelu", "tanh", "elu")
        ),
    ],
    "cnn": [
        (IMAGES, {}),
        (IMAGES, {"channels": [3, 8], "dropout": 0.5}),
        (RowShape((1, 1, 9)), {"channels": [4]}),
        (RowShape((3, 2, 2)), {"channels": [2, 6, 10, 16]}),
    ],
    "transformer": [
        (TEXT, {}),
        (SENTENCES, {}),
        (TEXT, {"layers": 0}),
        (TEXT, {"tied": True, "width": 12, "heads": 3}),
        (SENTENCES, {"tied": True, "layers": 1}),
        (TEXT, {"width": 8, "heads": 1, "layers": 3, "dropout": 0.5}),
    ],
}

MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
CASES = [(name, *example) for name in MEMBERS if name in EXAMPLES for example in EXAMPLES[name]]
each = pytest.mark.parametrize(
    ("name", "shape", "settings"), CASES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)]
)
ETA_DIM = 7
"""As many as there are tokens, for a tied transformer."""


def node(name: str) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {key: value for key, value in config.items() if key != "defaults"}


def make(name: str, shape: RowShape, settings: dict[str, Any], eta_dim: int = ETA_DIM) -> torch.nn.Module:
    return build_model(node(name) | settings, shape, eta_dim)


def draw(shape: RowShape, num_rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if shape.num_tokens is not None:
        return torch.randint(shape.num_tokens, (num_rows, *shape.input_shape), generator=generator)
    return torch.randn(num_rows, *shape.input_shape, generator=generator)


def test_every_yaml_has_an_example_and_every_example_a_yaml():
    assert set(EXAMPLES) == set(MEMBERS)


def test_every_member_module_has_a_yaml():
    modules = {f"mlefw.model.{info.name}" for info in pkgutil.iter_modules(mlefw.model.__path__)}
    modules.remove("mlefw.model.base")
    assert modules == {node(name)["_target_"].rpartition(".")[0] for name in MEMBERS}


@each
def test_the_public_checks(name, shape, settings):
    x = draw(shape, 6)
    x = x.double() if x.is_floating_point() else x
    check_model(make(name, shape, settings).double(), x, ETA_DIM, shape.positions, shape.is_sequential)


@pytest.mark.parametrize("name", ["linear", "mlp", "residual"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_output_shape_for_tables(name, shape):
    for num_features, eta_dim in ((4, 2), (1, 1), (3, 7)):
        model = make(name, RowShape((num_features,)), {}, eta_dim)
        assert model(torch.randn(*shape, num_features)).shape == (*shape, eta_dim)


@each
@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_output_shape(name, shape, settings, num_rows):
    model = make(name, shape, settings)
    assert model(draw(shape, num_rows)).shape == (num_rows, *shape.positions, ETA_DIM)


@each
def test_training_starts_at_the_null_model(name, shape, settings):
    model = make(name, shape, settings)
    assert bool((model(draw(shape, 20)) == 0).all())


@each
def test_a_zero_start_can_still_learn(name, shape, settings):
    torch.manual_seed(0)
    model = make(name, shape, settings).eval()
    x, y = draw(shape, 50), torch.randn(50, *shape.positions, ETA_DIM)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert bool((model(x).std(0) > 0).all())


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    for p in model.parameters():
        torch.nn.init.normal_(p)
    return model


@each
def test_dropout_is_active_in_training_alone(name, shape, settings):
    torch.manual_seed(0)
    model = randomized(make(name, shape, settings))
    x = draw(shape, 30)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert torch.equal(model(x), model(x)) == (not settings.get("dropout"))


@each
def test_gradients_recorded_on_a_tape_are_those_of_autograd(name, shape, settings):
    """Bit for bit, on inputs other than those of the recording, and with the dropout masks of the same generator."""
    torch.manual_seed(0)
    model = randomized(make(name, shape, settings)).train()
    assert is_replayable(model)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def descend(x, y):
        with torch.enable_grad():
            loss = (model(x).double() - y).square().sum()
            return [loss.detach(), *torch.autograd.grad(loss, parameters)]

    batches = [(draw(shape, 8, seed), torch.randn(8, *shape.positions, ETA_DIM).double()) for seed in range(3)]
    torch.manual_seed(1)
    tape = Tape(descend, batches[0])
    for seed, batch in enumerate(batches):
        torch.manual_seed(seed)
        replayed = tape(*batch)
        torch.manual_seed(seed)
        for found, expected in zip(replayed, descend(*batch), strict=True):
            assert torch.equal(found, expected)


def test_the_linear_model_is_an_affine_map():
    model = Linear(3, 2).double()
    weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    model.load(weight, bias)
    x = torch.randn(5, 3, dtype=torch.float64)
    np.testing.assert_allclose(model(x).detach(), x.numpy() @ weight.numpy().T + bias.numpy(), rtol=1e-12)
    assert all(p.requires_grad for p in model.parameters())
    assert [tuple(p.shape) for p in model.parameters()] == [(2, 3), (2,)]


NUMPY = {
    "relu": lambda z: np.maximum(z, 0),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z * scipy.stats.norm.cdf(z),
    "tanh": np.tanh,
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
}


@pytest.mark.parametrize("activation", sorted(NUMPY))
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_mlp_by_hand(activation, layer_norm):
    torch.manual_seed(0)
    model = Mlp(3, 2, hidden=[5, 4], activation=activation, layer_norm=layer_norm).double()
    torch.nn.init.normal_(model.last.weight)
    x = torch.randn(7, 3, dtype=torch.float64)
    h = x.numpy()
    for layer in (m for m in model.body if isinstance(m, torch.nn.Linear)):
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if layer_norm:
            h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
        h = NUMPY[activation](h)
    expected = h @ model.last.weight.detach().numpy().T
    np.testing.assert_allclose(model(x).detach(), expected, rtol=1e-10, atol=1e-12)


def test_widths():
    linear = [m for m in Mlp(3, 2, hidden=[5, 4]).modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(3, 5), (5, 4), (4, 2)]


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        *itertools.product(["hidden"], [[0], [64, -1], [2.5], [True], ["64"]]),
        *itertools.product(["activation"], ["swish", "", "ReLU"]),
        *itertools.product(["dropout"], [-0.1, 1.0, 2.0, float("nan")]),
    ],
)
def test_bad_settings_are_refused(setting, bad):
    with pytest.raises(UsageError, match=rf"model\.{setting}="):
        Mlp(3, 1, **{setting: bad})


# -------------------------------------------------------------------------------------------------- standardisation


def rows(x: np.ndarray, weight: np.ndarray | None = None, y: np.ndarray | None = None) -> Rows:
    n = len(x)
    columns = (x, np.zeros(n) if y is None else y, np.ones(n) if weight is None else weight, np.zeros(n))
    return Rows(*(torch.tensor(np.asarray(column), dtype=torch.float64) for column in columns))


def test_statistics_are_the_mean_and_the_population_standard_deviation():
    x = np.random.default_rng(0).normal(3, 2, size=(200, 4)) * [1, 1e-12, 1e12, 1e-100]
    mean, scale = feature_statistics(rows(x), standardize=True)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(scale, x.std(0), rtol=1e-13)


def test_weight_two_is_the_row_twice():
    generator = np.random.default_rng(0)
    x, y, weight = generator.normal(size=(30, 3)), generator.normal(size=30), generator.integers(1, 4, size=30)
    weighted = rows(x, weight, y)
    repeated = rows(np.repeat(x, weight, axis=0), y=np.repeat(y, weight))
    for got, expected in zip(feature_statistics(weighted, True), feature_statistics(repeated, True), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    np.testing.assert_allclose(target_statistics(weighted), target_statistics(repeated), rtol=1e-13)
    np.testing.assert_allclose(
        target_statistics(repeated), [repeated.y.mean(), repeated.y.std(correction=0)], rtol=1e-13
    )


@pytest.mark.parametrize("level", [0.0, 0.1, -1e12, 1e-300, 1 / 3])
def test_a_constant_column_becomes_zero(level):
    x = np.column_stack([np.full(1001, level), np.arange(1001.0)])
    mean, scale = feature_statistics(rows(x), standardize=True)
    assert scale[0] == 1.0
    assert mean[0].item() == pytest.approx(level, rel=1e-12)
    standardized = Standardized(torch.nn.Identity(), mean, scale)(rows(x).x)
    assert float(standardized[:, 0].abs().max()) <= 1e-12 * abs(level)
    assert standardized[:, 1].std(correction=0).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("level", "spread"), [(7.0, 0.0), (0.1, 0.0), (1e12, 0.0), (0.0, 0.0)])
def test_a_constant_target_has_no_spread(level, spread):
    assert target_statistics(rows(np.zeros((997, 1)), np.full(997, 0.3), np.full(997, level))) == (level, spread)


def test_without_standardisation_x_is_left_alone():
    x = np.random.default_rng(0).normal(3, 2, size=(20, 2))
    mean, scale = feature_statistics(rows(x), standardize=False)
    assert torch.equal(Standardized(torch.nn.Identity(), mean, scale)(rows(x).x), rows(x).x)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_standardised_features_do_not_know_their_unit(unit, shift):
    # A shift of a million spreads costs six of sixteen digits, and float32 weights none of the others.
    z = np.random.default_rng(0).normal(size=(500, 2))
    x = unit * (z + shift)
    mean, scale = feature_statistics(rows(x), standardize=True)
    got = Standardized(torch.nn.Identity(), mean, scale)(rows(x).x).numpy()
    np.testing.assert_allclose(got, (z - z.mean(0)) / z.std(0), atol=1e-14 * max(shift, 1.0) * 10)


def test_standardisation_is_done_in_the_precision_of_x():
    # In float32 the column 1e6 + z has steps of 0.06; standardised in float64 it keeps all digits of float32.
    z = np.random.default_rng(0).normal(size=(500, 1))
    x = rows(1e6 + z)
    model = Linear(1, 1)
    model.load(torch.ones(1, 1), torch.zeros(1))
    wrapped = Standardized(model, *feature_statistics(x, standardize=True))
    out = wrapped(x.x)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.detach().numpy(), (z - z.mean()) / z.std(), atol=3e-7)


def test_statistics_travel_with_the_state():
    x = rows(np.random.default_rng(0).normal(3, 2, size=(20, 2)))
    wrapped = Standardized(Linear(2, 1), *feature_statistics(x, standardize=True))
    blank = Standardized(Linear(2, 1), torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    blank.load_state_dict(wrapped.state_dict())
    assert torch.equal(blank.mean, wrapped.mean)
    assert torch.equal(blank.scale, wrapped.scale)
    assert {name for name, _ in wrapped.named_parameters()} == {"model.layer.weight", "model.layer.bias"}
