"""Numbers as text for reports and messages."""

import math
from collections.abc import Mapping
from typing import Any


def number(value: float | None, sign: bool = False) -> str:
    """A figure with four decimals, or four significant digits below 0.001 and from 100,000 on; a dash for None.

    `sign`: whether positive numbers get a plus sign.
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    style = ".4f" if 1e-3 <= abs(value) < 1e5 or value == 0 else ".4g"
    return f"{value:{'+' if sign else ''}{style}}"


def p_value(value: float) -> str:
    """A p-value with four decimals, or `<0.0001`."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def percent(share: float) -> str:
    """A share in per cent: without decimals, with one decimal near 0 and 100 %, which it must not be rounded to."""
    value = 100 * share
    return f"{value:.1f} %" if 99 < value < 100 or 0 < value < 1 else f"{value:.0f} %"


def robust_difference(mean: float | None, error: float, few: Mapping[str, Any] | None) -> tuple[float, float, str]:
    """The mean difference to base a verdict on, its standard error, and words on what was left out ("" for nothing).

    Where a few rows decide the mean over all rows, they are left out.

    Args:
        mean: mean difference over all rows, in nats; None where it is not finite.
        error: standard error of the mean, in nats.
        few: fields of `baseline.distance.Decisive` about those few rows; None where there are none.
    """
    if few is None:
        assert mean is not None
        return mean, error, ""
    rows = f"{few['num_rows']} of {few['of']} rows, which alone decide{'s' if few['num_rows'] == 1 else ''} the mean"
    with_them = "not finite" if mean is None else f"{number(mean, sign=True)} nats"
    return few["mean"], few["error"], f", without {rows} (with {'it' if few['num_rows'] == 1 else 'them'} {with_them})"
