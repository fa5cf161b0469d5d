"""Temperature scaling of forecasts of classes or bins."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution
from torch.distributions import Categorical as TorchCategorical

from mlefw.calibrate.base import Calibration, logit, scalar
from mlefw.distribution.histogram import Histogram
from mlefw.distribution.precision import promote
from mlefw.head.bernoulli import LogitBernoulli
from mlefw.head.categorical import Categorical
from mlefw.metric.temperature import Temperature as TemperatureMetric


class Temperature(Calibration):
    """Logits / T, with the T in [0.05, 20] that minimises the NLL (Guo et al., 2017); keeps the most likely class.

    Of a histogram, the classes are the bins.
    """

    takes: ClassVar = "classes: head=bernoulli or head=categorical, or the bins of head=histogram"

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", scalar(1.0))

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is one over classes, two or more, or over bins."""
        return isinstance(distribution, Bernoulli | TorchCategorical | Histogram)

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit T by Newton's method on the NLL, which is convex in 1 / T."""
        if isinstance(distribution, Bernoulli):
            odds = logit(distribution)
            distribution = Categorical(torch.stack([torch.zeros_like(odds), odds], -1))
        if isinstance(distribution, Histogram):
            y, distribution = distribution.bin_of(y), Categorical(distribution.log_mass)
        figures = TemperatureMetric().exact(distribution, y.long(), weight)
        self.temperature.fill_(figures["temperature"])

    def forward(self, distribution: Distribution) -> Distribution:
        """The distribution with all logits divided by T."""
        if isinstance(distribution, Bernoulli):
            return LogitBernoulli(logits=logit(distribution) / self.temperature, validate_args=False)
        if isinstance(distribution, Histogram):
            return Histogram(distribution.log_mass / self.temperature, distribution.edges, distribution.tails)
        assert isinstance(distribution, TorchCategorical)
        return Categorical(promote(distribution.logits) / self.temperature)
