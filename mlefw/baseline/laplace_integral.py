"""Laplace's approximation of the restricted or marginal likelihood of any head with normal priors (Wood, 2011)."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, diags_array
from torch import Tensor

from mlefw.baseline.eta_rows import Array, EtaRows
from mlefw.baseline.gaussian_integral import log_units
from mlefw.baseline.newton import Newton, absolute_solve, positive_inverse
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Criterion, NaturalUnits, RandomBlock, at_precision, split_scales
from mlefw.baseline.sparse_factor import Factor, factor_of

_INNER_STEPS = 60
"""Most Newton steps of the penalised estimate at given scales, from that at other scales."""
_SETTLED = 1e-9
"""Nats that a Newton step has to gain below which it is the last: the one after it would gain their square."""


class State(NamedTuple):
    """The penalised estimate of what is integrated out at a point, with what the criterion takes from it.

    Attributes:
        theta: the free entries of theta, (num_free,).
        z: the numbers v of coefficients with a prior, all others in units of `root`, (num_free,).
        root: the map of z to theta, (num_free, num_free).
        slope: the gradient of the NLL in theta, in nats, (num_free,).
        hessian: its Hessian, (num_free, num_free).
        factor: the factor of the Hessian in z with that of the priors, over what is integrated out.
        value: the criterion, in nats.
    """

    theta: Array
    z: Array
    root: csr_array
    slope: Array
    hessian: csc_array
    factor: Factor
    value: float


class LaplaceIntegral:
    """The criterion and its gradient in scales and, of `ml`, in the coefficients without a prior.

    `ml` integrates out the coefficients that have a prior, and is maximised over all others and the scales together;
    `reml` integrates out all coefficients. A point is the scales in natural units (see `NaturalUnits`), then the others
    as numbers u that are about standard normal under the likelihood, counted from an estimate at middling scales.
    Coefficients with a prior are taken as a root of their covariance times numbers v that are standard normal: so
    nothing grows without bound where a variance goes to zero, or a correlation to one. The estimate of the last call is
    the start of the next.
    """

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.free, self.rows = problem, problem.free.numpy(), EtaRows(problem)
        units, order = log_units(problem).exp(), problem.free.cumsum(0) - 1
        self.places = [order[place] for place in problem.places()]
        own = np.zeros(len(units))
        for place in self.places:
            own[place.numpy()] = 1.0
        self.own = own
        # Which coefficients are integrated out, among the free ones.
        self.inside = own > 0 if criterion == "ml" else np.ones(len(own), dtype=bool)
        is_flat = self.inside & (own == 0)
        self.units = np.where(self.inside, units.numpy(), 1.0)
        self.constant = -0.5 * math.log(2 * math.pi) * int(is_flat.sum())
        self.natural = self._natural(units)
        self.num_scales = len(self.natural.shift)
        middle = self.natural.scales(at_precision(problem.blocks_of_terms, 2.0))
        self._begin(middle)

    def _natural(self, units: Tensor) -> NaturalUnits:
        """Units of the scales by what the rows tell of a coefficient at the null model."""
        hessian = self.rows.hessian(self.rows.at(np.zeros(len(units))).curvature)
        information = torch.from_numpy(hessian.diagonal().copy()) / units.square()
        return NaturalUnits.of(self.problem.blocks_of_terms, [information[at].clamp(min=0) for at in self.places])

    def _begin(self, middle: Tensor) -> None:
        """The start of inner estimates, and the units of the coefficients that are not integrated out."""
        begin = Newton().solve(replace(self.problem, rho=middle))
        theta, free = begin.theta[self.problem.free], self.problem.free
        self.center = theta.numpy()[~self.inside]
        self.z, self.diagonal = np.where(self.own > 0, 0.0, theta.numpy() * self.units), np.ones_like(self.own)
        count = len(self.center)
        inverse = positive_inverse(self.problem.population * begin.derivatives.hessian[free][:, free])
        outer = torch.from_numpy(~self.inside)
        factor, failed = torch.linalg.cholesky_ex(
            torch.eye(count, dtype=torch.float64) if inverse is None else inverse[outer][:, outer]
        )
        self.unit = np.eye(count) if bool(failed) else factor.numpy()

    def scales(self, x: Array) -> Tensor:
        """The scales at a point, in the units of the columns."""
        return self.natural.scales(torch.from_numpy(x[: self.num_scales]))

    def value(self, x: Array) -> tuple[float, Array]:
        """The criterion and its gradient; infinity where the Hessian is not positive definite."""
        state = self.state(x)
        if state is None:
            return math.inf, np.zeros_like(x)
        self.z, self.diagonal = state.z, state.root.diagonal()
        return state.value, self._gradient(x, state)

    def state(self, x: Array) -> State | None:
        """The penalised estimate at a point; None where the Hessian is not positive definite."""
        root, inside = self._root(x), self.inside
        z = self._first(root, self.center + self.unit @ x[self.num_scales :])
        is_last = False
        for _ in range(_INNER_STEPS):
            theta = root @ z
            here = self.rows.at(theta)
            if not (math.isfinite(here.value) and np.isfinite(here.slope).all() and np.isfinite(here.curvature).all()):
                return None
            slope = self.rows.gradient(here.slope) + self.rows.ridge * theta
            hessian = self.rows.hessian(here.curvature)
            pull = (root.T @ slope + self.own * z)[inside]
            whole = (root.T @ hessian @ root + diags_array(self.own)).tocsc()[inside][:, inside]
            factor = factor_of(whole)
            if is_last and factor is not None:
                break
            step = factor.solve(pull) if factor is not None else _absolute(whole.toarray(), pull)
            gain = float(pull @ step)
            is_last = gain < _SETTLED
            moved = self._searched(root, z, step, here.value, gain, is_last)
            if moved is None:
                return None
            z = moved
        else:
            return None
        value = here.value + 0.5 * float(self.own @ z**2) + factor.half_log_det
        return State(theta, z, root, slope, hessian, factor, value + self.constant)

    def _first(self, root: csr_array, outer: Array) -> Array:
        """The best of three starts: the numbers of the last call, its effects, or no effects."""
        z, ratio = self.z.copy(), self.diagonal / root.diagonal()
        z[~self.inside] = outer
        starts = (z, np.where(self.own > 0, ratio * z, z), np.where(self.own > 0, 0.0, z))
        return min(starts, key=lambda one: self._penalised(root, one))

    def _penalised(self, root: csr_array, z: Array) -> float:
        """The penalised NLL; infinity where it is not a number."""
        found = self.rows.value(root @ z) + 0.5 * float(self.own @ z**2)
        return found if math.isfinite(found) else math.inf

    def _searched(
        self, root: csr_array, z: Array, step: Array, value: float, gain: float, is_last: bool
    ) -> Array | None:
        """The end of a step, halved until the penalised NLL falls; None if it never does."""
        before = value + 0.5 * float(self.own @ z**2)
        for halving in range(40):
            moved = z.copy()
            moved[self.inside] -= 0.5**halving * step
            if is_last:
                return moved
            if self._penalised(root, moved) <= before - 1e-4 * 0.5**halving * gain + 1e-13 * abs(before):
                return moved
        return None

    def _gradient(self, x: Array, state: State) -> Array:
        """The gradient at a point: of the penalised NLL, of the determinant, and of the estimate, which moves with it.

        With w the step in z by which the determinant's slope would move the estimate, it is that of the NLL plus
        determinant less H w: the third derivatives of the NLL are needed once, whatever the number of scales.
        """
        inside, root = self.inside, state.root
        inverse = self._inverse(state)
        slope = self.rows.slope_of_trace(state.theta, root @ (root @ inverse).T)
        step = inverse @ (root.T @ slope)
        whole = state.slope + slope - state.hessian @ (root @ step)
        pulled = (state.hessian @ root).tocsr()
        gradient = np.zeros_like(x)
        for k, (rows, columns, values) in enumerate(self._entries(x)):
            gradient[k] = values @ (whole[rows] * state.z[columns] - state.slope[rows] * step[columns])
            gradient[k] += values @ (pulled[rows] * inverse[columns]).sum(1)
        gradient[self.num_scales :] = self.unit.T @ whole[~inside]
        return gradient

    def covariance(self, state: State, outer: Array) -> Tensor:
        """The covariance of theta, (size, size): what is integrated out has its own and that by the others' errors.

        Args:
            state: the penalised estimate.
            outer: the covariance of the numbers u, (num_outer, num_outer).
        """
        inside, root = self.inside, state.root
        moves = np.zeros((len(self.own), len(outer)))
        moves[~inside] = self.unit
        pull = (root.T @ (state.hessian @ moves))[inside]
        inverse = self._inverse(state)
        back = np.zeros_like(moves)
        back[inside] = state.factor.solve(pull)
        moves = moves - root @ back
        found = root @ (root @ inverse).T + moves @ outer @ moves.T
        whole = torch.zeros(self.problem.size, self.problem.size, dtype=torch.float64)
        at = self.problem.free.nonzero().squeeze(1)
        whole[at.unsqueeze(1), at] = torch.from_numpy(found)
        return whole

    def _inverse(self, state: State) -> Array:
        """The inverse of the Hessian in z with that of the priors, zero in what is not integrated out."""
        found = np.zeros(state.hessian.shape)
        found[np.ix_(self.inside, self.inside)] = state.factor.solve(np.eye(int(self.inside.sum())))
        return found

    def _root(self, x: Array) -> csr_array:
        """The map of z to the free entries of theta; one over the unit where there is no prior."""
        flat = np.flatnonzero(self.own == 0)
        rows, columns, values = [flat], [flat], [1 / self.units[flat]]
        for block, place, own in self._blocks(x):
            lower, at = block.root(own).numpy(), place.view(block.num_effects, -1).numpy()
            for i, j in zip(*np.tril_indices(block.num_effects), strict=True):
                rows, columns = [*rows, at[i]], [*columns, at[j]]
                values.append(lower[i, j] / self.units[at[i]])
        size = len(self.own)
        return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size))

    def _entries(self, x: Array) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Array]]:
        """Rows, columns and values of the derivative of the map in each scale."""
        factors = iter(self.natural.factor.tolist())
        for block, place, own in self._blocks(x):
            at, below = place.view(block.num_effects, -1).numpy(), np.tril_indices(block.num_effects, -1)
            sizes = (-0.5 * (-0.5 * own[: block.num_effects]).exp()).tolist()
            entries = [(k, k, size) for k, size in enumerate(sizes)]
            for i, j, size in [*entries, *((int(i), int(j), 1.0) for i, j in zip(*below, strict=True))]:
                yield at[i], at[j], size * next(factors) / self.units[at[i]]

    def _blocks(self, x: Array) -> Iterator[tuple[RandomBlock, Tensor, Tensor]]:
        """Each term with the places of its coefficients among the free ones, and its scales."""
        blocks = self.problem.blocks_of_terms
        return zip(blocks, self.places, split_scales(blocks, self.scales(x)), strict=True)


def _absolute(matrix: Array, slope: Array) -> Array:
    """The step of a descent where a Hessian is not positive definite."""
    found: Array = absolute_solve(torch.from_numpy(matrix), torch.from_numpy(slope)).numpy()
    return found
