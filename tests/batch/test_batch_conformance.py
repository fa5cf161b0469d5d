"""What every batch regime must do: one table of examples, every test over all of them."""

import itertools
import math
import pkgutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import scipy.stats
import torch
from omegaconf import OmegaConf

import mlefw.batch
from mlefw.batch.base import BatchRegime
from mlefw.batch.full import FullBatch
from mlefw.batch.growing import GrowingBatch
from mlefw.batch.mini import MiniBatch
from mlefw.batch.replacement import WithReplacement
from mlefw.errors import UsageError
from mlefw.head.gaussian import GaussianHead
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.testing.batch import check_batch

CONF = Path(__file__).parents[2] / "conf" / "batch"


@dataclass(frozen=True)
class Example:
    """What a member is tested with."""

    settings: dict[str, Any]
    sizes: dict[int, list[int]]
    """Batch sizes over 11 rows, by epoch."""
    visits_every_row: bool = True
    whole_numbers: tuple[str, ...] = ()
    """Settings that are whole numbers of at least 1."""
    others: dict[str, list[float]] = field(default_factory=dict)
    """Bad values of other settings."""


EXAMPLES = {
    "full": Example({"max_rows": 4}, {0: [11], 7: [11]}, whole_numbers=("max_rows",)),
    "mini": Example({"size": 4}, {0: [4, 4, 3], 7: [4, 4, 3]}, whole_numbers=("size",)),
    "growing": Example(
        {"size": 2, "factor": 1.5, "every": 3},
        {
            0: [2] * 5 + [1],
            2: [2] * 5 + [1],
            3: [3, 3, 3, 2],
            6: [4, 4, 3],
            9: [6, 5],
            12: [10, 1],
            15: [11],
            999: [11],
        },
        whole_numbers=("size", "every"),
        others={"factor": [1.0, 0.5, -2.0, math.inf, math.nan]},
    ),
    "replacement": Example({"size": 4}, {0: [4, 4, 4], 7: [4, 4, 4]}, visits_every_row=False, whole_numbers=("size",)),
}

MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
KNOWN = [name for name in MEMBERS if name in EXAMPLES]
each = pytest.mark.parametrize("name", KNOWN)
shuffling = pytest.mark.parametrize("name", [name for name in KNOWN if EXAMPLES[name].visits_every_row])


def node(name: str) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {key: value for key, value in config.items() if key != "defaults"}


def make(name: str, **settings: Any) -> BatchRegime:
    return hydra.utils.instantiate(node(name) | EXAMPLES[name].settings | settings)


def epoch(regime: BatchRegime, num_rows: int, number: int = 0, seed: int = 0) -> list[tuple[torch.Tensor, float]]:
    return list(regime.batches(num_rows, number, torch.Generator().manual_seed(seed)))


def test_every_yaml_has_an_example_and_every_example_a_yaml():
    assert set(EXAMPLES) == set(MEMBERS)


def test_every_member_module_has_a_yaml():
    modules = {f"mlefw.batch.{info.name}" for info in pkgutil.iter_modules(mlefw.batch.__path__)} - {"mlefw.batch.base"}
    assert modules == {node(name)["_target_"].rpartition(".")[0] for name in MEMBERS}
    assert all(issubclass(hydra.utils.get_class(node(name)["_target_"]), BatchRegime) for name in MEMBERS)


@each
def test_sizes_by_epoch(name):
    for number, sizes in EXAMPLES[name].sizes.items():
        assert [len(index) for index, _ in epoch(make(name), 11, number)] == sizes


@each
def test_the_public_checks(name):
    check_batch(make(name))


@shuffling
@pytest.mark.parametrize("num_rows", [1, 3, 4, 11, 100])
def test_every_row_is_visited_once_an_epoch(name, num_rows):
    for number in (0, 3, 9, 40):
        visits = Counter(torch.cat([index for index, _ in epoch(make(name), num_rows, number)]).tolist())
        assert visits == Counter(range(num_rows))


@each
def test_the_generator_alone_decides(name):
    regime = make(name)
    torch.manual_seed(1)
    first = epoch(regime, 100, 2, seed=7)
    torch.manual_seed(2)
    again = epoch(regime, 100, 2, seed=7)
    assert [(index.tolist(), scale) for index, scale in first] == [(index.tolist(), scale) for index, scale in again]
    other = epoch(regime, 100, 2, seed=8)
    same = [index.tolist() for index, _ in other] == [index.tolist() for index, _ in first]
    assert same == (name == "full")


@pytest.mark.parametrize(("num_rows", "size"), [(3, 2), (4, 3), (2, 5), (5, 1)])
def test_a_step_with_replacement_has_the_whole_sum_as_its_expectation(num_rows, size):
    values = np.random.default_rng(0).normal(size=num_rows)
    (_, scale), *_ = epoch(WithReplacement(size), num_rows)
    draws = itertools.product(range(num_rows), repeat=size)
    mean = np.mean([scale * values[list(draw)].sum() for draw in draws])
    assert mean == pytest.approx(values.sum(), rel=1e-12)


