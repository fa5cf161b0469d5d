"""The information of single rows of a problem, and a table of expected ones for many rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives
from mlefw.baseline.expected import expected_information
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.rows.rows import Rows

Kind = Literal["observed", "expected"]

_NODES = (17, 33, 65)
"""Numbers of nodes in each dimension of a table."""
_MOST_VARYING = 2
"""Most columns of eta that vary over the rows for which a table is made."""
_CHECKED = 32
"""Rows at which a table is compared with the expectation itself."""
_ACCURATE = 1e-8
"""Error of a table, as a share of the information, up to which it is used."""

RowInformation = Callable[[Rows, Tensor], Tensor]
"""Maps a block of rows and their complete eta (n, K) to the information of each row in it, (n, K, K)."""


def row_information(problem: Problem, theta: Tensor, kind: Kind) -> RowInformation:
    """The function that gives the information of the rows of a problem at theta.

    The expected one of a negative binomial (NB2) with a shared dispersion has the observed curvature of that, as in
    R's `glm.nb`, where mean and dispersion are orthogonal.

    Raises:
        NotImplementedError: the head has no expected information, the message being a clause; perhaps only when the
            function is called.
    """
    head = problem.head
    if kind == "observed":
        return lambda rows, eta: row_derivatives(head, eta, rows.y)[2]
    if head.takes_trials:
        # The information of a row depends on its number of trials.
        rows, _, eta = next(iter(problem.etas(theta)))
        if head.information_given(eta, rows.y) is not None:
            return lambda rows, eta: _known(head.information_given(eta, rows.y))
    expected = _expected(problem, theta)
    if not (isinstance(head, NegativeBinomialHead) and head.shared_names == ("dispersion",) and _is_nb2(head)):
        return lambda rows, eta: expected(eta)

    def as_glm_nb(rows: Rows, eta: Tensor) -> Tensor:
        information = expected(eta).clone()
        information[:, -1] = information[:, :, -1] = 0.0
        information[:, -1, -1] = row_derivatives(head, eta, rows.y)[2][:, -1, -1]
        return information

    return as_glm_nb


def _known(information: Tensor | None) -> Tensor:
    assert information is not None
    return information


def _is_nb2(head: Head) -> bool:
    return getattr(head, "variance", "nb2") in ("nb2", 2, 2.0)


def _expected(problem: Problem, theta: Tensor) -> Callable[[Tensor], Tensor]:
    """The expected information by eta: in closed form, from a table where that is accurate, or row by row.

    It depends on eta alone, of which often one or two columns vary over the rows, while an expectation takes some
    hundred likelihoods.
    """
    direct = partial(expected_information, problem.head)
    some = problem.rows.take(slice(0, None, 1 + problem.rows.num_rows // _CHECKED))
    eta = torch.cat([block for _, _, block in replace(problem, rows=some).etas(theta)])
    if problem.head.information(eta[:1]) is not None:
        return direct
    ends = torch.stack([torch.stack([block.amin(0), block.amax(0)]) for _, _, block in problem.etas(theta)])
    low, high = ends[:, 0].amin(0), ends[:, 1].amax(0)
    varying = (high > low).nonzero().squeeze(1)
    exact = direct(eta)
    unit = exact.diagonal(dim1=1, dim2=2).sqrt()
    tolerance = _ACCURATE * unit.unsqueeze(2) * unit.unsqueeze(1)
    for count in _NODES:
        if not 0 < len(varying) <= _MOST_VARYING or 2 * count ** len(varying) > problem.rows.num_rows:
            break
        try:
            table = Table.of(direct, low, high, varying, count)
        except NotImplementedError:
            # At a corner of the table, where no row is.
            break
        if bool(((table(eta) - exact).abs() <= tolerance).all()):
            return table
    return direct


@dataclass(frozen=True)
class Table:
    """A function of eta by interpolation between Chebyshev points of the columns that vary (Berrut & Trefethen, 2004).

    Attributes:
        low, high: ends of the columns that vary, (d,).
        varying: these columns, (d,).
        nodes: Chebyshev points on [−1, 1], (m,).
        values: the function at all combinations of nodes, (m, *value) for d = 1, (m, m, *value) for d = 2.
    """

    low: Tensor
    high: Tensor
    varying: Tensor
    nodes: Tensor
    values: Tensor

    @classmethod
    def of(
        cls, function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, varying: Tensor, count: int
    ) -> "Table":
        """The table of a function of eta (n, K) on the box between `low` and `high`, each (K,).

        Args:
            function: the function.
            low: least eta.
            high: largest eta.
            varying: the columns with a low below their high, (d,).
            count: number of nodes in each of them.
        """
        nodes = (math.pi * torch.arange(count, dtype=low.dtype) / (count - 1)).cos()
        grids = torch.meshgrid(*[nodes] * len(varying), indexing="ij")
        eta = low.repeat(count ** len(varying), 1)
        for column, grid in zip(varying.tolist(), grids, strict=True):
            eta[:, column] = (low[column] + high[column]) / 2 + grid.reshape(-1) * (high[column] - low[column]) / 2
        values = function(eta)
        shape = (*[count] * len(varying), *values.shape[1:])
        return cls(low[varying], high[varying], varying, nodes, values.view(shape))

    def __call__(self, eta: Tensor) -> Tensor:
        """The function at eta (n, K), (n, *value)."""
        inside = (2 * eta[:, self.varying] - self.low - self.high) / (self.high - self.low)
        first = self._weights(inside[:, 0])
        if len(self.varying) == 1:
            return torch.tensordot(first, self.values, 1)
        between = torch.tensordot(first, self.values, 1)
        shares = self._weights(inside[:, 1])
        return (shares.view(*shares.shape, *[1] * (between.ndim - 2)) * between).sum(1)

    def _weights(self, t: Tensor) -> Tensor:
        """The share of each node in the value at t (n,), (n, m): the barycentric formula."""
        sign = torch.ones_like(self.nodes)
        sign[1::2] = -1
        sign[0], sign[-1] = sign[0] / 2, sign[-1] / 2
        distance = t.unsqueeze(1) - self.nodes
        hit = distance == 0
        shares = sign / torch.where(hit, 1.0, distance)
        shares = torch.where(hit.any(1, keepdim=True), hit.to(t.dtype), shares)
        return shares / shares.sum(1, keepdim=True)
