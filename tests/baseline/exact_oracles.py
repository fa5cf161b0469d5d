"""Independent estimates: statsmodels, scikit-learn, HiGHS and scipy on data sets that these bring along.

Nothing of mlefw is imported here. Row weights are frequencies: the oracles get each row as often as its weight says.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import statsmodels.api as sm
from scipy.optimize import LinearConstraint, linprog, minimize, minimize_scalar
from scipy.special import gammaln
from sklearn import datasets as sk
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge

Array = np.ndarray
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Sample:
    """x (n, p) and its names, y (n,), whole row weights (n,), offset (n,)."""

    x: Array
    names: tuple[str, ...]
    y: Array
    weight: Array
    offset: Array

    def repeated(self) -> tuple[Array, Array, Array]:
        """(x, y, offset) with each row as often as its weight says."""
        times = self.weight.astype(int)
        return np.repeat(self.x, times, 0), np.repeat(self.y, times), np.repeat(self.offset, times)


def sample(x: Array, y: Array, names: tuple[str, ...] | None = None, **columns: Array) -> Sample:
    x, y = np.asarray(x, float), np.asarray(y, float)
    names = names or tuple(f"x{j}" for j in range(x.shape[1]))
    whole = {"weight": np.ones(len(y)), "offset": np.zeros(len(y)), **columns}
    return Sample(x, names, y, whole["weight"], whole["offset"])


def _statsmodels(name: str, target: str, features: list[str] | None = None, code: Callable | None = None) -> Sample:
    table = getattr(sm.datasets, name).load_pandas().data
    names = features or [column for column in table.columns if column != target]
    y = table[target].to_numpy(float)
    return sample(table[names].to_numpy(float), code(y) if code else y, tuple(names))


def _sklearn(name: str, num_features: int | None = None, classes: tuple[int, ...] | None = None) -> Sample:
    x, y = getattr(sk, f"load_{name}")(return_X_y=True)
    x = x[:, :num_features]
    if classes is not None:
        chosen = np.isin(y, classes)
        x, y = x[chosen], np.searchsorted(classes, y[chosen])
    return sample(x, y)


@cache
def data(name: str) -> Sample:
    """A data set by name."""
    recipes: dict[str, Callable[[], Sample]] = {
        "longley": lambda: _statsmodels("longley", "TOTEMP"),
        "stackloss": lambda: _statsmodels("stackloss", "STACKLOSS"),
        "scotland": lambda: _statsmodels("scotland", "YES"),
        "engel": lambda: _statsmodels("engel", "foodexp"),
        "diabetes": lambda: _sklearn("diabetes"),
        "spector": lambda: _statsmodels("spector", "GRADE"),
        "fair": lambda: _statsmodels("fair", "affairs", code=lambda y: (y > 0).astype(float)),
        "star98": lambda: _star98(),
        "breast_cancer": lambda: _sklearn("breast_cancer"),
        "breast_cancer_20": lambda: _sklearn("breast_cancer", 20),
        "anes96": lambda: _statsmodels("anes96", "PID", ["logpopul", "selfLR", "age", "educ", "income"]),
        "iris": lambda: _sklearn("iris"),
        "iris_setosa": lambda: sample(sk.load_iris().data, (sk.load_iris().target == 0)),
        "iris_12": lambda: _sklearn("iris", classes=(1, 2)),
        "wine": lambda: _sklearn("wine"),
        "wine_2": lambda: _sklearn("wine", 2),
        "digits": lambda: _sklearn("digits"),
        "cpunish": lambda: _statsmodels("cpunish", "EXECUTIONS"),
        "randhie": lambda: _statsmodels("randhie", "mdvis"),
    }
    return recipes[name]()


def _star98() -> Sample:
    """Pupils above the median by school district: two rows for each, weighted by tens of pupils."""
    table = sm.datasets.star98.load_pandas().data
    names = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "AVYRSEXP", "PTRATIO"]
    x = np.repeat(table[names].to_numpy(float), 2, 0)
    y = np.tile([1.0, 0.0], len(table))
    return sample(x, y, tuple(names), weight=np.ceil(table[["NABOVE", "NBELOW"]].to_numpy(float) / 10).reshape(-1))


def varied(plain: Sample, variant: str) -> Sample:
    """The sample with uneven whole weights, or a wavy offset, or both."""
    n, unit = len(plain.y), 1.0
    if len(np.unique(plain.y)) > 50:
        unit = float(plain.y.std())
    weight = 1.0 + np.arange(n) % 3 if "weight" in variant else plain.weight
    offset = 0.3 * unit * np.sin(np.arange(n)) if "offset" in variant else plain.offset
    return Sample(plain.x, plain.names, plain.y, weight, offset)


@dataclass(frozen=True)
class Estimate:
    """Mean NLL and objective in nats; coefficients (intercept first) and their errors by parameter or class."""

    nll: float
    objective: float
    params: dict[str, Array]
    bse: dict[str, Array]


def estimate(head: str, of: Sample, tau: float | None = None, scale: float = 1.0) -> Estimate:
    """The maximum likelihood estimate of a head, or the MAP under Normal(0, tau) on the weights a network holds."""
    x, y, offset = of.repeated()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if tau is None:
            if head == "gaussian_fixed":
                return _fixed(x, y, offset, scale)
            return _MLE[head](x, y, offset)
        if head == "gaussian_fixed":
            return _ridge(x, y, tau, scale)
        return _MAP[head](x, y, tau)


# --- maximum likelihood


def _plain(nll: float, params: dict[str, Array], bse: dict[str, Array]) -> Estimate:
    return Estimate(nll, nll, params, bse)


def _gaussian(x: Array, y: Array, offset: Array) -> Estimate:
    fit = sm.OLS(y - offset, sm.add_constant(x, has_constant="add")).fit(method="qr")
    return _plain(-fit.llf / len(y), {"loc": fit.params}, {"loc": fit.bse})


def _fixed(x: Array, y: Array, offset: Array, scale: float) -> Estimate:
    fit = sm.OLS(y - offset, sm.add_constant(x, has_constant="add")).fit(method="qr")
    nll = 0.5 * LOG_2PI + math.log(scale) + 0.5 * float(np.mean(fit.resid**2)) / scale**2
    return _plain(nll, {"loc": fit.params}, {"loc": scale * np.sqrt(np.diag(fit.normalized_cov_params))})


def _laplace(x: Array, y: Array, offset: Array) -> Estimate:
    design, rotation = _standardised(x)
    target = (y - offset) / np.std(y)
    beta, loss = least_absolute(design, target)
    b = loss / len(y) * np.std(y)
    covariance = rotation @ (b * b * np.linalg.inv(design.T @ design)) @ rotation.T
    return _plain(1 + math.log(2 * b), {"loc": np.std(y) * (rotation @ beta)}, {"loc": np.sqrt(np.diag(covariance))})


def least_absolute(design: Array, y: Array) -> tuple[Array, float]:
    """Argmin Σ |y − design beta| and its value, by the simplex method of HiGHS."""
    n, p = design.shape
    found = linprog(
        np.concatenate([np.zeros(p), np.ones(2 * n)]),
        A_eq=np.hstack([design, np.eye(n), -np.eye(n)]),
        b_eq=y,
        bounds=[(None, None)] * p + [(0, None)] * (2 * n),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    beta = found.x[:p]
    return beta, float(np.abs(y - design @ beta).sum())


def _bernoulli(x: Array, y: Array, offset: Array) -> Estimate:
    fit = sm.Logit(y, sm.add_constant(x, has_constant="add"), offset=offset).fit(tol=1e-15, maxiter=200, disp=0)
    return _plain(-fit.llf / len(y), {"logits": fit.params}, {"logits": fit.bse})


def _categorical(x: Array, y: Array, offset: Array) -> Estimate:
    assert not offset.any(), "statsmodels MNLogit takes no offset"
    fit = sm.MNLogit(y, sm.add_constant(x, has_constant="add")).fit(tol=1e-15, maxiter=200, disp=0)
    params, bse = np.asarray(fit.params), np.asarray(fit.bse)
    titles = [str(k) for k in range(1, params.shape[1] + 1)]
    return _plain(
        -fit.llf / len(y),
        {title: params[:, k] for k, title in enumerate(titles)},
        {title: bse[:, k] for k, title in enumerate(titles)},
    )


def _poisson(x: Array, y: Array, offset: Array) -> Estimate:
    model = sm.GLM(y, sm.add_constant(x, has_constant="add"), sm.families.Poisson(), offset=offset)
    fit = model.fit(tol=1e-15, maxiter=200)
    return _plain(-fit.llf / len(y), {"rate": fit.params}, {"rate": fit.bse})


def _heteroscedastic(x: Array, y: Array, offset: Array) -> Estimate:
    return varying_scale(x, y - offset, y, None)


def varying_scale(x: Array, target: Array, y: Array, tau: float | None) -> Estimate:
    """loc and log scale linear in x, by scipy's trust region method on derivatives written out by hand."""
    design, rotation = _standardised(x)
    n, width = design.shape
    unit = float(np.std(y))
    t = target / unit
    covered = np.tile(np.r_[0.0, np.ones(width - 1)], 2)
    ridge = covered / (n * tau * tau) if tau is not None else 0 * covered

    def parts(theta: Array) -> tuple[Array, Array]:
        s = design @ theta[width:]
        return (t - design @ theta[:width]), s

    def nll(theta: Array) -> float:
        r, s = parts(theta)
        return float(np.mean(0.5 * LOG_2PI + math.log(unit) + s + 0.5 * r**2 * np.exp(-2 * s)))

    def value(theta: Array) -> float:
        return nll(theta) + 0.5 * float(ridge @ theta**2)

    def gradient(theta: Array) -> Array:
        r, s = parts(theta)
        q = np.exp(-2 * s)
        return np.r_[design.T @ (-r * q), design.T @ (1 - r**2 * q)] / n + ridge * theta

    def hessian(theta: Array) -> Array:
        r, s = parts(theta)
        q = np.exp(-2 * s)
        cross = design.T @ ((2 * r * q)[:, None] * design)
        top, low = design.T @ (q[:, None] * design), design.T @ ((2 * r**2 * q)[:, None] * design)
        return np.block([[top, cross], [cross, low]]) / n + np.diag(ridge)

    start = np.linalg.lstsq(design, t, rcond=None)[0]
    theta = np.r_[start, math.log(np.std(t - design @ start)), np.zeros(width - 1)]
    theta = minimize(value, theta, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9}).x
    for _ in range(5):
        theta = theta - np.linalg.solve(hessian(theta), gradient(theta))
    step = 1e-5
    numeric = np.stack(
        [(gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step) for e in np.eye(2 * width)]
    )
    covariance = np.linalg.inv(0.5 * (numeric + numeric.T)) / n
    both = np.block([[unit * rotation, 0 * rotation], [0 * rotation, rotation]])
    params, bse = both @ theta, np.sqrt(np.diag(both @ covariance @ both.T))
    params[width] += math.log(unit)
    constant = 0.0 if tau is None else float(covered.sum()) * (0.5 * LOG_2PI + math.log(tau)) / n
    return Estimate(
        nll(theta),
        value(theta) + constant,
        {"loc": params[:width], "scale": params[width:]},
        {"loc": bse[:width], "scale": bse[width:]},
    )


