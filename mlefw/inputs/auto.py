"""Input maps among which training chooses."""

from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs


class Auto(Inputs):
    """Trains once with each of some input maps, and keeps the run whose validation NLL is least.

    Which one suits a table is not known beforehand: a piecewise-linear code lowers the NLL of many, and costs those
    whose targets are smooth in the features. This class only says which maps there are; a run of each is trained by
    `mlefw.command.train`, and none is ever trained with this one.

    Args:
        candidates: settings of input maps by the names under which results are reported.

    Raises:
        UsageError: whenever one is built.
    """

    def __init__(self, candidates: dict[str, dict[str, object]]) -> None:
        super().__init__()
        known = ", ".join(candidates)
        raise UsageError(f"inputs=auto chooses among {known} by training: expected one of them here")

    @property
    def num_inputs(self) -> int:
        """Never known."""
        raise NotImplementedError

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Never called."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Never called."""
        raise NotImplementedError
