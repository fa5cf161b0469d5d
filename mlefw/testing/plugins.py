"""The cheap conformance checks, run on the plugins of a run before it starts.

A plugin with which training or its report would be wrong is refused. A violation that affects something else only (a
standard error, a claim of a global optimum, a figure) is a warning.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.augment.base import Augment
from mlefw.batch.base import BatchRegime
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.metric.base import Metric, OfTarget
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows
from mlefw.system.attempt import attempt
from mlefw.system.warning import warn
from mlefw.testing import augment, batch, inputs, likelihood, loss, metric, model, prior
from mlefw.testing.conformance import Check, name_of, violations
from mlefw.testing.head_case import HeadCase, plausible_etas

_TOLERANCE = 1e-3
"""Tolerance of the integral of a density, and of mean scores in standard deviations."""
_PANEL = 1e-8
"""Absolute error of an integral over one panel."""
_MOST_ROWS = 16
"""Training rows that models and metrics are tried on."""
_MOST_COLUMNS = 256
"""Most eta columns of a head that is checked."""
_STEP = 1e-5
"""Step of finite differences, in units of the gain."""


@dataclass(frozen=True)
class Suite:
    """The cheap checks of one part: rules whose violation is an error, and rules whose violation is a warning."""

    part: Any
    case: Any
    wrong: Sequence[Check[Any]]
    doubtful: Sequence[Check[Any]] = ()


def check_plugins(objective: Objective, regime: BatchRegime, metrics: Sequence[Metric], train: Rows) -> None:
    """Check the plugins among the parts of a run against the rules of their kinds, in a fraction of a second.

    Args:
        objective: the objective before training, which is not changed.
        regime: the batch regime.
        metrics: the metrics of one split.
        train: the training rows.

    Raises:
        UsageError: a plugin would make training or its report wrong; the message names it and the rule.
    """
    refused = list[str]()
    for suite in _suites(objective, regime, metrics, train):
        name = name_of(suite.part)
        refused += [f"{name}: {text}" for text in _found(suite, suite.wrong)]
        for text in _found(suite, suite.doubtful):
            warn(f"{name}: {text}")
    if refused:
        raise UsageError("\n  ".join(["a plugin breaks the rules of its kind (see mlefw.testing)", *refused]))


def is_plugin(part: object) -> bool:
    """Whether a part's class is defined outside mlefw."""
    return type(part).__module__.split(".")[0] != "mlefw"


def _found(suite: Suite, checks: Sequence[Check[Any]]) -> list[str]:
    """The violations found by checks; a check that raises another error is skipped with a warning."""
    what = f"the check of {name_of(suite.part)}"
    return [text for check in checks for text in attempt(what, lambda check=check: violations(suite.case, [check]), [])]  # type: ignore[misc]


def _suites(objective: Objective, regime: BatchRegime, metrics: Sequence[Metric], train: Rows) -> Iterator[Suite]:
    some = _some(train)
    # Heads with many columns are skipped: their checks form matrices of columns² numbers.
    few = (head for head in heads_within(objective.head) if head.center.numel() <= _MOST_COLUMNS)
    for head in filter(is_plugin, few):
        near = _targets(objective, some).double() if head is objective.head and not head.event_shape else None
        yield _of_head(head, near)
    if is_plugin(objective.prior):
        yield _of_prior(objective.prior)
    if is_plugin(regime):
        yield _of_regime(regime, train.num_rows)
    if objective.model.inputs is not None and is_plugin(objective.model.inputs):
        yield _of_inputs(objective, some)
    augment_of_run = getattr(objective.model, "augment", None)
    if augment_of_run is not None and is_plugin(augment_of_run):
        yield _of_augment(augment_of_run, some)
    if is_plugin(objective.model.model):
        yield _of_model(objective, some)
    if is_plugin(objective.loss):
        yield _of_loss(objective, some)
    yield from _of_metrics(objective, metrics, some)


