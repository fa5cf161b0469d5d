"""`Method`, the interface of an uncertainty method, and `Uncertain`, the parameter uncertainty that it finds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch.distributions import Distribution

from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows


class Uncertain(ABC):
    """The uncertainty of the parameters of a trained model, over which predictions are averaged."""

    name: str
    """Name of the method, under which summaries and evaluations list its figures."""

    @abstractmethod
    def predictive(self, objective: Objective, rows: Rows) -> Distribution:
        """The predictive distribution of each row averaged over the parameters, of batch shape (n,), on the CPU.

        Raises:
            UsageError: the training rows leave the prediction of some rows undetermined.
        """

    def facts(self) -> dict[str, Any]:
        """Plain values by name that `summary.json` lists in addition to the figures."""
        return {}

    def state(self) -> dict[str, Any] | None:
        """Tensors and plain containers for a checkpoint; None if the settings alone suffice to find it again."""
        return None

    @property
    def cost(self) -> str:
        """A clause that tells the user what makes a prediction slow; empty if nothing does."""
        return ""


class Method(ABC):
    """Finds the parameter uncertainty of a trained model; a concrete class states `name`, writes `check` and `fit`."""

    name: ClassVar[str]
    needs_rows: ClassVar[bool] = True
    """Whether `fit` needs the training rows; a method without that need also applies to a finished run."""

    @abstractmethod
    def check(self, objective: Objective) -> None:
        """Refuse, before training, an objective that the method is not defined for.

        Raises:
            UsageError: the method is not defined for this objective; the message says why and what to do.
        """

    @abstractmethod
    def fit(self, objective: Objective, train: Rows | None) -> Uncertain:
        """The parameter uncertainty at the present state of an objective.

        Args:
            objective: a trained objective, which is not changed.
            train: the training rows; None for a method that does not need them.

        Raises:
            UsageError: the uncertainty is not defined at this state.
        """

    def restore(self, state: Mapping[str, Any]) -> Uncertain | None:
        """The uncertainty from a stored `Uncertain.state`; None if it was found with other settings of the method.

        Raises:
            UsageError: the stored state is damaged.
        """
        return None

    @property
    def setting(self) -> str:
        """The overrides with which `mlefw train` stores this uncertainty in a checkpoint, for messages."""
        return f"uncertainty={self.name}"