def _standardised(x: Array) -> tuple[Array, Array]:
    """A column of ones and the features over their mean and spread; and the matrix back to original coefficients."""
    mean, spread = x.mean(0), x.std(0)
    rotation = np.diag(np.r_[1.0, 1 / spread])
    rotation[0, 1:] = -mean / spread
    return np.column_stack([np.ones(len(x)), (x - mean) / spread]), rotation


# --- maximum a posteriori: scikit-learn under the mapping of its penalties to Normal(0, tau) on standardised weights


def _posterior(nll: float, weights: Array, tau: float, n: int, params: dict[str, Array]) -> Estimate:
    penalty = float((weights**2).sum()) / (2 * tau * tau) + weights.size * (0.5 * LOG_2PI + math.log(tau))
    return Estimate(nll, nll + penalty / n, params, {})


def _unit_target(x: Array, y: Array) -> tuple[Array, Array, Array, float]:
    design, rotation = _standardised(x)
    return design[:, 1:], (y - y.mean()) / y.std(), rotation, float(y.std())


def _ridge(x: Array, y: Array, tau: float, scale: float) -> Estimate:
    z, t, rotation, unit = _unit_target(x, y)
    fit = Ridge(alpha=(scale / unit / tau) ** 2, solver="cholesky").fit(z, t)
    mse = float(np.mean((t - fit.predict(z)) ** 2)) * unit**2
    nll = 0.5 * LOG_2PI + math.log(scale) + 0.5 * mse / scale**2
    params = unit * rotation @ np.r_[fit.intercept_, fit.coef_]
    params[0] += y.mean()
    return _posterior(nll, fit.coef_, tau, len(y), {"loc": params})


