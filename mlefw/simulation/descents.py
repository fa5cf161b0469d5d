"""Gradient descent and stochastic gradient descent on one objective, with its exact optimum."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.batch.base import BatchRegime
from mlefw.batch.full import FullBatch
from mlefw.batch.replacement import WithReplacement
from mlefw.data.synthetic import Synthetic
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows

Kind = Literal["bernoulli", "gaussian", "poisson"]

TRUTHS = {"bernoulli": (0.5, 1.5), "gaussian": (0.5, 1.5), "poisson": (0.5, 0.4)}
"""True intercept and slope of eta for each kind of data; the Gaussian has a known standard deviation of 1."""

_HALVINGS = 12
"""Rates lr / 2, …, lr / 2^11 that are tried in search of one that converges."""


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison: `num_rows` rows with x ~ N(0, 1), and `num_steps` steps of rate `lr` from zero."""

    kind: Kind = "bernoulli"
    num_rows: int = 500
    batch_size: int = 50
    lr: float = 1.0
    num_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: a setting is out of range.
        """
        if self.kind not in TRUTHS:
            raise UsageError(f"experiment.head={self.kind!r}: expected one of {', '.join(TRUTHS)}")
        for name, value in (("n", self.num_rows), ("batch_size", self.batch_size), ("iterations", self.num_steps)):
            if value < 1:
                raise UsageError(f"experiment.{name}={value}: expected a whole number of at least 1")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"experiment.lr={self.lr}: expected a positive number")


@dataclass(frozen=True)
class Path:
    """The path of a descent, cut at the last finite point if it diverges.

    Attributes:
        theta: the points, (T + 1, size), in the layout of `Problem`.
        value: the objective on all rows at each point, (T + 1,).
        diverged: whether the path was cut.
    """

    theta: np.ndarray
    value: np.ndarray
    diverged: bool = False


@dataclass(frozen=True)
class Race:
    """The exact optimum, and the paths of full-batch and stochastic gradient descent."""

    settings: Settings
    exact: Solution
    full: Path
    stochastic: Path

    @property
    def has_optimum(self) -> bool:
        """Whether a finite estimate exists."""
        return self.exact.may_exist or not self.exact.problem.prior.flat

    @property
    def diverges(self) -> bool:
        """Whether one of the two paths diverges."""
        return self.full.diverged or bool(self.full.value[-1] > self.full.value[0]) or self.stochastic.diverged


def make_head(kind: Kind) -> Head:
    """The head for a kind of data, with centers 0 and gains 1, so that theta is in units of x and y."""
    if kind == "bernoulli":
        return BernoulliHead()
    return PoissonHead() if kind == "poisson" else GaussianHead(scale=1.0)


def draw(settings: Settings) -> Rows:
    """Rows with x ~ N(0, 1) and y from the model of `TRUTHS`, drawn by `default_rng(seed)`, x first."""
    intercept, slope = TRUTHS[settings.kind]
    source = Synthetic(
        kind=settings.kind,
        num_rows=settings.num_rows,
        num_features=1,
        coefficients=[slope],
        intercept=intercept,
        draw_seed=settings.seed,
    )
    columns = source.read().columns
    x, y = torch.from_numpy(columns["x0"]).unsqueeze(1), torch.from_numpy(columns["y"])
    return Rows(x, y, torch.ones(len(y), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64))


def run(settings: Settings, prior: Prior) -> Race:
    """Draw rows, solve the problem exactly, and descend from zero with full batches and with drawn batches."""
    rows = draw(settings)
    head = make_head(settings.kind)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    problem = Problem.of(head, rows, zero, one, prior)
    paths = [
        descend(problem, regime, settings.lr, settings.num_steps, settings.seed)
        for regime in (FullBatch(), WithReplacement(settings.batch_size))
    ]
    return Race(settings, LinearBaseline().solve(problem), *paths)


def with_smaller_rate(ran: Race) -> tuple[float, Path] | None:
    """The first of the rates lr/2, lr/4, … at which full-batch descent converges, and its path; None if none does."""
    s = ran.settings
    for lr in (s.lr / 2**k for k in range(1, _HALVINGS)):
        path = descend(ran.exact.problem, FullBatch(), lr, s.num_steps, s.seed)
        if not path.diverged and path.value[-1] < path.value[0]:
            return lr, path
    return None


def descend(problem: Problem, regime: BatchRegime, lr: float, num_steps: int, seed: int) -> Path:
    """Proximal (stochastic) gradient descent from zero on the training objective, by torch.optim.SGD."""
    rows, head = problem.rows, problem.head
    model = Linear(rows.x.shape[1], head.eta_dim).double()
    objective = Objective(model, head, problem.prior, problem.population)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad and p.numel()], lr)
    generator = torch.Generator().manual_seed(seed)
    theta = [_theta(objective, model)]
    while len(theta) <= num_steps:
        for index, scale in regime.batches(rows.num_rows, 0, generator):
            optimizer.zero_grad()
            batch = rows if len(index) == rows.num_rows and isinstance(regime, FullBatch) else rows.take(index)
            objective.descent(Batch(batch, scale)).backward()
            optimizer.step()
            with torch.no_grad():
                model.layer.weight.copy_(problem.prior.prox(model.layer.weight, lr / problem.population))
            theta.append(_theta(objective, model))
            if len(theta) > num_steps:
                break
    return measured(problem, torch.stack(theta))


def measured(problem: Problem, theta: Tensor) -> Path:
    """The path through the points theta (T, size), with the objective at each, cut at the first infinite point."""
    value = values(problem, theta)
    bad = (~torch.isfinite(value) | ~torch.isfinite(theta).all(1)).nonzero().flatten()
    stop = int(bad[0]) if len(bad) else len(value)
    return Path(theta[:stop].numpy(), value[:stop].numpy(), stop < len(value))


@torch.no_grad()
def values(problem: Problem, theta: Tensor) -> Tensor:
    """The objective at many points theta (T, size), (T,), for a head without shared parameters, without offsets."""
    head, rows = problem.head, problem.rows
    table = theta.reshape(len(theta), head.eta_dim, -1)
    eta = head.center + head.gain * (rows.x @ table[..., :-1].mT + table[..., -1].unsqueeze(1))
    nll = head.nll(eta, rows.y.expand(eta.shape[:-1]))
    penalty = torch.stack([problem.prior(point[:, :-1]) for point in table])
    return nll @ rows.weight / problem.population + penalty / problem.population


def _theta(objective: Objective, model: Linear) -> Tensor:
    table = torch.cat([model.layer.weight, model.layer.bias.unsqueeze(1)], 1)
    return torch.cat([table.reshape(-1), objective.head.shared]).detach()
