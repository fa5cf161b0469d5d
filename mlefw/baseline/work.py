"""What an estimate costs, counted in multiplications before it starts, and the limits that it is held to.

Whether something is computed at all is decided by the count, which is the same on every machine and at every load. The
clock only stops what takes longer than a person was willing to wait, and that is reported.
"""

import time
from collections.abc import Callable

from mlefw.errors import NumericalError

MAX_WORK = 2e11
"""Multiplications up to which an estimate is computed: some twenty seconds of one core."""
MAX_SECONDS = 60.0
NOTICEABLE = 1e10
"""Multiplications from which one likes to know what is being computed: about a second."""
MOST_DENSE = 3000
"""Coefficients up to which a square matrix of them is formed where a method without one is at hand: 72 MB each."""
MOST_DENSE_ALONE = 8000
"""The same where there is no other method: 512 MB each."""
_CELL = 20
"""Multiplications that an exponential, a logarithm and their derivatives cost, of one number of eta."""

Watch = Callable[[str, bool], None]
"""Told what is going on: a text, and whether it only holds until the next one."""


class LeftOutError(NumericalError):
    """An estimate that is not computed, or was stopped; the message says why, as the end of a sentence."""


def pass_work(num_rows: int, num_features: int, num_columns: int) -> float:
    """One pass for a gradient, or for a product with the Hessian: two products of the features, and the rows' own.

    Args:
        num_rows: of the training.
        num_features: that take part.
        num_columns: of eta.
    """
    return float(num_rows) * num_columns * (4 * num_features + 2 * _CELL)


def dense_work(num_rows: int, num_features: int, num_columns: int, num_steps: int) -> float:
    """Steps of Newton's method with a Hessian of all coefficients, in blocks of num_features² for pairs of columns."""
    pairs = num_columns * (num_columns + 1) / 2
    size = num_columns * (num_features + 1)
    rows = float(num_rows) * pairs * ((num_features + 1) ** 2 + 2 * _CELL)
    return num_steps * (rows + float(size) ** 3 / 3)


def products_work(num_rows: int, num_features: int) -> float:
    """The products of all pairs of features, and a factorisation of their matrix."""
    return float(num_rows) * num_features**2 + float(num_features) ** 3 / 3


def wide_work(num_rows: int, num_features: int) -> float:
    """One half of the products of all pairs of fewer rows, their eigenvectors, and some passes over the features."""
    return num_rows**2 * num_features / 2 + 10.0 * num_rows**3 + 20.0 * num_rows * num_features


def check(work: float, max_work: float) -> None:
    """Let what may be computed pass.

    Raises:
        LeftOutError: it takes more than it may.
    """
    if work > max_work:
        raise LeftOutError(f"it takes {work:.2g} multiplications, more than baseline.max_work={max_work:g}")


class Meter:
    """The clock of an estimate, looked at with every block of rows, and the ear of who waits for it.

    Args:
        max_seconds: what all estimates of a run may take together.
        watch: told what is computed, and how far it is.
        seconds: what is left of it, where others came before.
    """

    def __init__(self, max_seconds: float, watch: Watch | None = None, seconds: float | None = None) -> None:
        self.max_seconds, self._watch = max_seconds, watch
        self._told = time.monotonic()
        self._end = self._told + (max_seconds if seconds is None else seconds)

    @property
    def seconds_left(self) -> float:
        """How long the estimate may still take."""
        return self._end - time.monotonic()

    def announce(self, text: str) -> None:
        """Say what is computed, once."""
        if self._watch is not None:
            self._watch(text, False)

    def tell(self, text: Callable[[], str]) -> None:
        """Say how far it is, a few times a second at most."""
        if self._watch is not None and time.monotonic() - self._told > 0.2:
            self._told = time.monotonic()
            self._watch(text(), True)

    def check(self) -> None:
        """Go on while there is time.

        Raises:
            LeftOutError: there is none left.
        """
        if self.seconds_left < 0:
            raise LeftOutError(f"it was stopped after baseline.max_seconds={self.max_seconds:g}")
