"""Failures of maximum likelihood: unbounded likelihood, separation, heavy tails, rare classes, distribution shift."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor

from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.distribution import quantile
from mlefw.experiment.base import Experiment
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.plot import failures
from mlefw.prior.l2 import L2Prior
from mlefw.report.findings import Findings, Grid
from mlefw.rows.rows import Rows
from mlefw.simulation.exact_line import as_rows, predicted, solve

Values = dict[str, float | None]
DEPTHS = (0.0, -2.0, -5.0, -10.0, -20.0)
"""Values of log sigma of the row that has a dummy variable of its own."""


class Failures(Experiment):
    """Six failures of maximum likelihood, each with the message of the exact side and a remedy.

    Args:
        positives: approximate share of the rare class.
        focus: exponent of the focal loss.
        seed: seed of the draws.
    """

    def __init__(self, positives: float = 0.02, focus: float = 2.0, seed: int = 0) -> None:
        self.positives, self.focus, self.seed = positives, focus, seed

    def run(self) -> Findings:
        """Run all six."""
        values: Values = {}
        said = [self._unbounded(values), self._separated(values), self._single(values)]
        told = Grid("What has no finite maximum", ["", "mlefw says", "remedy", "then"], said)
        imbalance = self._imbalance(values)
        shift, bands = self._shift(values)
        tables = [told, self._depth(values), self._tails(values), imbalance, shift]
        verdict = (
            "Where the likelihood has no maximum the exact side says so and names a remedy. "
            f"Weights for a rare class and the focal loss raise the NLL of its forecasts from "
            f"{values['plain_nll']:.3f} to {values['weighted_nll']:.3f} and {values['focal_nll']:.3f}: "
            "they are other likelihoods, of another population. "
            f"A line that covers {values['inside']:.0%} where it was fitted covers {values['outside']:.0%} outside."
        )
        means = {name: values[f"{name}_mean"] or 0.0 for name in ("plain", "weighted", "focal")}
        floored = [values[f"floored_{depth:g}"] or 0.0 for depth in DEPTHS]
        deep = [values[f"free_{depth:g}"] or 0.0 for depth in DEPTHS]
        picture = failures.picture((DEPTHS, deep, floored), (means, values["observed"] or 0.0), bands)
        return Findings("Where maximum likelihood fails", tables, verdict, values, {"failures": picture})

    def _lonely(self) -> Rows:
        """Thirty rows with a dummy variable that is 1 in one row only."""
        random = np.random.default_rng(self.seed)
        x = np.zeros(30)
        x[0] = 1.0
        return as_rows(x, random.normal(size=30))

    def _unbounded(self, values: Values) -> list[Any]:
        solution = solve(GaussianHead(scale="predicted"), self._lonely())
        values["dummy_exists"] = float(solution.may_exist)
        return [
            "sigma(x) on a dummy of one row",
            _words(solution.reason),
            "the floor of scales",
            "the NLL stops falling",
        ]

    def _depth(self, values: Values) -> Grid:
        """Mean NLL as the standard deviation of the row with the dummy, which is fitted exactly, goes to zero."""
        rows, table = self._lonely(), list[list[Any]]()
        free, floored = GaussianHead(scale="predicted"), GaussianHead(scale="predicted")
        floored.floor.fill_(1e-3 * float(rows.y.std()))
        rest = rows.y[1:]
        mean, log_sd = float(rest.mean()), float(rest.std(correction=0).log())
        for depth in DEPTHS:
            # The row with the dummy has its own value as mean and `depth` as log sigma; the others have their MLE.
            eta = torch.tensor([mean, log_sd], dtype=torch.float64).repeat(len(rows.y), 1)
            eta[0] = torch.tensor([float(rows.y[0]), depth], dtype=torch.float64)
            pair = [float(head.nll(eta, rows.y).mean()) for head in (free, floored)]
            values |= {f"free_{depth:g}": pair[0], f"floored_{depth:g}": pair[1]}
            table.append([depth, *pair])
        return Grid(
            "Mean NLL as log sigma of the lonely row falls", ["log sigma", "no floor", "floor 0.001 sd(y)"], table
        )

    def _separated(self, values: Values) -> list[Any]:
        x = np.linspace(-2, 2, 20)
        rows = as_rows(x, (x > 0).astype(float))
        solution = solve(BernoulliHead(), rows)
        mapped = LinearBaseline().solve(replace(solution.problem, prior=L2Prior(2.0)))
        values |= {
            "separated_exists": float(solution.may_exist),
            "separated_slope_map": float(mapped.theta[0]),
        }
        values["separated_infimum"] = solution.infimum
        return ["separated classes", _words(solution.reason), "prior=l2", f"slope {float(mapped.theta[0]):.3g} (MAP)"]

    def _single(self, values: Values) -> list[Any]:
        one = as_rows(np.array([1.0]), np.array([3.0]))
        solution = solve(GaussianHead(), one)
        known = Problem.of(GaussianHead(scale=1.0), one, solution.problem.mean, solution.problem.scale, L2Prior(1.0))
        mapped = LinearBaseline().solve(known)
        values |= {"single_exists": float(solution.may_exist), "single_map": float(mapped.theta[0])}
        return [
            "a single row",
            _words(solution.reason),
            "a known scale, prior=l2",
            f"slope {float(mapped.theta[0]):.3g}",
        ]

    def _tails(self, values: Values) -> Grid:
        random, table = np.random.default_rng((self.seed, 1)), list[list[Any]]()
        found: dict[str, list[float]] = {"MSE (gaussian)": [], "MAE (laplace)": []}
        for _ in range(60):
            x = random.uniform(-1, 1, 200)
            rows = as_rows(x, 2 * x + random.standard_cauchy(200))
            for name, head in zip(found, (GaussianHead(), LaplaceHead()), strict=True):
                found[name].append(abs(float(solve(head, rows).theta[0]) - 2))
        for name, errors in found.items():
            table.append([name, float(np.median(errors)), float(np.max(errors))])
            values[f"{name[:3].lower()}_median"] = float(np.median(errors))
        return Grid("Cauchy noise, 60 data sets of 200 rows: error of a slope of 2", ["", "median", "largest"], table)

    def _imbalance(self, values: Values) -> Grid:
        random, table = np.random.default_rng((self.seed, 2)), list[list[Any]]()
        intercept = float(special.logit(self.positives)) - 0.6
        train, fresh = (_rare(random, intercept, count) for count in (5000, 100_000))
        weight = torch.where(train.y > 0, (1 - train.y.mean()) / train.y.mean(), 1.0)
        fits = {
            "plain": solve(BernoulliHead(), train).theta,
            "weighted": solve(BernoulliHead(), train._replace(weight=weight)).theta,
            "focal": _focal(train, self.focus),
        }
        values["observed"] = float(fresh.y.mean())
        for name, theta in fits.items():
            eta = fresh.x * theta[0] + theta[1]
            nll, mean = float(BernoulliHead().nll(eta, fresh.y).mean()), float(torch.sigmoid(eta).mean())
            recalibrated = solve(BernoulliHead(), fresh._replace(x=eta))
            gap = nll - recalibrated.objective
            table.append([name, float(theta[0]), float(theta[1]), nll, mean, values["observed"], gap])
            values |= {f"{name}_nll": nll, f"{name}_mean": mean, f"{name}_gap": gap}
        columns = ["", "slope", "intercept", "NLL, fresh rows", "mean forecast", "observed", "calibration gap, nats"]
        return Grid("A rare class: plain NLL, weighted classes, focal loss", columns, table)

    def _shift(self, values: Values) -> tuple[Grid, failures.Bands]:
        random, table = np.random.default_rng((self.seed, 3)), list[list[Any]]()
        x = random.uniform(-1, 1, 300)
        solution = solve(GaussianHead(), as_rows(x, _curve(x) + 0.2 * random.normal(size=300)))
        for name, low, high in (("inside", -1.0, 1.0), ("outside", 1.0, 2.0)):
            at = random.uniform(low, high, 5000)
            rows = as_rows(at, _curve(at) + 0.2 * random.normal(size=5000))
            found = predicted(solution, rows)
            ends = quantile.interval(found, 0.9)
            values[name] = float(((rows.y >= ends[0]) & (rows.y <= ends[1])).double().mean())
            values[f"{name}_nll"] = float(-found.log_prob(rows.y).mean())
            table.append([f"x in ({low:g}, {high:g})", values[f"{name}_nll"], values[name]])
        grid = np.linspace(-1, 2, 61)
        ends = quantile.interval(predicted(solution, as_rows(grid, grid)), 0.9)
        title = "A line fitted to a curve on (−1, 1), asked beyond: evaluate on rows like those to come"
        return Grid(title, ["rows", "NLL", "coverage of 90 %"], table), (
            grid,
            _curve(grid),
            ends[0].numpy(),
            ends[1].numpy(),
        )


def _rare(random: np.random.Generator, intercept: float, count: int) -> Rows:
    x = random.normal(size=count)
    return as_rows(x, (random.random(count) < special.expit(intercept + 1.2 * x)).astype(float))


def _focal(rows: Rows, focus: float) -> Tensor:
    """Slope and intercept that minimise Σ (1 − p)^focus · NLL, p being the probability of the observed label."""

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(theta).requires_grad_()
        nll = BernoulliHead().nll(rows.x * leaf[0] + leaf[1], rows.y)
        value = ((1 - (-nll).exp()) ** focus * nll).mean()
        value.backward()
        assert leaf.grad is not None
        return float(value.detach()), leaf.grad.numpy()

    return torch.from_numpy(optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS").x)


def _curve(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * x)


def _words(reason: str | None) -> str:
    return reason or "a finite estimate"
