"""The exact side of a run, without a run: from arrays to a Problem, as the composition root builds it."""

import torch
from exact_oracles import Sample

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.build import place
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.prior.base import Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows import Rows
from mlefw.standardize import feature_statistics, target_statistics

HEADS = ("gaussian", "gaussian_fixed", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson")


def new_head(name: str, num_classes: int = 0, scale: float = 1.0) -> Head:
    """A head by its configuration's name."""
    made = {
        "gaussian": lambda: GaussianHead(),
        "gaussian_fixed": lambda: GaussianHead(scale=scale),
        "heteroscedastic": lambda: GaussianHead(scale="predicted"),
        "laplace": lambda: LaplaceHead(),
        "laplace_fixed": lambda: LaplaceHead(scale=scale),
        "laplace_varying": lambda: LaplaceHead(scale="predicted"),
        "bernoulli": lambda: BernoulliHead(),
        "categorical": lambda: CategoricalHead(num_classes),
        "poisson": lambda: PoissonHead(),
    }
    head: Head = made[name]()
    return head


def rows_of(of: Sample, head: str) -> Rows:
    """The rows as coded for a head: whole numbers for labels."""
    y = torch.tensor(of.y)
    x = torch.tensor(of.x)
    weight, offset = torch.tensor(of.weight), torch.tensor(of.offset)
    return Rows(x, y.long() if head == "categorical" else y, weight, offset)


def problem_of(head: str, of: Sample, tau: float | None = None, scale: float = 1.0) -> Problem:
    """The linear problem in the units in which training would see it."""
    rows = rows_of(of, head)
    made = new_head(head, int(of.y.max()) + 1, scale)
    if made.target == "numeric":
        made.set_units(*target_statistics(rows))
    mean, spread = feature_statistics(rows, True)
    made = place(made, solve_null(Problem.of(made, rows, mean, spread, NoPrior())))
    prior: Prior = NoPrior() if tau is None else L2Prior(tau)
    return Problem.of(made, rows, mean, spread, prior)


def solve(head: str, of: Sample, tau: float | None = None, scale: float = 1.0) -> Solution:
    """The exact estimate."""
    return LinearBaseline().solve(problem_of(head, of, tau, scale))
