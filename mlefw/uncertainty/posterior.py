"""A normal posterior of the parameters about the kept state, and the predictions that follow from it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw import inverse_link
from mlefw.configuration.record import typed
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.uncertainty.base import Uncertain
from mlefw.uncertainty.directions import AllWeights, Directions, LastLayer
from mlefw.uncertainty.marginal import marginal

Weights = Literal["last_layer", "full"]

_MAX_LOG_SD = 5.0
"""Standard deviation of a log-linked eta above which the parameter is unknown to a factor of e^5."""
_MANY = 2000
"""Number of parameters above which predictions of some thousand rows take seconds."""
_OUTSIDE = 1e-5
"""Share of a row's Jacobian in undetermined directions above which its prediction is undetermined."""


@dataclass(frozen=True)
class Posterior(Uncertain):
    """A normal posterior of the parameters, and the directions that the training rows leave undetermined.

    Attributes:
        weights: whether the parameters are those of the last layer or all; both include the shared ones.
        root: a square root of the covariance root · root', (size, rank).
        length: square roots of the eigenvalues of the precision, by which the columns of `root` were divided, (rank,).
        null: a basis of the undetermined directions, (size, k); k is 0 where rows and prior determine everything.
        mean: means that standardise the inputs of the last layer, (in_features,); empty for all weights.
        scale: scales that standardise the inputs of the last layer, (in_features,); empty for all weights.
        population: Σ w of the training rows.
        df: residual degrees of freedom of a Gaussian with a shared scale and a flat prior, whose factor
            population / df `root` includes; None for any other head or prior.
    """

    name = "laplace"

    weights: Weights
    root: Tensor
    length: Tensor
    null: Tensor
    mean: Tensor
    scale: Tensor
    population: float
    df: float | None = None

    @property
    def covariance(self) -> Tensor:
        """Covariance of the parameters, (size, size), zero along undetermined directions."""
        return self.root @ self.root.T

    @torch.no_grad()
    def predictive(self, objective: Objective, rows: Rows) -> Distribution:
        """The predictive distribution of each row, (n,), with eta linearised in the parameters.

        Raises:
            UsageError: the training rows leave the prediction of some rows undetermined.
        """
        eta = objective.head.complete(objective.eta(rows.x, rows.offset)).cpu()
        noise = 1.0 if self.df is None else self.population / self.df
        covariance = self.eta_covariance(objective, rows)
        _check_logarithms(objective.head, covariance)
        return marginal(objective.head, eta, covariance, self.df, noise)

    def facts(self) -> dict[str, Any]:
        """The choice of parameters `weights`, their number, and the rank of their precision."""
        return {"weights": self.weights, "num_parameters": len(self.root), "rank": self.root.shape[1]}

    @property
    def cost(self) -> str:
        """A clause that tells the user what makes a prediction slow; empty for few parameters."""
        size = len(self.root)
        return f"each row takes a product with a matrix of {size:,} × {size:,} covariances" if size > _MANY else ""

    def eta_covariance(self, objective: Objective, rows: Rows) -> Tensor:
        """The covariance of each row's complete eta, (n, columns, columns).

        Where a common shift of all predicted columns changes nothing (softmax), they are centred over the columns.

        Raises:
            UsageError: the training rows leave the prediction of some rows undetermined; or the posterior does not
                fit the model.
        """
        directions = directions_of(self.weights, objective, self.mean, self.scale)
        if directions.size != len(self.root):
            raise UsageError("the parameter uncertainty in the checkpoint does not fit its model")
        columns = objective.head.gain.numel()
        size = max(1, 2**22 // (columns * (self.root.shape[1] + 1)))
        parts = [self._block(directions, objective, block) for block in rows.blocks(min(size, 16384))]
        return torch.cat(parts) if parts else torch.zeros(0, columns, columns, dtype=torch.float64)

    def _block(self, directions: Directions, objective: Objective, rows: Rows) -> Tensor:
        movement = _contrasts(objective, directions.movement(rows, self.root))
        if self.null.shape[1]:
            beside = _contrasts(objective, directions.movement(rows, self.null)).square().sum(-1)
            along = (movement * self.length).square().sum(-1)
            outside = (beside > _OUTSIDE**2 * (along + beside)).any(-1)
            if bool(outside.any()):
                raise UsageError(
                    f"uncertainty=laplace: {int(outside.sum())} of {rows.num_rows} rows lie outside what the training "
                    "rows span, so that without a prior nothing bounds their prediction: expected rows like those of "
                    "training, or a run with prior=l2"
                )
        return movement @ movement.mT

    def state(self) -> dict[str, Any]:
        """The attributes by name, for a checkpoint."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, content: Any) -> "Posterior":
        """The posterior from the content of `state`.

        Raises:
            UsageError: a part is missing, or the shapes of the parts do not agree.
        """
        try:
            found = typed(cls, content, "it")
        except UsageError as error:
            raise UsageError(f"the parameter uncertainty in the checkpoint cannot be read: {error}") from error
        parts = (found.root, found.length, found.null, found.mean, found.scale)
        dimensions = [part.ndim for part in parts]
        fits = dimensions == [2, 1, 2, 1, 1] and found.mean.shape == found.scale.shape
        fits = fits and found.length.shape == found.root.shape[1:] and len(found.null) == len(found.root)
        if not fits or not all(part.is_floating_point() and bool(part.isfinite().all()) for part in parts):
            raise UsageError("the parameter uncertainty in the checkpoint cannot be read: its parts do not fit")
        return found


def _check_logarithms(head: Head, covariance: Tensor) -> None:
    """Refuse rows for which a log-linked parameter, a rate or scale, is practically unknown.

    Raises:
        UsageError: the standard deviation of such an eta is above 5 for some rows.
    """
    if not isinstance(head, FactorizedHead):
        return
    for column, name in enumerate(head.eta_names):
        lost = covariance[:, column, column] > _MAX_LOG_SD**2
        if head.inverse_link_of(name) is inverse_link.exp and bool(lost.any()):
            raise UsageError(
                f"uncertainty=laplace: of {int(lost.sum())} of {len(covariance)} rows the {name} is not known to a "
                f"factor of e^{_MAX_LOG_SD:.0f}, because they lie far from the training rows: expected rows like the "
                "training rows, or a run with prior=l2"
            )


def directions_of(weights: Weights, objective: Objective, mean: Tensor, scale: Tensor) -> Directions:
    """The directions of the parameters named by `weights`; mean and scale standardise the inputs of the last layer."""
    return LastLayer(objective, mean, scale) if weights == "last_layer" else AllWeights(objective)


def _contrasts(objective: Objective, movement: Tensor) -> Tensor:
    """A movement of eta, (n, columns, k), without the common shift of all columns that changes no distribution."""
    if objective.head.reference is None:
        return movement
    predicted = movement[:, : objective.head.eta_dim]
    return torch.cat([predicted - predicted.mean(1, keepdim=True), movement[:, objective.head.eta_dim :]], 1)
