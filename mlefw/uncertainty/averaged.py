"""The predictive distribution of each row, averaged over what is uncertain, however that is known."""

from torch.distributions import Distribution

from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.uncertainty.laplace import Laplace
from mlefw.uncertainty.marginal import predictive
from mlefw.uncertainty.mc_dropout import DropoutMasks, McDropout
from mlefw.uncertainty.posterior import Posterior

Method = Laplace | McDropout
"""What finds the uncertainty of a trained model."""

Uncertain = Posterior | DropoutMasks
"""What it finds."""


def averaged(objective: Objective, uncertain: Uncertain, rows: Rows) -> Distribution:
    """The average over a normal posterior, or over masks.

    Raises:
        UsageError: rows whose prediction the training rows leave undetermined.
    """
    if isinstance(uncertain, DropoutMasks):
        return uncertain.predictive(objective, rows)
    return predictive(objective, uncertain, rows)
