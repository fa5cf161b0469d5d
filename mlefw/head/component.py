"""Base class of heads around another head, whose parameters are theirs."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from mlefw.head.head import Head, Start


class ComponentHead(Head):
    """A head around another one, its component, whose eta columns come first and keep their meaning and units.

    A concrete head writes `distribution`, and may add columns of its own behind those of the component.
    """

    def __init__(
        self, component: Head, start: Start, predicted: tuple[str, ...] = (), shared: tuple[str, ...] = ()
    ) -> None:
        super().__init__(component.eta_names + predicted, component.shared_names + shared, start)
        # A tuple hides the component from nn.Module: only the buffers and parameters of this head are trained,
        # moved between devices and stored.
        self.parts = (component,)
        self._copy_units()

    @property
    def component(self) -> Head:
        """The head around which this one is, with the floor of this head."""
        part = self.parts[0]
        part.floor = self.floor
        return part

    @property
    def columns(self) -> list[int]:
        """The columns of a complete eta that are the component's."""
        part = self.parts[0]
        return [*range(part.eta_dim), *range(self.eta_dim, self.eta_dim + part.shared_dim)]

    def of_component(self, eta: Tensor) -> Tensor:
        """The complete eta of the component, from that of this head."""
        part = self.parts[0]
        if self.eta_dim + self.shared_dim == part.eta_dim + part.shared_dim:
            return eta
        # Slices rather than a list of columns, of which a recorded step cannot read the values.
        shared = eta[..., self.eta_dim : self.eta_dim + part.shared_dim]
        return torch.cat([eta[..., : part.eta_dim], shared], -1)

    @property
    def log_link(self) -> bool:
        """Whether the component's first eta is a logarithm."""
        return self.parts[0].log_link

    def points(self, y: Tensor) -> Tensor:
        """The component's number for each target, (*batch,)."""
        return self.parts[0].points(y)

    def set_units(self, mean: float, spread: float) -> None:
        """Take the units of the component."""
        self.parts[0].set_units(mean, spread)
        self._copy_units()

    def inverse_link_of(self, name: str) -> Transform:
        """The component's inverse link of a parameter."""
        return self.parts[0].inverse_link_of(name)

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """As the component says."""
        return self.component.fitted_between(y)

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,); −∞ for a column without a floor."""
        lowest = super().lowest()
        lowest[self.columns] = self.component.lowest()
        return lowest

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """The component's smallest collapsible scale of each row, in units of gain, (*batch,)."""
        return self.component.least_scale(self.of_component(eta))

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """The component's rough parameters, by name; none where it states none."""
        found: Any = getattr(self.parts[0], "rough", lambda *_: {})(mean, spread)
        return dict(found)

    def _copy_units(self) -> None:
        part = self.parts[0]
        with torch.no_grad():
            self.center[self.columns] = part.center
            self.gain[self.columns] = part.gain
        self.floor = part.floor.clone()
