"""Rows of arrays as the exact solvers take them: one observation a row, and inputs as columns in 64 bit."""

import torch
from torch import Tensor, nn

from mlefw.baseline.ngram.unigram import Unigram
from mlefw.baseline.work import LeftOutError
from mlefw.head.base import Head
from mlefw.rows.rows import Rows, observation_rows
from mlefw.rows.scored_tokens import scored_counts
from mlefw.rows.shape import RowShape
from mlefw.rows.tokens import TokenRows

MOST_COEFFICIENTS = 3_000
"""Coefficients of a linear model of all inputs of a row, up to which its estimate is computed."""


def null_rows(head: Head, rows: Rows) -> Rows:
    """The observations of rows of any shape as rows without inputs, with targets as the head takes them.

    Of tokens each kind is one row, and its weight is how often it occurs. Where some token does not, ½ is added to each
    number, so that held-out rows have a finite NLL (Krichevsky & Trofimov, 1981).
    """
    if isinstance(rows, TokenRows):
        return _token_kinds(rows, head.eta_dim)
    flat = observation_rows(rows)
    # A column in the memory of one number becomes one of its own, which matrix products read faster.
    return flat._replace(y=head.as_target(flat.y), weight=flat.weight.contiguous(), offset=flat.offset.contiguous())


def _token_kinds(rows: TokenRows, num_tokens: int) -> Rows:
    unigram = Unigram(scored_counts(rows, num_tokens))
    weight = torch.from_numpy(unigram.share * unigram.total)
    return Rows(weight.new_empty(num_tokens, 0), torch.arange(num_tokens), weight, torch.zeros_like(weight))


def linear_rows(head: Head, rows: Rows, shape: RowShape) -> Rows:
    """Rows with all their inputs as columns, (n, num_features), float64.

    Raises:
        LeftOutError: rows have positions or hold tokens, or a linear model has too many coefficients.
    """
    if shape.positions or shape.num_tokens is not None:
        raise LeftOutError(f"a linear model of rows of {shape} has no exact estimate")
    count = (shape.num_features + 1) * head.eta_dim
    if count > MOST_COEFFICIENTS:
        raise LeftOutError(f"{count:,} coefficients of all inputs of a row are more than {MOST_COEFFICIENTS:,}")
    return null_rows(head, rows)._replace(x=rows.x.flatten(1).double())


def as_columns(statistic: Tensor, shape: RowShape) -> Tensor:
    """The mean or scale of each input of a row, (num_features,), from one of channels that broadcasts over a row."""
    if shape.is_table:
        return statistic
    if shape.num_tokens is not None:
        return statistic.new_zeros(shape.num_features)
    return statistic.expand(shape.input_shape).flatten().clone()


class LinearOfArrays(nn.Module):
    """A linear model of all inputs of a row, standardised, or without inputs a constant; in float64.

    Shapes: x (n, *input_shape) → (n, *positions, eta_dim).

    Args:
        model: a linear model of (n, num_features), where its weights are zero of any rows.
        mean: mean of each input, (num_features,).
        scale: standard deviation of each input, (num_features,).
        positions: shape of the observations of a row.
    """

    mean: Tensor
    scale: Tensor
    inputs: None = None

    def __init__(self, model: nn.Module, mean: Tensor, scale: Tensor, positions: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.positions = model, positions
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the model; at each position, of the means of the inputs, where rows have positions."""
        if self.positions or x[:1].numel() != self.mean.numel():
            constant: Tensor = self.model(self.mean.new_zeros(1, self.mean.numel()))
            return constant.expand(len(x), *self.positions, constant.shape[-1])
        return self.model((x.flatten(1).double() - self.mean) / self.scale)
