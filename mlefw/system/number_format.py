"""Numbers in words: the one format of every figure that a person reads."""

import math
from collections.abc import Mapping
from typing import Any


def number(value: float | None, sign: bool = False) -> str:
    """Four decimals in the middle range, five digits elsewhere; a dash for what is not defined."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    style = ".4f" if 1e-3 <= abs(value) < 1e5 or value == 0 else ".4g"
    return f"{value:{'+' if sign else ''}{style}}"


def p_value(value: float) -> str:
    """A probability, to four decimals."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def percent(share: float) -> str:
    """A share in per cent; 99.6 % is not 100 %."""
    value = 100 * share
    return f"{value:.1f} %" if 99 < value < 100 or 0 < value < 1 else f"{value:.0f} %"


def robust(mean: float | None, error: float, few: Mapping[str, Any] | None) -> tuple[float, float, str]:
    """A mean difference in nats to base a verdict on: without the few rows that decide it, and in words that say so.

    Args:
        mean: over all rows; None where it is not finite.
        error: its standard error.
        few: the rows that carry nearly all of it, as `baseline.distance.Decisive`; None where no few do.
    """
    if few is None:
        assert mean is not None
        return mean, error, ""
    rows = f"{few['num_rows']} of {few['of']} rows, which alone decide{'s' if few['num_rows'] == 1 else ''} the mean"
    with_them = "not finite" if mean is None else f"{number(mean, sign=True)} nats"
    return few["mean"], few["error"], f", without {rows} (with {'it' if few['num_rows'] == 1 else 'them'} {with_them})"
