"""Proposals of another head or a recalibration if predictions are not calibrated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REAL = ("gaussian", "gaussian_fixed", "heteroscedastic", "laplace", "huber", "student_t", "mixture")
_POSITIVE = ("gamma", "lognormal", "weibull")
_SPREADS = ("scale", "dispersion", "shape", "precision", "covariance")
"""Parameters of the spread of observations, which a network can predict."""

_COUNTS = {
    "poisson": ("negative_binomial", "zero_inflated_poisson", "zero_inflated_negative_binomial"),
    "negative_binomial": ("zero_inflated_negative_binomial",),
    "zero_inflated_poisson": ("zero_inflated_negative_binomial", "negative_binomial"),
    "zero_inflated_negative_binomial": (),
}
"""Heads of counts, each with the heads that allow for more variance or more zeros."""

_MANY_LEVELS = 7
"""Number of quantiles from which more are not proposed."""

_MOST = 3
"""Most proposals."""


@dataclass(frozen=True)
class Chosen:
    """The head and settings of a run, and the range of its target.

    Attributes:
        head: name of the head.
        settings: settings of the head.
        setting: override that chooses the head: `head`, or `head.tasks.price`.
        recalibrations: members of `calibrate=` that apply to the head; none if one was used.
        is_large: whether the model has many parameters for its number of rows.
        has_prior: whether the weights have a prior.
        is_positive: whether every observation is above zero.
        is_share: whether every observation is between zero and one.
    """

    head: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    setting: str = "head"
    recalibrations: tuple[str, ...] = ()
    is_large: bool = False
    has_prior: bool = False
    is_positive: bool = False
    is_share: bool = False

    def heads(self, *names: str) -> list[str]:
        """Overrides that choose a head of these names, without the present one."""
        return [f"{self.setting}={name}" for name in names if name != self.head]

    def predicted(self, *names: str) -> list[str]:
        """Overrides that make the network predict these parameters, without those that it predicts already."""
        known = [name for name in names if self.settings.get(name, "predicted") != "predicted"]
        return [f"{self.setting}.{name}=predicted" for name in known]


def remedies(chosen: Chosen, signs: Mapping[str, int], is_overfit: bool) -> list[str]:
    """Overrides to try, the most promising first, without those that are set already.

    Args:
        chosen: the head and settings of the run.
        signs: whether each named quantity is larger (+1) or smaller (−1) than predicted.
        is_overfit: whether predictions are calibrated on training rows, so that the head is not the cause.
    """
    if "classes" in signs or is_overfit:
        found = [f"calibrate={name}" for name in chosen.recalibrations] + (
            ["prior=l2"] if chosen.is_large and not chosen.has_prior else []
        )
    elif chosen.head == "quantiles":
        # Between levels the distribution is uniform, which more of them make less coarse.
        more = len(chosen.settings.get("levels", ())) < _MANY_LEVELS
        found = [f"{chosen.setting}.levels=[0.05,0.1,0.25,0.5,0.75,0.9,0.95]"] if more else []
    elif chosen.head == "binomial":
        found = chosen.heads("beta_binomial") if signs.get("dispersion", 0) > 0 else []
    elif chosen.setting == "head.component" and chosen.head in _COUNTS:
        found = chosen.heads("negative_binomial") if chosen.head == "poisson" else chosen.predicted("dispersion")
    elif chosen.setting == "head.component":
        found = chosen.heads(*(_POSITIVE[1:] if chosen.is_positive else ("gaussian", "laplace")))
        found += chosen.predicted(*_SPREADS)
    elif chosen.head in _COUNTS:
        found = _of_counts(chosen, signs)
    elif chosen.head in (*_REAL, *_POSITIVE, "exponential", "beta"):
        found = _of_densities(chosen, signs)
    else:
        found = chosen.predicted(*_SPREADS)
    return list(dict.fromkeys(found))[:_MOST]


def _of_counts(chosen: Chosen, signs: Mapping[str, int]) -> list[str]:
    if max(signs.get("dispersion", 0), signs.get("zeros", 0), signs.get("spread", 0)) <= 0:
        # No head of counts has a smaller variance than the Poisson.
        return chosen.heads("poisson")
    heads = chosen.heads(*_COUNTS[chosen.head])
    if chosen.head == "poisson" and signs.get("zeros", 0) <= 0:
        heads = heads[:1]
    return heads + chosen.predicted("dispersion", "inflation")


def _of_densities(chosen: Chosen, signs: Mapping[str, int]) -> list[str]:
    is_real, heavy = chosen.head in _REAL, signs.get("residual_kurtosis", 0) > 0
    found = chosen.heads("gaussian") if chosen.head == "gaussian_fixed" else []
    bounded = ("beta",) if chosen.is_share else ("gamma", "lognormal") if is_real else _POSITIVE
    if (
        not is_real
        or (chosen.is_positive and {"residual_skewness", "spread_trend", "support"} & signs.keys())
        or chosen.is_share
    ):
        found += chosen.heads(*bounded)
    widening = chosen.heads("heteroscedastic") if chosen.head.startswith("gaussian") else chosen.predicted(*_SPREADS)
    tails = chosen.heads("student_t") if heavy and is_real else []
    if chosen.settings.get("scale") == "predicted":
        tails = [f"{item} {chosen.setting}.scale=predicted" for item in tails]
    # A spread that varies with a feature also causes heavy tails.
    found += widening + tails if "spread_trend" in signs else tails + (widening if heavy else [])
    if is_real and not heavy:
        found += chosen.heads("mixture")
    return found or widening
