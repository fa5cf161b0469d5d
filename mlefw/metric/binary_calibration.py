"""Calibration and discrimination of a binary forecast: Cox, CORP, Spiegelhalter, ROC."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.distribution.binary_forecasts import ForecastTable
from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, log_prob, sums

_HALF = 2048
"""Half the number of bins of the logit."""
_BEND = 2.0
"""Logit η is binned on the softsign scale η / (_BEND + |η|), with equal bins from −1 to 1."""


class BinaryCalibration(Metric):
    """Calibration and discrimination of a binary forecast.

    - `calibration_intercept` a, `calibration_slope` b: the maximum likelihood recalibration a + b·logit (Cox, 1958);
      0 and 1 for a calibrated forecast. `calibration_gap_nats`: the mean NLL that it saves. `calibration_p_value` =
      exp(−n·gap), the χ² test with 2 df of the likelihood ratio 2n·gap. All absent where the classes do not overlap
      along the logit.
    - `spiegelhalter_z` = Σ (y − p)(1 − 2p) / √Σ (1 − 2p)² p (1 − p), standard normal if calibrated (1986).
    - `miscalibration_nats`, `discrimination_nats`, `uncertainty_nats`, and `miscalibration_brier` and so on: NLL (Brier
      score) = miscalibration − discrimination + uncertainty by isotonic recalibration (Dimitriadis et al., 2021).
    - `auroc`: area under the ROC curve, ties counting ½; absent with one class only.
    - `ece_equal_mass`: calibration error over 15 bins of equal weight; equal forecasts stay together.

    The states are sums over 4096 bins of the logit (0.001 wide at p = ½, wider outwards), with three moments in each,
    so that Cox and Spiegelhalter are accurate to 1e-10. Figures of ranks (CORP, auroc, ece_equal_mass) treat forecasts
    in one bin as equal, an error of about 1e-5 at 10 000 rows; `exact` computes them without it.
    """

    table: Tensor
    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("table", 5, 2 * _HALF)
        self.add_sum("totals", 6)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        self.totals = self.totals + _totals(distribution, y, weight)
        logit, weight = _logit(distribution), promote(weight)
        index = ((logit / (_BEND + logit.abs()) + 1) * _HALF).long().clamp(0, 2 * _HALF - 1)
        offset = logit - _centers().to(logit.device).index_select(0, index)
        term = weight
        self.table[0].index_add_(0, index, weight)
        self.table[1].index_add_(0, index, weight * y)
        for power in range(2, 5):
            term = term * offset
            self.table[power].index_add_(0, index, term)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        table, centers = self.table.cpu().numpy(), _centers().numpy()
        seen = table[0] > 0
        weight, hits, *moments = table[:, seen]
        grouped = ForecastTable(centers[seen], weight, hits, np.stack(moments), float(self.totals[5]))
        return self._figures(grouped, self.totals)

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The figures with each distinct logit in its own bin."""
        columns = (_logit(distribution), promote(weight), promote(y))
        grouped = ForecastTable.of(*(column.cpu().numpy() for column in columns))
        return self._figures(grouped, _totals(distribution, y, weight))

    def _figures(self, table: ForecastTable, totals: Tensor) -> dict[str, Tensor]:
        population, nll, square, excess, variance = totals.tolist()[:5]
        values: dict[str, float | None] = {"auroc": table.auroc(), "ece_equal_mass": table.equal_mass_error()}
        values |= table.decomposition(nll / population, square / population)
        if variance > 0:
            values["spiegelhalter_z"] = excess / variance**0.5
        cox = table.cox()
        if cox is not None:
            values["calibration_intercept"], values["calibration_slope"], gap = cox
            values |= {"calibration_gap_nats": gap, "calibration_p_value": float(np.exp(-population * gap))}
        return {name: totals.new_tensor(value) for name, value in values.items() if value is not None}


def _logit(distribution: Distribution) -> Tensor:
    if not isinstance(distribution, Bernoulli):
        raise TypeError(f"no log-odds in {type(distribution).__name__}")
    return promote(distribution.logits)


def _totals(distribution: Distribution, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of 1, NLL, Brier score, Spiegelhalter's numerator and variance, and y · logit, (6,)."""
    logit = _logit(distribution)
    p, q = torch.sigmoid(logit), torch.sigmoid(-logit)
    miss = torch.where(y == 1, q, p)
    tilt = q - p
    excess = torch.where(y == 1, q, -p) * tilt
    return sums(weight, -log_prob(distribution, y), miss.square(), excess, tilt.square() * p * q, y * logit)


def _centers() -> Tensor:
    """The logits at the middle of the bins, (4096,)."""
    s = (torch.arange(2 * _HALF, dtype=torch.float64) + 0.5) / _HALF - 1
    return _BEND * s / (1 - s.abs())
