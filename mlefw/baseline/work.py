"""The cost of an estimate, counted in multiplications before it starts, and the limits on work and time.

The count decides whether an estimate is attempted, so that the decision does not depend on the machine or its load.
The clock only stops an estimate that exceeds the time limit, which is reported.
"""

import re
import time
from collections.abc import Callable

from mlefw.errors import NumericalError

MAX_WORK = 2e11
"""Default limit on the multiplications of an estimate: about twenty seconds of one core."""
MAX_SECONDS = 60.0
"""Default time limit of the estimates of a run."""
NOTICEABLE = 1e10
"""Multiplications, about a second, above which a message announces the computation."""
MOST_DENSE = 3000
"""Most coefficients for which Hessians (72 MB each) are formed if a matrix-free method supports the problem."""
MOST_DENSE_ALONE = 8000
"""Most coefficients for which Hessians (512 MB each) are formed if there is no other method."""
_CELL = 20
"""Cost in multiplications of the likelihood and its derivatives for one eta value."""

Watch = Callable[[str, bool], None]
"""Called with a progress message, and whether the next message replaces it."""


class LeftOutError(NumericalError):
    """An estimate was not attempted, or was stopped; the message says why, as the end of a sentence."""


class TooMuchError(LeftOutError):
    """An estimate was not attempted, since it takes more multiplications than `baseline.max_work`."""


def amount(work: float) -> str:
    """A number of multiplications in two digits: `1.6e11`."""
    return re.sub(r"e\+?0*", "e", f"{work:.1e}").replace(".0e", "e")


def pass_work(num_rows: int, num_features: int, num_columns: int) -> float:
    """Multiplications of a pass for a gradient or a Hessian product: two matrix products, and the likelihoods.

    Args:
        num_rows: number of training rows.
        num_features: number of features in use.
        num_columns: number of eta columns.
    """
    return float(num_rows) * num_columns * (4 * num_features + 2 * _CELL)


def dense_work(num_rows: int, num_features: int, num_columns: int, num_steps: int) -> float:
    """Multiplications of Newton steps with a full Hessian, a block of num_features² for each pair of eta columns."""
    pairs = num_columns * (num_columns + 1) / 2
    size = num_columns * (num_features + 1)
    rows = float(num_rows) * pairs * ((num_features + 1) ** 2 + 2 * _CELL)
    return num_steps * (rows + float(size) ** 3 / 3)


def products_work(num_rows: int, num_features: int) -> float:
    """Multiplications of the products of all pairs of features, and of a factorisation of their matrix."""
    return float(num_rows) * num_features**2 + float(num_features) ** 3 / 3


def wide_work(num_rows: int, num_features: int) -> float:
    """Multiplications of least squares with more features than rows: row products, eigenvectors, some passes."""
    return num_rows**2 * num_features / 2 + 10.0 * num_rows**3 + 20.0 * num_rows * num_features


def check(work: float, max_work: float) -> None:
    """Check the work of an estimate against its limit.

    Raises:
        TooMuchError: the work exceeds the limit.
    """
    if work > max_work:
        raise TooMuchError(f"it takes {work:.2g} multiplications, more than baseline.max_work={max_work:g}")


class Meter:
    """The time limit of an estimate, checked with every block of rows, and its progress messages.

    Args:
        max_seconds: limit for all estimates of a run together.
        watch: called with progress messages.
        seconds: what is left of the limit, if other estimates came before.
    """

    def __init__(self, max_seconds: float, watch: Watch | None = None, seconds: float | None = None) -> None:
        self.max_seconds, self._watch = max_seconds, watch
        self._told = time.monotonic()
        self._end = self._told + (max_seconds if seconds is None else seconds)

    @property
    def seconds_left(self) -> float:
        """Seconds that the estimate may still take."""
        return self._end - time.monotonic()

    def announce(self, text: str) -> None:
        """Report what is computed."""
        if self._watch is not None:
            self._watch(text, False)

    def tell(self, text: Callable[[], str]) -> None:
        """Report progress, at most a few times a second."""
        if self._watch is not None and time.monotonic() - self._told > 0.2:
            self._told = time.monotonic()
            self._watch(text(), True)

    def check(self) -> None:
        """Check the time limit.

        Raises:
            LeftOutError: the limit is exceeded.
        """
        if self.seconds_left < 0:
            raise LeftOutError(f"it was stopped after baseline.max_seconds={self.max_seconds:g}")
