"""Rows of arrays as the exact solvers take them: one observation a row, and the columns of a feature map."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mlefw.baseline.feature_map import (
    AUTO,
    FEW,
    LAST_LAYER,
    MOST_COEFFICIENTS,
    PIXELS,
    FeatureMap,
    all_inputs,
    principal_components,
)
from mlefw.baseline.ngram.unigram import Unigram
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import MAX_WORK, LeftOutError
from mlefw.head.base import Head
from mlefw.prior.base import Prior
from mlefw.rows.label_counts import label_counts
from mlefw.rows.rows import Rows, observation_rows
from mlefw.rows.shape import RowShape
from mlefw.rows.tokens import TokenRows


def null_rows(head: Head, rows: Rows, shape: RowShape) -> Rows:
    """The observations of rows of any shape as rows without inputs, with targets as the head takes them.

    Of tokens and pixels each kind is one row, and its weight is how often it occurs. Where some kind does not, ½ is
    added to each number, so that held-out rows have a finite NLL (Krichevsky & Trofimov, 1981).
    """
    if isinstance(rows, TokenRows) or shape.picture is not None:
        return _label_kinds(rows, head.eta_dim)
    flat = observation_rows(rows)
    # A column in the memory of one number becomes one of its own, which matrix products read faster.
    return flat._replace(y=head.as_target(flat.y), weight=flat.weight.contiguous(), offset=flat.offset.contiguous())


def _label_kinds(rows: Rows, num_labels: int) -> Rows:
    unigram = Unigram(label_counts(rows, num_labels))
    weight = torch.from_numpy(unigram.share * unigram.total)
    return Rows(weight.new_empty(num_labels, 0), torch.arange(num_labels), weight, torch.zeros_like(weight))


@dataclass(frozen=True)
class ArrayFeatures:
    """The features of the linear problem of rows of arrays, as `baseline.features` asks for them.

    Attributes:
        shape: the shape of a row.
        setting: `auto`, `pixels`, `last_layer`, or `pca:50` and the like.
        scale: standard deviation of each input as the model is given it, (num_features,).
        max_work: most multiplications for principal components.
    """

    shape: RowShape
    setting: str
    scale: Tensor
    max_work: float = MAX_WORK
    _found: dict[str, FeatureMap] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_of_network(self) -> bool:
        """Whether the features are those of the last layer of the network, known once it is trained."""
        return self.setting == LAST_LAYER

    def is_whole(self, eta_dim: int) -> bool:
        """Whether the features are all inputs of a row."""
        return self.chosen(eta_dim) == PIXELS

    def chosen(self, eta_dim: int) -> str:
        """The setting, where `auto` is all inputs if they have few coefficients, else 50 principal components."""
        if self.setting != AUTO:
            return self.setting
        return PIXELS if (self.shape.num_features + 1) * eta_dim <= MOST_COEFFICIENTS else FEW

    def map(self, train: Rows, setting: str) -> FeatureMap:
        """The feature map of a setting other than `auto`, from the training rows; computed once.

        Raises:
            LeftOutError: rows have positions or hold tokens, or are too large for principal components.
        """
        if self.shape.positions or self.shape.num_tokens is not None:
            raise LeftOutError(f"a linear model of rows of {self.shape} has no exact estimate")
        if setting not in self._found:
            found = all_inputs(self.shape)
            if setting != PIXELS:
                found = principal_components(train, self.shape, self.scale, setting, self.max_work)
            self._found[setting] = found
        return self._found[setting]

    def problem(
        self, head: Head, train: Rows, mean: Tensor, scale: Tensor, prior: Prior, setting: str | None = None
    ) -> Problem:
        """The linear problem of rows of arrays.

        Args:
            head: the head of the run.
            train: the training rows.
            mean: mean of each input, (num_features,), where all inputs are the columns.
            scale: standard deviation of each input, (num_features,), likewise.
            prior: prior of the weights.
            setting: features in place of those asked for.

        Raises:
            LeftOutError: as `map`.
        """
        features = self.map(train, setting or self.chosen(head.eta_dim))
        if not features.is_whole:
            mean, scale = mean.new_zeros(features.num_columns), scale.new_ones(features.num_columns)
        rows = null_rows(head, train, self.shape)._replace(x=features.rows(train).x)
        return Problem.of(head, rows, mean, scale, prior, features)


def as_columns(statistic: Tensor, shape: RowShape) -> Tensor:
    """The mean or scale of each input of a row, (num_features,), from one of channels that broadcasts over a row."""
    if shape.is_table:
        return statistic
    if shape.num_tokens is not None:
        return statistic.new_zeros(shape.num_features)
    return statistic.expand(shape.input_shape).flatten().clone()


class LinearOfArrays(nn.Module):
    """A linear model of the columns of a feature map, standardised, or without columns a constant; in float64.

    Shapes: x (n, *input_shape) → (n, *positions, eta_dim).

    Args:
        model: a linear model of (n, num_columns).
        mean: mean of each column, (num_columns,).
        scale: standard deviation of each column, (num_columns,).
        positions: shape of the observations of a row.
        features: the feature map; None for the null model, which has no columns.
    """

    mean: Tensor
    scale: Tensor
    inputs: None = None

    def __init__(
        self,
        model: nn.Module,
        mean: Tensor,
        scale: Tensor,
        positions: tuple[int, ...],
        features: FeatureMap | None = None,
    ) -> None:
        super().__init__()
        self.model, self.positions, self.features = model, positions, features
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the model; without columns it is the same for all rows and positions."""
        if self.features is None:
            constant: Tensor = self.model(self.mean.new_zeros(1, self.mean.numel()))
            return constant.expand(len(x), *self.positions, constant.shape[-1])
        return self.model((self.features.columns(x) - self.mean) / self.scale)
