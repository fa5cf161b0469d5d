"""A choice among several input maps by training with each."""

from mlefw.inputs.base import Inputs


class Auto(Inputs):
    """Trains once with each of several input maps, and keeps the run with the least validation NLL.

    Which map suits a table is not known beforehand: a piecewise-linear code lowers the NLL on many tables, and raises
    it where the target is smooth in the features. This class only holds the candidates and is abstract, so that no
    model is built with it: `mlefw.command.train` trains a run with each candidate.

    Args:
        candidates: settings of each input map, by the name under which its result is reported.
    """

    def __init__(self, candidates: dict[str, dict[str, object]]) -> None:
        super().__init__()
