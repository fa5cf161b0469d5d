"""How fast the exact side is: ratios to one pass over the rows and to the peers, in one run, on one thread.

    OMP_NUM_THREADS=1 python scripts/bench/exact.py [--large]

Every row of a table is one data set: process CPU time of the estimate, the ratio to the pass that it is measured by,
and the peers' times at a gradient of 1e-9 (their own gradient is shown: some do not reach it). Peers are scikit-learn
and, where installed, glum; least absolute deviations are in lad.py. `MiB` is the growth of the peak resident memory
during the estimate; the size of X is in the name.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.special import expit, softmax
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import solver_for
from mlefw.baseline.moments import moments
from mlefw.baseline.problem import Problem
from mlefw.baseline.quasi_newton import approach
from mlefw.baseline.starts import origin
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows


class Case(NamedTuple):
    """A simulated data set and its linear problem."""

    name: str
    x: np.ndarray
    y: np.ndarray
    problem: Problem


def timed(function: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The least CPU time in seconds, and what the function returned."""
    least, result = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        least = min(least, time.process_time() - start)
    return least, result


def extra_memory(function: Callable[[], Any]) -> float:
    """Growth of the peak resident memory, in MiB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def simulate(kind: str, num_rows: int, num_features: int, condition: float = 1.0) -> Case:
    """Normal features, rotated and stretched to a condition number; a target of the kind from a linear predictor."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_rows, num_features))
    if condition > 1:
        rotation = np.linalg.qr(random.normal(size=(num_features, num_features)))[0]
        x = x @ (rotation * np.geomspace(1, 1 / condition, num_features)) @ rotation.T
    num_columns = 10 if kind == "categorical" else 1
    eta = x @ random.normal(size=(num_features, num_columns))
    eta = 0.7 * eta / eta.std() - 0.3
    heads: dict[str, Head] = {
        "gaussian": GaussianHead(),
        "bernoulli": BernoulliHead(),
        "poisson": PoissonHead(),
        "categorical": CategoricalHead(10),
    }
    draws: dict[str, Callable[[], np.ndarray]] = {
        "gaussian": lambda: eta[:, 0] + random.normal(size=num_rows),
        "bernoulli": lambda: (random.random(num_rows) < expit(eta[:, 0])).astype(float),
        "poisson": lambda: random.poisson(np.exp(eta[:, 0])).astype(float),
        "categorical": lambda: (eta + random.gumbel(size=eta.shape)).argmax(1),
    }
    y = draws[kind]()
    features = torch.from_numpy(x)
    ones = torch.ones(num_rows, dtype=torch.float64)
    rows = Rows(features, torch.from_numpy(y), ones, torch.zeros_like(ones))
    head = heads[kind]
    if kind == "gaussian":
        head.set_units(float(y.mean()), float(y.std()))
    problem = Problem.of(head, rows, features.mean(0), features.std(0, correction=0), NoPrior())
    name = f"{num_rows:.0e} x {num_features}".replace("e+0", "e")
    return Case(name if condition == 1 else f"{name}, condition {condition:g}", x, y, problem)


def solve(case: Case) -> Solution:
    """The estimate with its certificate: one Newton step and the Hessian more."""
    return solver_for(case.problem).solve(case.problem)


def estimate(case: Case) -> float:
    """The estimate alone, before the Newton step, the Hessian and the checks of its certificate; its residual."""
    near = approach(case.problem, origin(case.problem))
    return solve(case).residual if near is None else float(near.gradient[case.problem.free].abs().max())


def gradient_of(case: Case, mean: np.ndarray) -> float:
    """Largest entry of the mean gradient of a canonical model with these means."""
    observed = np.eye(mean.shape[1])[case.y] if mean.ndim == 2 else case.y
    return float(np.abs(case.x.T @ (mean - observed)).max() / len(case.y))


