"""The Student-t head: noise with heavy tails."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Chi2, Distribution, constraints
from torch.distributions import StudentT as TorchStudentT
from torch.distributions.utils import broadcast_all

from mlefw import inverse_link
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.distribution.special import stirling_error
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_FAR = 1e8
"""Standardised residual |u| from which log(1 + u²) is 2 log |u| in double precision; u² could overflow."""


class StudentT(TorchStudentT):
    """Student-t distribution whose log-density is accurate for small and huge df, and far out in the tails.

    Its moments are selected by value, where torch's assign to some of the rows, which cannot be recorded and replayed.
    """

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        # torch checks the values of this part whatever it is told, and a step that reads values cannot be recorded.
        self._chi2 = Chi2(self.df, validate_args=validate_args)
        Distribution.__init__(self, self.df.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The location, (*batch,); nan where df is at most 1."""
        return torch.where(self.df > 1, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,); infinite where df is at most 2, nan where it is at most 1."""
        finite = self.scale.square() * self.df / (self.df - 2)
        return torch.where(self.df > 2, finite, torch.where(self.df > 1, math.inf, math.nan))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        half = self.df / 2
        # lgamma(half + ½) − lgamma(half) − ½ log(half), whose leading terms by Stirling cancel for a large df.
        ratio = half * torch.log1p(0.5 / half) - 0.5 + stirling_error(half + 0.5) - stirling_error(half)
        u = (value - self.loc) / self.scale / self.df.sqrt()
        far = u.abs() > _FAR
        near = torch.log1p(torch.where(far, torch.zeros_like(u), u).square())
        outer = 2 * torch.where(far, u, torch.full_like(u, _FAR)).abs().log()
        kernel = (half + 0.5) * torch.where(far, outer, near)
        return ratio - kernel - self.scale.log() - 0.5 * math.log(2 * math.pi)


class StudentTHead(FactorizedHead):
    """Noise with heavy tails: rows far out lose their pull on the location, more so the further out they are.

    Choose it over `gaussian` where a few rows are outliers that the features do not explain. A fixed df of 4 is
    robust; a learnt df tells how heavy the tails are. The likelihood can have several maxima: the exact estimate is
    the best of those found from several starts.

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y); df = 1 + exp(eta_3), so
        that the mean exists. The scale is not a standard deviation: the variance is scale² df / (df − 2), for df > 2.
    NLL: lgamma(df / 2) − lgamma((df + 1) / 2) + ½ log(π df) + log scale + ½ (df + 1) log(1 + u² / df),
        u = (y − loc) / scale.

    Source: Lange, Little & Taylor (1989).
    """

    also_known_as: ClassVar = "robust regression with t errors"
    inverse_links: ClassVar = {
        "loc": inverse_link.identity,
        "scale": inverse_link.exp,
        "df": inverse_link.above_one,
    }
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.real
    limits: ClassVar = (
        Limit(
            "df",
            6.0,
            "the tails are no heavier than a Gaussian's: the Gaussian model (head=gaussian) is the limit",
            start=2.0,  # df 8.4: tails about a network's predictions are heavier than those of all targets together
        ),
    )

    def __init__(
        self,
        scale: ParameterSource = "shared",
        df: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        super().__init__(loc="predicted", scale=scale, df=df, scale_floor=scale_floor, start=start)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough location and scale, with df = 5: heavy tails, from which solvers reach lighter ones."""
        return super().rough(mean, spread) | {"df": 5.0}

    def build(self, loc: Tensor, scale: Tensor, df: Tensor) -> StudentT:  # type: ignore[override]
        """StudentT(df, loc, scale)."""
        return StudentT(df.expand_as(loc), loc, scale.expand_as(loc), validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """The expected information in (loc, log scale, log(df − 1)); loc is orthogonal to the other two."""
        here: StudentT = self.distribution(eta)  # type: ignore[assignment]
        df, slope = here.df, here.df - 1
        both = (df + 1) * (df + 3)
        trigamma = torch.special.polygamma(1, df / 2) - torch.special.polygamma(1, (df + 1) / 2)
        whole = eta.new_zeros((*eta.shape[:-1], 3, 3))
        whole[..., 0, 0] = (df + 1) / (df + 3) / here.scale.square()
        whole[..., 1, 1] = 2 * df / (df + 3)
        whole[..., 1, 2] = whole[..., 2, 1] = -2 * slope / both
        whole[..., 2, 2] = slope.square() * (trigamma / 4 - (df + 5) / (2 * df * both))
        order = [list(self.inverse_links).index(name) for name in self.eta_names + self.shared_names]
        return whole[..., order, :][..., order]
