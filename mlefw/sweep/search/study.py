"""The trials of a search in a journal of Optuna, which processes on several machines may read and change at once."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlefw.errors import UsageError
from mlefw.sweep.search.optuna_internals import complete, trial_of
from mlefw.sweep.search.settings import SearchSettings

JOURNAL = "search.journal"
"""The file of the journal, in the directory of the search: `optuna-dashboard search.journal` shows it."""

NAME = "mlefw"
"""The name of the study in the journal."""

OWNER, WAITING, RUN_DIR, ATTEMPTS = "owner", "waiting", "run_dir", "attempts"
"""Attributes of a trial: the process that runs it, whether it waits at a rung, its directory, how often it began."""

_GRACE_S = 15
"""Seconds after which a lock counts as left behind by a process that was killed; it is held for some milliseconds."""

_STRIDE = 7919
"""Between the seeds of samplers that come to a study later, by the number of trials that there are then."""


def check_installed(settings: SearchSettings) -> None:
    """Check that the packages of the extra `search` are installed.

    Raises:
        UsageError: one of them is not.
    """
    for name in ("optuna", *(["cmaes"] if settings.sampler == "cmaes" else [])):
        if find_spec(name) is None:
            raise UsageError(f'hydra/sweeper=search: the package {name} is missing: pip install "mlefw[search]"')


def _optuna() -> Any:
    """The package Optuna, which is imported late."""
    import optuna as package

    package.logging.set_verbosity(logging.ERROR)
    return package


@dataclass(frozen=True)
class TrialState:
    """A trial as the journal has it.

    Attributes:
        number: from 0.
        state: `running`, `complete`, `pruned` or `fail`; a trial that waits at a rung is running, too.
        params: its parameters.
        values: least validation NLL in nats by the number of epochs after which it was reported.
        value: the validation NLL of the trial, in nats; None before its end.
        attributes: `OWNER` and so on.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: Mapping[int, float]
    value: float | None
    attributes: Mapping[str, Any]

    @property
    def is_waiting(self) -> bool:
        """Whether the trial waits at a rung."""
        return self.state == "running" and bool(self.attributes.get(WAITING))

    @property
    def is_running(self) -> bool:
        """Whether a process trains it, or did so until it was killed."""
        return self.state == "running" and not self.is_waiting


