"""Laplace approximation: a normal posterior about the kept state of the parameters."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.gaussian import GaussianHead
from mlefw.head.multitask import JointHead
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.uncertainty.base import Method
from mlefw.uncertainty.directions import AllWeights, LastLayer, last_layer
from mlefw.uncertainty.posterior import Posterior, Weights

MAX_PARAMETERS = 5000
"""Most parameters, whose covariance takes 200 megabytes."""
_SINGULAR = 1e-12
"""Eigenvalue of the information, scaled to a unit diagonal, below which it is rounding error."""
_FEWEST_LEFT = 3
"""Least degrees of freedom: a Student t distribution with fewer has no finite variance."""


class Laplace(Method):
    """A normal posterior about the kept state, with precision Σ w J' Λ J plus that of the prior (MacKay, 1992).

    J is the derivative of a row's eta in the parameters and Λ the expected Hessian of its NLL in eta, which gives the
    positive semidefinite generalised Gauss–Newton matrix. Early stopping constrains a network in addition to its
    likelihood and prior; the posterior ignores this, and is then too wide under a flat prior. Eigenvalues of rounding
    size belong to directions that the training rows do not determine; rows whose prediction depends on these
    directions are refused.

    Args:
        weights: `last_layer`, the default, keeps the layers before the last one fixed; `full` takes every trainable
            parameter. Shared distribution parameters are always included.
    """

    name: ClassVar = "laplace"

    def __init__(self, weights: Weights | None = None) -> None:
        self.asked, weights = weights, weights or "last_layer"
        if weights not in get_args(Weights):
            raise UsageError(f"uncertainty.weights={weights!r}: expected {' or '.join(get_args(Weights))}")
        self.weights = weights

    def check(self, objective: Objective) -> None:
        """Refuse, before training, an objective without a Laplace approximation.

        Raises:
            UsageError: several targets, a loss that is no likelihood, a prior with a kink, a model without a last
                layer, or too many parameters.
        """
        if not objective.loss.is_likelihood:
            raise UsageError(
                "uncertainty=laplace: the training descended a loss that is not the likelihood, so that there is no "
                "posterior about its end: expected loss=plain"
            )
        if not objective.prior.smooth:
            raise UsageError(
                "uncertainty=laplace: the prior has a kink at zero, where a weight has no curvature: "
                "expected prior=l2 or prior=none"
            )
        head = objective.head
        if isinstance(head, JointHead):
            raise UsageError(f"uncertainty=laplace is for one target, and there are {len(head.targets)}: expected none")
        if head.event_shape:
            raise UsageError(f"uncertainty=laplace is for a target known exactly, not for {type(head).__name__}")
        if self.weights == "last_layer":
            size = head.eta_dim * (last_layer(objective).in_features + 1) + head.shared_dim
        else:
            size = sum(p.numel() for p in objective.model.parameters() if p.requires_grad) + head.shared_dim
        if size > MAX_PARAMETERS:
            instead = "a smaller model" if self.weights == "last_layer" else "uncertainty.weights=last_layer"
            raise UsageError(
                f"uncertainty=laplace: {size} parameters have a covariance of {size**2 * 8 / 2**30:.1f} GiB; "
                f"at most {MAX_PARAMETERS} are taken: expected {instead}"
            )

    @property
    def setting(self) -> str:
        """The overrides with which `mlefw train` stores this uncertainty in a checkpoint, for messages."""
        return f"uncertainty=laplace uncertainty.weights={self.weights}"

    def restore(self, state: Mapping[str, Any]) -> Posterior | None:
        """The posterior from a stored state; None if it is of other weights than those asked for.

        Raises:
            UsageError: the stored state is damaged.
        """
        found = Posterior.from_dict(state)
        return found if self.asked in (None, found.weights) else None

    @torch.no_grad()
    def fit(self, objective: Objective, train: Rows | None) -> Posterior:
        """The posterior at the present state of an objective.

        Raises:
            UsageError: `check` refuses the objective; too few rows for a flat prior; a curvature that is not finite.
        """
        assert train is not None
        self.check(objective)
        exact = deepcopy(objective).double().cpu().eval()
        train = Rows(*(column.cpu() for column in train))
        last = LastLayer.of(exact, train) if self.weights == "last_layer" else None
        directions = last or AllWeights(exact)
        precision = torch.diag(directions.prior_precision(exact.prior))
        for rows in train.blocks(16384):
            eta = exact.head.complete(exact.eta(rows.x, rows.offset))
            weight = rows.weight.view(-1, 1, 1)
            directions.add_information(precision, rows, weight * output_curvature(exact.head, eta, rows.y))
        root, length, null = _inverse_root(precision)
        population, df = train.population, None
        if _is_classical(exact):
            # A flat prior on log scale integrates it out exactly: Student t with RSS / (n − p) (Gelman et al., 2013).
            df = population - (root.shape[1] - 1)
            if df < _FEWEST_LEFT:
                raise UsageError(
                    f"uncertainty=laplace: {population:g} training rows leave {max(df, 0):g} degrees of freedom beside "
                    f"{root.shape[1] - 1} weights: expected at least {_FEWEST_LEFT}, or prior=l2"
                )
            root[: -exact.head.shared_dim] *= (population / df) ** 0.5
        none = torch.zeros(0, dtype=torch.float64)
        mean, scale = (last.mean, last.scale) if last is not None else (none, none)
        return Posterior(self.weights, root, length, null, mean, scale, population, df)


def output_curvature(head: Head, eta: Tensor, y: Tensor) -> Tensor:
    """A positive semidefinite Hessian of each row's NLL in its complete eta, (n, columns, columns).

    It is the expected Hessian, or where the head states none, the observed one with negative eigenvalues set to zero.
    """
    expected = head.information(eta)
    if expected is not None:
        return expected
    values, vectors = torch.linalg.eigh(row_derivatives(head, eta, y)[2])
    return (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT


def _is_classical(objective: Objective) -> bool:
    """Whether the model is a Gaussian with a shared scale under a flat prior, whose posterior is a Student t."""
    head = objective.head
    constant = isinstance(head, GaussianHead) and head.is_linear and head.eta_names == ("loc",) and head.shared_dim == 1
    return constant and objective.prior.flat


def _inverse_root(precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A root R with R R' a generalised inverse, the square roots of the eigenvalues, and a basis of the null space.

    Eigenvalues are of the precision scaled to a unit diagonal. Shapes: (size, rank), (rank,), (size, size − rank).

    Raises:
        UsageError: the precision is not finite.
    """
    diagonal = precision.diagonal()
    if not bool(torch.isfinite(precision).all()):
        raise UsageError("uncertainty=laplace: the information of the training rows is not finite")
    unit = torch.where(diagonal > 0, diagonal.clamp(min=1e-300).rsqrt(), torch.ones_like(diagonal))
    values, vectors = torch.linalg.eigh(unit.unsqueeze(1) * precision * unit)
    known = values > _SINGULAR
    length = values[known].sqrt()
    scaled = unit.unsqueeze(1) * vectors
    return scaled[:, known] / length, length, scaled[:, ~known]
