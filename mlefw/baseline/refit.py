"""The optimisation error of a network's last layer, by refitting it exactly on the frozen features before it."""

import math
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from mlefw.baseline.collinear import independent_columns
from mlefw.baseline.feature_map import LAST_LAYER, FeatureMap
from mlefw.baseline.linear import LinearBaseline, solver_for
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.starts import is_unimodal
from mlefw.baseline.work import LeftOutError
from mlefw.model.base import HasLastLayer
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized, feature_statistics
from mlefw.rows.tensor_inputs import StandardizedChannels

_MAX_WORK = 5e8
"""Most multiplications of one solver step, rows · (size of theta)², for which a refit is attempted."""
_ARRAYS = 256
"""Rows of arrays that pass through a network at a time."""
_STEPS = 25
"""Most steps of Newton's method if several columns are not jointly convex: it has a good start."""
_MAX_SECONDS = 30.0
"""Time limit of a refit."""
_ROUNDING = 1e-9
"""Relative size below which a difference is rounding error."""


def head_refit_gap(objective: Objective, train: Rows, max_work: float = _MAX_WORK) -> float | None:
    """The objective minus its minimum over the last layer and the shared parameters, in nats per row; at least 0.

    All other weights are fixed, so it is the optimisation error of the last layer: a network with a large gap to the
    exact estimate and a refit gap of zero lacks features, not training steps. The run's prior applies to the last
    layer in both terms. The minimum is taken without a floor of the scales. If the refitted likelihood has no maximum
    (separation), its infimum replaces the minimum. Where there may be several minima (a learnt spread beside a mean,
    say), it is the one that Newton's method comes to from the layer as it is.

    None if the model names no `last` layer with a bias, adds terms to the layer's output in more than one eta column,
    or needs more than `max_work`; or if neither a certified minimum nor the infimum is known.
    """
    try:
        problem = last_layer_problem(objective, train, objective.prior, max_work)
    except LeftOutError:
        return None
    # The network's own objective has its floor of the scales; the minimum has none.
    bound = replace(problem, head=deepcopy(problem.head))
    bound.head.floor.copy_(objective.head.floor)
    theta = _theta(_last(objective), objective.head.shared, problem.mean, problem.scale)
    now, least = bound.value(theta), _least(problem, theta)
    if least is None or now - least < -_ROUNDING * max(1.0, abs(now)) or not now < float("inf"):
        return None
    return max(now - least, 0.0)


def last_layer_problem(objective: Objective, train: Rows, prior: Prior, max_work: float = math.inf) -> Problem:
    """The linear problem on the inputs of the last layer of a network, all other weights of which are fixed.

    Under the network's own prior, which is on unscaled weights, the features are centred only; under another one they
    are standardised.

    Args:
        objective: the objective with the network.
        train: the training rows.
        prior: prior of the weights of the last layer.
        max_work: most multiplications of one solver step.

    Raises:
        LeftOutError: there is no such problem, or it takes too much.
    """
    last, head = _last(objective), objective.head
    if train.positions:
        raise LeftOutError("rows have positions")
    work = train.num_rows * (head.eta_dim * (last.in_features + 1) + head.shared_dim) ** 2
    work *= 1 if head.convex or head.eta_dim == 1 else _STEPS
    if work > max_work or last.out_features != head.eta_dim:
        raise LeftOutError("the last layer is too large, or has not one output for each column of eta")
    split = last_layer_features(objective.model, last, train)
    if split is None:
        raise LeftOutError("a row does not pass through the last layer exactly once")
    phi, rest = split
    if head.eta_dim > 1 and float(torch.stack(rest.aminmax()).abs().max()) > _ROUNDING:
        raise LeftOutError("the model adds to the output of its last layer")
    rows = train._replace(x=phi, y=head.as_target(train.y), offset=rest[:, 0].mul_(head.gain[0]).add_(train.offset))
    shape = getattr(objective.model, "shape", None)
    if len(train.input_shape) != 1:
        rows = rows._replace(weight=train.weight.contiguous())
    mean, scale = feature_statistics(rows, True)
    if not prior.flat and prior is objective.prior:
        # The prior is on unscaled weights; features may be centred, because biases have a flat prior.
        scale = torch.ones_like(scale)
    features = FeatureMap(LAST_LAYER, shape) if isinstance(shape, RowShape) else None
    return Problem.of(head, rows, mean, scale, prior, features)


def _last(objective: Objective) -> nn.Linear:
    """The last layer of a network.

    Raises:
        LeftOutError: the model names no `last` layer with a bias.
    """
    is_wrapped = isinstance(objective.model, Standardized | StandardizedChannels)
    model = objective.model.model if is_wrapped else objective.model
    if not isinstance(model, HasLastLayer) or not isinstance(model.last, nn.Linear) or model.last.bias is None:
        raise LeftOutError("the model names no linear layer `last` with a bias")
    return model.last


def _least(problem: Problem, theta: Tensor) -> float | None:
    """The minimum or infimum of the objective, of several minima the one Newton reaches from theta; None if unknown."""
    if isinstance(solver_for(problem), Newton) and not is_unimodal(problem):
        # A search for the least of all minima takes several times as long as the training of a small network.
        solution = Newton(_STEPS).solve_from(*_independent(problem, theta))
        return solution.objective if solution.converged else None
    solution = LinearBaseline(max_seconds=_MAX_SECONDS).solve(problem)
    if not solution.may_exist:
        return solution.infimum
    return solution.objective if solution.converged else None


def _independent(problem: Problem, theta: Tensor) -> tuple[Problem, Tensor]:
    """The problem without collinear features, and the theta of equal predictions; under a prior both as they are."""
    kept = independent_columns(problem)[0] if problem.prior.flat else problem.active
    if len(kept) == problem.num_active:
        return problem, theta
    small = problem.restricted(kept)
    tail = len(theta) - problem.head.shared_dim
    predicted = problem.design(problem.rows) @ theta[:tail].view(problem.head.eta_dim, -1).T
    table = torch.linalg.lstsq(small.design(problem.rows), predicted).solution.T
    return small, torch.cat([table.reshape(-1), theta[tail:]])


def _theta(last: nn.Linear, shared: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The present last layer and shared values, in the layout of a problem on standardised features, (size,)."""
    weight = last.weight.detach().double()
    bias = last.bias.detach().double() + weight @ mean
    table = torch.cat([weight * scale, bias.unsqueeze(1)], 1)
    return torch.cat([table.reshape(-1), shared.detach().double()])


@torch.no_grad()
def last_layer_features(model: nn.Module, last: nn.Linear, rows: Rows) -> tuple[Tensor, Tensor] | None:
    """The input of the last layer (n, in_features), and what is added to its output (n, eta_dim), in float64.

    None if a forward pass does not go through the layer exactly once.
    """
    names = [name for name, module in model.named_modules() if module is last]
    if not names:
        return None
    copy = deepcopy(model).double().cpu().eval()
    layer = copy.get_submodule(names[0])
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features, rests, start = rows.new_empty((last.in_features,)), rows.x[:0], 0
    for block in rows.blocks(16384 if len(rows.input_shape) == 1 else _ARRAYS):
        raw = copy(block.x)
        if len(seen) != 1 or seen[0].shape != (block.num_rows, last.in_features):
            return None
        here, inside = slice(start, start + block.num_rows), seen.pop()
        rests = rests if start else rows.new_empty(raw.shape[1:])
        features[here], rests[here] = inside, raw - nn.functional.linear(inside, layer.weight, layer.bias)  # type: ignore[arg-type]
        start = here.stop
    return features, rests
