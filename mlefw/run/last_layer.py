"""The exact estimates on the features of a trained network's last layer, for `baseline.features=last_layer`."""

from mlefw.configuration.settings import Settings
from mlefw.run import build
from mlefw.run.estimate import estimates
from mlefw.run.prepare import Prepared, tell
from mlefw.score.yardstick import Yardstick


def at_end(config: Settings, prepared: Prepared, yardstick: Yardstick) -> Yardstick:
    """The exact estimates that a trained model is compared with.

    They are those of `yardstick`, unless the settings ask for estimates on the features that the network has learnt:
    these are known at the end of training alone.

    Args:
        config: the settings of the run.
        prepared: its rows and the objective, with the weights that are kept.
        yardstick: the exact estimates that were known before training.
    """
    arrays, baseline = prepared.estimand.arrays, build.build_baseline(config.baseline)
    if baseline is None or arrays is None or not arrays.is_of_network:
        return yardstick
    exact = estimates(baseline, prepared.estimand, prepared.data.train)
    tell(prepared, exact)
    return Yardstick(exact, prepared.estimand.objective, prepared.data.splits, yardstick.units)
