"""A linear problem that is a special case of another one: whether it is, by column spaces, and where it lies in it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import RandomBlock

_CONTAINED = 1e-8
"""Share of the norm of a column, left over by the columns of the larger design, up to which it is contained."""


@dataclass(frozen=True)
class Embedding:
    """The parameters of a smaller problem as parameters of a larger one: theta = origin + matrix @ gamma.

    Attributes:
        origin: (size of the larger problem,).
        matrix: (size of the larger problem, size of the smaller one), zero for entries that are not free.
    """

    origin: Tensor
    matrix: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """The point of the larger problem with the predictions of `theta` of the smaller one."""
        return self.origin + self.matrix @ theta


def embedding(small: Problem, large: Problem) -> Embedding | str:
    """The smaller problem within the larger, or why it is no special case: a clause about the smaller.

    Each distribution parameter is compared by the space of its columns on the rows, not by names: other reference
    levels, or a polynomial in place of powers, make no difference. A shared parameter has a column of ones.
    """
    reason = different(small, large)
    if reason is not None:
        return reason
    names_small, names_large = (p.head.eta_names + p.head.shared_names for p in (small, large))
    triangle = _triangle(small, large)
    width = large.num_active + 1
    of_large, of_small = triangle[:, :width], torch.cat([triangle[:, width:], triangle[:, width - 1 : width]], 1)
    origin = torch.zeros(large.size, dtype=torch.float64)
    matrix = torch.zeros(large.size, small.size, dtype=torch.float64)
    for name in names_small:
        k, j = names_small.index(name), names_large.index(name)
        index_small, columns_small = _entries(small, k)
        index_large, columns_large = _entries(large, j)
        moved = float(small.head.center[k] - large.head.center[j]) / float(large.head.gain[j])
        # The last column is the intercept's, by which the two heads may count eta from another place.
        wanted = torch.cat([of_small[:, columns_small], moved * of_small[:, -1:]], 1)
        found = _coefficients(of_large[:, columns_large], wanted)
        if found is None:
            return f"its columns of {name} are not in the space of the other's"
        matrix[index_large.unsqueeze(1), index_small] = float(small.head.gain[k] / large.head.gain[j]) * found[:, :-1]
        origin[index_large] = found[:, -1]
    return Embedding(origin, matrix)


def nested_effects(small: Problem, large: Problem) -> str | None:
    """Why a smaller model with smooth terms or effects of groups is no special case by marginal likelihood, or None.

    Its other columns have to be in the space of the larger model's other columns, and each of its terms within a term
    of the larger model: the same columns, without effects or correlations that are zero in the smaller one.
    """
    within = embedding(without_effects(small), without_effects(large))
    if isinstance(within, str):
        return within
    left = [(large_block, _columns(large, large_block)) for large_block in large.blocks_of_terms]
    for block in small.blocks_of_terms:
        for place, (other, columns) in enumerate(left):
            rest = list(columns)
            for wanted in _columns(small, block):
                at = next((k for k, one in enumerate(rest) if torch.equal(one, wanted)), None)
                if at is None or block.parameter != other.parameter:
                    break
                del rest[at]
            else:
                left[place] = (other, rest)
                break
        else:
            return f"its term {block.label} of {block.parameter} is not among the other's"
    return None


def without_effects(problem: Problem) -> Problem:
    """The problem without the columns of its smooth terms and effects of groups that have a prior."""
    if not problem.blocks_of_terms:
        return problem
    used = torch.ones(problem.head.eta_dim, problem.rows.x.shape[1] + 1, dtype=torch.bool)
    used = used if problem.used is None else problem.used.clone()
    for block in problem.blocks_of_terms:
        used[block.column, list(block.features)] = False
    return replace(problem, used=used, blocks_of_terms=(), rho=None)


def _columns(problem: Problem, block: RandomBlock) -> list[Tensor]:
    """The columns of each effect of a term, (n, num_groups)."""
    return list(problem.rows.x[:, list(block.features)].split(block.num_groups, 1))


def different(small: Problem, large: Problem) -> str | None:
    """Why two problems are not of the same rows and distribution, or None."""
    if type(small.head) is not type(large.head):
        return f"heads differ ({type(small.head).__name__} and {type(large.head).__name__}): paired NLL compares them"
    if {*small.head.eta_names, *small.head.shared_names} != {*large.head.eta_names, *large.head.shared_names}:
        return "other parameters of the distribution are learnt"
    if small.rows.num_rows != large.rows.num_rows:
        return f"rows differ ({small.rows.num_rows} and {large.rows.num_rows})"
    for left, right in zip(small.rows.blocks(2**16), large.rows.blocks(2**16), strict=True):
        for name, value in left._asdict().items():
            if name != "x" and not _equal(value, getattr(right, name)):
                return f"{ {'y': 'targets', 'weight': 'weights', 'offset': 'offsets'}.get(name, name) } differ"
    return None


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def _entries(problem: Problem, k: int) -> tuple[Tensor, Tensor]:
    """Free entries of theta of a column of the complete eta, and their columns of the design."""
    width, eta_dim = problem.num_active + 1, problem.head.eta_dim
    is_shared = k >= eta_dim
    start = eta_dim * width + k - eta_dim if is_shared else k * width
    free = problem.free[start : start + (1 if is_shared else width)].nonzero().squeeze(1)
    return start + free, free + width - 1 if is_shared else free


def _triangle(small: Problem, large: Problem) -> Tensor:
    """R of the larger design, intercept included, beside the features of the smaller one, over the rows that count."""
    width = large.num_active + 1 + small.num_active
    triangle = torch.zeros(0, width, dtype=torch.float64)
    size = max(2**20 // width, 2 * width)
    for left, right in zip(large.rows.blocks(size), small.rows.blocks(size), strict=True):
        both = torch.cat([large.design(left), small.design(right)[:, :-1]], 1)[left.weight > 0]
        triangle = torch.linalg.qr(torch.cat([triangle, both]), mode="r").R
    return triangle


def _coefficients(inside: Tensor, outside: Tensor) -> Tensor | None:
    """Coefficients of columns in terms of others, or None if they are not in their space."""
    found = outside.new_zeros(inside.shape[1], outside.shape[1])
    if inside.numel():
        found = torch.linalg.lstsq(inside, outside, driver="gelsd").solution
    rest, size = (outside - inside @ found).norm(dim=0), outside.norm(dim=0)
    return found if bool((rest <= _CONTAINED * size).all()) else None
