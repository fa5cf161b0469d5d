"""What a method is that finds how uncertain the parameters of a trained model are, and what it finds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch.distributions import Distribution

from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows


class Uncertain(ABC):
    """What is known of the parameters: predictions are averaged over it."""

    name: str
    """That of the method, under which figures stand in summaries and evaluations."""

    @abstractmethod
    def predictive(self, objective: Objective, rows: Rows) -> Distribution:
        """The distribution of each row, of batch shape (n,), averaged over the parameters; on the CPU.

        Raises:
            UsageError: rows whose prediction the training rows leave undetermined.
        """

    def facts(self) -> dict[str, Any]:
        """What `summary.json` says of it beside the figures: plain values by name."""
        return {}

    def state(self) -> dict[str, Any] | None:
        """Tensors and plain containers for a checkpoint; None where it is found again from the settings."""
        return None

    @property
    def cost(self) -> str:
        """What takes long in a prediction, a clause for the person who waits; empty where nothing does."""
        return ""


class Method(ABC):
    """Finds the uncertainty of a trained model. A concrete one has a name, and writes `fit`."""

    name: ClassVar[str]
    needs_rows: ClassVar[bool] = True
    """Whether `fit` needs the training rows; without them a run can be asked for it at any time."""

    @abstractmethod
    def check(self, objective: Objective) -> None:
        """Refuse what the method is not for, before anything is trained.

        Raises:
            UsageError: why, and what to do.
        """

    @abstractmethod
    def fit(self, objective: Objective, train: Rows | None) -> Uncertain:
        """The uncertainty at the present state of an objective.

        Args:
            objective: trained; it is not changed.
            train: the training rows; None for a method that does not need them.

        Raises:
            UsageError: there is none at this state.
        """

    def restore(self, state: Mapping[str, Any]) -> Uncertain | None:
        """What `Uncertain.state` gave; None where it is not what these settings ask for.

        Raises:
            UsageError: it is damaged.
        """
        return None

    @property
    def setting(self) -> str:
        """The overrides of `mlefw train` that keep this uncertainty in a checkpoint, for messages."""
        return f"uncertainty={self.name}"
