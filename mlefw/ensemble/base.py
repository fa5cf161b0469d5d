"""The interface of an ensemble, which says how its members differ."""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from mlefw.configuration.settings import Node
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run.held_out import Parts


@dataclass(kw_only=True)
class Ensemble(ABC):  # noqa: B024 - members may differ by their seeds alone
    """An ensemble: how its members differ, as a function of settings and rows alone.

    Attributes:
        members: number of members.
        member: number of the only member to train, from 0; None to train all members.
        jobs: number of members that are trained at once; None for the number of cores.
    """

    out_of_fold: ClassVar[bool] = False
    """Whether the validation rows of the members share out all rows, so that each row is held out by one member."""

    members: int = 5
    member: int | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UsageError: naming the setting.
        """
        if self.members < 1:
            raise UsageError(f"ensemble.members={self.members}: expected a whole number of at least 1")
        if self.member is not None and not 0 <= self.member < self.members:
            raise UsageError(f"ensemble.member={self.member}: expected 0 to {self.members - 1}, or null for all")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"ensemble.jobs={self.jobs}: expected a whole number of at least 1, or null")

    def settings(self, config: Node, number: int) -> Node:
        """The settings of one member: those of the ensemble with another `seed`, and without report and pictures.

        Args:
            config: the resolved settings of the ensemble, in plain containers.
            number: number of the member, from 0.
        """
        # Ensembles of equal size with different values of `seed` have no member's seed in common.
        seed = (config["seed"] * self.members + number) % 2**32
        node = {**config["ensemble"], "member": number}
        return {**config, "seed": seed, "report": False, "plots": False, "explanation": False, "ensemble": node}

    def whole(self, config: Node) -> Node:
        """The settings of the run to which the ensemble is compared: its rows, and the exact estimate on them.

        Args:
            config: the resolved settings of the ensemble, in plain containers.
        """
        return config

    def parts(self, source: Source, table: Table, parts: Parts) -> Parts:
        """The splits of the member, or of the whole ensemble if `member` is None; by default those of a single run.

        Args:
            source: the data source, which has the rule of `data.split`.
            table: all rows that the source has read.
            parts: the splits of a run without an ensemble.

        Raises:
            UsageError: there are fewer rows than members, or the rows cannot be shared out in this way.
        """
        return parts
