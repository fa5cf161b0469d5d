"""Drawn texts: the law of the draws, the window that moves, and what a prompt may hold."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from mlefw.errors import UsageError
from mlefw.head.categorical import CategoricalHead
from mlefw.model.linear import Linear
from mlefw.model.transformer import Transformer
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.shape import RowShape
from mlefw.rows.tensor_inputs import Tokens
from mlefw.run.text_sample import continued, forecasts, text_sample
from mlefw.schema.prompt import prompt_tokens
from mlefw.schema.tokens import TokenSchema
from mlefw.system.random_state import generator

K, T = 4, 3


class OfWholeRows(nn.Module):
    """Takes rows of T tokens alone; the output at a position is a table of the token there and of the position."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(T, K, K))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == T
        return self.table[torch.arange(T), x]


def objective(kind: str) -> Objective:
    model: nn.Module = {
        "transformer": lambda: Transformer(K, T, (T,), K, width=8, layers=2, heads=2),
        "linear": lambda: Linear(K, K, num_tokens=K),
        "whole rows": OfWholeRows,
    }[kind]()
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    head = CategoricalHead(K)
    head.center[:] = torch.tensor([0.5, -0.3, 0.1, 0.9])
    return Objective(Tokens(model.double(), RowShape((T,), (T,), K, True)), head, NoPrior(), 1.0).eval()


@torch.no_grad()
def logits_by_hand(known: Objective, context: tuple[int, ...]) -> np.ndarray:
    """Logits of the next token from the last T tokens, by the bare model on a window that is not filled up."""
    center = known.head.center.numpy()
    if not context:
        return center
    x = torch.tensor([context[-T:]])
    model = known.model.model
    if isinstance(model, OfWholeRows):
        return center + model.table[x.shape[1] - 1, x[0, -1]].numpy()
    return center + model(x)[0, -1].numpy()


@pytest.mark.parametrize("kind", ["transformer", "linear", "whole rows"])
@pytest.mark.parametrize("prompt", [(), (2,), (0, 3, 1, 1, 2)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_follow_the_law_of_the_model(kind: str, prompt: tuple[int, ...], temperature: float) -> None:
    model, count = objective(kind), 30_000
    random = generator(0, "law")
    start = torch.tensor(prompt, dtype=torch.int64).expand(count, len(prompt))
    drawn = continued(model, start, 3, random, temperature).numpy()
    assert (drawn[:, : len(prompt)] == prompt).all()
    tail = drawn[:, len(prompt) :]
    seen = np.bincount(tail @ [K * K, K, 1], minlength=K**3)
    expected = []
    for sequence in itertools.product(range(K), repeat=3):
        text = (*prompt, *sequence)
        ends = range(len(prompt), len(text))
        log = sum(log_softmax(logits_by_hand(model, text[:end]) / temperature)[text[end]] for end in ends)
        expected.append(count * np.exp(log))
    wanted, rare = np.array(expected), np.array(expected) < 20
    # Cells of few draws are put together, as the test by chi-square needs.
    cells = [np.append(values[~rare], values[rare].sum()) for values in (seen, wanted)]
    kept = cells[1] > 0
    assert kept.sum() > 15
    assert scipy.stats.chisquare(cells[0][kept], cells[1][kept]).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["transformer", "linear", "whole rows"])
def test_the_context_is_the_last_tokens_that_fit(kind: str) -> None:
    model = objective(kind)
    tokens = np.random.default_rng(1).integers(0, K, 12)
    for end in range(len(tokens) + 1):
        p = forecasts(model, torch.from_numpy(tokens[None, :end]))
        np.testing.assert_allclose(p[0].numpy(), softmax(logits_by_hand(model, tuple(tokens[:end]))), rtol=1e-10)
    changed = tokens.copy()
    changed[: 12 - T] = (changed[: 12 - T] + 1) % K
    assert torch.equal(forecasts(model, torch.from_numpy(changed[None])), p)
    if kind == "transformer":
        # The oldest token of the window counts, the one before it does not.
        changed[12 - T] = (changed[12 - T] + 1) % K
        assert not torch.allclose(forecasts(model, torch.from_numpy(changed[None])), p)


def test_a_sample_depends_on_its_seed_alone() -> None:
    model, schema = objective("transformer"), TokenSchema("chars", T, tuple(map(ord, "abcd")))
    torch.manual_seed(5)
    first = text_sample(model, schema, 60, "dab", seed=7)
    state = torch.get_rng_state()
    assert text_sample(model, schema, 60, "dab", seed=7) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first, str) and first.startswith("dab") and len(first) == 63 and set(first) == set("abcd")
    assert text_sample(model, schema, 20, "dab", seed=7) == first[:23]
    assert text_sample(model, schema, 60, "dab", seed=8) != first


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 0}, "temperature=0: expected a number above 0"),
        ({"temperature": -1.0}, "temperature="),
        ({"temperature": float("nan")}, "temperature="),
        ({"temperature": True}, "temperature="),
        ({"length": 0}, "length=0: expected a whole number"),
        ({"length": 2.5}, "length="),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_draws_out_of_range_are_refused(given: dict[str, float], words: str) -> None:
    schema = TokenSchema("chars", T, tuple(map(ord, "abcd")))
    with pytest.raises(UsageError, match=words):
        text_sample(objective("linear"), schema, **{"length": 5, **given})


CHARS = TokenSchema("chars", T, tuple(map(ord, "\nab€")))
BYTES = TokenSchema("bytes", T, (10, 97, 0xAC, 0xFF))
IDS = TokenSchema("ids", T, vocabulary=9)


@pytest.mark.parametrize(
    ("schema", "prompt", "expected"),
    [
        (CHARS, "b€a\n", [2, 3, 1, 0]),
        (CHARS, "", []),
        (BYTES, b"a\xff\xac", [1, 3, 2]),
        # As a command line gives bytes that are no UTF-8.
        (BYTES, "a\udcff\udcac", [1, 3, 2]),
        (IDS, "5,8, 0", [5, 8, 0]),
        (IDS, "[5 8]", [5, 8]),
        (IDS, "", []),
        (IDS, [3, 1], [3, 1]),
        (IDS, np.array([3, 1], dtype=np.uint16), [3, 1]),
    ],
)
def test_prompts_become_tokens(schema: TokenSchema, prompt: object, expected: list[int]) -> None:
    found = prompt_tokens(schema, prompt)
    assert found.dtype == np.int64 and found.tolist() == expected


@pytest.mark.parametrize(
    ("schema", "prompt", "words"),
    [
        (CHARS, "abc ü", r"does not hold: 'c' at position 2, ' ' at position 3, '\\xfc' at position 4 \(counted"),
        (CHARS, "z" * 7, "position 4 and 2 more"),
        (CHARS, b"ab", "is a bytes: expected text"),
        (BYTES, "aé", "0xC3 at position 1, 0xA9 at position 2"),
        (IDS, "5,9,-1", r"ids that are not 0 … 8: 9 at position 1, -1 at position 2"),
        (IDS, "ROMEO:", "expected whole numbers, such as prompt=5,17,3"),
        (IDS, [1.5], "expected whole numbers"),
        (IDS, 3, "expected whole numbers"),
    ],
)
def test_prompts_of_other_tokens_are_refused(schema: TokenSchema, prompt: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prompt_tokens(schema, prompt)
