"""The histogram head: tails, edges from the training rows, the exact fit as a multinomial one, and a whole run."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from conftest import summary_of
from sklearn.linear_model import LogisticRegression

from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.cli import run
from mlefw.distribution.histogram import Histogram
from mlefw.distribution.quantile import quantile
from mlefw.errors import MisfitError, UsageError
from mlefw.head.histogram import HistogramHead, quantile_edges
from mlefw.head.mixture import MixtureHead
from mlefw.head.multitask import MultitaskHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.testing.head import check_head

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

EDGES = [-1.0, 0.0, 1.5, 2.0, 4.0]


def double(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def with_tails() -> tuple[Histogram, list[float]]:
    mass = [0.3, 0.1, 0.4, 0.2]
    return Histogram(double([mass]).log(), double(EDGES), double([0.7, 3.0])), mass


def density(v: float) -> float:
    """The definition with tails: means 0.7 below 0 and 3 above 2."""
    if v < 0:
        return 0.3 * math.exp(v / 0.7) / 0.7
    return 0.1 / 1.5 if v < 1.5 else 0.4 / 0.5 if v < 2 else 0.2 * math.exp((2 - v) / 3) / 3


def integral(function, low: float, high: float, *ends: float) -> float:
    points = [low, *sorted(end for end in (0.0, 1.5, 2.0, *ends) if low < end < high), high]
    return sum(scipy.integrate.quad(function, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("y", [-3.0, 0.0, 0.7, 1.5, 1.9, 2.0, 8.0])
def test_a_density_with_tails_is_its_definition(y: float) -> None:
    distribution, _ = with_tails()
    at = double([y])
    assert distribution.log_prob(at).exp().item() == pytest.approx(density(y), rel=1e-12)
    below = integral(density, -60, y)
    assert distribution.cdf(at).item() == pytest.approx(below, rel=1e-10, abs=1e-12)

    def cdf(v: float) -> float:
        if v < 0:
            return 0.3 * math.exp(v / 0.7)
        return np.interp(v, [0, 1.5, 2], [0.3, 0.4, 0.8]) if v < 2 else 1 - 0.2 * math.exp((2 - v) / 3)

    score = integral(lambda v: (cdf(v) - (v >= y)) ** 2, -60, 120, y)
    assert distribution.crps(at).item() == pytest.approx(score, rel=1e-9)
    assert quantile(distribution, distribution.cdf(at)).item() == pytest.approx(y, abs=1e-9)


def test_moments_with_tails() -> None:
    distribution, _ = with_tails()
    mean = integral(lambda v: v * density(v), -60, 150)
    assert distribution.mean.item() == pytest.approx(mean, rel=1e-10)
    variance = integral(lambda v: (v - mean) ** 2 * density(v), -60, 150)
    assert distribution.variance.item() == pytest.approx(variance, rel=1e-9)


def test_a_published_value_without_tails() -> None:
    edges = double([0, 1, 2.5, 4])
    distribution = Histogram(double([[0.2, 0.5, 0.3]]).log(), edges)
    y = double([1.7])
    assert distribution.crps(y).item() == pytest.approx(0.2866666667, abs=1e-10)
    assert -distribution.log_prob(y).item() == pytest.approx(math.log(3), rel=1e-14)


def test_the_public_checks_with_tails() -> None:
    check_head(HistogramHead(edges=EDGES), knots=lambda eta: torch.tensor(EDGES[1:-1]).double())


def test_edges_share_the_rows_evenly_and_survive_ties() -> None:
    random = np.random.default_rng(0)
    for y in (random.normal(size=1000), np.minimum(random.exponential(size=1000), 1.0), random.integers(0, 30, 1000)):
        values, mass = np.unique(y, return_counts=True)
        edges = quantile_edges(values, mass.astype(float), 20)
        assert len(edges) == 21
        assert (edges[0], edges[-1]) == (y.min(), y.max())
        assert (np.diff(edges) > 0).all()
        # Right-open bins, the last one closed, as numpy counts them: none is empty.
        count = np.histogram(y, edges)[0]
        assert count.min() > 0
    assert set(np.histogram(random.permutation(1000), quantile_edges(np.arange(1000.0), np.ones(1000), 20))[0]) == {50}


def test_weights_count_as_rows() -> None:
    y, weight = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 9.0]).double(), torch.tensor([1.0, 3, 0, 2, 1, 2]).double()
    heads = [HistogramHead(3), HistogramHead(3)]
    heads[0].learn(y, weight)
    heads[1].learn(y.repeat_interleave(weight.long()), torch.ones(9).double())
    for one, other in zip(heads[0].buffers(), heads[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)
    inside = np.array([3, 3, 5, 9, 9.0])
    inside = inside[inside >= float(heads[0].edges[-2])]
    assert float(heads[0].tail_lengths[1]) == pytest.approx((inside - float(heads[0].edges[-2])).mean())


def test_the_exact_fit_is_the_multinomial_one_with_the_widths() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 2))
    y = x[:, 0] + random.normal(size=400) * np.exp(0.3 * x[:, 1])
    ones = torch.ones(400).double()
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y), ones, 0 * ones)
    head = HistogramHead(5)
    head.learn(rows.y, rows.weight)
    zeros = torch.zeros(2).double()
    solution = LinearBaseline().solve(Problem.of(head, rows, zeros, zeros + 1, NoPrior()))
    assert solution.is_global
    assert solution.exists
    edges = head.edges.numpy()
    label = np.searchsorted(edges[1:-1], y, side="right")
    known = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(x, label).predict_log_proba(x)
    low, high = (edges[1] - y)[label == 0], (y - edges[-2])[label == 4]
    within = -np.log(np.diff(edges))[label]
    within[label == 0] = -np.log(low.mean()) - low / low.mean()
    within[label == 4] = -np.log(high.mean()) - high / high.mean()
    expected = -(known[np.arange(400), label] + within).mean()
    assert solution.objective == pytest.approx(expected, abs=1e-9)
    assert solution.problem.value(solution.theta) == pytest.approx(solution.objective, abs=1e-12)


def test_what_is_refused() -> None:
    with pytest.raises(MisfitError, match="the training target has 4 distinct values"):
        HistogramHead(5).learn(torch.tensor([0.0, 1, 2, 3]), torch.ones(4))
    for settings in ({"bins": 1}, {"edges": [0.0, 1.0]}, {"edges": [0.0, 2.0, 1.0]}, {"tails": "none"}, {"tails": "x"}):
        with pytest.raises(UsageError, match=r"head\.(bins|edges|tails)="):
            HistogramHead(**settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected one target"):
        MultitaskHead({"a": HistogramHead(), "b": HistogramHead()})
    with pytest.raises(UsageError, match="is a mixture already"):
        MixtureHead(HistogramHead())


def test_a_run_keeps_its_edges(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=600)
    y = np.where(random.random(600) < 0.5, 2 + x, -2) + 0.3 * random.normal(size=600)
    np.savetxt(tmp_path / "d.csv", np.c_[x, y], delimiter=",", header="x,y", comments="")
    where, table = tmp_path / "r", f"data.path={tmp_path / 'd.csv'}"
    settings = ["head=histogram", "head.bins=12", "data=csv", table, "data.target=y", "calibrate=temperature"]
    settings += [
        "trainer.max_epochs=15",
        "logger=none",
        "report=false",
        "plots=false",
        "model=mlp",
        "baseline=none",
        f"run_dir={where}",
    ]
    assert run(["train", *settings]) == 0
    summary = summary_of(where)
    assert summary["metrics"]["test"]["nll_nats"] < summary["null"]["test"]["nll_nats"] - 0.2
    state = torch.load(where / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert len(state["objective.head.edges"]) == 13
    assert run(["evaluate", f"run={where}", f"output={tmp_path / 'e'}"]) == 0
    assert run(["predict", f"run={where}", table, f"output={tmp_path / 'p.csv'}"]) == 0
