"""Conformal intervals and quantiles: what they promise holds in finite samples, whatever the model."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

from mlefw.calibrate.base import Calibration
from mlefw.distribution.censored import Censored
from mlefw.distribution.conformal import Conformal as ConformalDistribution
from mlefw.distribution.conformal import Discrete, Part, Scores, has_masses, tails
from mlefw.distribution.joint import Joint
from mlefw.distribution.precision import promote
from mlefw.distribution.trials import GivenTrials
from mlefw.errors import UsageError
from mlefw.system.warning import warn


class Conformal(Calibration):
    """Intervals and quantiles by split conformal prediction on the PIT of validation rows; the density stays.

    A central interval of level c covers a new row with a probability between c and c + 1 / (n + 1), if it and the n
    validation rows are exchangeable given the model. `mlefw.distribution.conformal` has the rule.

    Args:
        discrete: how counts, and other values with a probability of their own, are scored. `conservative`: by the
            interval that is shown, which covers at least what is promised. `randomised`: by a draw between P(Y < y) and
            P(Y <= y), which lies in the central part of (0, 1) as often as is promised; the interval that is shown
            holds all values that the part touches, so that it covers more.
        seed: of the draws.
    """

    takes: ClassVar = (
        "one number: a class has probabilities and no interval, and where a censored time lies in its distribution is "
        "not known"
    )
    changes_density: ClassVar = False

    below: Tensor
    above: Tensor
    count: Tensor

    def __init__(self, discrete: Discrete = "conservative", seed: int = 0) -> None:
        super().__init__()
        if seed < 0:
            raise UsageError(f"calibrate.seed={seed}: expected a whole number of at least 0")
        self.discrete, self.seed = discrete, seed
        for name in ("below", "above", "count"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))
        self.scores = Scores(self.below, self.above, self.count)

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is one of a single number that is observed."""
        if isinstance(distribution, Bernoulli | Categorical | Censored | Joint):
            return False
        return isinstance(distribution, GivenTrials) or not distribution.event_shape

    def check_rows(self, weight: Tensor) -> None:
        """Refuse rows of several observations, and weights that are no frequencies; weight (n, *positions).

        Raises:
            UsageError: saying which.
        """
        if weight.ndim > 1:
            raise UsageError(
                "calibrate=conformal is for rows of one observation: those of one row depend on each other, and so are "
                "not exchangeable with those of another: expected calibrate=none"
            )
        if len(bad := weight[weight != weight.round()]):
            raise UsageError(
                f"calibrate=conformal counts rows, and data.weight has {float(bad[0]):g} in a validation row: expected "
                "whole numbers, which are frequencies; for importance weights there is no such promise"
            )

    def check_mixture(self, out_of_fold: bool) -> None:
        """Refuse mixtures for which there is no promise, of all but CV+.

        Raises:
            UsageError: the models are not those of folds, or scores are randomised.
        """
        if not out_of_fold:
            raise UsageError(
                "calibrate=conformal: the intervals of several models together promise something only where each has "
                "held out other rows, and all rows are held out by one: expected ensemble=folds, or calibrate=none"
            )
        if self.discrete == "randomised":
            raise UsageError(
                "calibrate.discrete=randomised is for one model: expected calibrate.discrete=conservative with "
                "ensemble=folds"
            )

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Keep the scores of the rows: batch shape (n,), y (n,) or (n, 2) with trials, weight (n,) as frequencies."""
        if isinstance(distribution, GivenTrials):
            count, trials = y.unbind(-1)
            distribution, y = distribution.given(trials), count
        below, above = tails(distribution, y)
        if self.discrete == "randomised" and has_masses(distribution):
            generator = torch.Generator().manual_seed(self.seed)
            share = torch.rand(len(y), generator=generator, dtype=torch.float64).to(below.device)
            mass = (below + above - 1).clamp(min=0)
            below, above = below - share * mass, above - (1 - share) * mass
        kept = (weight > 0).to(below.device)
        if not bool((below[kept].isfinite() & above[kept].isfinite()).all()):
            raise UsageError("calibrate=conformal: the distribution function of a validation row is not finite")
        self.below, self.above = (mass[kept].double().cpu().clone() for mass in (below, above))
        self.count = promote(weight).to(kept.device)[kept].cpu().clone()
        self.scores = Scores(self.below, self.above, self.count)
        self.warn_of((0.5, 0.8, 0.9, 0.95), ())
        if (gone := float(self.count[torch.minimum(self.below, self.above) == 0].sum())) > 0:
            warn(
                f"calibrate=conformal: {gone:g} of {self.scores.num} validation rows lie so far in the tail of their "
                "distribution that its mass there is 0: intervals that have to cover such rows have no end"
            )

    def forward(self, distribution: Distribution) -> Distribution:
        """The distribution with conformal intervals and quantiles; unchanged before `fit`."""
        if not len(self.count):
            return distribution
        if isinstance(distribution, GivenTrials):
            return GivenTrials(lambda trials: self(distribution.given(trials)), distribution.batch_shape)
        return ConformalDistribution(distribution, [Part(distribution, self.scores)], self.discrete)

    def figures(self) -> dict[str, float]:
        """`num_scores`, the number of rows n, and `highest_level`, n / (n + 1), the highest level they can promise."""
        return {"num_scores": float(self.scores.num), "highest_level": self.scores.num / (self.scores.num + 1)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the scores from a stored state.

        Raises:
            UsageError: the state is damaged, or holds what no scores are.
        """
        super().restore(state)
        right = len(self.below) == len(self.above) == len(self.count) > 0
        if not right or not all(bool(((one >= 0) & (one <= 1)).all()) for one in (self.below, self.above)):
            raise UsageError("Conformal: the stored masses of tails are not numbers from 0 to 1, a pair for each row")
        if not bool(((self.count >= 1) & (self.count == self.count.round())).all()):
            raise UsageError("Conformal: the stored numbers of rows are not whole numbers of at least 1")
        self.scores = Scores(self.below, self.above, self.count)

    def warn_of(self, levels: Sequence[float], quantiles: Sequence[float]) -> None:
        """Warn of levels of central intervals, and probabilities of quantiles, that n rows cannot promise."""
        most = self.figures()["highest_level"] + 1e-12
        lost = [f"an interval of level {level:g}" for level in levels if level > most]
        lost += [f"a quantile at {p:g}" for p in quantiles if max(p, 1 - p) > most]
        if lost:
            warn(
                f"calibrate=conformal has {self.scores.num} validation rows, which can promise no level above "
                f"{most:.4g}: {' and '.join(lost)} ends where the range of the target does, or at infinity (expected "
                "more rows: data.validation_fraction)"
            )
