"""Least absolute deviations: seconds of CPU on one thread, beside statsmodels and scikit-learn, and the excess loss.

usage: python scripts/bench/lad.py [--sizes 10000x10 100000x50 …] [--repeats 3] [--slow-rows 20000]

Features are standard normal with a common factor, errors Laplace. mlefw is timed from rows to a certified solution
(features checked for collinearity included) and, on the line below, for the fit alone. A peer is left out above the
rows at which it takes minutes: scikit-learn above `--slow-rows`. Excess: mean absolute deviation less the best, over
the best.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import statsmodels.api as sm
import torch
from sklearn.linear_model import QuantileRegressor

from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.baseline.linear import LinearBaseline, full_weight
from mlefw.baseline.problem import Problem
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import feature_statistics, target_statistics

Fit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


def problem(x: np.ndarray, y: np.ndarray) -> Problem:
    """The linear Laplace problem of a run with these rows."""
    one = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y), one, 0 * one)
    head = LaplaceHead()
    head.set_units(*target_statistics(rows))
    return Problem.of(head, rows, *feature_statistics(rows, True), NoPrior())


def ours(solver: LinearBaseline | LeastAbsolute) -> Fit:
    """Coefficients and intercept of a solver of this package."""

    def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        solution = solver.solve(problem(x, y))
        weight, bias, _ = full_weight(solution)
        head = solution.problem.head
        slope = (float(head.gain[0]) * weight[0] / solution.problem.scale).numpy()
        shift = float(head.center[0] + head.gain[0] * bias[0]) - float(slope @ solution.problem.mean.numpy())
        return slope, shift

    return fit


def statsmodels(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """QuantReg with its default tolerance."""
    params = sm.QuantReg(y, sm.add_constant(x)).fit(q=0.5).params
    return params[1:], float(params[0])


def sklearn(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """QuantileRegressor by HiGHS."""
    fit = QuantileRegressor(quantile=0.5, alpha=0.0, solver="highs").fit(x, y)
    return fit.coef_, float(fit.intercept_)


METHODS: dict[str, Fit] = {
    "mlefw": ours(LinearBaseline()),
    "mlefw, fit alone": ours(LeastAbsolute()),
    "statsmodels QuantReg": statsmodels,
    "scikit-learn highs": sklearn,
}


def measure(fit: Fit, x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[float, float]:
    """Least CPU seconds over the repeats, and the mean absolute deviation."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        slope, shift = fit(x, y)
        seconds.append(time.process_time() - start)
        if seconds[-1] > 20:
            break
    return min(seconds), float(np.abs(y - x @ slope - shift).mean())


def main() -> None:
    """Measure every size and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["10000x10", "10000x50", "100000x10", "100000x50", "1000000x10"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-rows", type=int, default=20000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'rows x features':<17}{'method':<22}{'CPU s':>10}{'times mlefw':>13}{'excess':>10}")
    for size in arguments.sizes:
        n, d = map(int, size.split("x"))
        random = np.random.default_rng(0)
        x = random.normal(size=(n, d))
        x += 0.5 * random.normal(size=(n, 1))
        y = x @ random.normal(size=d) + random.laplace(size=n)
        found = {
            name: measure(fit, x, y, arguments.repeats)
            for name, fit in METHODS.items()
            if name != "scikit-learn highs" or n <= arguments.slow_rows
        }
        best, reference = min(loss for _, loss in found.values()), found["mlefw"][0]
        for name, (seconds, loss) in found.items():
            print(f"{size:<17}{name:<22}{seconds:>10.3f}{seconds / reference:>13.1f}{(loss - best) / best:>10.0e}")


if __name__ == "__main__":
    main()
