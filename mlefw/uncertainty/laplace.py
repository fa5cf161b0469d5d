"""Laplace's approximation at the kept state: the inverse of information and prior precision."""

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
"""Beyond them the covariance takes more than 200 megabytes."""
_SINGULAR = 1e-12
"""Eigenvalue of the information on a unit diagonal below which it is rounding."""
_FEWEST_LEFT = 3
"""Degrees of freedom from which a Student t has a variance."""


class Laplace(Method):
    """A normal posterior about the kept state, with precision Σ w J' Λ J + that of the prior (MacKay, 1992).

    J is the derivative of a row's eta in the parameters and Λ the expected Hessian of its NLL in eta: the generalised
    Gauss–Newton matrix, which is never negative. A network that early stopping keeps from its optimum is held by more
    than its likelihood: with a flat prior the posterior, which knows nothing of that, is then too wide.
    Eigenvalues that are rounding belong to directions which the training rows say nothing about; they are left
    undetermined, and rows whose prediction needs them are refused.

    Args:
        weights: `last_layer`, the default, holds the features before it as they are; `full` takes every trainable
            parameter. The parameters that all rows share are among them always.
    """

    name: ClassVar = "laplace"

    def __init__(self, weights: Weights | None = None) -> None:
        self.asked, weights = weights, weights or "last_layer"
        if weights not in get_args(Weights):
            raise UsageError(f"uncertainty.weights={weights!r}: expected {' or '.join(get_args(Weights))}")
        self.weights = weights

    def check(self, objective: Objective) -> None:
        """Refuse what has no such posterior, before anything is trained.

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
        """With the parameters whose uncertainty is meant."""
        return f"uncertainty=laplace uncertainty.weights={self.weights}"

    def restore(self, state: Mapping[str, Any]) -> Posterior | None:
        """A stored posterior of the parameters that are asked for."""
        found = Posterior.from_dict(state)
        return found if self.asked in (None, found.weights) else None

    @torch.no_grad()
    def fit(self, objective: Objective, train: Rows | None) -> Posterior:
        """The posterior at the present state of an objective.

        Raises:
            UsageError: as `check`; fewer rows than parameters without a prior; a curvature that is not finite.
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
    """The Hessian of each row's NLL in its complete eta, (n, columns, columns), positive semidefinite.

    The expected one; where the head states none, the observed one without its negative eigenvalues.
    """
    expected = head.information(eta)
    if expected is not None:
        return expected
    values, vectors = torch.linalg.eigh(row_derivatives(head, eta, y)[2])
    return (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT


def _is_classical(objective: Objective) -> bool:
    head = objective.head
    constant = isinstance(head, GaussianHead) and head.eta_names == ("loc",) and head.shared_dim == 1
    return constant and objective.prior.flat


def _inverse_root(precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R with R R' a generalised inverse, the square roots of its eigenvalues on a unit diagonal, and the null space."""
    diagonal = precision.diagonal()
    if not bool(torch.isfinite(precision).all()):
        raise UsageError("uncertainty=laplace: the information of the training rows is not finite")
    unit = torch.where(diagonal > 0, diagonal.clamp(min=1e-300).rsqrt(), torch.ones_like(diagonal))
    values, vectors = torch.linalg.eigh(unit.unsqueeze(1) * precision * unit)
    known = values > _SINGULAR
    length = values[known].sqrt()
    scaled = unit.unsqueeze(1) * vectors
    return scaled[:, known] / length, length, scaled[:, ~known]