def least_squares(cases: list[Case]) -> Table:
    """Against one symmetric product."""
    table = Table("least squares", "one X'X", "estimate", "ratio", "with certificate", "MiB", "scikit-learn")
    for case in cases:
        x = torch.from_numpy(case.x)
        product = min(timed(lambda x=x: x.T @ x, 5)[0], timed(lambda case=case: case.x.T @ case.x, 5)[0])
        ours = timed(lambda case=case: moments(case.problem), 5)[0]
        whole = timed(lambda case=case: solve(case), 5)[0]
        peer = timed(lambda case=case: LinearRegression().fit(case.x, case.y), 2)[0]
        memory = extra_memory(lambda case=case: solve(case))
        table.add_row(
            case.name, *_times(product, ours), f"{ours / product:.2f}", *_times(whole), f"{memory:.0f}", *_times(peer)
        )
    return table


def smooth(title: str, cases: list[Case], peers: dict[str, Callable[[Case], np.ndarray]], passes: bool) -> Table:
    """Against one pass for loss, gradient and Hessian, and against the best peer."""
    table = Table(title, "one pass", "estimate", "ratio", "residual", "certified", "MiB", *peers, "ours / best")
    for case in cases:
        origin = torch.zeros(case.problem.size, dtype=torch.float64)
        once = timed(lambda case=case, origin=origin: case.problem.derivatives(origin))[0] if passes else float("nan")
        ours, residual = timed(lambda case=case: estimate(case))
        certified = timed(lambda case=case: solve(case))[0]
        memory = extra_memory(lambda case=case: solve(case))
        cells, best = [], np.inf
        for fit in peers.values():
            seconds, mean = timed(lambda case=case, fit=fit: fit(case), 1)
            best = min(best, seconds)
            cells.append(f"{1e3 * seconds:.0f} ms (gradient {gradient_of(case, mean):.0e})")
        ratio = f"{ours / once:.2f}" if passes else "-"
        first = (f"{1e3 * once:.1f} ms" if passes else "-", *_times(ours), ratio, f"{residual:.0e}", *_times(certified))
        table.add_row(case.name, *first, f"{memory:.0f}", *cells, f"{ours / best:.2f}")
    return table


def _times(*seconds: float) -> list[str]:
    return [f"{1e3 * value:.1f} ms" for value in seconds]


def _logistic(case: Case) -> np.ndarray:
    fit = LogisticRegression(C=np.inf, tol=1e-9, max_iter=10000).fit(case.x, case.y)
    scores = case.x @ fit.coef_.T + fit.intercept_
    return softmax(scores, 1) if scores.shape[1] > 1 else expit(scores[:, 0])


def _poisson(case: Case) -> np.ndarray:
    fit = PoissonRegressor(alpha=0, tol=1e-9, max_iter=10000).fit(case.x, case.y)
    return np.exp(case.x @ fit.coef_ + fit.intercept_)


def _glum(family: str) -> dict[str, Callable[[Case], np.ndarray]]:
    try:
        import glum
    except ImportError:
        return {}

    def fit(case: Case) -> np.ndarray:
        model = glum.GeneralizedLinearRegressor(family=family, alpha=0, gradient_tol=1e-9).fit(case.x, case.y)
        return np.asarray(model.predict(case.x))

    return {"glum": fit}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also a million rows (8 GiB of memory, minutes)")
    large = parser.parse_args().large
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = Console(width=170)
    shapes = [(10**4, 10, 1.0), (10**4, 100, 1.0), (10**5, 50, 1.0), (10**5, 50, 100.0)]
    shapes += [(10**6, 10, 1.0), (10**6, 50, 1.0)] if large else []
    out.print(least_squares([simulate("gaussian", *shape) for shape in shapes]))
    for kind, fit, family in (("bernoulli", _logistic, "binomial"), ("poisson", _poisson, "poisson")):
        cases = [simulate(kind, *shape) for shape in shapes]
        out.print(smooth(kind, cases, {"scikit-learn": fit, **_glum(family)}, passes=True))
    cases = [simulate("categorical", *shape) for shape in ((10**4, 50, 1.0), (10**5, 50, 1.0), (10**5, 50, 100.0))]
    out.print(smooth("categorical, 10 classes", cases, {"scikit-learn": _logistic}, passes=False))


if __name__ == "__main__":
    main()
