"""The exponential moving average."""

import math

from mlefw.average.base import Average
from mlefw.errors import UsageError


class Ema(Average):
    """An exponential moving average: weights that are `horizon` epochs older count less by a factor of e.

    The shares of the weights seen so far add up to one, so that the initial weights do not bias the average (Kingma &
    Ba, 2015, correct Adam's moments for that bias). Averaging removes most of the noise of steps on small batches,
    without the slower progress of a smaller learning rate (Polyak & Juditsky, 1992).

    Args:
        horizon: epochs in which the share of old weights falls by a factor of e.

    Raises:
        UsageError: the horizon is not a positive finite number.
    """

    def __init__(self, horizon: float = 5.0) -> None:
        if not 0 < horizon < math.inf:
            raise UsageError(f"average.horizon={horizon}: expected a positive number of epochs")
        self.horizon = horizon

    def share(self, progress: float, length: float) -> float:
        """(1 − e^(−length / horizon)) / (1 − e^(−progress / horizon))."""
        return math.expm1(-length / self.horizon) / math.expm1(-progress / self.horizon)
