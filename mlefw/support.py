"""Whether a target is one that a head can take, said with rows and values."""

from torch.distributions import constraints

from mlefw.errors import MisfitError
from mlefw.head.base import Head
from mlefw.head.multitask import MultitaskHead
from mlefw.rows import Rows, Table


def check_support(head: Head, rows: Rows, table: Table, target: str) -> None:
    """Hold every target value to the head's support.

    Raises:
        MisfitError: naming rows and values, and what the head takes.
    """
    if isinstance(head, MultitaskHead):
        for index, (name, part) in enumerate(zip(head.targets, head.parts, strict=True)):
            check_support(part, rows._replace(y=head.of_target(rows.y, index)[0]), table, name)
        return
    inside = head.support.check(rows.y)
    inside = inside.reshape(rows.num_rows, -1).all(1)
    if bool(inside.all()):
        return
    outside = (~inside).numpy()
    values = ", ".join(f"{value:g}" for value in rows.y[~inside][:5].reshape(-1).tolist())
    hint = head.outside or _other_heads(rows)
    raise MisfitError(
        f"{table.origin}: column {target!r} has values that {type(head).__name__} cannot take\n"
        f"  {table.where(outside)}: {values}\n  expected: {_support_words(head)}; {hint}"
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
