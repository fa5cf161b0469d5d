"""Normal priors of groups of coefficients whose scales are estimated: smooth terms and effects of groups."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mlefw.errors import UsageError

Criterion = Literal["reml", "ml"]


def stated_scales(text: str) -> Criterion | dict[str, float]:
    """A criterion, or the precision of each term by its name, from a text such as `{s(x): 2.0, (1 | g): 0.5}`.

    Raises:
        UsageError: it is neither.
    """
    if text in ("reml", "ml"):
        return "reml" if text == "reml" else "ml"
    wrong = UsageError(f"baseline.scales={text!r}: expected reml, ml, or such as {{s(x): 2.0, (1 | g): 0.5}}")
    if not text.startswith("{") or not text.endswith("}"):
        raise wrong
    found = {}
    for part in re.split(r",(?![^()]*\))", text[1:-1]):
        name, _, value = part.rpartition(":")
        try:
            found[name.strip().strip("'\"")] = float(value)
        except ValueError:
            raise wrong from None
    return found


@dataclass(frozen=True)
class Smoothing:
    """The estimated scales of the penalised terms, with their certificate.

    Attributes:
        criterion: `reml`, `ml`, or `given`.
        value: −log of the (restricted) likelihood at the estimate, in nats, the coefficients in their own units.
        gradient: largest derivative of that value in a logarithm of a scale that is not at its limit, and where
            `covariance` is there in a standard error of another coefficient.
        num_optima: number of different optima that the searches from several starts found.
        exact: whether the integral is exact, rather than Laplace's approximation.
        at_limit: whether each of the scales has gone to its limit, (num_scales,).
        edf: effective degrees of freedom of each term.
        covariance: of theta, by the curvature of the marginal likelihood, where coefficients without a prior maximise
            its approximation together with the scales, (size, size); None where they do not.
    """

    criterion: Literal["reml", "ml", "given"]
    value: float
    gradient: float
    num_optima: int
    exact: bool
    at_limit: tuple[bool, ...]
    edf: tuple[float, ...]
    covariance: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def is_penalised(self) -> bool:
        """Whether the estimate minimises the penalised NLL at its scales, as training with them does."""
        return not self.exact and self.covariance is None


@dataclass(frozen=True)
class RandomBlock:
    """The penalised coefficients of one term.

    Attributes:
        label: the term, for tables.
        parameter: name of the distribution parameter, for tables.
        column: the column of eta.
        features: positions of its columns among all features, the first effect of all groups first.
        effects: names of the effects of each group; empty for a smooth term.
    """

    label: str
    parameter: str
    column: int
    features: tuple[int, ...]
    effects: tuple[str, ...] = ()

    @property
    def num_effects(self) -> int:
        """Number of effects of each group that vary together; 1 for a smooth term."""
        return max(len(self.effects), 1)

    @property
    def num_groups(self) -> int:
        """Number of groups, or of coefficients of a smooth term."""
        return len(self.features) // self.num_effects

    @property
    def num_scales(self) -> int:
        """Number of numbers that describe the covariance of the effects of a group."""
        return self.num_effects * (self.num_effects + 1) // 2

    def root(self, rho: Tensor) -> Tensor:
        """The lower triangle L of which L L' is the covariance of the effects of a group, (num_effects, num_effects).

        Its diagonal is exp(−rho / 2) for the first entries of `rho`, (num_scales,), which for one effect is the
        logarithm of its precision; the others stand below it, by rows. So rho is unconstrained.
        """
        size = self.num_effects
        lower = torch.diag_embed((-0.5 * rho[:size]).exp())
        rows, columns = torch.tril_indices(size, size, -1)
        return lower.index_put((rows, columns), rho[size:])

    def precision(self, rho: Tensor) -> Tensor:
        """The precision of the effects of one group, (num_effects, num_effects)."""
        if self.num_effects == 1:
            return rho[:1].exp().reshape(1, 1)
        return torch.cholesky_inverse(self.root(rho)).contiguous()

    def log_determinant(self, rho: Tensor) -> Tensor:
        """Log det of the precision of all coefficients, a scalar."""
        return self.num_groups * rho[: self.num_effects].sum()


def whole_precision(blocks: tuple[RandomBlock, ...], rho: Tensor, places: list[Tensor], size: int) -> Tensor:
    """The precision of all coefficients, (size, size), zero where a coefficient has no prior.

    Args:
        blocks: the terms.
        rho: their scales one after the other.
        places: positions of the coefficients of each block, in its order.
        size: number of all coefficients.
    """
    found = torch.zeros(size, size, dtype=rho.dtype)
    start = 0
    for block, place in zip(blocks, places, strict=True):
        own = rho[start : start + block.num_scales]
        start += block.num_scales
        inner = torch.kron(block.precision(own), torch.eye(block.num_groups, dtype=rho.dtype))
        found = found.index_put((place.unsqueeze(1), place.unsqueeze(0)), inner)
    return found


def whole_root(blocks: tuple[RandomBlock, ...], rho: Tensor, places: list[Tensor], size: int) -> Tensor:
    """The map of independent standard normal numbers to all coefficients, (size, size); one where there is no prior.

    Its arguments are those of `whole_precision`.
    """
    found = torch.eye(size, dtype=rho.dtype)
    for block, place, own in zip(blocks, places, split_scales(blocks, rho), strict=True):
        inner = torch.kron(block.root(own).contiguous(), torch.eye(block.num_groups, dtype=rho.dtype))
        found = found.index_put((place.unsqueeze(1), place.unsqueeze(0)), inner)
    return found


def split_scales(blocks: tuple[RandomBlock, ...], rho: Tensor) -> list[Tensor]:
    """The scales of each block."""
    return list(rho.split([block.num_scales for block in blocks]))


def log_determinant(blocks: tuple[RandomBlock, ...], rho: Tensor) -> Tensor:
    """Log det of the precision of all penalised coefficients, a scalar."""
    parts = zip(blocks, split_scales(blocks, rho), strict=True)
    return torch.stack([block.log_determinant(part) for block, part in parts]).sum()


@dataclass(frozen=True)
class NaturalUnits:
    """Scales as multiples of what the rows tell, rho = shift + factor · x, so that a search knows no unit of a column.

    At x = 0 effects are independent, and the prior of a coefficient is as precise as the rows are on average over the
    coefficients of its effect. Shapes: shift and factor (sum of num_scales,).
    """

    shift: Tensor
    factor: Tensor

    @classmethod
    def of(cls, blocks: tuple[RandomBlock, ...], information: Sequence[Tensor]) -> "NaturalUnits":
        """The units, given the information of each coefficient of each block in the unit of its column."""
        shift, factor = [], []
        for block, each in zip(blocks, information, strict=True):
            mean = each.view(block.num_effects, block.num_groups).mean(1).clamp(min=1e-300)
            rows, _ = torch.tril_indices(block.num_effects, block.num_effects, -1)
            shift += [mean.log(), torch.zeros(len(rows), dtype=torch.float64)]
            factor += [torch.ones_like(mean), mean[rows].rsqrt()]
        return cls(torch.cat(shift), torch.cat(factor))

    def scales(self, x: Tensor) -> Tensor:
        """Scales in the units of the columns."""
        return self.shift + self.factor * x


def at_precision(blocks: tuple[RandomBlock, ...], log_precision: float) -> Tensor:
    """Scales at which all effects are independent with one precision, (sum of num_scales,)."""
    found = []
    for block in blocks:
        off = block.num_scales - block.num_effects
        found += [log_precision] * block.num_effects + [0.0] * off
    return torch.tensor(found, dtype=torch.float64)
