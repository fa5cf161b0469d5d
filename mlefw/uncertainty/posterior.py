"""What is known of the parameters after training: a normal distribution about the kept state."""

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

_FURTHEST = 5.0
"""Standard deviations of a logarithm from which a number is not known at all."""
_MANY = 2000
"""Parameters from which an average over them takes seconds for some thousand rows."""
_OUTSIDE = 1e-5
"""Share of a row's length along undetermined directions, from which its prediction is undetermined, too."""


@dataclass(frozen=True)
class Posterior(Uncertain):
    """The covariance root · root' of some parameters, and the directions that the training rows leave undetermined.

    Attributes:
        weights: which parameters: those of the last layer, or all; with the shared ones.
        root: (size, rank).
        length: (rank,), square roots of the eigenvalues whose directions, over these, are the columns of `root`.
        null: (size, k), the undetermined directions; none where the rows and the prior determine everything.
        mean: of the features of the last layer, (in_features,); empty for all weights.
        scale: theirs.
        population: Σ w of the training rows.
        df: degrees of freedom that are left for a shared Gaussian scale with a flat prior, whose factor
            population / df is in `root` already; None for any other head or prior.
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
        """Of the parameters, (size, size); of estimable combinations alone where some directions are undetermined."""
        return self.root @ self.root.T

    @torch.no_grad()
    def predictive(self, objective: Objective, rows: Rows) -> Distribution:
        """The predictive distribution of each row: eta is linearised about the estimate."""
        eta = objective.head.complete(objective.eta(rows.x, rows.offset)).cpu()
        noise = 1.0 if self.df is None else self.population / self.df
        covariance = self.eta_covariance(objective, rows)
        _check_logarithms(objective.head, covariance)
        return marginal(objective.head, eta, covariance, self.df, noise)

    def facts(self) -> dict[str, Any]:
        """Which parameters, how many, and how many directions of them are determined."""
        return {"weights": self.weights, "num_parameters": len(self.root), "rank": self.root.shape[1]}

    @property
    def cost(self) -> str:
        """The product with the covariance, where it is large."""
        size = len(self.root)
        return f"each row takes a product with a matrix of {size:,} × {size:,} covariances" if size > _MANY else ""

    def eta_covariance(self, objective: Objective, rows: Rows) -> Tensor:
        """The covariance of each row's complete eta, (n, columns, columns).

        Where one number may be added to all predicted columns (softmax), that of their differences from their mean.

        Raises:
            UsageError: rows whose prediction the training rows leave undetermined.
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
        """Plain containers and tensors, as a checkpoint carries them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, content: Any) -> "Posterior":
        """What `state` gave.

        Raises:
            UsageError: it lacks a part, or its parts do not fit each other.
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
    """Refuse what is a number no longer: a rate or scale that may as well be a million times as large."""
    if not isinstance(head, FactorizedHead):
        return
    for column, name in enumerate(head.eta_names):
        lost = covariance[:, column, column] > _FURTHEST**2
        if head.inverse_links[name] is inverse_link.exp and bool(lost.any()):
            raise UsageError(
                f"uncertainty=laplace: of {int(lost.sum())} of {len(covariance)} rows the {name} is not known to a "
                f"factor of e^{_FURTHEST:.0f}, so far do they lie from the training rows: expected rows like those, "
                "or a run with prior=l2"
            )


def directions_of(weights: Weights, objective: Objective, mean: Tensor, scale: Tensor) -> Directions:
    """The directions of a posterior."""
    return LastLayer(objective, mean, scale) if weights == "last_layer" else AllWeights(objective)


def _contrasts(objective: Objective, movement: Tensor) -> Tensor:
    """What of a movement of eta, (n, columns, k), the distribution can see."""
    if objective.head.reference is None:
        return movement
    predicted = movement[:, : objective.head.eta_dim]
    return torch.cat([predicted - predicted.mean(1, keepdim=True), movement[:, objective.head.eta_dim :]], 1)
