"""Normal priors of groups of coefficients whose scales are estimated: smooth terms and effects of groups."""

import re
from dataclasses import dataclass
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
        gradient: largest derivative of that value in a logarithm of a scale that is not at its limit.
        num_optima: number of different optima that the searches from several starts found.
        exact: whether the integral is exact, rather than Laplace's approximation.
        at_limit: whether each of the scales has gone to its limit, (num_scales,).
        edf: effective degrees of freedom of each term.
    """

    criterion: Literal["reml", "ml", "given"]
    value: float
    gradient: float
    num_optima: int
    exact: bool
    at_limit: tuple[bool, ...]
    edf: tuple[float, ...]


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

    def precision(self, rho: Tensor) -> Tensor:
        """The precision of the effects of one group, (num_effects, num_effects).

        For one effect it is exp(rho). For several the covariance is L L', L having exponentials on its diagonal, which
        come first in `rho`, (num_scales,), and then the entries below it by rows. So rho is unconstrained.
        """
        size = self.num_effects
        if size == 1:
            return rho[:1].exp().reshape(1, 1)
        lower = torch.diag_embed((-0.5 * rho[:size]).exp())
        rows, columns = torch.tril_indices(size, size, -1)
        lower = lower.index_put((rows, columns), rho[size:])
        return torch.cholesky_inverse(lower).contiguous()

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


def split_scales(blocks: tuple[RandomBlock, ...], rho: Tensor) -> list[Tensor]:
    """The scales of each block."""
    return list(rho.split([block.num_scales for block in blocks]))


def log_determinant(blocks: tuple[RandomBlock, ...], rho: Tensor) -> Tensor:
    """Log det of the precision of all penalised coefficients, a scalar."""
    parts = zip(blocks, split_scales(blocks, rho), strict=True)
    return torch.stack([block.log_determinant(part) for block, part in parts]).sum()


def at_precision(blocks: tuple[RandomBlock, ...], log_precision: float) -> Tensor:
    """Scales at which all effects are independent with one precision, (sum of num_scales,)."""
    found = []
    for block in blocks:
        off = block.num_scales - block.num_effects
        found += [log_precision] * block.num_effects + [0.0] * off
    return torch.tensor(found, dtype=torch.float64)
