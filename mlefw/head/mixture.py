"""The mixture head: each observation comes from one of several components of the same kind."""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily
from torch.distributions.transforms import Transform

from mlefw import inverse_link
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start

_MOST = 1000
"""Most components: a larger number in a configuration file could exhaust the memory by parameter names alone."""


class Mixture(MixtureSameFamily):
    """A mixture distribution with a `scale`: the smallest scale of its components."""

    @property
    def scale(self) -> Tensor:
        """The smallest scale of the components, (*batch,); only for components that have a scale."""
        scales: Tensor = self.component_distribution.scale  # type: ignore[attr-defined]
        return scales.expand(self.component_distribution.batch_shape).amin(-1)


class MixtureHead(Head):
    """Several components of one kind, each with its own parameters: a mixture density network (Bishop, 1994).

    Choose it where y given x has several modes, or tails and skewness that no single head has. More components need
    more rows; choose their number on held-out rows.

    The likelihood has many local maxima, and without a floor of the scales it is unbounded: a component centred on
    one row can have a density as high as one likes. The exact side therefore keeps the floor, tries several starts,
    prefers optima away from the floor, and calls none of them global. Components have no order, so that their
    parameters cannot be compared between fits.

    Domain: the component's.
    Link: the eta of each component in turn, linked as by the component; then the log-odds of each component but the
        first against the first.
    NLL: −log Σ_k weight_k · exp(−NLL of component k).

    Args:
        component: the head of one component.
        num_components: number of components, at least 2.
        weights: `predicted`, or `shared` by all rows.
        start: `null`; `zero` is refused, because components that start equal stay equal.
    """

    floored: ClassVar = True
    takes_offset: ClassVar = False

    def __init__(
        self,
        component: Head,
        num_components: int = 2,
        weights: Literal["predicted", "shared"] = "predicted",
        start: Start = "null",
    ) -> None:
        if num_components < 2:
            raise UsageError(f"head.num_components={num_components}: expected at least 2")
        if num_components > _MOST:
            raise UsageError(f"head.num_components={num_components}: expected at most {_MOST}")
        if weights not in ("predicted", "shared"):
            raise UsageError(f"head.weights={weights!r}: expected 'predicted' or 'shared'")
        if component.learns:
            raise UsageError(f"head.component: {type(component).__name__} is a mixture already: expected another head")
        if component.target != "numeric" or component.event_shape:
            raise UsageError(
                f"head.component: a mixture of {type(component).__name__} is the same model as one of them"
            )
        if start == "zero":
            raise UsageError("head.start=zero: components that start equal stay alike; expected start=null")
        count = range(1, num_components + 1)
        logits = tuple(f"logit_{k}" for k in count[1:])
        predicted = tuple(f"{name}_{k}" for k in count for name in component.eta_names)
        shared = tuple(f"{name}_{k}" for k in count for name in component.shared_names)
        is_predicted = weights == "predicted"
        super().__init__(predicted + logits * is_predicted, shared + logits * (not is_predicted), start)
        # A tuple hides the component from nn.Module: only the buffers and parameters of this head are trained,
        # moved between devices and stored.
        self.parts = (component,)
        self.num_components, self.weights = num_components, weights
        self.support = component.support
        self._spread_locations()

    @property
    def component(self) -> Head:
        """The head of one component, with the floor and the kink of this head."""
        part = self.parts[0]
        part.floor, part.kink = self.floor, self.kink
        return part

    def columns(self, k: int) -> list[int]:
        """The columns of a complete eta that belong to component k, counted from 0."""
        part, first = self.parts[0], self.eta_dim
        predicted = range(k * part.eta_dim, (k + 1) * part.eta_dim)
        return [*predicted, *range(first + k * part.shared_dim, first + (k + 1) * part.shared_dim)]

    @property
    def logits(self) -> slice:
        """The columns of a complete eta that are log-odds against the first component."""
        end = self.eta_dim if self.weights == "predicted" else self.eta_dim + self.shared_dim
        return slice(end - self.num_components + 1, end)

    def set_units(self, mean: float, spread: float) -> None:
        """Take the units of the component, and spread the locations over the quantiles of a normal distribution."""
        self.parts[0].set_units(mean, spread)
        self.floor = self.parts[0].floor.clone()
        self._spread_locations()

    def inverse_link_of(self, name: str) -> Transform:
        """The component's inverse link of a parameter such as `loc_2`; the identity for the log-odds of components."""
        base, _, _ = name.rpartition("_")
        return inverse_link.identity if base == "logit" else self.parts[0].inverse_link_of(base)

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,); −∞ for a column without a floor."""
        values = super().lowest()
        for k in range(self.num_components):
            values[self.columns(k)] = self.component.lowest()
        return values

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """The smallest collapsible scale of each row over all components, in units of gain, (*batch,), or None."""
        return None if (scales := self.component.least_scale(self._stacked(eta))) is None else scales.amin(-1)

    def distribution(self, eta: Tensor) -> Mixture:
        """The mixture for a complete eta."""
        others = eta[..., self.logits]
        logits = torch.cat([torch.zeros_like(others[..., :1]), others], -1)
        each = self.component.distribution(self._stacked(eta))
        return Mixture(Categorical(logits=logits, validate_args=False), each, validate_args=False)

    def _stacked(self, eta: Tensor) -> Tensor:
        """The complete eta of each component, (*batch, num_components, columns)."""
        part, count = self.parts[0], self.num_components
        predicted = eta[..., : count * part.eta_dim].unflatten(-1, (count, part.eta_dim))
        shared = eta[..., self.eta_dim : self.eta_dim + count * part.shared_dim]
        return torch.cat([predicted, shared.unflatten(-1, (count, part.shared_dim))], -1)

    def _spread_locations(self) -> None:
        part, count = self.parts[0], self.num_components
        names = part.eta_names + part.shared_names
        located = torch.tensor([part.inverse_link_of(name) is inverse_link.identity for name in names]).double()
        for k in range(count):
            at = self.columns(k)
            apart = torch.special.ndtri(torch.tensor((k + 0.5) / count, dtype=torch.float64))
            self.center[at], self.gain[at] = part.center + located * apart * part.gain, part.gain
