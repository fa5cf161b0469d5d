"""Temperature: the common divisor of the logits of a class forecast that minimises its NLL."""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric

_NODES = 5
"""Inverse temperatures ¼, ½, 1, 2, 4 at which the states hold the NLL and its derivative."""

_RANGE = (0.05, 20.0)
"""Bounds of the exact temperature."""
_FLAT = 1e-13
"""Slope in nats per row below which the NLL does not depend on the temperature, which then stays at 1."""
_BLOCK = 16384
"""Rows worked on at a time."""


class Temperature(Metric):
    """`temperature` T, the mean NLL `calibration_gap_nats` that it would save, and its test `calibration_p_value`.

    T minimises the NLL of softmax(logits / T), which is convex in 1 / T (Guo et al., 2017); T > 1 means that the
    forecast is overconfident. The p-value is of the likelihood ratio 2n·gap by χ² with 1 df.

    The states hold the NLL and its derivative at T = ¼, ½, 1, 2, 4; `compute` takes the minimum of their interpolating
    polynomial within [¼, 4], accurate to about 1e-3. `exact` finds T to full precision within [0.05, 20].
    """

    population: Tensor
    value: Tensor
    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("value", _NODES)
        self.add_sum("slope", _NODES)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        scores, chosen, weight = *_scores(distribution, y), promote(weight)
        one = scores.new_ones(scores.shape[-1])
        power = (scores / 4).exp_()
        product = torch.empty_like(power)
        values, slopes = [], []
        for _ in range(_NODES):
            total = power @ one
            values.append(torch.dot(weight, total.log()))
            # Operations that `vmap` has a rule for, unlike a product into `out=` and `square_`.
            slopes.append(torch.dot(weight / total, product.copy_(power).mul_(scores) @ one))
            power.mul_(power)
        linear = torch.dot(weight, chosen)
        beta = 2.0 ** torch.arange(-2, _NODES - 2, device=scores.device, dtype=scores.dtype)
        self.population = self.population + weight.sum()
        self.value = self.value + torch.stack(values) - beta * linear
        self.slope = self.slope + torch.stack(slopes) - linear

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        value, slope = (self.value / self.population).tolist(), (self.slope / self.population).tolist()
        beta, least = _minimum(value, slope)
        return self._figures(beta, value[2] - least, self.population)

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The figures by Newton's method on all rows, safeguarded by bisection."""
        scores, chosen, weight = *_scores(distribution, y), promote(weight)
        parts = list(zip(scores.split(_BLOCK), chosen.split(_BLOCK), weight.split(_BLOCK), strict=True))
        low, high, beta = 1 / _RANGE[1], 1 / _RANGE[0], 1.0
        before = _nll(parts, beta)[0]
        slopes = {end: _nll(parts, end)[1] for end in (low, high)}
        if max(abs(slope) for slope in slopes.values()) <= _FLAT * float(weight.sum()):
            low = high = beta
        elif slopes[low] >= 0:
            high = beta = low
        elif slopes[high] <= 0:
            low = beta = high
        while high > low:
            _, slope, curvature = _nll(parts, beta)
            low, high = (low, beta) if slope > 0 else (beta, high)
            new = beta - slope / curvature if curvature > 0 else low - 1
            new = new if low < new < high else math.sqrt(low * high)
            if abs(new - beta) <= 1e-14 * beta or not low < new < high:
                break
            beta = new
        population = weight.sum()
        gap = (before - _nll(parts, beta)[0]) / float(population)
        return self._figures(beta, gap, population)

    def _figures(self, beta: float, gap: float, population: Tensor) -> dict[str, Tensor]:
        saved = population.new_tensor(max(0.0, gap))
        figures = {"temperature": population.new_tensor(1 / beta), "calibration_gap_nats": saved}
        return figures | {"calibration_p_value": torch.special.erfc((population * saved).sqrt())}


def _scores(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised logits, (n, num_classes), and the one of the observed class, (n,)."""
    if not isinstance(distribution, Categorical):
        raise TypeError(f"no class probabilities in {type(distribution).__name__}")
    # The largest normalised logit is at least −log(num_classes), so that the sum of powers does not underflow.
    scores = promote(distribution.logits)
    return scores, scores.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def _nll(parts: list[tuple[Tensor, Tensor, Tensor]], beta: float) -> tuple[float, float, float]:
    """NLL, its slope and its curvature in the inverse temperature, summed over rows."""
    total = torch.zeros(3, dtype=parts[0][0].dtype, device=parts[0][0].device)
    for scores, chosen, weight in parts:
        power = (beta * scores).exp()
        mass = power.sum(-1)
        mean = (power * scores).sum(-1) / mass
        spread = (power * scores.square()).sum(-1) / mass - mean.square()
        rows = torch.stack([mass.log() - beta * chosen, mean - chosen, spread])
        total += rows @ weight
    value, slope, curvature = total.tolist()
    return value, slope, curvature


def _minimum(value: list[float], slope: list[float]) -> tuple[float, float]:
    """Minimiser and minimum of a convex function of the inverse temperature, from values and slopes at the nodes.

    It interpolates by the polynomial in log₂(inverse temperature) with these values and slopes.
    """
    if max(abs(at) for at in slope) <= _FLAT:
        return 1.0, value[2]
    right = next((node for node in range(_NODES) if slope[node] > 0), _NODES)
    if right in (0, _NODES):
        node = min(right, _NODES - 1)
        return 2.0 ** (node - 2), value[node]
    place = np.arange(_NODES)[:, None] - 2.0
    power = np.arange(2 * _NODES)
    matrix = np.concatenate([place**power, power * place ** np.maximum(power - 1, 0)])
    known = np.concatenate([value, np.array(slope) * math.log(2) * 2.0 ** place[:, 0]])
    curve = np.linalg.solve(matrix, known)[::-1].tolist()
    rising = [coefficient * k for coefficient, k in zip(curve, power[:0:-1].tolist(), strict=False)]
    start, end = right - 3.0, right - 2.0
    if _horner(rising, start) >= 0 or _horner(rising, end) <= 0:
        # The minimum is at a node, where rounding chooses the sign of the slope.
        node = right - 1 if abs(slope[right - 1]) < abs(slope[right]) else right
        return 2.0 ** (node - 2), value[node]
    least = brentq(lambda x: _horner(rising, x), start, end)
    return 2.0**least, _horner(curve, least)


def _horner(coefficients: list[float], x: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * x + coefficient
    return total
