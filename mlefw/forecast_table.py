"""Binary forecasts grouped by their logit, and what the groups say about calibration and discrimination."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import expit, xlogy


@dataclass(frozen=True)
class ForecastTable:
    """Groups of rows with about the same predicted log-odds, in increasing order, each of positive weight.

    Args:
        logit: the logit that a group is named after, (num_groups,).
        weight: Σ w of the group.
        hits: Σ w y.
        moments: Σ w (η − logit)^k for k = 1, 2, 3 over the logits η of its rows, (3, num_groups): what makes sums of
            smooth functions of η exact to 1e-12 although the group is wider than a point. Zero where it is not.
        hit_logits: Σ w y η over all rows.
    """

    logit: np.ndarray
    weight: np.ndarray
    hits: np.ndarray
    moments: np.ndarray
    hit_logits: float

    @classmethod
    def of(cls, logit: np.ndarray, weight: np.ndarray, hits: np.ndarray) -> "ForecastTable":
        """The table of distinct logits of rows, which is exact; rows without weight are left out."""
        seen = weight > 0
        distinct, group = np.unique(logit[seen], return_inverse=True)
        sums = [np.bincount(group, values[seen], len(distinct)) for values in (weight, weight * hits)]
        return cls(distinct, *sums, np.zeros((3, len(distinct))), float(sums[1] @ distinct))

    @property
    def population(self) -> float:
        """Σ w."""
        return float(self.weight.sum())

    @property
    def overlaps(self) -> bool:
        """Whether neither "y = 1 from some logit on" nor its reverse fits every row."""
        one, zero = np.flatnonzero(self.hits > 0), np.flatnonzero(self.hits < self.weight)
        return bool(len(one) and len(zero) and one[0] < zero[-1] and zero[0] < one[-1])

    def predicted(self) -> np.ndarray:
        """Σ w p of each group."""
        d = _softplus_derivatives(self.logit)
        first, second, third = self.moments
        return self.weight * d[1] + first * d[2] + second / 2 * d[3] + third / 6 * d[4]

    def auroc(self) -> float | None:
        """P(η of a row with y = 1 > η of one with y = 0), ties counting ½ (Hanley & McNeil, 1982); needs both."""
        misses = self.weight - self.hits
        pairs = self.hits.sum() * misses.sum()
        below = np.cumsum(misses) - misses
        return float((self.hits * (below + misses / 2)).sum() / pairs) if pairs > 0 else None

    def equal_mass_error(self, num_bins: int = 15) -> float:
        """Σ (n_b / n) |p̄ − t̄| over bins of equal weight; a group lies where the middle of its weight does."""
        middle = (np.cumsum(self.weight) - self.weight / 2) / self.population
        place = np.minimum((middle * num_bins).astype(int), num_bins - 1)
        return float(np.abs(np.bincount(place, self.predicted() - self.hits)).sum() / self.population)

    def isotonic(self) -> np.ndarray:
        """Share of y = 1 of each group, recalibrated: the best non-decreasing function of the forecast, by PAV."""
        return isotonic_regression(self.hits / self.weight, weights=self.weight).x

    def decomposition(self, nll: float, brier: float) -> dict[str, float]:
        """Mean score = miscalibration − discrimination + uncertainty, of the log score in nats and of the Brier score.

        With S(r) the score of the isotonic recalibration and S(c) that of the base rate: S − S(r), S(c) − S(r), S(c)
        (CORP; Dimitriadis, Gneiting & Jordan, 2021).

        Args:
            nll: mean log score of the forecasts themselves.
            brier: mean Brier score of the forecasts themselves.
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
        """Intercept a and slope b of the best recalibration a + b·logit (Cox, 1958), and the nats a row it saves.

        None where no finite optimum exists: the classes do not overlap, or all logits are equal.
        """
        if not self.overlaps or np.ptp(self.logit) == 0:
            return None
        base = np.log(self.hits.sum()) - np.log((self.weight - self.hits).sum())
        unchanged = self._cox_objective(np.array([0.0, 1.0]))[0]
        beta = min(np.array([0.0, 1.0]), np.array([base, 0.0]), key=lambda beta: self._cox_objective(beta)[0])
        for _ in range(100):
            value, gradient, hessian = self._cox_objective(beta)
            step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
            while self._cox_objective(beta - step)[0] > value + 1e-13 * abs(value) and np.abs(step).max() > 1e-15:
                step = step / 2
            beta = beta - step
            if np.abs(step).max() <= 1e-11 * np.abs(beta).max():
                break
        saved = unchanged - self._cox_objective(beta)[0]
        return float(beta[0]), float(beta[1]), max(0.0, saved / self.population)

    def _cox_objective(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        a, b = beta
        d = _softplus_derivatives(a + b * self.logit)
        first, second, third = self.moments
        scaled = np.stack([self.weight, b * first, b * b * second / 2, b**3 * third / 6])
        shifted = np.stack([first, b * second, b * b * third / 2])
        value = (scaled * d[:4]).sum() - a * self.hits.sum() - b * self.hit_logits
        by_group = (scaled * d[1:5]).sum(0)
        by_a = by_group.sum() - self.hits.sum()
        by_b = (self.logit * by_group).sum() + (shifted * d[1:4]).sum() - self.hit_logits
        curvature = self.weight * d[2]
        cross = (curvature * self.logit).sum() + (first * d[2]).sum()
        square = (curvature * self.logit**2).sum() + ((2 * self.logit * first + second) * d[2]).sum()
        return float(value), np.array([by_a, by_b]), np.array([[curvature.sum(), cross], [cross, square]])

    def _log_score(self, p: np.ndarray) -> float:
        return float(-(xlogy(self.hits, p) + xlogy(self.weight - self.hits, 1 - p)).sum() / self.population)

    def _brier_score(self, p: np.ndarray) -> float:
        return float((self.hits * (1 - p) ** 2 + (self.weight - self.hits) * p**2).sum() / self.population)


def _softplus_derivatives(x: np.ndarray) -> np.ndarray:
    """Softplus and its first four derivatives, (5, *shape)."""
    p, q = expit(x), expit(-x)
    v = p * q
    return np.stack([np.logaddexp(0, x), p, v, v * (q - p), v * (1 - 6 * v)])
