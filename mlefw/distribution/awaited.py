"""The one door through which a distribution reads a value of a device, whose program then waits for it."""

from torch import Tensor


def awaited(value: Tensor) -> float:
    """A scalar on the host, for the few sums and searches whose length depends on values.

    A fixed length would take several times as long as the wait: a count up to the largest number of trials, or a
    search that ends after some six of a hundred steps. All else works without a value of the device.
    """
    return float(value)
