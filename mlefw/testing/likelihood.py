"""Conformance checks of the density of a head and its derivatives."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.testing.conformance import Check
from mlefw.testing.expectation import Nodes
from mlefw.testing.head_case import HeadCase, has_kinks

_SEVERAL_DRAWS = 2**14
"""Draws for importance sampling of a joint density."""
_TAIL = 1e-40
"""Mass below which an infinite derivative is ignored."""
_SPECIAL = 1e-7
"""Relative error of second derivatives of special functions in torch."""


def density_sums_to_one(case: HeadCase) -> Iterator[str]:
    """The density integrates, or the mass sums, to one over the support, so that all constants are included.

    For a composite likelihood the integral is at most one.
    """
    if case.nodes and not case.resolved:
        yield "its integral over y could not be computed at any eta: give `etas` at which the tails are lighter"
    for nodes in case.resolved:
        if case.head.composite and not nodes.total <= 1 + case.tolerance:
            yield f"{at(nodes)} it comes to {nodes.total:.6g}, expected at most 1 + {case.tolerance:.0e}"
        elif case.head.composite:
            continue
        elif not abs(nodes.total - 1) <= case.tolerance and not _has_atoms(case, nodes):
            yield f"{at(nodes)} it comes to {nodes.total:.6g}, expected 1 ± {case.tolerance:.0e}"


def _has_atoms(case: HeadCase, nodes: Nodes) -> bool:
    """Whether the missing mass is that of single points: ends of the support, or values that are drawn repeatedly."""
    head, ends = case.head, []
    for name in ("lower_bound", "upper_bound"):
        end = getattr(head.support, name, None)
        ends += [float(end)] if end is not None and math.isfinite(float(end)) else []
    points = torch.tensor(ends, dtype=torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values, counts = head.distribution(nodes.eta).sample(torch.Size([512])).double().unique(return_counts=True)
        points = torch.cat([points, values[counts > 1]]).unique()
    except NotImplementedError:
        pass
    points = points[head.support.check(points)] if len(points) else points
    if not len(points):
        return False
    mass = (-head.nll_complete(nodes.eta.expand(len(points), -1), points)).exp()
    return abs(nodes.total + float(mass.sum()) - 1) <= max(case.tolerance, 1e-3)


def joint_density_integrates_to_one(case: HeadCase) -> Iterator[str]:
    """The density of several continuous targets integrates to one, by importance sampling within 6 standard errors."""
    head = case.head
    if not head.event_shape:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for eta in case.etas:
            drawn = head.distribution(eta).sample(torch.Size([4096])).reshape(4096, -1).double()
            if bool((drawn == drawn.round()).all(0).any()) or int(torch.linalg.matrix_rank(drawn.T.cov())) < len(
                drawn.T
            ):
                continue  # some target is discrete, or a function of others: there is no joint density
            middle, root = drawn.mean(0), torch.linalg.cholesky(drawn.T.cov())
            ratio = _importance(head, eta, middle, root)
            mean, error = float(ratio.mean()), float(ratio.std()) / math.sqrt(len(ratio))
            if not abs(mean - 1) <= max(6 * error, 1e-3):
                yield f"at eta={_numbers(eta)} it comes to {mean:.4g} ± {error:.2g}, expected 1"


def _importance(head: Head, eta: Tensor, middle: Tensor, root: Tensor) -> Tensor:
    """Ratio of the density to that of a multivariate t distribution about the draws, at draws of the latter, (n,)."""
    dim, df = len(middle), 5.0
    normal = torch.randn(_SEVERAL_DRAWS, dim, dtype=torch.float64)
    u = normal / (torch.distributions.Chi2(df).sample((_SEVERAL_DRAWS, 1)).double() / df).sqrt()
    y = (middle + u @ root.T).reshape(-1, *head.event_shape)
    inside = head.support.check(y)
    log = torch.full((_SEVERAL_DRAWS,), -math.inf, dtype=torch.float64)
    log[inside] = -head.nll_complete(eta.expand(int(inside.sum()), -1), y[inside]).detach()
    constant = math.lgamma((df + dim) / 2) - math.lgamma(df / 2) - dim / 2 * math.log(math.pi * df)
    proposal = constant - (df + dim) / 2 * torch.log1p(u.square().sum(1) / df) - float(root.diagonal().log().sum())
    return (log - proposal).exp()


def score_has_mean_zero(case: HeadCase) -> Iterator[str]:
    """The expected derivative of the NLL in eta is zero, in units of its standard deviation."""
    for nodes in case.whole:
        score = _score(case.head, nodes)
        mean, square = nodes.mass @ score, nodes.mass @ score.square()
        # The score in a column that the density does not depend on is zero.
        off = torch.where(square > 0, mean.abs() / square.sqrt().clamp(min=1e-300), 0.0)
        room = 100 * case.tolerance if case.score is None else case.score
        if not bool((off <= room).all()):
            yield f"{at(nodes)} it is {_numbers(off)} standard deviations, expected 0 ± {room:.0e}"


def score_has_the_variance_of_the_mean_hessian(case: HeadCase) -> Iterator[str]:
    """E[score score'] = E[Hessian] for a density without kinks."""
    if has_kinks(case.head):
        return
    for nodes in case.whole:
        score, hessian = _score(case.head, nodes), _hessian(case.head, nodes.eta.expand(len(nodes.y), -1), nodes.y)
        variance = torch.einsum("n,ni,nj->ij", nodes.mass, score, score)
        mean = torch.einsum("n,nij->ij", nodes.mass, _finite(nodes, hessian))
        yield from _equal(nodes, "E[Hessian]", mean, variance, 1000 * case.tolerance + _SPECIAL)


def stated_information_is_the_variance_of_the_score(case: HeadCase) -> Iterator[str]:
    """`information`, if a head states it, is E[score score'] and has shape (*batch, columns, columns)."""
    head, columns = case.head, len(case.etas[0])
    for shape in ((), (5,), (2, 3)):
        found = head.information(case.etas[0].expand(*shape, -1))
        if found is not None and found.shape != (*shape, columns, columns):
            yield f"for eta {(*shape, columns)} it has shape {tuple(found.shape)}"
    for nodes in case.whole:
        information = head.information(nodes.eta.unsqueeze(0))
        if information is not None:
            score = _score(head, nodes)
            variance = torch.einsum("n,ni,nj->ij", nodes.mass, score, score)
            yield from _equal(nodes, "information", information[0].detach(), variance, 100 * case.tolerance + _SPECIAL)


def claimed_convexity_holds(case: HeadCase) -> Iterator[str]:
    """`convex = True`: the Hessian of the NLL in a complete eta is positive semidefinite."""
    head = case.head
    if not head.convex:
        return
    generator, y = torch.Generator().manual_seed(0), case.rows[1]
    raw = 3 * torch.randn(200, len(head.center), dtype=torch.float64, generator=generator)
    eta = head.center + head.gain * raw
    which = torch.randint(len(y), (200,), generator=generator)
    eigenvalues = torch.linalg.eigvalsh(_hessian(head, eta, y[which]))
    least = eigenvalues[:, 0] / eigenvalues.abs().amax(-1).clamp(min=1e-300)
    # A second derivative that is zero (of a mean that is eta itself) is computed as one of either sign.
    if not bool(((least >= -0.1 * case.tolerance) | (eigenvalues[:, 0] >= -1e-14)).all()):
        at = int(least.argmin())
        yield f"at eta={_numbers(eta[at])}, y={float(y[which][at]):.4g} a second derivative is {eigenvalues[at, 0]:.3g}"


def claimed_reference_holds(case: HeadCase) -> Iterator[str]:
    """`reference` is stated if and only if adding one number to all eta columns does not change the NLL."""
    eta, y = case.rows
    is_same = torch.allclose(case.head.nll_complete(eta + 1.7, y), case.head.nll_complete(eta, y), rtol=1e-12)
    if is_same != (case.head.reference is not None) and not case.head.event_shape:
        found = "the same" if is_same else "another"
        yield f"reference is {case.head.reference}, and the NLL with 1.7 added to eta is {found}"


def _score(head: Head, nodes: Nodes) -> Tensor:
    """The gradient of the NLL in eta at every node, (m, columns)."""
    eta = nodes.eta.expand(len(nodes.y), -1).clone().requires_grad_()
    return _finite(nodes, torch.autograd.grad(head.nll_complete(eta, nodes.y).sum(), eta)[0])


def _finite(nodes: Nodes, values: Tensor) -> Tensor:
    """Values (m, …) at nodes, with infinite ones in tails of negligible mass set to zero."""
    is_tail = (nodes.mass < _TAIL).reshape(-1, *(1 for _ in values.shape[1:]))
    return torch.where(is_tail & ~values.isfinite(), 0.0, values)


def _hessian(head: Head, eta: Tensor, y: Tensor) -> Tensor:
    """The Hessian of each row's NLL in its complete eta, (n, columns, columns)."""
    eta = eta.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(head.nll_complete(eta, y).sum(), eta, create_graph=True)
    if not slope.requires_grad:
        return eta.new_zeros(*eta.shape, eta.shape[-1])
    rows = [
        torch.autograd.grad(column.sum(), eta, retain_graph=True, allow_unused=True)[0] for column in slope.unbind(-1)
    ]
    return torch.stack([torch.zeros_like(eta) if row is None else row for row in rows], 1).detach()


def _equal(nodes: Nodes, what: str, found: Tensor, variance: Tensor, tolerance: float) -> Iterator[str]:
    # A column that the density does not depend on has a variance of zero.
    scale = torch.where(variance.diagonal() > 0, variance.diagonal().sqrt(), 1.0)
    off = float(((found - variance) / torch.outer(scale, scale)).abs().max())
    if not off <= tolerance:
        yield f"{at(nodes)} {what} is off by {off:.3g} on a unit diagonal, expected {tolerance:.0e} at most"


def at(nodes: Nodes) -> str:
    """The beginning of a message: the eta at which a rule is broken."""
    return f"at eta={_numbers(nodes.eta)}"


def _numbers(values: Tensor) -> str:
    return "[" + ", ".join(f"{float(value):.4g}" for value in values) + "]"


CHECKS: tuple[Check[HeadCase], ...] = (
    density_sums_to_one,
    joint_density_integrates_to_one,
    score_has_mean_zero,
    score_has_the_variance_of_the_mean_hessian,
    stated_information_is_the_variance_of_the_score,
    claimed_convexity_holds,
    claimed_reference_holds,
)
