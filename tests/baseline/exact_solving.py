"""The exact side of a run, without a run: from arrays to a Problem, as the composition root builds it."""

from pathlib import Path

import torch
from exact_oracles import Sample
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.prior.base import Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics
from mlefw.run.placement import place

CONF = Path(__file__).parents[2] / "conf" / "head"
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
    head: Head = made[name]() if name in made else configured(name)
    return head


def configured(name: str, **settings: object) -> Head:
    """A head as its YAML has it, and with these settings."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(node, dict)
    head: Head = instantiate({key: node[key] for key in node if key != "defaults"} | settings, _convert_="all")
    return head


def rows_of(of: Sample, head: str) -> Rows:
    """The rows as coded for a head: whole numbers for labels."""
    y = torch.tensor(of.y)
    x = torch.tensor(of.x)
    weight, offset = torch.tensor(of.weight), torch.tensor(of.offset)
    return Rows(x, y.long() if head == "categorical" else y, weight, offset)


def problem_of(head: str, of: Sample, tau: float | None = None, scale: float = 1.0) -> Problem:
    """The linear problem in the units in which training would see it."""
    return problem_with(new_head(head, int(of.y.max()) + 1, scale), of, tau)


def problem_with(made: Head, of: Sample, tau: float | None = None) -> Problem:
    """The linear problem of a head that is made already."""
    rows = rows_of(of, "categorical" if made.target in ("labels", "ordered") else "")
    if made.target == "numeric":
        made.set_units(*target_statistics(rows))
    mean, spread = feature_statistics(rows, True)
    made = place(made, solve_null(Problem.of(made, rows, mean, spread, NoPrior())))
    prior: Prior = NoPrior() if tau is None else L2Prior(tau)
    return Problem.of(made, rows, mean, spread, prior)


def solve(head: str, of: Sample, tau: float | None = None, scale: float = 1.0) -> Solution:
    """The exact estimate."""
    return LinearBaseline().solve(problem_of(head, of, tau, scale))