def _of_head(head: Head, near: Tensor | None) -> Suite:
    own = deepcopy(head).double().cpu()
    case = HeadCase(own, plausible_etas(own, 3), _TOLERANCE, near, None, _PANEL, _TOLERANCE)
    wrong = (density_sums_to_one, likelihood.joint_density_integrates_to_one, gradient_agrees_with_finite_differences)
    # A nonzero mean score (as for a support that depends on eta) invalidates standard errors, but not training.
    return Suite(head, case, wrong, (likelihood.score_has_mean_zero,))


def _of_prior(given: Prior) -> Suite:
    wrong = (prior.penalty_is_a_scalar, prior.gradient_agrees_with_finite_differences, prior.prox_is_the_minimiser)
    doubtful = (prior_integrates_to_one, prior.claimed_convexity_holds)
    return Suite(given, prior.PriorCase(deepcopy(given).double().cpu(), _TOLERANCE), wrong, doubtful)


def _of_regime(regime: BatchRegime, num_rows: int) -> Suite:
    wrong = (batch.num_batches_is_the_number_of_steps, batch.steps_are_row_indices_and_a_scale, batch.scale_is_unbiased)
    return Suite(
        regime, batch.BatchCase(regime, (min(num_rows, 2000),)), wrong, (batch.steps_depend_on_the_generator_alone,)
    )


def _of_inputs(objective: Objective, some: Rows) -> Suite:
    """Checks of the input map as it was learnt from the training rows."""
    standardized: Any = objective.model
    x = (some.x - standardized.mean) / standardized.scale
    wrong = (
        *(inputs.all_state_is_buffers, inputs.output_has_a_column_for_each_input),
        *(inputs.rows_do_not_mix, inputs.buffers_restore_the_map),
    )
    doubtful = (inputs.output_is_finite_and_repeatable, inputs.weight_two_is_the_row_twice)
    return Suite(standardized.inputs, inputs.InputsCase(standardized.inputs, x), wrong, doubtful)


