"""`Head`, the interface of a likelihood head."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from mlefw import inverse_link
from mlefw.distribution.parameter import Limit
from mlefw.distribution.precision import by_column, full_precision, promote
from mlefw.errors import UsageError
from mlefw.inverse_link import Power

_LEAST_ETA = 1e-6
"""Least eta of training, as a share of that of the null model, where an inverse link asks for a positive one."""

Start = Literal["null", "zero"]
"""Where training starts: at the intercept-only maximum likelihood estimate, or at eta = 0."""


class Rises(NamedTuple):
    """Whether the NLL of each row goes to infinity as one eta goes to minus infinity, and to infinity; bool (*batch,).

    Where it does not, it falls, or stays as it is, all the way.
    """

    down: Tensor
    up: Tensor


class Head(nn.Module, ABC):
    """Maps the network output eta to the distribution of y given x.

    A *complete* eta, (*batch, eta_dim + shared_dim), has one more column for each shared parameter. The exact solvers
    treat that column as a predictor with an intercept only.

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
    lone: bool = False
    """Whether the exact side takes an optimum for the only one when descents from several starts all end there.

    For heads of which no linear problem with two optima is known.
    """
    limits: ClassVar[tuple[Limit, ...]] = ()
    """Simpler distributions that are reached as a parameter goes to infinity, where no maximum may exist."""
    floored: ClassVar[bool] = False
    """Whether the exact side keeps the floor of the scales, because the likelihood is always unbounded without it."""
    takes_offset: ClassVar[bool] = True
    """Whether an offset of the data may be added to the first eta."""
    takes_trials: bool = False
    """Whether the target is a count out of a number of trials, which data.trials may hold."""
    natural: bool = False
    """Whether eta is linear in the natural parameters of an exponential family, in which the NLL of a truncated target
    is convex as well; a dispersion that all rows share may divide eta."""
    learns: ClassVar[bool] = False
    """Whether `learn` computes buffers; then the head is not part of another one, which would not store them."""
    composite: ClassVar[bool] = False
    """Whether the NLL is the mean of those of several models of one target (a composite likelihood), and of no density.

    The mass of exp(−NLL) is then at most 1.
    """
    has_narrow_nll: ClassVar[bool] = False
    """Whether `narrow_nll` is there."""
    outside: ClassVar[str] = ""
    """What a user can do about a target outside the support: one clause for the error message."""
    variance_parameter: ClassVar[tuple[str, float] | None] = None
    """The parameter that a variance weight w of a row divides, and the power of w that multiplies it; None if none."""
    also_known_as: ClassVar[str] = ""
    """Usual names of the loss or model, for the documentation."""
    second_part: ClassVar[str | None] = None
    """The parameter that the second part of `formula` stands for, as other programs have it; None: in their order."""

    center: Tensor
    """The eta at which a raw output of 0 lands, (eta_dim + shared_dim,), float64."""
    gain: Tensor
    """The unit of the raw output: eta = center + gain · raw, (eta_dim + shared_dim,), float64."""
    floor: Tensor
    """Least value of the collapsible parameters, a scalar, or (num_targets,) for several targets."""
    kink: float = 0.0
    """Width over which `descent_nll` smooths the kinks of the density for a line search; set by the training step."""

    wall: float = 0.0
    """Weight of −log eta in the NLL, for columns that have to be positive; set by the exact solver (a barrier)."""

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
        """Set center, gain and floor from the target's mean and standard deviation."""

    def learn(self, y: Tensor, weight: Tensor) -> None:
        """Compute buffers such as edges of bins from the training targets (n, *event_shape) and their weights (n,).

        Called once, before `set_units`. Shapes of buffers are those of the constructor, so that a checkpoint fits.

        Raises:
            UsageError: the head cannot be computed from these targets.
        """

    def complete(self, eta: Tensor) -> Tensor:
        """The complete eta: `eta` (*batch, eta_dim) with the shared columns appended, in the device's widest float.

        Raises:
            ValueError: the last dimension of eta is not `eta_dim`.
        """
        if eta.ndim == 0 or eta.shape[-1] != self.eta_dim:
            raise ValueError(f"{type(self).__name__}: eta has shape {tuple(eta.shape)}, expected (*, {self.eta_dim})")
        eta = promote(eta)
        eta = self.kept_inside(eta) if self.held_columns else eta
        if not self.shared_dim:
            return eta
        shared = self.center[self.eta_dim :] + self.gain[self.eta_dim :] * self.shared
        return torch.cat([eta, shared.to(eta.dtype).expand(*eta.shape[:-1], self.shared_dim)], dim=-1)

    @cached_property
    def held_columns(self) -> dict[int, Transform]:
        """The columns of a complete eta whose inverse link is not defined, or overflows, somewhere; with that link."""
        links = {k: self.inverse_link_of(name) for k, name in enumerate(self.eta_names + self.shared_names)}
        return {k: link for k, link in links.items() if isinstance(link, Power) or link is inverse_link.reciprocal}

    def kept_inside(self, eta: Tensor) -> Tensor:
        """The predicted eta (*batch, eta_dim) of training and prediction, moved to where its links are defined.

        It counts as a millionth of the null model's eta where it is below: a mean with an identity link is at least a
        millionth of the null mean, and one with an inverse link at most a million times as large.
        """
        columns = list(eta.unbind(-1))
        for k, link in self.held_columns.items():
            if k < len(columns):
                columns[k] = inverse_link.kept_inside(link, columns[k], _LEAST_ETA * self.center[k].abs())
        return torch.stack(columns, -1)

    def feasible(self, eta: Tensor) -> Tensor | None:
        """Whether each complete eta, (*batch, columns), gives a distribution, (*batch,); None if any eta does."""
        return (eta[..., self.positive_columns] > 0).all(-1) if self.positive_columns else None

    @cached_property
    def positive_columns(self) -> list[int]:
        """The columns of a complete eta that have to be positive."""
        return [k for k, link in self.held_columns.items() if isinstance(link, Power)]

    @abstractmethod
    def distribution(self, eta: Tensor) -> Distribution:
        """The distribution for a complete eta (*batch, eta_dim + shared_dim)."""

    @property
    def shifts(self) -> tuple[tuple[int, list[int]], ...]:
        """Groups of eta columns in which adding one number to all columns changes no distribution.

        Each is the column to hold at zero, and all columns of the group.
        """
        return () if self.reference is None else ((self.reference, list(range(self.eta_dim))),)

    def information(self, eta: Tensor) -> Tensor | None:
        """Expected Hessian of the NLL in a complete eta, (*batch, columns, columns); None if the head states none.

        The solvers use it where the observed Hessian is not positive definite, or zero.
        """
        return None

    def information_given(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """`information` in rows of which a part of y, such as a number of trials, is known beforehand."""
        return self.information(eta)

    def recession(self, y: Tensor) -> Mapping[str, Rises]:
        """In which directions of the eta of a parameter the NLL of each row rises without bound, by parameter name.

        For a head that is convex in the complete eta this decides whether a finite estimate exists: where the rows,
        each in its direction, can be followed by one linear combination of the features, there is none (Rockafellar,
        1970, theorem 27.1). A row's NLL must rise along a movement of several columns if it does along one of them.
        The ways of a parameter that is left out are found numerically.

        Args:
            y: targets, (*batch, *event_shape).
        """
        return {}

    def information_of_mean(self, eta: Tensor) -> Tensor | None:
        """Expected second derivative of the NLL in the first column of a complete eta, (*batch,).

        None where `information` has it, or it has no closed form.
        """
        return None

    def points(self, y: Tensor) -> Tensor:
        """A number for each target from which rough parameters are computed, (*batch,): by default the target."""
        return y

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """Twice the NLL less the NLL of a perfect prediction, (*batch,), for a complete eta; None where not defined.

        A shared dispersion is left out, as in a generalised linear model: for a Gaussian these are squared residuals
        (McCullagh & Nelder, 1989).
        """
        return None

    def forward(self, eta: Tensor) -> Distribution:
        """The distribution of y for a predicted eta; its batch_shape is eta.shape[:-1].

        Raises:
            ValueError: the last dimension of eta is not `eta_dim`.
        """
        # Contiguous columns: metrics then work on each parameter in vectorised code.
        with full_precision(eta.device):
            return self.distribution(by_column(self.complete(by_column(eta))))

    def as_target(self, y: Tensor) -> Tensor:
        """A target as the likelihood takes it: codes of labels in int64, all others in the device's widest float.

        Targets of tables, in float64 or int64, are that already; arrays keep a type of their own up to here.
        """
        if y.dtype in (torch.float64, torch.int64):
            return y
        return y.long() if self.target in ("labels", "ordered") else promote(y)

    @final
    def nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood of each observation, (*batch,), in nats.

        Raises:
            ValueError: the shapes of eta and y do not match; nothing is broadcast.
        """
        if y.shape != eta.shape[:-1] + self.event_shape:
            expected = tuple(eta.shape[:-1] + self.event_shape)
            raise ValueError(f"{type(self).__name__}: y has shape {tuple(y.shape)}, expected {expected}")
        with full_precision(eta.device):
            return self.nll_complete(self.complete(eta), self.as_target(y))

    @final
    def descent_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The function that training descends, (*batch,): the NLL, or a smooth one that differs by less than `kink`."""
        if not self.kink:
            return self.nll(eta, y)
        with full_precision(eta.device):
            return self.rounded_nll(self.complete(eta), self.as_target(y))

    def narrow_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL of each observation, (*batch,), in 32 bit, for training steps with very many numbers of eta.

        Args:
            eta: (*batch, eta_dim), float32; the head has no shared columns.
            y: targets, (*batch,).
        """
        raise NotImplementedError

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL for a complete eta, (*batch,), its kinks, if it has any, smoothed over a width of `kink`."""
        return self.nll_complete(eta, y)

    @final
    def nll_complete(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL of each row for a complete eta, (*batch,), in nats, without a check of shapes.

        It is infinite for an eta that gives no distribution, so that no exact solver takes a step there.
        """
        inside = self.feasible(eta)
        if inside is None:
            return -self.distribution(eta).log_prob(y)
        safe = torch.where(inside.unsqueeze(-1), eta, self.center.to(eta.dtype))
        nll = -self.distribution(safe).log_prob(y)
        if self.wall:
            nll = nll - self.wall * safe[..., self.positive_columns].log().sum(-1)
        return torch.where(inside, nll, math.inf)

    def inverse_link_of(self, name: str) -> Transform:
        """The inverse link of a parameter: the identity unless the head says otherwise."""
        return inverse_link.identity

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """The smallest collapsible scale of each row, in units of gain, (*batch,); None if the head has none."""
        return None

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Least and greatest first eta, each (*batch,), at which the likelihood of a row grows as its dispersion falls.

        The two are equal for an exact observation, whose density grows without bound as a learnt dispersion goes to
        zero. For a censored observation they are the bounds, infinite where a bound is missing. None for a head
        without an unbounded density.
        """
        return None

    def column_limits(self) -> list[tuple[int, Limit]]:
        """The column in a complete eta and the limit of each parameter of `limits` that is not fixed."""
        names = self.eta_names + self.shared_names
        return [(names.index(limit.name), limit) for limit in self.limits if limit.name in names]

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,); −∞ for a column without a floor."""
        return torch.full_like(self.center, -math.inf)