class SharedStudy:
    """The study of a search.

    Args:
        root: the directory of the search.
    """

    def __init__(self, root: Path) -> None:
        package = _optuna()
        journal = package.storages.journal
        path = str(root / JOURNAL)
        lock = journal.JournalFileSymlinkLock
        self.package, self.guard = package, lock(f"{path}.decision", grace_period=_GRACE_S)
        backend = journal.JournalFileBackend(path, lock_obj=lock(path, grace_period=_GRACE_S))
        self.storage = package.storages.JournalStorage(backend)
        self.study = package.create_study(
            storage=self.storage, study_name=NAME, direction="minimize", load_if_exists=True
        )
        self.sampler: Any = None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """While the block runs, no other process decides which trial is next."""
        self.guard.acquire()
        try:
            yield
        finally:
            self.guard.release()

    def hold_to(self, description: Mapping[str, Any], root: Path) -> None:
        """Store what the study is of, or compare that with what it was begun with.

        Raises:
            UsageError: it was begun with other settings.
        """
        known = self.study.user_attrs.get("of")
        if known is None:
            self.study.set_user_attr("of", dict(description))
            return
        now = json.loads(json.dumps(description))
        differ = [name for name in {**known, **now} if known.get(name) != now.get(name)]
        if differ:
            name = differ[0]
            raise UsageError(
                f"run_dir={root}: the search in it was begun with other settings ({name}: {known.get(name)}, now "
                f"{now.get(name)}); expected the same ones, or another run_dir"
            )

    def trials(self) -> list[TrialState]:
        """All trials in the order of their numbers."""
        return [
            TrialState(
                one.number, one.state.name.lower(), one.params, one.intermediate_values, one.value, one.user_attrs
            )
            for one in self.study.get_trials(deepcopy=False)
        ]

    def ask(self, settings: SearchSettings, distributions: Mapping[str, Any], owner: str) -> TrialState:
        """A new trial, with parameters that the sampler proposes; call it while `deciding`."""
        before = self.study.get_trials(deepcopy=False)
        if self.sampler is None:
            self.sampler = _sampler(self.package, settings, len(before))
        self.study.sampler = self.sampler
        if settings.sampler == "tpe" and any(one.user_attrs.get(WAITING) for one in before):
            # The sampler learns from trials that wait as from those that have ended at their rung.
            params = self._seen_as_ended(before).ask(dict(distributions)).params
            self.study.enqueue_trial(params)
        trial = self.study.ask(dict(distributions))
        trial.set_user_attr(OWNER, owner)
        return self.trials()[trial.number]

    def claim(self, number: int, owner: str, distributions: Mapping[str, Any]) -> TrialState:
        """Make a process the owner of a trial that waits, or whose owner is dead; call it while `deciding`."""
        trial = self._trial(number)
        for name, one in distributions.items():
            # A process that was killed while it asked has left a trial without some of its parameters.
            complete(trial, name, one)
        trial.set_user_attr(OWNER, owner)
        trial.set_user_attr(WAITING, False)
        return self.trials()[number]

    def note(self, number: int, **attributes: Any) -> None:
        """Set attributes of a trial."""
        trial = self._trial(number)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def report(self, number: int, epochs: int, value: float) -> None:
        """Store the least validation NLL of a trial after so many epochs, in nats."""
        # A trial that is begun again comes to its rungs again, where Optuna would warn.
        if epochs not in self.trials()[number].values:
            self._trial(number).report(value, epochs)

    def is_below_median(self, number: int) -> bool:
        """Whether the trial is worse than the median of those that have ended, at its last report (Optuna's pruner)."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        return bool(self.package.pruners.MedianPruner().prune(self.study, frozen))

    def end(self, number: int, state: str, value: float | None = None) -> None:
        """End a trial: `complete` with its validation NLL in nats, `pruned`, or `fail`."""
        kind = self.package.trial.TrialState[state.upper()]
        self.study.tell(number, value if state == "complete" else None, state=kind, skip_if_finished=True)

    def _trial(self, number: int) -> Any:
        return trial_of(self.package, self.study, number)

    def _seen_as_ended(self, trials: Sequence[Any]) -> Any:
        """A study in memory with the trials, in which those that wait have ended."""
        package, seen = self.package, []
        kinds = package.trial.TrialState
        for one in trials:
            ends = bool(one.user_attrs.get(WAITING)) and one.state == kinds.RUNNING
            if one.state == kinds.WAITING:
                continue
            seen.append(
                package.trial.create_trial(
                    state=kinds.PRUNED if ends else one.state,
                    value=one.value,
                    params=one.params,
                    distributions=one.distributions,
                    intermediate_values=one.intermediate_values,
                )
            )
        study = package.create_study(sampler=self.sampler, direction="minimize")
        study.add_trials(seen)
        return study


def _sampler(package: Any, settings: SearchSettings, num_trials: int) -> Any:
    """The sampler; with another seed where it comes to a study that has trials, lest it propose them again."""
    samplers, seed = package.samplers, settings.seed + _STRIDE * num_trials
    if settings.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if settings.sampler == "qmc":
        # The journal holds the place in the sequence, which all processes share.
        independent = samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
            return samplers.QMCSampler(
                scramble=True, seed=settings.seed, independent_sampler=independent, warn_independent_sampling=False
            )
    if settings.sampler == "cmaes":
        independent = samplers.RandomSampler(seed=seed)
        return samplers.CmaEsSampler(seed=seed, independent_sampler=independent, warn_independent_sampling=False)
    return samplers.TPESampler(seed=seed)
