"""Input maps among which training chooses."""

from mlefw.inputs.base import Inputs


class Auto(Inputs):
    """Trains once with each of some input maps, and keeps the run whose validation NLL is least.

    Which one suits a table is not known beforehand: a piecewise-linear code lowers the NLL of many, and costs those
    whose targets are smooth in the features. This class only says which maps there are, and is abstract: a run of each
    is trained by `mlefw.command.train`, and none with this one.

    Args:
        candidates: settings of input maps by the names under which results are reported.
    """

    def __init__(self, candidates: dict[str, dict[str, object]]) -> None:
        super().__init__()
