"""Asymptotic properties of maximum likelihood, measured over many data sets."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special, stats

from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.gaussian import GaussianHead
from mlefw.plot import asymptotics
from mlefw.report.findings import Findings, Grid
from mlefw.simulation.replicates import Replicates, fit

INTERCEPT, SLOPE = 0.5, 1.5


@dataclass(frozen=True)
class Slopes:
    """Slopes of logistic fits and their standard errors, each (R,), without separated data sets."""

    estimate: np.ndarray
    error: np.ndarray
    num_separated: int

    @property
    def z(self) -> np.ndarray:
        """Studentised slopes (estimate − truth) / standard error, (R,)."""
        return (self.estimate - SLOPE) / self.error


class Asymptotics(Experiment):
    """Logistic regressions of growing size against the Cramér-Rao bound, and Gaussian lines with few rows.

    Args:
        replicates: number of data sets of each size.
        sizes: numbers of rows of the logistic regressions.
        small_sizes: numbers of rows of the Gaussian lines.
        seed: seed of the draws.
    """

    def __init__(
        self,
        replicates: int = 1000,
        sizes: list[int] | None = None,
        small_sizes: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.replicates, self.seed = replicates, seed
        self.sizes, self.small_sizes = sorted(sizes or [100, 200, 400, 800, 1600]), small_sizes or [5, 10, 20, 50]
        if replicates < 10 or len(self.sizes) < 2 or self.sizes[0] < 20 or min(self.small_sizes) < 3:
            raise UsageError("experiment: expected replicates >= 10, two sizes or more of >= 20, and small_sizes >= 3")

    def run(self) -> Findings:
        """Measure consistency, efficiency, normality, coverage, and the bias of the variance."""
        values: dict[str, float | None] = {}
        found = {size: slopes(self.replicates, size, self.seed) for size in self.sizes}
        tables = [self._growing(found, values), self._normal(found, values), self._variance(values)]
        verdict = (
            f"The error falls as n to the power {values['rate']:.3f} ± {values['rate_se']:.3f} (−0.5 once n is large) "
            f"to the Cramér-Rao bound ({values['efficiency']:.2f} of it in variance at n = {self.sizes[-1]}); "
            f"95 % intervals cover {values['coverage']:.1%}; the MLE of a variance is (n − 2) / n of it on a line."
        )
        last = found[self.sizes[-1]]
        rms = [float(np.sqrt(np.square(one.estimate - SLOPE).mean())) for one in found.values()]
        ratios = [values[f"variance_{n}"] or 0.0 for n in self.small_sizes]
        picture = asymptotics.picture(
            (self.sizes, rms, [math.sqrt(bound(n)) for n in self.sizes]), last.z, (self.small_sizes, ratios)
        )
        title = f"Maximum likelihood over {self.replicates} data sets of each size"
        return Findings(title, tables, verdict, values, {"asymptotics": picture})

    def _growing(self, found: dict[int, Slopes], values: dict[str, float | None]) -> Grid:
        rows, logs, errors = list[list[Any]](), [], []
        for size, one in found.items():
            square = np.square(one.estimate - SLOPE)
            rms, count = math.sqrt(square.mean()), len(square)
            # Standard error of the logarithm of a root mean square, by the delta method.
            error = float(square.std(ddof=1)) / math.sqrt(count) / (2 * square.mean())
            ratio = float(one.estimate.var(ddof=1)) / bound(size)
            spread = ratio * math.sqrt((stats.kurtosis(one.estimate) + 2) / count)
            rows.append([size, one.num_separated, float(one.estimate.mean()) - SLOPE, rms, rms * error])
            rows[-1] += [math.sqrt(bound(size)), ratio, spread]
            logs.append(math.log(rms))
            errors.append(error)
            values |= {"efficiency": ratio, "efficiency_se": spread}
        x = np.log(list(found)) - np.mean(np.log(list(found)))
        values |= {"rate": float(x @ logs / (x @ x)), "rate_se": float(np.sqrt(x**2 @ np.square(errors)) / (x @ x))}
        columns = ["n", "separated", "bias", "rms error", "± se", "√(Cramér-Rao)", "variance / bound", "± se"]
        return Grid("Slope of a logistic regression (truth 1.5): consistency and efficiency", columns, rows)

    def _normal(self, found: dict[int, Slopes], values: dict[str, float | None]) -> Grid:
        rows: list[list[Any]] = []
        for size, one in found.items():
            inside = float((np.abs(one.z) < stats.norm.isf(0.025)).mean())
            error = math.sqrt(0.95 * 0.05 / len(one.z))
            test = stats.kstest(one.z, "norm")
            rows.append([size, float(one.z.mean()), float(one.z.std()), float(stats.skew(one.z)), float(test.pvalue)])
            rows[-1] += [inside, error]
            values |= {"coverage": inside, "coverage_se": error, "normal_p": float(test.pvalue)}
        columns = ["n", "mean z", "sd z", "skewness", "P (Kolmogorov)", "coverage of 95 %", "± se"]
        return Grid("Studentised slopes against N(0, 1), and Wald intervals", columns, rows)

    def _variance(self, values: dict[str, float | None]) -> Grid:
        rows: list[list[Any]] = []
        for size in self.small_sizes:
            ratio = variance_ratios(4 * self.replicates, size, self.seed)
            error = float(ratio.std(ddof=1)) / math.sqrt(len(ratio))
            share = (size - 2) / size
            rows.append([size, float(ratio.mean()), error, share, float(ratio.mean()) / share])
            values |= {f"variance_{size}": float(ratio.mean()), f"variance_se_{size}": error}
        columns = ["n", "mean σ̂² / σ²", "± se", "predicted (n − 2) / n", "with n − 2 in place of n"]
        return Grid("The variance MLE of a line with two coefficients is biased", columns, rows)


def slopes(count: int, size: int, seed: int) -> Slopes:
    """Slopes of `count` logistic regressions with `size` rows each, x ~ N(0, 1)."""
    random = np.random.default_rng((seed, size))
    x = random.normal(size=(count, size))
    y = (random.random((count, size)) < special.expit(INTERCEPT + SLOPE * x)).astype(float)
    data = Replicates(BernoulliHead(), torch.from_numpy(x).unsqueeze(-1), torch.from_numpy(y))
    fits = fit(data)
    error = (torch.linalg.inv(data.hessian(fits.theta)) / size)[:, 0, 0].sqrt()
    good = fits.converged
    return Slopes(fits.theta[good, 0].numpy(), error[good].numpy(), int((~good).sum()))


def variance_ratios(count: int, size: int, seed: int) -> np.ndarray:
    """σ̂² / σ² of `count` Gaussian lines with `size` rows each and a learnt sigma, (count,)."""
    random = np.random.default_rng((seed, 7, size))
    x = random.normal(size=(count, size, 1))
    y = 1 + 2 * x[..., 0] + random.normal(size=(count, size))
    theta = fit(Replicates(GaussianHead(), torch.from_numpy(x), torch.from_numpy(y))).theta
    return (2 * theta[:, 2]).exp().numpy()


def bound(size: int) -> float:
    """The Cramér-Rao bound on the variance of the slope: the inverse expected information of `size` rows."""
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    p = special.expit(INTERCEPT + SLOPE * x)
    moments = [float(weight @ (p * (1 - p) * x**k)) / math.sqrt(2 * math.pi) for k in range(3)]
    information = np.array([[moments[2], moments[1]], [moments[1], moments[0]]])
    return float(np.linalg.inv(information)[0, 0]) / size
