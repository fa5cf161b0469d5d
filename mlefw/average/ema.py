"""The exponential moving average."""

import math

from mlefw.average.base import Average
from mlefw.errors import UsageError


class Ema(Average):
    """Weights count less the older they are, by a factor of e for each `horizon` epochs.

    The average is that of the weights seen so far, whose shares add up to one: it is not pulled towards the initial
    weights (Kingma & Ba, 2015, correct Adam's moments for the same bias). It removes most of the noise of steps on
    small batches, which a smaller learning rate would do more slowly (Polyak & Juditsky, 1992).

    Args:
        horizon: in epochs.

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
