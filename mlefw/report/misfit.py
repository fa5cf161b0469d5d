"""Whether predictions are calibrated, in a sentence: what is miscalibrated, by how much, and what to try instead.

A departure is reported if it is both significant and large enough to matter. All departures are measured in nats per
row by which the NLL could be lower. For a share (of rows in an interval, of zeros, in a bin of the PIT) that is the
divergence of the observed from the nominal share, which by the data processing inequality is a lower bound of the gain.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mlefw.distribution.reference import chi2_tail, normal_tail
from mlefw.report.remedy import Chosen, remedies
from mlefw.system.atomic import Json
from mlefw.system.number_format import number, percent

CHANCE = 1e-4
"""P-value below which a departure is significant. Each run tests about ten figures on three splits, and fewer than one
calibrated run in a hundred should get a report."""

NATS = 0.02
"""Nats per row above which a departure matters: the cost of scales that are wrong by a factor of 1.15, or of 90 %
intervals that cover 83 %. A linear model loses half of it by estimation from fifty rows for each parameter."""

SHARE = 0.05
"""Share of the NLL of classes above which a departure matters, for nearly certain forecasts with few nats."""

TREND = 0.2
"""Correlation of absolute residuals with the predicted mean above which it matters: that of scales whose logarithm has
a standard deviation of 0.15, at a cost of 0.15² = 0.02 nats."""

_LEVELS = (50, 80, 90, 95)
_BINS = 20
_ORDER = ("test", "validation", "train")


@dataclass(frozen=True)
class Departure:
    """A departure from calibration.

    Attributes:
        kind: `coverage`, `spread_trend`, `support`, `dispersion`, `zeros` or `probabilities`.
        words: description in one clause.
        nats: lower bound of its cost, in nats per row.
        is_wide: whether predictions are too wide, as they may be on rows that an overfitted model was fitted to.
        signs: whether each named quantity is larger (+1) or smaller (−1) than predicted.
    """

    kind: str
    words: str
    nats: float
    is_wide: bool
    signs: Mapping[str, int] = field(default_factory=dict)


def misfit(
    metrics: Mapping[str, Mapping[str, float]],
    population: Mapping[str, float],
    chosen: Callable[[str], Chosen],
    observation: str = "row",
) -> Json | None:
    """The entry `misfit` of `summary.json`; None if predictions are calibrated.

    Args:
        metrics: figures of the metrics by split.
        population: Σ w by split, including `train`.
        chosen: maps the name of a target to the settings of its head; a single target has the name "".
        observation: what one observation is, in a word.
    """
    for split in (*_ORDER, *(split for split in metrics if split not in _ORDER)):
        for target, figures in _by_target(metrics.get(split, {})):
            on_train = _of_target(metrics.get("train", {}), target)
            fitted = departures(on_train, population["train"], observation=observation)
            run = chosen(target)
            if run.is_large:
                # A model with many parameters has smaller errors on the rows that it was fitted to.
                fitted = [one for one in fitted if not one.is_wide]
            held = (figures, population[split], population["train"], observation)
            found = fitted if split == "train" else departures(*held)
            if found:
                is_narrow = not all(one.is_wide for one in found)
                return _content(
                    split, target, found, run.is_large and "train" in metrics and not fitted and is_narrow, run
                )
    return None


def departures(
    figures: Mapping[str, float], population: float, fitted: float = 0.0, observation: str = "row"
) -> list[Departure]:
    """The departures from calibration of one target, the most costly first.

    Args:
        figures: figures of the metrics.
        population: Σ w of the rows.
        fitted: Σ w of the training rows, if the figures are of other rows. A share learnt from training rows has a
            sampling error of its own, so that the variance of a difference is proportional to 1/n + 1/fitted.
        observation: what one observation is, in a word.
    """
    if population <= 0:
        return []
    share = fitted / (population + fitted) if fitted else 1.0
    looks = (_coverage, _trend, _support, _dispersion, _zeros, partial(_probabilities, observation=observation))
    found = [one for look in looks if (one := look(figures, share * population, share**0.5)) is not None]
    return sorted(found, key=lambda one: -one.nats)


def _content(split: str, target: str, found: list[Departure], is_overfit: bool, chosen: Chosen) -> Json:
    signs = {name: sign for one in reversed(found) for name, sign in one.signs.items()}
    proposals = remedies(chosen, signs, is_overfit)
    of = f" of {target}" if target else ""
    words, rows = "; ".join(one.words for one in found), "training" if split == "train" else split
    sentence = f"Predictions{of} are not calibrated on {rows} rows: {words}."
    if is_overfit and split != "train":
        sentence = f"{sentence[:-1]}; on training rows they are."
    if proposals:
        sentence += f" Try {' or '.join(proposals)}."
    figures = {one.kind: one.nats for one in found}
    return {"split": split, **({"target": target} if target else {}), "nats": figures, "try": proposals} | {
        "sentence": sentence
    }


def _coverage(figures: Mapping[str, float], population: float, _: float) -> Departure | None:
    """The shares of rows in central intervals, and in all bins of the PIT."""
    shares = {level: figures[f"coverage_{level}"] for level in _LEVELS if f"coverage_{level}" in figures}
    if not shares:
        return None
    costs, chances = {}, {}
    for level, share in shares.items():
        promised = level / 100
        costs[level] = divergence(share, promised)
        error = math.sqrt(promised * (1 - promised) / population)
        chances[level] = _two_sided((share - promised) / error)
    off = [level for level in shares if costs[level] >= NATS and chances[level] < CHANCE]
    # χ² / 2n of the histogram approximates its divergence from uniform; subtract its expectation for a true model.
    square = _BINS**2 * figures.get("pit_rmse", 0.0) ** 2
    cost = square / 2 - (_BINS - 1) / (2 * population)
    if not off and not (cost >= NATS and chi2_tail(population * square, _BINS - 1) < CHANCE):
        return None
    worst = max(shares, key=lambda level: costs[level])
    words = f"90 % intervals cover {percent(shares[90])}" if 90 in shares else ""
    if 90 not in off and worst != 90:
        words = f"{words}, {worst} % intervals {percent(shares[worst])}".removeprefix(", ")
    signs, more = _shape(figures, population)
    is_narrow = shares[worst] < worst / 100
    signs["spread"] = 1 if is_narrow else -1
    # Heavy tails also widen a fitted scale, so they do not count as too wide predictions.
    is_wide = all(share > level / 100 for level, share in shares.items()) and signs.get("residual_kurtosis", 0) <= 0
    return Departure("coverage", ", ".join([words, *more]), max(cost, costs[worst]), is_wide, signs)


def _shape(figures: Mapping[str, float], population: float) -> tuple[dict[str, int], list[str]]:
    """Signs and words for moments of the residuals that differ from normal by at least four standard errors."""
    known = {
        "residual_mean": (1.0, 0.15, "observations lie above their predictions", "observations lie below them"),
        "residual_skewness": (6.0, 0.4, "the upper tail is longer than predicted", "the lower tail is longer"),
        "residual_kurtosis": (24.0, 0.5, "tails are heavier than predicted", "tails are lighter than predicted"),
    }
    signs: dict[str, int] = {}
    words = []
    for name, (variance, least, above, below) in known.items():
        value = figures.get(name, 0.0)
        if abs(value) >= max(least, 4 * math.sqrt(variance / population)):
            signs[name] = 1 if value > 0 else -1
            words.append(above if value > 0 else below)
    return signs, words


def _trend(figures: Mapping[str, float], population: float, _: float) -> Departure | None:
    value = figures.get("spread_trend", 0.0)
    if abs(value) < TREND or _two_sided(value * math.sqrt(population)) >= CHANCE:
        return None
    words = f"residuals spread {'more' if value > 0 else 'less'} where the predicted mean is larger"
    return Departure("spread_trend", words, (0.75 * value) ** 2, False, {"spread_trend": 1 if value > 0 else -1})


def _support(figures: Mapping[str, float], population: float, _: float) -> Departure | None:
    """Predicted probability where no row is observed, which happens in n rows with probability (1 − mass)ⁿ."""
    masses = {"mass_below_zero": "below zero", "mass_above_one": "above one"}
    mass = min(sum(figures.get(name, 0.0) for name in masses), 1 - 1e-12)
    cost = -math.log(1 - mass)
    if cost < NATS or math.exp(-population * cost) >= CHANCE:
        return None
    where = " or ".join(words for name, words in masses.items() if figures.get(name, 0.0) > mass / 10)
    words = f"{percent(mass)} of the predicted probability lies {where}, where no observation is"
    return Departure("support", words, cost, False, {"support": 1})


def _dispersion(figures: Mapping[str, float], _: float, shrink: float) -> Departure | None:
    value, z = figures.get("dispersion", 1.0), figures.get("dispersion_z", 0.0)
    cost = (value - 1 - math.log(max(value, 1e-300))) / 2
    # Ignore a dispersion that one or two rows cause, which have a large standard error.
    if abs(value - 1) < 2 * figures.get("dispersion_se", 0.0):
        return None
    if cost < NATS or _two_sided(z * shrink) >= CHANCE:
        return None
    words = f"counts vary {value:.2g} times as much as predicted"
    return Departure("dispersion", words, cost, value < 1, {"dispersion": 1 if value > 1 else -1})


def _zeros(figures: Mapping[str, float], _: float, shrink: float) -> Departure | None:
    if not {"zeros_observed", "zeros_expected", "zeros_z"} <= figures.keys():
        return None
    observed, expected = figures["zeros_observed"], figures["zeros_expected"]
    cost = divergence(observed, expected)
    if cost < NATS or _two_sided(figures["zeros_z"] * shrink) >= CHANCE:
        return None
    words = f"{percent(observed)} are zero where {percent(expected)} were expected"
    return Departure("zeros", words, cost, False, {"zeros": 1 if observed > expected else -1})


def _probabilities(
    figures: Mapping[str, float], population: float, shrink: float, observation: str
) -> Departure | None:
    """Miscalibrated class probabilities, by the gain of a recalibration and by Spiegelhalter's test."""
    if not {"ece_15", "ece_null"} <= figures.keys():
        return None
    cost, z = figures.get("calibration_gap_nats", 0.0), figures.get("spiegelhalter_z", 0.0)
    # The likelihood ratio of a recalibration with two parameters: χ² with 2 df.
    chance = min(math.exp(-population * cost), _two_sided(z * shrink))
    excess = figures["ece_15"] - figures["ece_null"]
    # Pinsker's inequality: a lower bound of the divergence of shares that differ by the excess on average.
    cost = max(cost, 2 * excess * abs(excess))
    if cost < min(NATS, SHARE * figures.get("nll_nats", math.inf)) or chance >= CHANCE:
        return None
    slope = figures.get("calibration_slope", 1 / figures.get("temperature", 1.0))
    extreme = z > 0 if slope == 1 else slope < 1
    kind = "too extreme (overconfident)" if extreme else "too timid (underconfident)"
    ece = f"calibration error {number(figures['ece_15'])} where chance alone makes {number(figures['ece_null'])}"
    gap = (
        f", recalibrated ones would save {cost:.2g} nats per {observation}" if "calibration_gap_nats" in figures else ""
    )
    return Departure("probabilities", f"probabilities are {kind}: {ece}{gap}", cost, not extreme, {"classes": 1})


def _two_sided(z: float) -> float:
    return 2 * float(normal_tail(abs(z)))


def divergence(observed: float, promised: float) -> float:
    """Kullback-Leibler divergence KL(observed, promised) of two shares, in nats."""
    pairs = ((observed, promised), (1 - observed, 1 - promised))
    return sum(a * math.log(a / max(b, 1e-300)) for a, b in pairs if a > 0)


def _by_target(figures: Mapping[str, float]) -> Iterable[tuple[str, Mapping[str, float]]]:
    """Figures of each target by its name, the prefix in `price/crps`, or "" without a prefix."""
    targets = dict.fromkeys(name.rpartition("/")[0] for name in figures)
    return [(target, _of_target(figures, target)) for target in targets]


def _of_target(figures: Mapping[str, float], target: str) -> Mapping[str, float]:
    prefix = f"{target}/" if target else ""
    own = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if "/" not in name}
