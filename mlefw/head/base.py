"""Base classes for heads: `Head`, and `FactorizedHead` for distributions with named parameters."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource, check_source
from mlefw.errors import UsageError
from mlefw.head.head import Head as Head
from mlefw.head.head import Start


class FactorizedHead(Head):
    """Base class of heads for one target, whose named parameters are each predicted, shared or fixed.

    A concrete head states `inverse_links` (in the order of its eta columns) and `support`, and writes `build`.
    """

    inverse_links: ClassVar[Mapping[str, Transform]]
    links: ClassVar[Mapping[str, Transform]] = {}
    """The inverse links that `link` can choose for the first parameter, by name."""
    link_name: str = ""
    """The name of the link of the first parameter, where the head has a choice."""
    collapsible: ClassVar[frozenset[str]] = frozenset()
    """Parameters kept at or above the floor, because the likelihood is unbounded where they reach zero."""
    sharpening: ClassVar[frozenset[str]] = frozenset()
    """Parameters that go to infinity where the likelihood is unbounded; they have no floor."""

    def __init__(
        self,
        *,
        start: Start = "null",
        scale_floor: float = 1e-3,
        link: str | None = None,
        **sources: ParameterSource,
    ) -> None:
        if link is not None:
            self._choose(link, start)
        for name, source in sources.items():
            check_source(name, source, self.inverse_link_of(name))
        if not 0 <= scale_floor < 1:
            raise UsageError(f"head.scale_floor={scale_floor}: expected a fraction of sd(y) in [0, 1)")
        eta_names = tuple(name for name, source in sources.items() if source == "predicted")
        shared_names = tuple(name for name, source in sources.items() if source == "shared")
        super().__init__(eta_names, shared_names, start)
        self.scale_floor = scale_floor
        # No mean is 0 under such a link: a raw output of 0 is a mean of 1 until there is a target.
        self.center[self.positive_columns] = 1.0
        self.fixed = {name: float(source) for name, source in sources.items() if not isinstance(source, str)}

    def _choose(self, link: str, start: Start) -> None:
        """Take the inverse link of this name for the first parameter.

        Raises:
            UsageError: the head has no such link, or eta = 0, where training is to start, gives no distribution.
        """
        if link not in self.links:
            raise UsageError(f"head.link={link!r}: expected one of {', '.join(self.links)}")
        first = next(iter(self.inverse_links))
        self.link_name = link
        is_power = isinstance(self.links[link], inverse_link.Power)
        if start == "zero" and (is_power or self.links[link] is inverse_link.reciprocal):
            raise UsageError(f"head.start=zero: eta = 0 gives no {first} under head.link={link}: expected start=null")

    @property
    def first_link(self) -> Transform:
        """The inverse link of the first eta."""
        return self.inverse_link_of(self.eta_names[0])

    @abstractmethod
    def build(self, **params: Tensor) -> Distribution:
        """The distribution for the named parameters, each (*batch,), or a scalar where it is fixed."""

    @property
    def log_link(self) -> bool:
        """Whether the first eta is a logarithm."""
        return self.first_link is inverse_link.exp

    def set_units(self, mean: float, spread: float) -> None:
        """Set center and gain from the mean and standard deviation of the target.

        Identity-linked parameters get center `mean` and gain `spread`; collapsible parameters get center log(spread)
        and the floor `scale_floor` · spread. For a constant target, |mean|, or 1 where that is 0, replaces the spread.
        """
        unit = spread if spread > 0 else abs(mean) or 1.0
        self._set_power_units(mean, unit)
        if self.collapsible & {*self.eta_names, *self.shared_names}:
            self.floor.fill_(self.scale_floor * unit)
        for column, name in enumerate(self.eta_names + self.shared_names):
            if self.inverse_link_of(name) is inverse_link.identity:
                self.center[column], self.gain[column] = mean, unit
            elif name in self.collapsible:
                self.center[column] = math.log(unit)

    def _set_power_units(self, mean: float, unit: float) -> None:
        """Center a mean with a power link at that of the target; a raw output of 1 is one unit of the target."""
        for column in self.positive_columns:
            link: Any = self.inverse_link_of((self.eta_names + self.shared_names)[column])
            middle = torch.tensor(mean if mean > 0 else unit, dtype=torch.float64)
            self.center[column] = link.inv(middle)
            self.gain[column] = unit * float(torch.exp(-link.log_abs_det_jacobian(self.center[column], middle)))

    def inverse_link_of(self, name: str) -> Transform:
        """The inverse link of a parameter: from `inverse_links`, or for the first one what `link` names."""
        # Looked up rather than stored: links are told apart by identity, which a copy of the head would not keep.
        if self.link_name in self.links and name == next(iter(self.inverse_links)):
            return self.links[self.link_name]
        return self.inverse_links[name]

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """The smallest collapsible parameter of each row, in units of the first gain, (*batch,); None without any."""
        params = self.params(eta)
        scales = [params[name].expand(eta.shape[:-1]) for name in self.collapsible]
        return torch.stack(scales).amin(0) / self.gain[0] if scales else None

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at which the density of y is centred, as both ends; None if no dispersion is learnt."""
        if not (self.collapsible | self.sharpening) - self.fixed.keys():
            return None
        eta = self.first_link.inv(y)
        # No eta of the link centres the density there (a target below zero under a log link).
        return None if bool((eta.isnan() & ~y.isnan()).any()) else (eta, eta)

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,): log(floor) for a collapsible parameter, else −∞."""
        names = self.eta_names + self.shared_names
        may = torch.tensor([name in self.collapsible for name in names], device=self.center.device)
        return torch.where(may, self.floor.log(), super().lowest())

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough parameter values for a target of this mean and standard deviation, by name: a start for the solvers.

        A parameter that is left out starts at the head's center.
        """
        if not self.collapsible:
            return {}
        located = {name: mean for name in self.inverse_links if self.inverse_link_of(name) is inverse_link.identity}
        return located | dict.fromkeys(self.collapsible, spread or abs(mean) or 1.0)

    def distribution(self, eta: Tensor) -> Distribution:
        """The distribution for a complete eta."""
        return self.build(**self.params(eta))

    def params(self, eta: Tensor) -> dict[str, Tensor]:
        """The named parameters for a complete eta: the inverse link of each column, collapsible parameters floored."""
        columns = dict(zip(self.eta_names + self.shared_names, eta.unbind(-1), strict=True))
        params = {}
        for name in self.inverse_links:
            value = self.inverse_link_of(name)(columns[name]) if name in columns else eta.new_tensor(self.fixed[name])
            params[name] = (
                inverse_link.floored(value, self.floor) if name in self.collapsible & columns.keys() else value
            )
        return params