def _of_augment(given: Augment, some: Rows) -> Suite:
    """Checks of an augmentation on images of noise as it gets them, with standardised channels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(some.x.shape, generator=generator)
    wrong = (
        augment.it_holds_no_state,
        augment.shape_and_type_stay,
        augment.output_is_finite_and_its_argument_unchanged,
    )
    doubtful = (augment.random_numbers_are_those_of_the_global_generator, augment.each_row_is_drawn_anew)
    return Suite(given, augment.AugmentCase(given, x), (*wrong, augment.rows_do_not_mix), doubtful)


def _of_loss(objective: Objective, some: Rows) -> Suite:
    own = deepcopy(objective.head).double().cpu()
    eta = torch.stack(plausible_etas(own, some.num_rows))[:, : own.eta_dim]
    wrong = (loss.one_finite_value_per_row, loss.rows_do_not_mix, loss.claimed_likelihood_is_the_nll)
    case = loss.LossCase(deepcopy(objective.loss).double().cpu(), own, eta, _targets(objective, some))
    return Suite(objective.loss, case, wrong)


def heads_within(head: Head) -> list[Head]:
    """A head and the heads that it consists of."""
    parts = [head, *getattr(head, "parts", ())]
    return list(dict.fromkeys(inner for part in parts for inner in part.modules() if isinstance(inner, Head)))


def _some(train: Rows) -> Rows:
    """A few training rows without missing targets, on the CPU."""
    rows = train.take(slice(0, _MOST_ROWS))
    known = ~rows.y.double().reshape(rows.num_rows, -1).isnan().any(1)
    return Rows(*(column.cpu() for column in rows.take(known.nonzero().flatten())))


def _targets(objective: Objective, some: Rows) -> Tensor:
    """As many targets as there are rows, as the likelihood takes them, (n, *event_shape); of positions the first."""
    head = objective.head
    return head.as_target(some.y.reshape(-1, *head.event_shape))[: some.num_rows]


def _of_model(objective: Objective, some: Rows) -> Suite:
    """Checks of the model with its standardisation, with random parameters if its initial output is constant."""
    mode, shape = objective.model.training, getattr(objective.model, "shape", None)
    positions, is_sequential = tuple(some.weight.shape[1:]), shape is not None and shape.is_sequential
    case = model.ModelCase(objective.model, some.x, objective.head.eta_dim, positions, is_sequential)
    if float(case.raw(some.x).std(0).sum()) == 0:
        other = replace(case, model=model.randomised(objective.model))
        case = other if bool(other.raw(some.x).isfinite().all()) else case
    else:
        case = replace(case, model=deepcopy(objective.model))
    objective.model.train(mode)
    wrong = (rows_do_not_mix, model.later_positions_do_not_matter)
    return Suite(objective.model.model, case, wrong, (evaluation_is_repeatable, model.rows_do_not_mix_in_training))


def _of_metrics(objective: Objective, metrics: Sequence[Metric], some: Rows) -> Iterator[Suite]:
    checks = (metric.blocks_and_order_do_not_matter, metric.sums_of_blocks_add_up, metric.weight_two_is_the_row_twice)
    weight = torch.arange(some.num_rows, dtype=torch.float64).remainder(4)
    for each in metrics:
        parts = each.metrics if isinstance(each, OfTarget) else [each]
        for part in filter(is_plugin, parts):
            predict, y = _predictions(objective, some.num_rows), _targets(objective, some)
            if isinstance(each, OfTarget):
                predict, y = _part(each, predict, y, weight)
            yield Suite(part, metric.MetricCase(part, predict, y, weight, 1e-5), (), checks)


def _predictions(objective: Objective, num_rows: int) -> Callable[[Tensor], Distribution]:
    """Predictions that differ between rows, unlike those of a model that starts at the null model."""
    head = deepcopy(objective.head).double().cpu()
    eta = torch.stack(plausible_etas(head, num_rows))
    return lambda index: head.distribution(eta[index])


def _part(
    each: OfTarget, predict: Callable[[Tensor], Distribution], y: Tensor, weight: Tensor
) -> tuple[Callable[[Tensor], Distribution], Tensor]:
    """The predictions of some rows and all targets as the metrics of one target get them."""
    known = each.part(predict(torch.arange(len(y))), y, weight)[1]
    return lambda index: each.part(predict(index), y[index], weight[index])[0], known


def density_sums_to_one(case: HeadCase) -> Iterator[str]:
    """The density integrates to one, if its tails are light enough for the integral to be computed."""
    if case.resolved:
        yield from likelihood.density_sums_to_one(case)


def gradient_agrees_with_finite_differences(case: HeadCase) -> Iterator[str]:
    """Autograd agrees with finite differences of the NLL in most rows; some may lie at a kink."""
    eta, y = case.rows
    leaf = eta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(case.head.nll_complete(leaf, y).sum(), leaf)
    with torch.no_grad():
        for column in range(eta.shape[1]):
            step = torch.zeros(eta.shape[1], dtype=torch.float64)
            step[column] = _STEP * float(case.head.gain[column])
            rise = case.head.nll_complete(eta + step, y) - case.head.nll_complete(eta - step, y)
            expected = rise / (2 * step[column])
            far = (slope[:, column] - expected).abs() > 1e-2 * (expected.abs() + 1 / case.head.gain[column])
            if float(far.double().mean()) > 0.5:
                at = int(far.nonzero()[0])
                values = (
                    f"{float(slope[at, column]):.4g}, and by finite differences of the NLL {float(expected[at]):.4g}"
                )
                yield f"the derivative in eta column {column} at eta={eta[at].tolist()} is {values}"


def prior_integrates_to_one(case: prior.PriorCase) -> Iterator[str]:
    """The density of a weight integrates to one, for a prior that is a product over entries."""
    if not list(prior.penalty_is_a_sum_over_entries(case)):
        yield from prior.density_integrates_to_one(case)


def evaluation_is_repeatable(case: model.ModelCase) -> Iterator[str]:
    """In evaluation mode the output is finite, and equal in repeated passes."""
    yield from model.output_is_finite_and_repeatable(case)


def rows_do_not_mix(case: model.ModelCase) -> Iterator[str]:
    """In evaluation mode the output of a row does not depend on other rows; checked for a repeatable output only."""
    if not list(evaluation_is_repeatable(case)):
        yield from model.rows_do_not_mix(case)
