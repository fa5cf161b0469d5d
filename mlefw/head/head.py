"""What a likelihood head is."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from mlefw import inverse_link
from mlefw.distribution.parameter import Limit
from mlefw.distribution.precision import by_column, promote
from mlefw.errors import UsageError

Start = Literal["null", "zero"]
"""Where training starts: at the intercept-only maximum likelihood estimate, or at eta = 0."""


class Head(nn.Module, ABC):
    """Maps the network output eta to the distribution of y given x.

    A *complete* eta carries the shared parameters too, as further columns with an intercept only:
    (*batch, eta_dim + shared_dim). The exact solvers work on it.

    Shapes: eta (*batch, eta_dim), unconstrained; y (*batch, *event_shape); nll (*batch,), nats, in the units of y.
    """

    eta_dim: int
    shared_dim: int
    event_shape: torch.Size = torch.Size()
    support: Constraint
    target: ClassVar[Literal["numeric", "binary", "labels", "ordered"]] = "numeric"
    reference: ClassVar[int | None] = None
    """The eta column to hold at zero where adding one number to all columns changes nothing (softmax)."""
    convex: bool = False
    """Whether the NLL is convex in the complete eta, so that a stationary point is the global optimum."""
    unimodal: bool = False
    """Whether a stationary point of a linear problem without a prior is its global optimum, convex or not."""
    lone: ClassVar[bool] = False
    """Whether several descents to one optimum are taken to show that it is the only one: of a head that is not known to
    have a linear problem with two.
    """
    limits: ClassVar[tuple[Limit, ...]] = ()
    floored: ClassVar[bool] = False
    """Whether the exact side keeps the floor of the scales: without it there is never a maximum."""
    takes_offset: ClassVar[bool] = True
    """Whether the first eta is one to which an offset of the data belongs."""
    outside: ClassVar[str] = ""
    """What a person can do about a target outside the support, one clause."""
    also_known_as: ClassVar[str] = ""

    center: Tensor
    gain: Tensor
    floor: Tensor
    kink: float = 0.0
    """Width over which a line search sees the kinks of the density rounded off; set by the step alone."""

    def __init__(self, eta_names: tuple[str, ...], shared_names: tuple[str, ...] = (), start: Start = "null") -> None:
        super().__init__()
        if start not in ("null", "zero"):
            raise UsageError(f"head.start={start!r}: expected 'null' or 'zero'")
        self.eta_names, self.shared_names, self.start = eta_names, shared_names, start
        self.eta_dim, self.shared_dim = len(eta_names), len(shared_names)
        columns = self.eta_dim + self.shared_dim
        self.register_buffer("center", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("gain", torch.ones(columns, dtype=torch.float64))
        self.register_buffer("floor", torch.zeros((), dtype=torch.float64))
        self.shared = nn.Parameter(torch.zeros(self.shared_dim))

    @property
    def log_link(self) -> bool:
        """Whether the first eta is a logarithm, so that an exposure makes sense."""
        return False

    def set_units(self, mean: float, spread: float) -> None:
        """Take the target's mean and standard deviation as the origin and unit of what is measured in units of y."""

    def complete(self, eta: Tensor) -> Tensor:
        """Eta (*batch, eta_dim) with the shared columns appended, in the widest float of the device."""
        if eta.ndim == 0 or eta.shape[-1] != self.eta_dim:
            raise ValueError(f"{type(self).__name__}: eta has shape {tuple(eta.shape)}, expected (*, {self.eta_dim})")
        eta = promote(eta)
        if not self.shared_dim:
            return eta
        shared = self.center[self.eta_dim :] + self.gain[self.eta_dim :] * self.shared
        return torch.cat([eta, shared.to(eta.dtype).expand(*eta.shape[:-1], self.shared_dim)], dim=-1)

    @abstractmethod
    def distribution(self, eta: Tensor) -> Distribution:
        """The distribution for a complete eta (*batch, eta_dim + shared_dim)."""

    @property
    def shifts(self) -> tuple[tuple[int, list[int]], ...]:
        """Eta columns to all of which one number may be added, after the one of them to hold at zero."""
        return () if self.reference is None else ((self.reference, list(range(self.eta_dim))),)

    def information(self, eta: Tensor) -> Tensor | None:
        """Expected Hessian of the NLL in a complete eta, (*batch, columns, columns), or None where not stated.

        The solvers fall back on it where the observed Hessian is not positive definite, or says nothing.
        """
        return None

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """Twice the NLL above that of a perfect prediction, (*batch,), for a complete eta; None where not defined.

        A dispersion that is learnt once for all rows is left out, as in a generalised linear model: squared residuals
        for a Gaussian (McCullagh & Nelder, 1989).
        """
        return None

    def forward(self, eta: Tensor) -> Distribution:
        """The distribution of y for a predicted eta; its batch_shape is eta.shape[:-1].

        Its parameters are laid out column by column, which makes what metrics do across a few columns vectorise.
        """
        with torch.autocast(eta.device.type, enabled=False):
            return self.distribution(by_column(self.complete(by_column(eta))))

    @final
    def nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood of each row, (*batch,), in nats.

        Raises:
            ValueError: the shapes of eta and y do not fit (nothing is broadcast).
        """
        if y.shape != eta.shape[:-1] + self.event_shape:
            expected = tuple(eta.shape[:-1] + self.event_shape)
            raise ValueError(f"{type(self).__name__}: y has shape {tuple(y.shape)}, expected {expected}")
        with torch.autocast(eta.device.type, enabled=False):
            return self.nll_complete(self.complete(eta), y)

    @final
    def descent_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """What training descends, (*batch,): the NLL, or a smooth stand-in less than `kink` off."""
        if not self.kink:
            return self.nll(eta, y)
        with torch.autocast(eta.device.type, enabled=False):
            return self.rounded_nll(self.complete(eta), y)

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL for a complete eta with its kinks rounded off over a width of `kink`: itself where it has none."""
        return self.nll_complete(eta, y)

    @final
    def nll_complete(self, eta: Tensor, y: Tensor) -> Tensor:
        """The same for a complete eta: what the exact solvers differentiate."""
        return -self.distribution(eta).log_prob(y)

    def inverse_link_of(self, name: str) -> Transform:
        """The inverse link of a parameter."""
        return inverse_link.identity

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """The least of the scales that may collapse, in units of gain, (*batch,), for a complete eta; or None."""
        return None

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Between which first etas a row is fitted the better the smaller a learnt dispersion is, each (*batch,).

        The two are equal where a number is known exactly: there its density grows without bound as the dispersion goes
        to zero. Without one of two bounds of a number the eta on that side is infinite. None where no density is
        unbounded.
        """
        return None

    def column_limits(self) -> list[tuple[int, Limit]]:
        """The limits of the parameters that are columns of a complete eta, each with its column."""
        names = self.eta_names + self.shared_names
        return [(names.index(limit.name), limit) for limit in self.limits if limit.name in names]

    def lowest(self) -> Tensor:
        """The eta of each column, (columns,), at which its floor lies; minus infinity where there is none."""
        return torch.full_like(self.center, -math.inf)
