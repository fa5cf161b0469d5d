"""Calibration and discrimination of binary forecasts, from a table of rows grouped by predicted logit."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import xlogy


@dataclass(frozen=True)
class ForecastTable:
    """Groups of rows with nearly equal predicted logits, in increasing order, each of positive weight.

    Args:
        logit: the reference logit of each group, (num_groups,).
        weight: Σ w of each group, (num_groups,).
        hits: Σ w y of each group, (num_groups,).
        moments: Σ w (η − logit)^k for k = 1, 2, 3 over the logits η of the rows of a group, (3, num_groups). They make
            sums of smooth functions of η exact to 1e-12 although the η of a group differ; zero where they are equal.
        hit_logits: Σ w y η over all rows.
    """

    logit: np.ndarray
    weight: np.ndarray
    hits: np.ndarray
    moments: np.ndarray
    hit_logits: float

    @classmethod
    def of(cls, logit: np.ndarray, weight: np.ndarray, hits: np.ndarray) -> "ForecastTable":
        """The exact table, with a group for each distinct logit of the rows; rows of weight 0 are left out."""
        seen = weight > 0
        distinct, group = np.unique(logit[seen], return_inverse=True)
        total = np.bincount(group, weight[seen], len(distinct))
        ones = np.bincount(group, (weight * hits)[seen], len(distinct))
        return cls(distinct, total, ones, np.zeros((3, len(distinct))), float(ones @ distinct))

    @property
    def population(self) -> float:
        """The total weight Σ w."""
        return float(self.weight.sum())

    @property
    def overlaps(self) -> bool:
        """Whether no threshold of the logit separates the classes, so that a logistic regression on it is finite."""
        one, zero = np.flatnonzero(self.hits > 0), np.flatnonzero(self.hits < self.weight)
        return bool(len(one) and len(zero) and one[0] < zero[-1] and zero[0] < one[-1])

    def predicted(self) -> np.ndarray:
        """The sum of predicted probabilities Σ w p of each group, (num_groups,)."""
        d = _softplus_derivatives(self.logit)
        first, second, third = self.moments
        return self.weight * d[1] + first * d[2] + second / 2 * d[3] + third / 6 * d[4]

    def auroc(self) -> float | None:
        """Area under the ROC curve, ties counting ½ (Hanley & McNeil, 1982); None where a class is missing."""
        misses = self.weight - self.hits
        pairs = self.hits.sum() * misses.sum()
        below = np.cumsum(misses) - misses
        return float((self.hits * (below + misses / 2)).sum() / pairs) if pairs > 0 else None

    def equal_mass_error(self, num_bins: int = 15) -> float:
        """Expected calibration error Σ_b (n_b / n) |p̄_b − ȳ_b| over bins of equal weight, each holding whole groups."""
        middle = (np.cumsum(self.weight) - self.weight / 2) / self.population
        place = np.minimum((middle * num_bins).astype(int), num_bins - 1)
        return float(np.abs(np.bincount(place, self.predicted() - self.hits)).sum() / self.population)

    def isotonic(self) -> np.ndarray:
        """Recalibrated probability of each group, (num_groups,): isotonic regression by pool-adjacent-violators."""
        return isotonic_regression(self.hits / self.weight, weights=self.weight).x

    def decomposition(self, nll: float, brier: float) -> dict[str, float]:
        """The terms of mean score = miscalibration − discrimination + uncertainty, for the log and the Brier score.

        With S the mean score of the forecasts, S(r) the score of their isotonic recalibration and S(c) the score of
        the base rate, the terms are S − S(r), S(c) − S(r) and S(c) (CORP; Dimitriadis, Gneiting & Jordan, 2021).

        Args:
            nll: mean log score of the forecasts, in nats.
            brier: mean Brier score of the forecasts.
        """
        base = np.full_like(self.weight, self.hits.sum() / self.population)
        values = {}
        for unit, score, mean in (("nats", nll, self._log_score), ("brier", brier, self._brier_score)):
            recalibrated, uncertainty = mean(self.isotonic()), mean(base)
            values[f"miscalibration_{unit}"] = score - recalibrated
            values[f"discrimination_{unit}"] = uncertainty - recalibrated
            values[f"uncertainty_{unit}"] = uncertainty
        return values

    def cox(self) -> tuple[float, float, float] | None:
        """Intercept a and slope b of the logistic recalibration a + b·logit (Cox, 1958), and its gain in nats per row.

        None where no finite optimum exists: the classes do not overlap, or all logits are equal.
        """
        if not self.overlaps or np.ptp(self.logit) == 0:
            return None
        base = np.log(self.hits.sum()) - np.log((self.weight - self.hits).sum())
        starts = [self._cox_objective(np.array(beta)) for beta in ([0.0, 1.0], [base, 0.0])]
        now = min(starts, key=lambda start: start.value)
        for _ in range(100):
            step = np.linalg.lstsq(now.hessian, now.gradient, rcond=None)[0]
            new = self._cox_objective(now.beta - step)
            while new.value > now.value + 1e-13 * abs(now.value) and np.abs(step).max() > 1e-15:
                step = step / 2
                new = self._cox_objective(now.beta - step)
            now = new
            # The Hessian is off by up to a thousandth, so that a step of 1e-9 is followed by one of about 1e-12.
            if np.abs(step).max() <= 1e-9 * np.abs(now.beta).max():
                break
        saved = max(0.0, starts[0].value - now.value) / self.population
        return float(now.beta[0]), float(now.beta[1]), float(saved)

    def _cox_objective(self, beta: np.ndarray) -> "_Point":
        """NLL of the logits a + b·logit, summed over rows, its gradient, and its Hessian up to second moments."""
        a, b = beta.tolist()
        c, w, (first, second, third) = self.logit, self.weight, self.moments
        d = _softplus_derivatives(a + b * c)
        half, sixth = b * b / 2, b**3 / 6
        value = w @ d[0] + b * (first @ d[1]) + half * (second @ d[2]) + sixth * (third @ d[3])
        slope = w * d[1] + b * first * d[2] + half * second * d[3] + sixth * third * d[4]
        by_b = c @ slope + first @ d[1] + b * (second @ d[2]) + half * (third @ d[3])
        curvature = w * d[2]
        cross = curvature @ c + first @ d[2]
        square = curvature @ (c * c) + 2 * (first * c) @ d[2] + second @ d[2]
        return _Point(
            beta,
            value - a * self.hits.sum() - b * self.hit_logits,
            np.array([slope.sum() - self.hits.sum(), by_b - self.hit_logits]),
            np.array([[curvature.sum(), cross], [cross, square]]),
        )

    def _log_score(self, p: np.ndarray) -> float:
        return float(-(xlogy(self.hits, p) + xlogy(self.weight - self.hits, 1 - p)).sum() / self.population)

    def _brier_score(self, p: np.ndarray) -> float:
        return float((self.hits * (1 - p) ** 2 + (self.weight - self.hits) * p**2).sum() / self.population)


class _Point(NamedTuple):
    beta: np.ndarray
    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def _softplus_derivatives(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Softplus and its first four derivatives, each shaped like x."""
    small = np.exp(-np.abs(x))
    larger = 1 / (1 + small)
    smaller = small * larger
    p, v = np.where(x >= 0, larger, smaller), larger * smaller
    return np.maximum(x, 0) + np.log1p(small), p, v, v * (1 - 2 * p), v * (1 - 6 * v)
