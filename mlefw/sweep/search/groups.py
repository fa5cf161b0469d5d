"""Which trials of a search train together: of those that were asked for at once, the ones of equal signature."""

from collections.abc import Callable, Mapping, Sequence

from mlefw.configuration.read import settings_of
from mlefw.sweep.population import signature
from mlefw.sweep.population.dispatch import Groups
from mlefw.sweep.progress import Progress
from mlefw.sweep.search.study import TrialState
from mlefw.sweep.search.task import TrialTask
from mlefw.system.fork_pool import Ended, Pool


class TrialGroups:
    """The trials of this process that train together, and those that wait for a process.

    Args:
        progress: of the trials that run.
        ended: called with the number of each trial that has ended, and how.

    Attributes:
        queue: trials that have been asked for and not begun, of which each list trains together.
    """

    def __init__(self, progress: Progress, ended: Callable[[int, Ended], None]) -> None:
        self.progress = progress
        self.groups = Groups(progress, ended, is_search=True)
        self.queue: list[list[TrialState]] = []
        self.told: set[str] = set()

    def divide(self, trials: Sequence[TrialState], tasks: Mapping[int, TrialTask]) -> None:
        """Put trials that were asked for at once into the queue, those of equal signature together."""
        known = [tasks[trial.number] for trial in trials]
        configs = [settings_of(one.config) if one.is_valid else None for one in known]
        signatures = [None if one is None else signature.signature(one, True) for one in configs]
        obstacles = [words for one in configs if one is not None and (words := signature.obstacle(one, True))]
        if obstacles:
            self._tell_alone(f"{obstacles[0]} is not one with which they can train together")
        found = signature.groups(signatures, 1)
        together = {position for group in found for position in group}
        alone = [[position] for position in range(len(trials)) if position not in together]
        self.queue += [[trials[position] for position in unit] for unit in sorted([*found, *alone])]

    def start(self, pool: Pool, trials: Sequence[TrialState], tasks: Mapping[int, TrialTask]) -> None:
        """Start the training of several trials together."""
        numbers = [trial.number for trial in trials]
        for number in numbers:
            tasks[number].share()
        self.groups.start(pool, -1 - numbers[0], numbers, {number: tasks[number].config for number in numbers})

    def ended(self, key: int, how: Ended) -> None:
        """Note how a process has ended: that of the trial `key`, or of a group, whose keys are below zero."""
        self.groups.ended(key, how)

    def poll(self) -> None:
        """Tell of trials that have left a group which still trains."""
        self.groups.poll()

    def returned(self) -> list[int]:
        """Numbers of trials that were to train together and have to be trained alone, once."""
        left, self.groups.left = self.groups.left, []
        if self.groups.reason is not None:
            self._tell_alone(self.groups.reason)
            self.groups.reason = None
        return left

    def _tell_alone(self, reason: str) -> None:
        """Say why trials that were to train together do not, once."""
        if reason not in self.told:
            self.told.add(reason)
            words = f"search.population: trials train one by one: {reason}"
            self.progress.out.print(words, soft_wrap=True, markup=False)