def _gaussian_map(x: Array, y: Array, tau: float) -> Estimate:
    def at(log_scale: float) -> float:
        return _ridge(x, y, tau, math.exp(log_scale)).objective

    high = math.log(y.std())
    grid = np.linspace(high - 6, high + 0.1, 60)
    best = float(grid[np.argmin([at(s) for s in grid])])
    found = minimize_scalar(at, bounds=(best - 0.2, best + 0.2), method="bounded", options={"xatol": 1e-10})
    return _ridge(x, y, tau, math.exp(found.x))


def _laplace_map(x: Array, y: Array, tau: float) -> Estimate:
    """The scale by a search, and for each scale the dual quadratic program by sequential least squares."""
    z, t, rotation, unit = _unit_target(x, y)
    design = np.column_stack([np.ones(len(z)), z])
    n, p = z.shape
    gram = z @ z.T * tau * tau

    def dual(b: float) -> tuple[float, Array]:
        """Max d't − ½ τ² |z'd|² over |d| ≤ 1/b, Σ d = 0: equal to the least Σ |r| / b + ½ |w|² / τ²."""
        start = np.clip(t - np.median(t), -1, 1)
        found = minimize(
            lambda d: (0.5 * float(d @ gram @ d) - b * float(d @ t)) / n,
            start - start.mean(),
            jac=lambda d: (gram @ d - b * t) / n,
            bounds=[(-1, 1)] * n,
            constraints=[LinearConstraint(np.ones((1, n)), 0, 0)],
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-16},
        )
        d = np.clip(found.x, -1, 1) / b
        assert abs(d.sum()) < 1e-9, "the dual values are not feasible"
        return float(d @ t) - 0.5 * float(d @ gram @ d), d

    def at(log_scale: float) -> float:
        return n * (math.log(2 * unit) + log_scale) + dual(math.exp(log_scale))[0]

    # A stationary scale is a mean absolute residual: at least that without a prior, at most that of the median.
    low, high = math.log(least_absolute(design, t)[1] / n), math.log(np.mean(np.abs(t - np.median(t))))
    grid = np.linspace(low, high, 8)
    best, step = float(grid[np.argmin([at(s) for s in grid])]), grid[1] - grid[0]
    found = minimize_scalar(at, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-8})
    b = math.exp(found.x)
    weights = tau * tau * z.T @ dual(b)[1]
    bias = float(np.median(t - z @ weights))
    nll = math.log(2 * unit * b) + float(np.mean(np.abs(t - z @ weights - bias))) / b
    params = unit * rotation @ np.r_[bias, weights]
    params[0] += y.mean()
    objective = (found.fun + p * (0.5 * LOG_2PI + math.log(tau))) / n
    return Estimate(nll, objective, {"loc": params}, {})


