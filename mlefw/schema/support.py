"""Checks that targets fit a head: their number, names and values."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributions import constraints

from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.multitask import JointHead, MultitaskHead
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows

_NUM_BOUNDS = 2
"""Number of target columns of a censored number."""


def check_targets(source: Source, kind: Any, tasks: Mapping[str, Any], trials: bool = False) -> None:
    """Check the number and names of the targets against the class of the head.

    Args:
        source: the source, which names the targets.
        kind: the class of the head.
        tasks: nodes of the heads of several targets, by name.
        trials: whether the head takes a column of trials.

    Raises:
        UsageError: the tasks have other names than the targets, or several targets have an offset.
        MisfitError: the number of targets, or an event, does not fit the head.
    """
    targets = source.targets
    if tasks and set(tasks) != set(targets):
        raise UsageError(
            f"head.tasks names {', '.join(tasks)} and data.target {', '.join(targets) or 'nothing'}"
            f"\n  expected: the same columns, such as data.target=[{','.join(tasks)}]"
        )
    if issubclass(kind, JointHead) and len(targets) < 2:
        raise MisfitError(f"{kind.__name__} is for several targets: expected data.target=[a,b], got {source.target}")
    if issubclass(kind, CensoredHead) and len(targets) != (1 if source.event else _NUM_BOUNDS):
        raise MisfitError(
            f"{kind.__name__} takes two bounds: expected data.target=[low,high], got {source.target}"
            "\n  or a time and whether its event was observed: data.target=time data.event=status"
        )
    if source.event and not issubclass(kind, CensoredHead):
        raise MisfitError(
            f"data.event={source.event} belongs to a censored time\n  expected: head=censored head.component=weibull"
        )
    if trials != bool(source.trials):
        raise MisfitError(_about_trials(source, kind, trials))
    if any("_target_" not in (node or {}) for node in tasks.values()):
        raise UsageError("head.tasks: expected the name of a head for each target, such as head.tasks.a=gaussian")
    if kind is MultitaskHead and not tasks:
        raise MisfitError("head.tasks is empty: expected a head for each target, such as head.tasks.a=gaussian")
    if source.offset or source.exposure or (source.is_shifted and not issubclass(kind, CensoredHead)):
        _check_offset(targets, kind)


def _about_trials(source: Source, kind: Any, trials: bool) -> str:
    if trials:
        return (
            f"{kind.__name__} counts successes out of trials: data.target={source.target} is not enough"
            "\n  expected: data.trials=COLUMN, or data.target=[count,trials], or for all rows head.trials=NUMBER"
        )
    return (
        f"data.trials={source.trials} belongs to a count of successes"
        "\n  expected: head=binomial or head=beta_binomial, without head.trials"
    )


def _check_offset(targets: Sequence[str], kind: Any) -> None:
    if len(targets) > 1:
        raise UsageError("data.offset, data.exposure and offset(…) belong to one target: expected a single data.target")
    if not kind.takes_offset:
        raise UsageError(
            f"data.offset, data.exposure and offset(…) belong to one eta, and {kind.__name__} has several alike"
        )


def check_support(head: Head, rows: Rows, table: Table, target: str) -> None:
    """Check that every target value lies in the head's support.

    Raises:
        MisfitError: some values do not; the message names rows, values and the support.
    """
    if isinstance(rows, TokenRows):
        # Coded tokens are labels of the head by their making, and all targets at once may not fit into memory.
        return
    if isinstance(head, MultitaskHead):
        for index, (name, part) in enumerate(zip(head.targets, head.parts, strict=True)):
            check_support(part, rows._replace(y=head.of_target(rows.y, index)[0]), table, name)
        return
    inside = head.support.check(rows.y)
    batch = rows.weight.shape
    inside = inside.reshape(*batch, -1).all(-1)
    if rows.positions:
        inside |= rows.weight <= 0
    if bool(inside.all()):
        return
    outside = (~inside).numpy()
    values = ", ".join(f"{value:g}" for value in rows.y[~inside][:5].reshape(-1).tolist())
    hint = head.outside or _other_heads(rows)
    cells = table.by_position(target) if isinstance(table, ArrayTable) else table
    raise MisfitError(
        f"{table.origin}: {'array' if cells is not table else 'column'} {target!r} has values that "
        f"{type(head).__name__} cannot take\n"
        f"  {cells.where(outside.reshape(-1))}: {values}\n  expected: {_support_words(head)}; {hint}"
    )


def _support_words(head: Head) -> str:
    words = (
        (constraints.boolean, "0 or 1"),
        (constraints.nonnegative_integer, "0, 1, 2, …"),
        (constraints.real, "finite numbers"),
        (constraints.positive, "numbers above 0"),
        (constraints.nonnegative, "numbers from 0 on"),
        (constraints.unit_interval, "numbers from 0 to 1"),
    )
    return next((text for support, text in words if support is head.support), str(head.support))


def _other_heads(rows: Rows) -> str:
    y = rows.y
    whole = bool((y == y.round()).all())
    if whole and len(y.unique()) <= 20:
        return "for a few distinct labels use head=categorical, for any number head=gaussian"
    return "for counts use head=poisson, for any number head=gaussian"
