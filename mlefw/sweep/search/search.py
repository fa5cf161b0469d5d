"""A search: asks for a trial whenever a process is free, and takes over what others have left."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlefw.command.outermost import finish_imports
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.run import row_scores
from mlefw.run.directory import summary_of
from mlefw.sweep.launcher import ForkLauncher
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, Journal, UnrecordedJobs, folder_name
from mlefw.sweep.search.presence import Presence
from mlefw.sweep.search.rungs import promotable, rungs
from mlefw.sweep.search.settings import SearchSettings
from mlefw.sweep.search.space import Space
from mlefw.sweep.search.study import ATTEMPTS, OWNER, RUN_DIR, SharedStudy, TrialState
from mlefw.sweep.search.task import TrialTask
from mlefw.system.fork_pool import Ended, Pool
from mlefw.system.signals import deferred

_MOST_ATTEMPTS = 3
"""Times that a trial is begun whose process is killed, or on whose machine the process of the search is."""

_WATCH = "mlefw.sweep.search.watch.WatchTrial"


@dataclass(frozen=True)
class Search:
    """A search in a directory.

    Args:
        root: the directory, which several processes may share.
        settings: of the search.
        space: what varies.
        config_dirs: folders of further YAML files.
        max_epochs: `trainer.max_epochs`, by which rungs are set; None where trials may differ in it.
    """

    root: Path
    settings: SearchSettings
    space: Space
    config_dirs: tuple[str, ...]
    max_epochs: int | None

    def run(self, launcher: ForkLauncher) -> list[Job]:
        """Run trials until there are as many as the settings say; what became of each.

        Raises:
            UsageError: the directory holds a search of other settings.
            Stopped: a signal ended it; trials that ran are gone on with by the same command.
        """
        study = self.open()
        finish_imports()
        work = _Work(self, study, Presence(self.root), launcher)
        with work.presence.kept():
            try:
                with deferred(), Pool(launcher.size, launcher.threads, launcher.timeout_s, work.ended) as pool:
                    work.fill(pool)
            finally:
                work.close()
        return work.jobs()

    def open(self) -> SharedStudy:
        """The study in the directory, which is made if there is none.

        Raises:
            UsageError: the directory holds a search of other settings.
        """
        study = SharedStudy(self.root)
        with study.deciding():
            study.hold_to(self._description(), self.root)
        return study

    def job(self, trial: TrialState) -> Job:
        """What became of a trial so far."""
        keys = self.space.keys
        overrides = [f"{name}={trial.params.get(name)}" for name in keys]
        # The number tells trials apart: in the name a few digits of a value will do.
        short = [f"{name}={_short(trial.params.get(name))}" for name in keys]
        name = str(trial.attributes.get(RUN_DIR) or folder_name(trial.number, short))
        job = Job(trial.number, overrides, self.root / name)
        job.status = {"complete": "finished", "pruned": "pruned", "fail": "failed"}.get(trial.state, "not run")
        job.status = "paused" if trial.is_waiting else job.status
        if job.is_done:
            value = min(trial.values.values(), default=None) if trial.value is None else trial.value
            job.nll_nats, job.split = value, "validation"
        elif trial.state == "fail":
            summary = summary_of(job.run_dir)
            job.reason = str(trial.attributes.get("reason") or summary.get("reason", "ended without a result"))
        job.exit_code, job.seconds = trial.attributes.get("exit_code"), trial.attributes.get("seconds")
        return job

    def task(self, trial: TrialState) -> TrialTask:
        """The computation of a trial."""
        watch: Node = {}
        if self.settings.pruner != "none":
            watch = {"_target_": _WATCH, "root": str(self.root), "number": trial.number}
            watch |= {"pruner": self.settings.pruner, "max_epochs": self.max_epochs}
        overrides = tuple(self.space.overrides(trial.params))
        return TrialTask("train", overrides, self.config_dirs, skips_misfits=True, watch=watch)

    def _description(self) -> dict[str, Any]:
        spaces = {name: repr(one) for name, one in self.space.distributions.items()}
        fixed = sorted(item for item in self.space.fixed if not item.lstrip("+").startswith(("run_dir=", "hydra")))
        own = {name: getattr(self.settings, name) for name in ("sampler", "pruner", "seed")}
        return {**{f"search.{name}": value for name, value in own.items()}, "settings": fixed, **spaces}


class _Work:
    """The part of a search that this process does.

    Args:
        search: the search.
        study: its trials.
        presence: the sign of life of this process.
        launcher: which says how many trials run at once.
    """

    def __init__(self, search: Search, study: SharedStudy, presence: Presence, launcher: ForkLauncher) -> None:
        self.search, self.study, self.presence = search, study, presence
        self.journal, self.running = Journal(search.root, []), UnrecordedJobs(search.root, [])
        trials = study.trials()
        # Failures before this command are made up for, those of this command are not.
        failed = sum(one.state == "fail" for one in trials)
        self.wanted = search.settings.trials + (0 if self._others(trials) else failed)
        self.progress = Progress(self.running, True, launcher.timeout_s, counts=False)
        self.started = time.monotonic()

    def fill(self, pool: Pool) -> None:
        """Start trials in the pool until the search is over, here and in all processes that take part.

        Raises:
            Stopped: a signal has come.
        """
        while True:
            self.presence.beat()
            trial = self._next(bool(pool.running)) if pool.is_free else None
            if trial is not None:
                self._start(pool, trial)
            elif pool.running:
                pool.wait()
            elif self._is_over():
                return
            else:
                # Others still train: their trials may be promoted, or left behind.
                pool.wait()
                time.sleep(0.3)
            self._write()

    def ended(self, number: int, how: Ended) -> None:
        """Note how the process of a trial has ended."""
        self.progress.note(number, how)
        job, trial = self.running.jobs.pop(number), self.study.trials()[number]
        if job.status == "stopped":
            # Another process may go on with it, or this one when it is run again.
            self.study.note(number, **{OWNER: ""})
        elif how.code < 0 and not how.is_late and int(trial.attributes.get(ATTEMPTS, 1)) < _MOST_ATTEMPTS:
            self.study.note(number, **{OWNER: ""})
            job.status, job.reason = "stopped", f"{job.reason}; it is begun again"
        elif job.is_done and trial.is_waiting:
            job.status = "paused"
        else:
            self._tell(number, job)
        self.progress.print_line(job)

    def close(self) -> None:
        """End the trials that wait, if the search is over, and write `sweep.json` and `sweep.csv`."""
        with self.study.deciding():
            if self._is_over():
                for trial in self.study.trials():
                    if trial.is_waiting:
                        self.study.end(trial.number, "pruned")
        self.journal.jobs = self.jobs()
        if self.journal.jobs:
            self.journal.close()

    def jobs(self) -> list[Job]:
        """What became of each trial so far, in all processes."""
        return _jobs(self.search, self.study)

    def _next(self, is_busy: bool) -> TrialState | None:
        """The trial to run next, which is this process's from then on; None if there is none now."""
        search, owner = self.search, self.presence.name
        with self.study.deciding():
            trials = [trial for trial in self.study.trials() if trial.state != "waiting"]
            left = [one for one in trials if one.is_running and not self._is_owned(one)]
            if left:
                return self._claimed(left[0].number)
            limit = search.settings.timeout_s
            if limit is not None and time.monotonic() - self.started >= limit:
                return None
            begun = len(trials) < self.wanted
            alone = not is_busy and not any(one.is_running for one in trials)
            if search.settings.pruner == "halving":
                standing = {one.number: one.standing for one in trials if one.state != "fail"}
                number = promotable(standing, is_last=alone and not begun)
                if number is not None:
                    return self._claimed(number)
            return self.study.ask(search.settings, search.space.distributions, owner) if begun else None

    def _claimed(self, number: int) -> TrialState:
        return self.study.claim(number, self.presence.name, self.search.space.distributions)

    def _is_owned(self, trial: TrialState) -> bool:
        """Whether a living process runs the trial; one of this process is in `running`."""
        owner = trial.attributes.get(OWNER, "")
        if owner == self.presence.name:
            return trial.number in self.running.jobs
        return bool(owner) and self.presence.is_alive(owner)

    def _is_over(self) -> bool:
        """Whether nothing runs or is to be run, in any process."""
        trials = [trial for trial in self.study.trials() if trial.state != "waiting"]
        limit = self.search.settings.timeout_s
        is_late = limit is not None and time.monotonic() - self.started >= limit
        return not any(one.is_running for one in trials) and (is_late or len(trials) >= self.wanted)

    def _others(self, trials: Sequence[TrialState]) -> bool:
        """Whether other processes take part."""
        owners = {str(one.attributes.get(OWNER, "")) for one in trials if one.is_running}
        return any(owner and self.presence.is_alive(owner) for owner in owners)

    def _start(self, pool: Pool, trial: TrialState) -> None:
        job = self.search.job(trial)
        attempts = int(trial.attributes.get(ATTEMPTS, 0)) + (not trial.values)
        self.study.note(trial.number, **{RUN_DIR: job.run_dir.name, ATTEMPTS: attempts})
        self.running.jobs[trial.number] = job
        work = partial(self.search.task(trial).begin_or_go_on, self.search.root, job.run_dir)
        pool.submit(trial.number, work, self.progress.log(job))

    def _tell(self, number: int, job: Job) -> None:
        """End a trial in the study, by the result of its job."""
        value, reason = self._objective(job) if job.is_done else (None, job.reason)
        attributes: Mapping[str, Any] = {"exit_code": job.exit_code, "seconds": job.seconds}
        self.study.note(number, **attributes, **({"reason": reason} if reason else {}))
        if value is None:
            job.status, job.reason = ("skipped" if job.is_skipped else "failed"), reason
            self.study.end(number, "fail")
        else:
            self.study.end(number, "complete", value)

    def _objective(self, job: Job) -> tuple[float | None, str | None]:
        """The validation NLL of a run in nats; or None, and why it cannot be compared with those of the others."""
        summary = summary_of(job.run_dir)
        value = summary.get("metrics", {}).get("validation", {}).get("nll_nats")
        scores = row_scores.read(job.run_dir, "validation")
        if value is None or scores is None:
            return None, "it has no validation rows, by which trials are compared: expected data.validation_fraction"
        here = {"measure": summary.get("measure"), "rows": scores.rows}
        with self.study.deciding():
            known = self.study.study.user_attrs.get("objective")
            if known is None:
                self.study.study.set_user_attr("objective", here)
                return float(value), None
        if known["measure"] != here["measure"]:
            return None, f"its NLL is of a {here['measure']}, that of the first trial of a {known['measure']}"
        if known["rows"] != here["rows"]:
            return None, "its validation rows, or their target, are others than those of the first trial"
        return float(value), None

    def _write(self) -> None:
        if self.journal.is_due:
            self.journal.jobs = self.jobs()
            self.journal.tick()


def results(search: Search) -> list[Job]:
    """What became of each trial of a search that other processes have run, which is written to `sweep.json`, too."""
    jobs = _jobs(search, search.open())
    if jobs:
        Journal(search.root, jobs).close()
    return jobs


def _jobs(search: Search, study: SharedStudy) -> list[Job]:
    return [search.job(trial) for trial in study.trials() if trial.state != "waiting"]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def check(settings: SearchSettings, space: Space, config: Node) -> int | None:
    """Whether a search of these settings can be: `trainer.max_epochs`, or None where trials may differ in it.

    Raises:
        UsageError: it cannot be.
    """
    for name in ("cv", "ensemble", "experiment"):
        if "_target_" in (config.get(name) or {}):
            raise UsageError(f"{name}= is many fits: a search is over single ones")
    if settings.pruner == "none":
        return None
    value = config["trainer"].get("max_epochs")
    if "trainer.max_epochs" in space.distributions or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"search.pruner={settings.pruner} compares trials after equal numbers of epochs: expected one "
            "trainer.max_epochs for all of them, or search.pruner=none"
        )
    if settings.pruner == "halving" and not rungs(value):
        raise UsageError(f"trainer.max_epochs={value}: expected at least 3 for search.pruner=halving")
    return value
