"""Linear recalibration of log-odds."""

from typing import ClassVar

from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.calibrate.base import Calibration, logit, scalar
from mlefw.distribution.binary_forecasts import ForecastTable
from mlefw.distribution.precision import promote
from mlefw.head.bernoulli import LogitBernoulli
from mlefw.system.warning import warn


class Cox(Calibration):
    """Log-odds a + b·logit, with a and b by maximum likelihood (Cox, 1958; also called Platt scaling)."""

    takes: ClassVar = "a binary target: head=bernoulli"

    intercept: Tensor
    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("intercept", scalar(0.0))
        self.register_buffer("slope", scalar(1.0))

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is a Bernoulli."""
        return isinstance(distribution, Bernoulli)

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit a and b by Newton's method; where no finite optimum exists, warn and keep the identity map."""
        columns = (logit(distribution), promote(weight), promote(y))
        found = ForecastTable.of(*(column.cpu().numpy() for column in columns)).cox()
        if found is None:
            why = "the classes of the validation rows do not overlap along the logit, or all logits are equal"
            warn(f"calibrate=cox has no finite optimum and changes nothing: {why} (calibrate=temperature is bounded)")
            return
        self.intercept.fill_(found[0])
        self.slope.fill_(found[1])

    def forward(self, distribution: Distribution) -> Distribution:
        """The Bernoulli distribution with log-odds a + b·logit."""
        return LogitBernoulli(logits=self.intercept + self.slope * logit(distribution), validate_args=False)
