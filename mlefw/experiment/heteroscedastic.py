"""Noise that grows with x, modelled by a predicted and by a shared scale."""

import math
from typing import Any

import numpy as np
from scipy import stats

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.head.base import Head
from mlefw.head.gaussian import GaussianHead
from mlefw.plot import lines
from mlefw.report.findings import Findings, Grid
from mlefw.rows.rows import Rows
from mlefw.simulation.exact_line import as_rows, predicted, solve

INTERCEPT, SLOPE, LOG_SCALE = 1.0, 2.0, -1.0
REGIONS = {"x < −0.5": (-1.5, -0.5), "middle": (-0.5, 0.5), "x > 0.5": (0.5, 1.5)}


class Heteroscedastic(Experiment):
    """A line with log sd = −1 + growth · x, x uniform on (−1.5, 1.5), fitted with a predicted and a shared scale.

    Args:
        n: number of rows.
        growth: increase of log sd with x.
        seed: seed of the rows.
    """

    def __init__(self, n: int = 500, growth: float = 1.0, seed: int = 0) -> None:
        if n < 20:
            raise UsageError(f"experiment.n={n}: expected at least 20 rows")
        self.n, self.growth, self.seed = n, growth, seed

    def run(self) -> Findings:
        """Fit both models, and compare coefficients with the truth and coverage by region on new rows."""
        random = np.random.default_rng(self.seed)
        train, fresh = self._rows(random, self.n), self._rows(random, 20_000)
        heads: dict[str, Head] = {"shared sigma": GaussianHead(), "sigma(x)": GaussianHead(scale="predicted")}
        fits = {name: solve(head, train) for name, head in heads.items()}
        values: dict[str, float | None] = {}
        tables = [self._coefficients(fits["sigma(x)"], values), self._coverage(fits, fresh, values)]
        at = np.linspace(-1.5, 1.5, 61)
        grid = as_rows(at, at)
        bands = {name: _band(fit, grid) for name, fit in fits.items()}
        bands["truth"] = (INTERCEPT + SLOPE * at, np.exp(LOG_SCALE + self.growth * at))
        gain = (values["shared sigma_nll"] or 0) - (values["sigma(x)_nll"] or 0)
        covered = ", ".join(f"{values[f'sigma(x)_{region}']:.0%}" for region in REGIONS)
        verdict = (
            f"The predicted scale grows by {values['growth']:.3f} ± {values['growth_se']:.3f} a unit of x on the "
            f"log scale (truth {self.growth:g}) and saves {gain:.3g} nats a row; its 90 % intervals cover "
            f"{covered} from left to right, "
            f"those of the shared scale cover {values['shared sigma_x < −0.5']:.0%} on the left "
            f"and {values['shared sigma_x > 0.5']:.0%} on the right."
        )
        picture = lines.spread(train.x[:, 0].numpy(), train.y.numpy(), at, bands)
        return Findings("Noise that grows with x", tables, verdict, values, {"heteroscedastic": picture})

    def _rows(self, random: np.random.Generator, count: int) -> Rows:
        x = random.uniform(-1.5, 1.5, count)
        return as_rows(x, INTERCEPT + SLOPE * x + np.exp(LOG_SCALE + self.growth * x) * random.normal(size=count))

    def _coefficients(self, solution: Solution, values: dict[str, float | None]) -> Grid:
        """A table of slope and intercept of the mean and of log sigma, which is the layout of theta."""
        errors = covariance(solution, "expected")
        assert isinstance(errors, Covariance)
        truth = {"slope": SLOPE, "intercept": INTERCEPT, "growth": self.growth, "log_scale": LOG_SCALE}
        rows: list[list[Any]] = []
        for k, (name, true) in enumerate(truth.items()):
            estimate, error = float(solution.theta[k]), math.sqrt(float(errors.matrix[k, k]))
            rows.append([name.replace("_", " "), true, estimate, error, (estimate - true) / error])
            values |= {name: estimate, f"{name}_se": error}
        return Grid("Exact heteroscedastic MLE", ["", "truth", "estimate", "std err", "z"], rows)

    def _coverage(self, fits: dict[str, Solution], fresh: Rows, values: dict[str, float | None]) -> Grid:
        x, y, rows = fresh.x[:, 0], fresh.y, list[list[Any]]()
        for name, solution in fits.items():
            found = predicted(solution, fresh)
            low, high = quantile.interval(found, 0.9)
            inside = ((y >= low) & (y <= high)).double()
            values[f"{name}_nll"] = float(-found.log_prob(y).mean())
            rows.append([name, values[f"{name}_nll"], float(inside.mean())])
            for region, (start, stop) in REGIONS.items():
                values[f"{name}_{region}"] = float(inside[(x >= start) & (x < stop)].mean())
                rows[-1].append(values[f"{name}_{region}"])
        rows.append(["truth", float(stats.norm.entropy()) + LOG_SCALE, *[0.9] * 4])
        return Grid("20000 fresh rows: NLL, coverage of 90 % intervals", ["", "NLL", "all", *REGIONS], rows)


def _band(solution: Solution, grid: Rows) -> tuple[np.ndarray, np.ndarray]:
    found = predicted(solution, grid)
    return found.mean.numpy(), found.stddev.numpy()
