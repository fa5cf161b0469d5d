"""What an ensemble is: how its members differ, as a function of settings and rows alone."""

from abc import ABC
from dataclasses import dataclass

from mlefw.configuration.settings import Node
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run.held_out import Parts


@dataclass(kw_only=True)
class Ensemble(ABC):  # noqa: B024 - members may differ by their seeds alone
    """Says how the members of an ensemble differ from one another.

    Attributes:
        members: how many there are.
        member: the one member that a run is; None for all of them.
        jobs: how many run at once; None for as many as there are cores.
    """

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
        """The settings of one member: those of the whole with another `seed`, and with its number.

        Members have neither a report nor pictures, which the whole has. Ensembles with other values of `seed` and as
        many members have no seed of a member in common.

        Args:
            config: of the whole, resolved.
            number: of the member, from 0.
        """
        seed = (config["seed"] * self.members + number) % 2**32
        node = {**config["ensemble"], "member": number}
        return {**config, "seed": seed, "report": False, "plots": False, "ensemble": node}

    def whole(self, config: Node) -> Node:
        """The settings by which the rows of the whole are read and its exact estimate is found.

        Args:
            config: of the whole, resolved.
        """
        return config

    def parts(self, source: Source, table: Table, parts: Parts) -> Parts:
        """The splits of the member, or with `member` None those of the whole; by default those of a single run.

        Args:
            source: says how rows are shared out.
            table: all that it has read.
            parts: the splits of a run without an ensemble.

        Raises:
            UsageError: more members than rows, or rows that cannot be shared out so.
        """
        return parts