def _logistic_map(x: Array, y: Array, tau: float) -> Estimate:
    design, rotation = _standardised(x)
    z = design[:, 1:]
    fit = LogisticRegression(C=tau * tau, solver="newton-cholesky", tol=1e-13, max_iter=1000).fit(z, y)
    eta = z @ fit.coef_.T + fit.intercept_
    table = np.column_stack([fit.intercept_, fit.coef_]) @ rotation.T
    if len(fit.classes_) == 2:
        nll = float(np.mean(np.logaddexp(0, -(2 * y - 1) * eta[:, 0])))
        return _posterior(nll, fit.coef_, tau, len(y), {"logits": table[0]})
    chosen = eta[np.arange(len(y)), y.astype(int)]
    nll = float(np.mean(np.logaddexp.reduce(eta, 1) - chosen))
    contrasts = {str(k): table[k] - table[0] for k in range(1, len(table))}
    return _posterior(nll, fit.coef_, tau, len(y), contrasts)


def _poisson_map(x: Array, y: Array, tau: float) -> Estimate:
    design, rotation = _standardised(x)
    z = design[:, 1:]
    alpha = 1 / (len(y) * tau * tau)
    fit = PoissonRegressor(alpha=alpha, solver="newton-cholesky", tol=1e-13, max_iter=1000).fit(z, y)
    eta = z @ fit.coef_ + fit.intercept_
    nll = float(np.mean(np.exp(eta) - y * eta + gammaln(y + 1)))
    return _posterior(nll, fit.coef_, tau, len(y), {"rate": rotation @ np.r_[fit.intercept_, fit.coef_]})


def _heteroscedastic_map(x: Array, y: Array, tau: float) -> Estimate:
    return varying_scale(x, y, y, tau)


_MLE: dict[str, Callable[[Array, Array, Array], Estimate]] = {
    "gaussian": _gaussian,
    "heteroscedastic": _heteroscedastic,
    "laplace": _laplace,
    "bernoulli": _bernoulli,
    "categorical": _categorical,
    "poisson": _poisson,
}
_MAP: dict[str, Callable[[Array, Array, float], Estimate]] = {
    "gaussian": _gaussian_map,
    "heteroscedastic": _heteroscedastic_map,
    "laplace": _laplace_map,
    "bernoulli": _logistic_map,
    "categorical": _logistic_map,
    "poisson": _poisson_map,
}
