"""The settings of a search."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlefw.configuration.check import accepts, nearest
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

SAMPLERS = ("tpe", "random", "qmc", "cmaes")
PRUNERS = ("halving", "median", "none")
GROUP_SIZE = 16
"""Trials of a group where their number is not given."""
TARGET = "mlefw.sweep.search.settings.SearchSettings"
"""The class that names this sweeper among those of Hydra."""


@dataclass(frozen=True)
class SearchSettings:
    """Section `hydra.sweeper` of a search, which the command line names `search`.

    Args:
        trials: number of trials in all.
        sampler: how settings are proposed: `tpe`, `random`, `qmc` or `cmaes`.
        pruner: which trials end early: `halving`, `median` or `none`.
        timeout_s: seconds after which no trial is begun; None for no limit.
        seed: of the sampler.
        workers: number of processes that another launcher than `fork` starts, each of which runs one trial at a time.
        population: whether trials are asked for in groups and train together, up to 16 in a group; or how many.
    """

    trials: int = 32
    sampler: str = "tpe"
    pruner: str = "halving"
    timeout_s: float | None = None
    seed: int = 0
    workers: int = 2
    population: bool | int = False

    @property
    def group_size(self) -> int:
        """The most trials that are asked for at once, to be trained together; 1 where each is trained alone."""
        if isinstance(self.population, bool):
            return GROUP_SIZE if self.population else 1
        return self.population

    @classmethod
    def of(cls, node: Node) -> "SearchSettings | None":
        """The settings that a node describes; None if it describes another sweeper.

        Raises:
            UsageError: a setting is out of range.
        """
        if node.get("_target_") != TARGET:
            return None
        values = {name: value for name, value in node.items() if name != "_target_"}
        if unknown := values.keys() - cls.__dataclass_fields__:
            raise UsageError(f"search.{min(unknown)}: expected one of {', '.join(cls.__dataclass_fields__)}")
        found = cls(**values)
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(found, name) not in known:
                raise UsageError(
                    f"search.{name}={getattr(found, name)}: expected {', '.join(known[:-1])} or {known[-1]}"
                )
        for name, least in (("trials", 1), ("seed", 0), ("workers", 1)):
            value = getattr(found, name)
            if not accepts(int, value) or value < least:
                raise UsageError(f"search.{name}={value}: expected a whole number of at least {least}")
        size = found.population
        if not isinstance(size, bool) and not (accepts(int, size) and size >= 2):
            raise UsageError(f"search.population={size}: expected true, false, or a number of trials of at least 2")
        limit = found.timeout_s
        if limit is not None and not (accepts(float, limit) and limit > 0):
            raise UsageError(f"search.timeout_s={limit}: expected a positive number of seconds, or null")
        return found


def of_sweeper(overrides: Sequence[str]) -> list[str]:
    """The overrides, in which `search.trials=` and so on are settings of Hydra's section `hydra.sweeper`.

    Raises:
        UsageError: there is no such setting, or no search.
    """
    found, known = [], list(SearchSettings.__dataclass_fields__)
    for override in overrides:
        name, _, value = override.partition("=")
        if not name.startswith("search."):
            found.append(override)
            continue
        name = name.removeprefix("search.")
        if name not in known:
            raise UsageError(f"unknown setting search.{name}.{nearest(name, known)} Known: {', '.join(known)}")
        if not any(item.startswith("hydra/sweeper=") for item in overrides):
            raise UsageError(f"search.{name} is a setting of hydra/sweeper=search: expected that, too")
        found.append(f"hydra.sweeper.{name}={value}")
    return found
