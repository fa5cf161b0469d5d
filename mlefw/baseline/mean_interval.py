"""Intervals of the mean of a row, or of the probabilities of its labels, from the covariance of the coefficients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance
from mlefw.distribution.reference import t_quantile
from mlefw.head.base import Head


class CoefficientCovariance(NamedTuple):
    """The covariance of the coefficients of an exact estimate with what maps it to rows, as it is stored.

    Attributes:
        matrix: covariance of theta, (size, size), in the layout of `Problem`.
        active: positions of the features in use, (num_active,).
        mean: means that standardise all features, (num_features,).
        scale: scales that standardise all features, (num_features,).
        df: degrees of freedom of t quantiles, a scalar; zero for normal quantiles.
    """

    matrix: Tensor
    active: Tensor
    mean: Tensor
    scale: Tensor
    df: Tensor

    @classmethod
    def of(cls, solution: Solution, errors: Covariance) -> "CoefficientCovariance":
        """The covariance of a solution."""
        problem = solution.problem
        df = torch.tensor(errors.df or 0.0, dtype=torch.float64)
        return cls(errors.matrix.clone(), problem.active.clone(), problem.mean.clone(), problem.scale.clone(), df)

    def quantile(self, level: float) -> float:
        """Half the width of an interval of this probability, in standard errors."""
        df = float(self.df)
        return float(t_quantile(0.5 + level / 2, df if df > 0 else None))

    def of_eta(self, head: Head, x: Tensor) -> Tensor:
        """Covariance of the complete eta of each row, (n, columns, columns), for features x (n, num_features)."""
        z = (x.double()[:, self.active] - self.mean[self.active]) / self.scale[self.active]
        z = torch.cat([z, z.new_ones(len(z), 1)], 1)
        width, eta_dim, columns = z.shape[1], head.eta_dim, head.eta_dim + head.shared_dim
        # Shared parameters have a design of one column of ones.
        parts = [(slice(k * width, (k + 1) * width), z) for k in range(eta_dim)]
        ones = z[:, -1:]
        parts += [(slice(eta_dim * width + s, eta_dim * width + s + 1), ones) for s in range(head.shared_dim)]
        found = z.new_zeros(len(z), columns, columns)
        for i, (rows, left) in enumerate(parts):
            for j, (across, right) in enumerate(parts):
                found[:, i, j] = ((left @ self.matrix[rows, across]) * right).sum(1)
        gain = head.gain.double()
        return found * gain * gain.unsqueeze(1)


@torch.no_grad()
def interval(
    head: Head,
    eta: Tensor,
    covariance: Tensor,
    quantile: float,
    value: Callable[[Distribution], Tensor],
) -> tuple[Tensor, Tensor]:
    """Lower and upper end of an interval of values of the distribution of each row, each (n, m).

    A value of one eta column is taken at eta ± quantile · standard error: as it is monotone, this keeps its range. One
    of several columns has the standard error of the delta method, on the scale of its logarithm if it is positive, of
    its log-odds if it is a probability, else on its own.

    Args:
        head: the head.
        eta: complete eta, (n, columns).
        covariance: of the complete eta, (n, columns, columns).
        quantile: half the width in standard errors.
        value: maps distributions of batch shape (n,) to values (n, m), such as means.
    """
    with torch.enable_grad():
        leaf = eta.detach().clone().requires_grad_()
        values = value(head.distribution(leaf))
        slopes = [torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for v in values.unbind(1)]
    used = torch.stack([(slope != 0).any(0) for slope in slopes]).any(0)
    if int(used.sum()) == 1:
        column = int(used.nonzero())
        half = torch.zeros_like(eta)
        half[:, column] = quantile * covariance[:, column, column].clamp(min=0).sqrt()
        ends = [value(head.distribution(eta + side)) for side in (-half, half)]
        return torch.minimum(*ends), torch.maximum(*ends)
    slope = torch.stack(slopes, 1)
    variance = ((slope @ covariance) * slope).sum(-1)
    half = quantile * variance.clamp(min=0).sqrt()
    low, high = _between(head, values)
    if low and high:
        share = values.clamp(0.0, 1.0)
        half = half / (share * (1 - share))
        logits = share.logit()
        return _known(torch.sigmoid(logits - half), values), _known(torch.sigmoid(logits + half), values)
    if low:
        half = half / values
        return _known(values * (-half).exp(), values), _known(values * half.exp(), values)
    return values - half, values + half


def _between(head: Head, values: Tensor) -> tuple[bool, bool]:
    """Whether values are positive, and whether they are at most 1, because observations are, or labels have them."""
    if values.shape[1] > 1 or head.target != "numeric":
        return True, True
    inside = [bool(head.support.check(torch.tensor(y, dtype=torch.float64))) for y in (-0.5, -1.0, 1.5, 2.0)]
    return not any(inside[:2]), not any(inside[2:])


def _known(end: Tensor, values: Tensor) -> Tensor:
    """An end, and the value itself where it is at a limit of its range to all digits."""
    return torch.where(end.isnan() & values.isfinite(), values, end)
