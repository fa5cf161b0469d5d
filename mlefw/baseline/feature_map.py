"""Feature maps: the columns that a linear model gets of rows of arrays, all their inputs or principal components."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from mlefw.baseline.derivatives import gram
from mlefw.baseline.work import LeftOutError, products_work
from mlefw.errors import UsageError
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape

AUTO, PIXELS, LAST_LAYER = "auto", "pixels", "last_layer"
"""Names of `baseline.features` beside `pca:50` and the like."""
FEW = "pca:50"
"""The features where all inputs have too many coefficients."""
MOST_COEFFICIENTS = 3_000
"""Coefficients of a linear model of all inputs, up to which `auto` takes them all."""
_MOST_AVERAGED = 4096
"""Inputs of a row above which neighbouring pixels are averaged before principal components are found."""
_NO_VARIANCE = 1e-12
"""Share of the largest variance below which the variance of a component is rounding error."""
_CELLS = 2**20
"""Numbers that are converted to 64 bit at a time."""


def num_components(setting: str) -> int | None:
    """The number of principal components that a setting such as `pca:50` names; None for another setting."""
    found = re.fullmatch(r"pca:([1-9]\d{0,5})", setting)
    return None if found is None else int(found.group(1))


def check_name(setting: str) -> str:
    """The setting, where it is the name of a feature map.

    Raises:
        UsageError: it is none.
    """
    if setting not in (AUTO, PIXELS, LAST_LAYER) and num_components(setting) is None:
        raise UsageError(
            f"baseline.features={setting!r}: expected a list of text or null, and of arrays also auto, pixels, "
            "last_layer or pca:50"
        )
    return setting


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Maps the inputs of a row to columns: all of them, or principal components of averages of neighbouring pixels.

    Principal components have mean zero and variance one in the training rows.

    Attributes:
        setting: `pixels`, `pca:50`, or `last_layer`, whose columns the network computes.
        shape: the shape of a row.
        pool: side of the blocks of pixels that are averaged first; 1 for none.
        center: mean of each averaged input, (num_averages,), float64; None for all inputs.
        vectors: weights of the components, (num_averages, num_components), float64; None for all inputs.
    """

    setting: str
    shape: RowShape
    pool: int = 1
    center: Tensor | None = None
    vectors: Tensor | None = None

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return self.shape.num_features if self.vectors is None else self.vectors.shape[1]

    @property
    def is_whole(self) -> bool:
        """Whether the columns are all inputs of a row."""
        return self.setting == PIXELS

    @property
    def words(self) -> str:
        """The columns in words: `50 principal components`."""
        if self.setting == LAST_LAYER:
            return "the last layer's features"
        if self.vectors is None:
            return f"{self.num_columns:,} {'pixels' if len(self.shape.input_shape) > 2 else 'inputs'}"
        averages = f" of means of {self.pool} x {self.pool} pixels" if self.pool > 1 else ""
        return f"{self.num_columns:,} principal component{'' if self.num_columns == 1 else 's'}{averages}"

    def names(self, inputs: Sequence[str], count: int) -> list[str]:
        """A name for each of `count` columns, given the names of the inputs of a row."""
        if self.is_whole:
            return list(inputs)
        kind = "feature" if self.setting == LAST_LAYER else "component"
        return [f"{kind} {k + 1}" for k in range(count)]

    def columns(self, x: Tensor) -> Tensor:
        """The columns, (n, num_columns), of inputs x (n, *input_shape), in 64 bit."""
        if self.center is None or self.vectors is None:
            return x.flatten(1).double()
        return (averages(x, self.shape, self.pool) - self.center) @ self.vectors

    def rows(self, rows: Rows) -> Rows:
        """Rows with the columns in place of x, (n, num_columns): float64, or all inputs in a type of their own."""
        if self.vectors is None:
            flat = rows._replace(x=rows.x.flatten(1))
            # Half a gigabyte is converted once rather than in each pass; more would be too much to hold.
            return flat._replace(x=flat.x.double()) if flat.x.numel() <= 2**26 else flat
        found, start = rows.new_empty((self.num_columns,)), 0
        for block in rows.blocks(max(_CELLS // self.shape.num_features, 1)):
            found[start : start + block.num_rows] = self.columns(block.x)
            start += block.num_rows
        return rows._replace(x=found)

    def on_inputs(self, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The linear model of the components as one of all inputs, standardised by `mean` and `scale` (num_features,).

        Shapes: weight (eta_dim, num_columns) → (eta_dim, num_features); bias (eta_dim,).
        """
        if self.center is None or self.vectors is None:
            return weight, bias
        slopes = weight @ self.vectors.T
        # An average is linear: its slope is spread over the pixels of its block.
        spread = averages_adjoint(slopes, self.shape, self.pool)
        return spread * scale, bias + spread @ mean - slopes @ self.center

    def state(self) -> dict[str, Any]:
        """The map as plain values and tensors, for a checkpoint."""
        known: dict[str, Any] = {"setting": self.setting, "pool": self.pool}
        return known | ({} if self.center is None else {"center": self.center, "vectors": self.vectors})

    @classmethod
    def restore(cls, state: Any, shape: RowShape) -> "FeatureMap":
        """The map from the content of `state`, for rows of a shape.

        Raises:
            UsageError: it is not the content of `state`, or not for such rows.
        """
        setting = state.get("setting") if isinstance(state, dict) else None
        pool = state.get("pool") if isinstance(state, dict) else None
        if not isinstance(setting, str) or not isinstance(pool, int) or isinstance(pool, bool) or pool < 1:
            raise UsageError("the features of its exact estimates are not described")
        if setting in (PIXELS, LAST_LAYER):
            return cls(setting, shape)
        check_name(setting)
        center, vectors, count = state.get("center"), state.get("vectors"), prod(_averaged(shape, pool))
        for name, value, ndim in (("center", center, 1), ("vectors", vectors, 2)):
            right = isinstance(value, Tensor) and value.dtype == torch.float64 and value.ndim == ndim
            if not right or len(value) != count or not bool(value.isfinite().all()):
                raise UsageError(f"{name} of the features of its exact estimates is no finite tensor of {count} values")
        return cls(setting, shape, pool, center, vectors)


def all_inputs(shape: RowShape) -> FeatureMap:
    """The map to all inputs of a row."""
    return FeatureMap(PIXELS, shape)


def principal_components(
    train: Rows, shape: RowShape, scale: Tensor, setting: str, max_work: float = float("inf")
) -> FeatureMap:
    """The map to the first principal components of the training rows, each of variance one.

    They are the eigenvectors of the weighted covariance of the inputs, standardised by channel, in 64 bit, each with
    the sign that makes its largest entry positive; those without variance are left out. Where a row has more than 4,096
    inputs, or the covariance takes more than `max_work` multiplications, blocks of pixels are averaged first.

    Args:
        train: the training rows.
        shape: the shape of a row.
        scale: standard deviation of each input, (num_features,).
        setting: `pca:50` and the like.
        max_work: most multiplications.

    Raises:
        LeftOutError: no average is small enough.
    """
    count = num_components(setting)
    assert count is not None
    pool = _pool(shape, train.num_rows, max_work)
    center, covariance = _moments(train, shape, pool)
    unit = averages(scale.view(1, *shape.input_shape), shape, pool)[0]
    size = len(center)
    first = max(size - count, 0)
    scaled = (covariance / unit / unit.unsqueeze(1)).numpy()
    values, vectors = scipy.linalg.eigh(scaled, subset_by_index=[first, size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _NO_VARIANCE * max(values[0], 0.0)
    values, vectors = values[kept], vectors[:, kept]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(len(values))]
    weights = torch.from_numpy(vectors * np.sign(largest) / np.sqrt(values)) / unit.unsqueeze(1)
    return FeatureMap(setting, shape, pool, center, weights.contiguous())


def averages(x: Tensor, shape: RowShape, pool: int) -> Tensor:
    """Means over blocks of `pool` pixels along each dimension but that of channels, (n, num_averages), in 64 bit.

    Blocks at the end are smaller where `pool` does not divide the number of pixels.
    """
    found = x.double()
    for d in _spatial(shape) if pool > 1 else ():
        matrix = _averaging(shape.input_shape[d], pool)
        found = (found.movedim(d + 1, -1) @ matrix.T).movedim(-1, d + 1)
    return found.flatten(1)


def averages_adjoint(slopes: Tensor, shape: RowShape, pool: int) -> Tensor:
    """Slopes on averages, (k, num_averages), as slopes on all inputs, (k, num_features)."""
    found = slopes.view(-1, *_averaged(shape, pool))
    for d in _spatial(shape) if pool > 1 else ():
        matrix = _averaging(shape.input_shape[d], pool)
        found = (found.movedim(d + 1, -1) @ matrix).movedim(-1, d + 1)
    return found.flatten(1)


def _averaging(size: int, pool: int) -> Tensor:
    """The matrix that averages blocks of `pool` out of `size` values, (number of blocks, size)."""
    block = torch.arange(size) // pool
    matrix = torch.nn.functional.one_hot(block).T.double()
    return matrix / matrix.sum(1, keepdim=True)


def _spatial(shape: RowShape) -> list[int]:
    """The dimensions of input_shape that count pixels, and not channels."""
    dims = list(range(len(shape.input_shape)))
    return [d for d in dims if shape.channel_dim is None or d != dims[shape.channel_dim]]


def _averaged(shape: RowShape, pool: int) -> tuple[int, ...]:
    """The shape of a row after averaging."""
    spatial = _spatial(shape)
    return tuple(ceil(size / pool) if d in spatial else size for d, size in enumerate(shape.input_shape))


def _pool(shape: RowShape, num_rows: int, max_work: float) -> int:
    """The smallest side of the blocks with which covariances are not too large.

    Raises:
        LeftOutError: there is none.
    """
    for pool in range(1, max(shape.input_shape) + 1):
        size = prod(_averaged(shape, pool))
        if size <= _MOST_AVERAGED and products_work(num_rows, size) <= max_work:
            return pool
    raise LeftOutError(
        f"principal components of rows of {shape} take too many multiplications (baseline.max_work={max_work:g})"
    )


def _moments(train: Rows, shape: RowShape, pool: int) -> tuple[Tensor, Tensor]:
    """Weighted mean (p,) and covariance (p, p) of the averages of the inputs, divided by the sum of weights."""
    size = prod(_averaged(shape, pool))
    block, total = max(_CELLS // shape.num_features, 1), train.population
    mean, covariance = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for rows in train.blocks(block):
        mean += rows.weight @ averages(rows.x, shape, pool) / total
    scratch = torch.empty(min(block, train.num_rows), size, dtype=torch.float64)
    for rows in train.blocks(block):
        away = averages(rows.x, shape, pool) - mean
        covariance += gram(away, rows.weight, scratch[: rows.num_rows])
    return mean, covariance / total
