"""The predictive distribution under an uncertain eta: p(y | eta) averaged over a normal distribution of eta."""

import math
from functools import lru_cache, singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, StudentT
from torch.distributions import Categorical as TorchCategorical
from torch.nn.functional import logsigmoid
from torch.quasirandom import SobolEngine

from mlefw.head.base import Head
from mlefw.head.bernoulli import LogitBernoulli
from mlefw.head.categorical import Categorical
from mlefw.head.gaussian import Gaussian, GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.uncertainty.mixture import mixture
from mlefw.uncertainty.normal_laplace import NormalLaplace

_REACH, _MAX_NODES = 8.0, 1025
"""Half-width in standard deviations, and most nodes, of the trapezoidal rule for integrals over a normal eta."""
_STEP = 0.6
"""Distance of nodes, in widths of the narrowest integrand, at which the trapezoidal rule is accurate to rounding."""
_LEAST = 6.0
"""Least curvature of the integrand to choose the number of nodes by."""
_USUAL = 3.0
"""Range of eta, in standard deviations, in which the number of nodes must suffice."""
_NUM_DRAWS = 1024
"""Sobol points for an average over several eta columns."""
_BLOCK = 2**22
"""Number of eta values to work on at a time."""


@singledispatch
def marginal(head: Head, eta: Tensor, covariance: Tensor, df: float | None = None, noise: float = 1.0) -> Distribution:
    """The mixture over nodes of eta, of batch shape (n,); for classes, their mean probabilities.

    For one eta column the nodes are those of a trapezoidal rule, 67 to 1025 of them, which is accurate unless the
    likelihood is a hundred times narrower than the distribution of eta; for several, 1024 Sobol points of a fixed seed.

    Args:
        head: the head of the model.
        eta: mean of the complete eta, (n, columns).
        covariance: covariance of the complete eta, (n, columns, columns).
        df: degrees of freedom of the Student t distribution that a shared Gaussian scale leads to, if any.
        noise: factor on the variance of that Student t distribution.
    """
    log_weight, nodes = _nodes(head, eta, covariance)
    if not isinstance(head.distribution(eta[:1]), Bernoulli | TorchCategorical):
        at = eta.unsqueeze(1) + nodes @ _root(covariance)
        return mixture(log_weight, head.distribution(head.kept_inside(at) if head.held_columns else at))
    size = max(1, _BLOCK // nodes.numel())
    blocks = zip(eta.split(size), covariance.split(size), strict=True)
    parts = [_average(head.distribution(at.unsqueeze(1) + nodes @ _root(by)), log_weight) for at, by in blocks]
    return _of_logits(torch.cat(parts))


@marginal.register
def _(head: GaussianHead, eta: Tensor, covariance: Tensor, df: float | None = None, noise: float = 1.0) -> Distribution:
    """Normal for a fixed scale; Student t where a shared scale is integrated out; else a mixture over log scale."""
    if not head.is_linear:
        general: Distribution = marginal.dispatch(Head)(head, eta, covariance, df, noise)
        return general
    if eta.shape[1] == 1 or df is not None:
        loc, variance = eta[:, 0], noise * head.params(eta)["scale"].square() + covariance[:, 0, 0]
        if df is None:
            return Gaussian(loc, variance.sqrt(), validate_args=False)
        return StudentT(torch.full_like(loc, df), loc, variance.sqrt(), validate_args=False)
    log_weight, at, left = _along_scale(eta, covariance)
    params = head.params(at)
    spread = (params["scale"].square() + left.unsqueeze(1)).sqrt()
    return mixture(log_weight, Gaussian(params["loc"], spread, validate_args=False))


@marginal.register
def _(head: LaplaceHead, eta: Tensor, covariance: Tensor, df: float | None = None, noise: float = 1.0) -> Distribution:
    """The sum of a normal and a Laplace variate; for a learnt scale, a mixture of such sums over log scale."""
    if eta.shape[1] == 1:
        return NormalLaplace(eta[:, 0], covariance[:, 0, 0].sqrt(), head.params(eta)["scale"])
    log_weight, at, left = _along_scale(eta, covariance)
    params = head.params(at)
    return mixture(log_weight, NormalLaplace(params["loc"], left.sqrt().unsqueeze(1), params["scale"]))


def _along_scale(eta: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights (m,) and nodes of (loc, log scale), (n, m, 2), over log scale; the conditional variance of loc."""
    spread = covariance[:, 1, 1].clamp(min=0).sqrt()
    # The second derivative of the log-density in log scale is about 2 u², u being the residual in units of the scale.
    log_weight, nodes = _grid_for(float(1 + 2 * (_USUAL + 2) ** 2 * spread.square().amax()) if len(eta) else 1.0)
    slope = torch.where(spread > 0, covariance[:, 0, 1] / spread.clamp(min=1e-150), torch.zeros_like(spread))
    direction = torch.stack([slope, spread], -1)
    left = (covariance[:, 0, 0] - slope.square()).clamp(min=0)
    return log_weight, eta.unsqueeze(1) + nodes.view(-1, 1) * direction.unsqueeze(1), left


def _nodes(head: Head, eta: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Log weights (m,) and standard normal nodes: (m, columns), or (m, 1) for one column."""
    if eta.shape[1] > 1:
        return torch.full((_NUM_DRAWS,), -math.log(_NUM_DRAWS), dtype=torch.float64), _draws(eta.shape[1])
    spread = covariance[:, :, 0].clamp(min=0).sqrt()
    information = [head.information(eta + z * spread) for z in (-_USUAL, -1.0, 0.0, 1.0, _USUAL)]
    known = [covariance * each for each in information if each is not None]
    most = float((1 + torch.cat(known)).amax()) if known and len(eta) else _LEAST
    log_weight, nodes = _grid_for(max(most, _LEAST))
    return log_weight, nodes.unsqueeze(1)


def _grid_for(information: float) -> tuple[Tensor, Tensor]:
    """Log weights and nodes for integrands with a log-curvature up to `information` per standard deviation² of eta."""
    wanted = math.ceil(_REACH / _STEP * math.sqrt(min(information, 1e6)))
    return _grid(min(2 * wanted + 1, _MAX_NODES))


@lru_cache(maxsize=8)
def _grid(num_nodes: int) -> tuple[Tensor, Tensor]:
    nodes = torch.linspace(-_REACH, _REACH, num_nodes, dtype=torch.float64)
    return (-0.5 * nodes.square()).log_softmax(0), nodes


@lru_cache(maxsize=8)
def _draws(columns: int) -> Tensor:
    uniform = SobolEngine(columns, scramble=True, seed=0).draw(_NUM_DRAWS, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(2.0**-32, 1 - 2.0**-32))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root, which is unique: a row's result does not depend on the other rows of its block."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT


def average(log_weight: Tensor, component: Distribution) -> Distribution:
    """The average of components of batch shape (n, m) with log weights (m,): of class probabilities, or a mixture."""
    if not isinstance(component, Bernoulli | TorchCategorical):
        return mixture(log_weight, component)
    return _of_logits(_average(component, log_weight))


def _of_logits(logits: Tensor) -> Distribution:
    return LogitBernoulli(logits=logits, validate_args=False) if logits.ndim == 1 else Categorical(logits)


def _average(component: Distribution, log_weight: Tensor) -> Tensor:
    """Log-odds (n,) or log-probabilities (n, K) of the mean probabilities over nodes."""
    if isinstance(component, Bernoulli):
        both = torch.stack([logsigmoid(component.logits), logsigmoid(-component.logits)])
        one, zero = torch.logsumexp(both + log_weight, -1)
        return one - zero
    assert isinstance(component, TorchCategorical)
    return torch.logsumexp(component.logits + log_weight.unsqueeze(-1), -2)