def test_draws_with_replacement_are_uniform_and_independent():
    # Fixed seeds; a right regime fails each of these with probability 1e-4.
    steps = epoch(WithReplacement(2), 10_000)
    assert len(steps) == 5000
    few = torch.stack([index for seed in range(4000) for index, _ in epoch(WithReplacement(2), 3, seed=seed)[:1]])
    cells = Counter(map(tuple, few.tolist()))
    assert scipy.stats.chisquare([cells[cell] for cell in itertools.product(range(3), repeat=2)]).pvalue > 1e-4
    within = torch.cat([index for index, _ in epoch(WithReplacement(5), 10_000)]) % 10
    assert scipy.stats.chisquare(np.bincount(within.numpy(), minlength=10)).pvalue > 1e-4
    pairs = np.zeros((10, 10))
    np.add.at(pairs, (within[:-1].numpy(), within[1:].numpy()), 1)
    assert scipy.stats.chi2_contingency(pairs).pvalue > 1e-4


def test_shuffles_are_uniform():
    orders = Counter(
        tuple(torch.cat([index for index, _ in epoch(MiniBatch(2), 3, seed=seed)]).tolist()) for seed in range(3000)
    )
    counts = [orders[order] for order in itertools.permutations(range(3))]
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@each
@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_a_bad_whole_number_is_refused(name, bad):
    for setting in EXAMPLES[name].whole_numbers:
        with pytest.raises(UsageError, match=rf"batch\.{setting}="):
            build(name, setting, bad)


@each
def test_other_bad_settings_are_refused(name):
    settings = [(setting, bad) for setting, values in EXAMPLES[name].others.items() for bad in values]
    for setting, bad in settings:
        with pytest.raises(UsageError, match=rf"batch\.{setting}="):
            build(name, setting, bad)
    covered = set(EXAMPLES[name].whole_numbers) | {setting for setting, _ in settings}
    assert covered == set(node(name)) - {"_target_"}


def build(name: str, setting: str, bad: float) -> BatchRegime:
    config = {key: value for key, value in node(name).items() if key != "_target_"}
    return hydra.utils.get_class(node(name)["_target_"])(**config | {setting: bad})


def test_slices_are_for_the_full_batch():
    assert FullBatch(7).max_rows == 7
    assert MiniBatch(7).max_rows == WithReplacement(7).max_rows == GrowingBatch(7).max_rows == 0


# -------------------------------------------------------------------------------- what the objective makes of it


def problem(prior: Any) -> tuple[Objective, Rows]:
    torch.manual_seed(0)
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(11, 3)), generator.normal(size=11)
    weight, offset = generator.integers(1, 5, size=11), generator.normal(size=11)
    rows = Rows(*(torch.tensor(column, dtype=torch.float64) for column in (x, y, weight, offset)))
    model = Mlp(3, 1, hidden=[4]).double()
    torch.nn.init.normal_(model.last.weight)
    return Objective(model, GaussianHead().double(), prior, rows.population), rows


def gradient(objective: Objective, value: torch.Tensor) -> np.ndarray:
    grads = torch.autograd.grad(value, [p for p in objective.parameters() if p.numel()], allow_unused=True)
    parameters = [p for p in objective.parameters() if p.numel()]
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)]
    return torch.cat([part.flatten() for part in parts]).numpy()


@shuffling
@pytest.mark.parametrize("prior", [NoPrior(), L2Prior(0.3)])
def test_the_mean_gradient_of_an_epoch_is_that_of_the_objective(name, prior):
    objective, rows = problem(prior)
    whole = objective(rows)
    expected = gradient(objective, whole)
    for number in (0, 3, 12):
        steps = [objective.descent(Batch(rows.take(index), scale)) for index, scale in epoch(make(name), 11, number)]
        assert np.mean([step.item() for step in steps]) == pytest.approx(whole.item(), rel=1e-12)
        mean = np.mean([gradient(objective, step) for step in steps], axis=0)
        np.testing.assert_allclose(mean, expected, rtol=1e-10, atol=1e-13)


@each
def test_a_prior_weighs_the_same_under_every_regime(name):
    (objective, rows), (bare, _) = problem(L2Prior(0.3)), problem(NoPrior())
    weight = [p.detach().numpy() for p in objective.model.parameters() if p.ndim >= 2]
    expected = sum(-scipy.stats.norm(0, 0.3).logpdf(w).sum() for w in weight) / rows.weight.sum().item()
    for number in (0, 3, 12):
        for index, scale in epoch(make(name), 11, number):
            batch = Batch(rows.take(index), scale)
            share = objective.descent(batch).item() - bare.descent(batch).item()
            assert share == pytest.approx(expected, rel=1e-11)


def test_steps_with_replacement_average_to_the_objective():
    # By linearity: the mean over all single draws of one row, each of probability 1 / n.
    objective, rows = problem(L2Prior(0.3))
    (_, scale), *_ = epoch(WithReplacement(1), 11)
    steps = [objective.descent(Batch(rows.take(torch.tensor([i])), scale)).item() for i in range(11)]
    assert np.mean(steps) == pytest.approx(objective(rows).item(), rel=1e-12)
