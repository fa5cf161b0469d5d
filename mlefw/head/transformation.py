"""The transformation head: a distribution of any shape, by a monotone transformation that is learnt."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import Limit
from mlefw.distribution.transformation import Noise, Transformation
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_MOST = 50
"""Largest order, from which powers and binomial coefficients still have all their digits."""


class TransformationHead(FactorizedHead):
    """A number of which a learnt increasing transformation has a standard distribution: no shape is assumed.

    Choose it where no named density fits, for smooth densities and few rows, and where one coefficient for each feature
    is wanted: by default features shift the transformed number. Under logistic noise a coefficient is then a log odds
    ratio of y exceeding any value (proportional odds for numbers), under normal noise a shift in standard deviations
    (Box & Cox, 1964, with a transformation of any form), and under noise of the minimum a log hazard ratio times minus
    one (Cox, 1972, with a smooth hazard). With predicted gaps the features change the whole shape.

    The exact estimate may have gaps of zero; then a network starts at a small gap, from which it can grow again.

    Domain: y real.
    Link: P(y <= v) = F(h(v) − eta_1), h a Bernstein polynomial on the range of the training targets with coefficients
        0, gap_1, gap_1 + gap_2, …, and linear outside; gap_k = exp(eta_k).
    NLL: −log f(h(y) − eta_1) − log h′(y), f being the density of F.

    Source: Hothorn, Möst & Bühlmann (2018), whose programs (R's tram) have the same linear models: `BoxCox` (normal),
    `Colr` (logistic) and `Coxph` (minimum), the latter two with the opposite sign of coefficients.

    Args:
        order: degree of the polynomial, and number of gaps.
        noise: `normal`, `logistic` or `minimum`, P(Z <= z) = 1 − exp(−exp(z)).
        gaps: `shared` by all rows, or `predicted`.
        range: where the transformation becomes linear, [low, high]; by default the range of the training targets.
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "conditional transformation model (mlt); continuous outcome logistic regression"
    takes_offset: ClassVar = True
    learns: ClassVar = True
    support = constraints.real
    log_link = False

    span: Tensor

    def __init__(
        self,
        order: int = 6,
        noise: Noise = "logistic",
        gaps: Literal["shared", "predicted"] = "shared",
        range: Sequence[float] | None = None,
        start: Start = "null",
    ) -> None:
        if not 1 <= order <= _MOST:
            raise UsageError(f"head.order={order}: expected a whole number from 1 to {_MOST}")
        if noise not in get_args(Noise):
            raise UsageError(f"head.noise={noise!r}: expected {', '.join(get_args(Noise))}")
        if gaps not in ("shared", "predicted"):
            raise UsageError(f"head.gaps={gaps!r}: expected 'shared' or 'predicted'")
        given = None if range is None else [float(end) for end in range]
        if given is not None and not (len(given) == 2 and all(map(math.isfinite, given)) and given[0] < given[1]):
            raise UsageError(f"head.range={given}: expected two finite numbers, the second larger than the first")
        names = [f"gap_{k + 1}" for k in torch.arange(order).tolist()]
        self.inverse_links = {"shift": inverse_link.identity} | dict.fromkeys(names, inverse_link.exp)  # type: ignore[misc]
        sources: dict[str, Any] = {"shift": "predicted"} | dict.fromkeys(names, gaps)
        super().__init__(start=start, **sources)
        self.noise, self.given = noise, given is not None
        # Convex in the shift and the gaps themselves, as the noise is log-concave: a stationary point in their
        # logarithms is the global optimum.
        self.unimodal = gaps == "shared"
        self.limits = tuple(Limit(name, -8.0, "a gap of the transformation goes to zero") for name in names)  # type: ignore[misc]
        self.register_buffer("span", torch.tensor(given or [0.0, 1.0], dtype=torch.float64))

    def learn(self, y: Tensor, weight: Tensor) -> None:
        """Take the range of the training targets, unless one is given."""
        used = y[weight > 0].double()
        if not self.given and len(used):
            low, high = float(used.min()), float(used.max())
            self.span.copy_(torch.tensor([low, high if high > low else low + (abs(low) or 1.0)], dtype=torch.float64))

    def set_units(self, mean: float, spread: float) -> None:
        """Do nothing: shift and gaps are in units of the noise."""

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough parameters: a linear transformation that standardises the target."""
        low, high = self.span.tolist()
        unit = {"normal": 1.0, "logistic": math.pi / math.sqrt(3), "minimum": math.pi / math.sqrt(6)}[self.noise]
        slope = unit / max(spread, 1e-6 * (high - low))
        gap = slope * (high - low) / (len(self.inverse_links) - 1)
        return {name: gap for name in self.inverse_links if name != "shift"} | {"shift": slope * (mean - low)}

    def build(self, shift: Tensor, **gaps: Tensor) -> Transformation:  # type: ignore[override]
        """The distribution for the shift and the gaps, each (*batch,)."""
        steps = torch.stack([gap.expand_as(shift) for gap in gaps.values()], -1)
        return Transformation(shift, steps, self.span[0], self.span[1], self.noise)
