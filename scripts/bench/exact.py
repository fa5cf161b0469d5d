"""How fast the exact side is: ratios to one pass over the rows and to the peers, in one run, on one thread.

    OMP_NUM_THREADS=1 python scripts/bench/exact.py [--large] [--rounds N]

Every row of a table is one data set, every figure process CPU time: the least over rounds in which the variants took
turns; a ratio is the median of those of the rounds. *Estimate* is theta alone. *Certificate* is what
`LinearBaseline.solve` takes beyond it: columns that depend on others, one Newton step with the Hessian, whether a
maximum exists and is the global one. *Errors* is the covariance after that. Peers are scikit-learn, which has an
estimate alone, statsmodels, which has standard errors as well, and, where installed, glum; they are asked for a
gradient of 1e-9. *Gradient* is the largest entry of the mean gradient in the coefficients of x that each has reached;
some do not reach what they are asked for. Least absolute deviations are in lad.py. `MiB` is the growth of the peak
resident memory during all of it; the size of X is in the name.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import statsmodels.api as sm
import torch
import torch._dynamo  # The first recording of kernels loads it; in a command Lightning has.
from rich.console import Console
from rich.table import Table
from scipy.special import expit, softmax
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import covariance
from mlefw.baseline.linear import LinearBaseline, solver_for
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


class Race(NamedTuple):
    """Seconds of each variant by round, and what each returned last."""

    seconds: dict[str, list[float]]
    results: dict[str, Any]

    def least(self, name: str) -> float:
        """The least time of a variant, in seconds."""
        return min(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """The median over rounds of the times of one variant over those of another."""
        return median(one / two for one, two in zip(self.seconds[name], self.seconds[other], strict=True))

    def beyond(self, name: str, part: str) -> float:
        """The median over rounds of what a variant takes beyond one that it contains, in seconds."""
        pairs = zip(self.seconds[name], self.seconds[part], strict=True)
        return max(median(whole - some for whole, some in pairs), 0.0)


def race(variants: dict[str, Callable[[], Any]], rounds: int) -> Race:
    """Run the variants in turns, after one run of each that does not count."""
    results = {name: run() for name, run in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            results[name] = run()
            seconds[name].append(time.process_time() - start)
    return Race(seconds, results)


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


def whole(case: Case) -> Solution:
    """The estimate with its certificate."""
    return LinearBaseline().solve(case.problem)


def least_squares_estimate(case: Case) -> Tensor:
    """Theta of least squares, before its certificate."""
    found = moments(case.problem)
    scale = (found.residual_square / case.problem.population) ** 0.5
    bias = found.mean_y - float(found.weight @ found.mean_z)
    return case.problem.with_scale(torch.cat([found.weight, found.weight.new_tensor([bias])]), scale)


def estimate(case: Case) -> Tensor:
    """Theta, before the Newton step, the Hessian and the checks of its certificate."""
    near = approach(case.problem, origin(case.problem))
    return solver_for(case.problem).solve(case.problem).theta if near is None else near.theta


def gradient_of(case: Case, mean: np.ndarray) -> str:
    """Largest entry of the mean gradient of a canonical model with these means, in words."""
    observed = np.eye(mean.shape[1])[case.y] if mean.ndim == 2 else case.y
    return f"{float(np.abs(case.x.T @ (mean - observed)).max() / len(case.y)):.0e}"


def mean_at(case: Case, theta: Tensor) -> np.ndarray:
    """The means of a canonical model, (n,), or shares of classes, (n, K)."""
    eta = torch.cat([eta for _, _, eta in case.problem.etas(theta)]).numpy()
    if eta.shape[1] > 2:
        return np.asarray(softmax(eta, 1))
    kind = type(case.problem.head)
    mean = {GaussianHead: lambda value: value, BernoulliHead: expit, PoissonHead: np.exp}[kind](eta[:, 0])
    return np.asarray(mean)


def compared(title: str, cases: list[Case], peers: dict[str, Callable[[Case], np.ndarray]], rounds: int) -> Table:
    """Against one symmetric product or one pass for loss, gradient and Hessian, and against the peers."""
    is_square = title == "least squares"
    ours = ("estimate", "certificate", "errors", "gradient, then certified", "MiB")
    ratios = (f"estimate / {'pass' if not is_square else 'product'}", "estimate / scikit-learn")
    ratios += ("all / statsmodels",) if "statsmodels" in peers else ()
    table = Table(title, "X'X" if is_square else "one pass", *ours, *peers, *ratios)
    for case in cases:
        theta = torch.zeros(case.problem.size, dtype=torch.float64)
        first = (lambda x=case.x: x.T @ x) if is_square else (lambda at=theta, one=case: one.problem.derivatives(at))
        alone = least_squares_estimate if is_square else estimate
        variants: dict[str, Callable[[], Any]] = {
            "pass": first,
            "estimate": lambda case=case: alone(case),  # noqa: B023
            "certified": lambda case=case: whole(case),
            "all": lambda case=case: covariance(whole(case)),
        }
        variants |= {name: lambda fit=fit, case=case: fit(case) for name, fit in peers.items()}
        found = race(variants, rounds)
        ends = (found.results["estimate"], found.results["certified"].theta)
        reached = " ".join(gradient_of(case, mean_at(case, end)) for end in ends)
        times = (found.least("estimate"), found.beyond("certified", "estimate"), found.beyond("all", "certified"))
        others = [f"{_shown(found.least(name))} ({gradient_of(case, found.results[name])})" for name in peers]
        pairs = [("estimate", "pass"), ("estimate", "scikit-learn"), ("all", "statsmodels")][: len(ratios)]
        memory = extra_memory(lambda case=case: covariance(whole(case)))
        cells = (*map(_shown, (found.least("pass"), *times)), reached, f"{memory:.0f}", *others)
        table.add_row(case.name, *cells, *(f"{found.ratio(*pair):.2f}" for pair in pairs))
    return table


def _shown(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def _least_squares(case: Case) -> np.ndarray:
    fit = LinearRegression().fit(case.x, case.y)
    return np.asarray(case.x @ fit.coef_ + fit.intercept_)


def _logistic(case: Case) -> np.ndarray:
    fit = LogisticRegression(C=np.inf, tol=1e-9, max_iter=10000).fit(case.x, case.y)
    scores = case.x @ fit.coef_.T + fit.intercept_
    return softmax(scores, 1) if scores.shape[1] > 1 else expit(scores[:, 0])


def _poisson(case: Case) -> np.ndarray:
    fit = PoissonRegressor(alpha=0, tol=1e-9, max_iter=10000).fit(case.x, case.y)
    return np.exp(case.x @ fit.coef_ + fit.intercept_)


def _statsmodels(family: str) -> dict[str, Callable[[Case], np.ndarray]]:
    def fit(case: Case) -> np.ndarray:
        design = sm.add_constant(case.x)
        if family == "normal":
            found = sm.OLS(case.y, design).fit()
        else:
            kind = sm.families.Poisson() if family == "poisson" else sm.families.Binomial()
            found = sm.GLM(case.y, design, kind).fit(tol=1e-12)
        assert len(found.bse)
        return np.asarray(found.fittedvalues)

    return {"statsmodels": fit}


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
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out, rounds = Console(width=190), given.rounds
    shapes = [(10**4, 10, 1.0), (10**4, 100, 1.0), (10**5, 50, 1.0), (10**5, 50, 100.0)]
    shapes += [(10**6, 10, 1.0), (10**6, 50, 1.0)] if given.large else []
    peers = {"scikit-learn": _least_squares, **_statsmodels("normal")}
    out.print(compared("least squares", [simulate("gaussian", *shape) for shape in shapes], peers, rounds))
    for kind, fit, family in (("bernoulli", _logistic, "binomial"), ("poisson", _poisson, "poisson")):
        peers = {"scikit-learn": fit, **_statsmodels(family), **_glum(family)}
        out.print(compared(kind, [simulate(kind, *shape) for shape in shapes], peers, rounds))
    cases = [simulate("categorical", *shape) for shape in ((10**4, 50, 1.0), (10**5, 50, 1.0))]
    out.print(compared("categorical, 10 classes", cases, {"scikit-learn": _logistic}, min(rounds, 2)))


if __name__ == "__main__":
    main()
