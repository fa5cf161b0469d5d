"""The part of a search that one process does: it asks for a trial when it is free, and takes over what others left."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mlefw.command.outermost import finish_imports
from mlefw.run import row_scores
from mlefw.run.directory import summary_of
from mlefw.sweep.launcher import ForkLauncher
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job, Journal, UnrecordedJobs
from mlefw.sweep.search.groups import TrialGroups
from mlefw.sweep.search.presence import Presence
from mlefw.sweep.search.rungs import Standing, promotable
from mlefw.sweep.search.search import Search, jobs_of
from mlefw.sweep.search.study import ATTEMPTS, OWNER, RUN_DIR, SharedStudy, TrialState
from mlefw.sweep.search.task import TrialTask
from mlefw.system.file_system import remove
from mlefw.system.fork_pool import Ended, Pool
from mlefw.system.signals import deferred

_MOST_ATTEMPTS = 3
"""Times that a trial is begun whose process is killed, or on whose machine the process of the search is."""


def take_part(search: Search, launcher: ForkLauncher) -> list[Job]:
    """Run trials until there are as many as the settings say, in all processes; what became of each.

    Args:
        search: the search.
        launcher: which says how many trials run at once in this process.

    Raises:
        UsageError: the directory holds a search of other settings.
        Stopped: a signal ended it; trials that ran are gone on with by the same command.
    """
    study = search.open()
    finish_imports()
    presence = Presence(search.root)
    with presence.kept():
        work = Participation(search, study, presence, launcher)
        try:
            with deferred(), Pool(launcher.size, launcher.threads, launcher.timeout_s, work.ended) as pool:
                work.fill(pool)
        finally:
            work.close()
    return work.jobs()


class Participation:
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
        self.groups = TrialGroups(self.progress, self._ended)
        self.started = time.monotonic()
        self.concluded: set[int] = set()
        self.tasks: dict[int, TrialTask] = {}

    def fill(self, pool: Pool) -> None:
        """Start trials in the pool until the search is over, here and in all processes that take part.

        Raises:
            Stopped: a signal has come.
        """
        while True:
            self.presence.beat()
            self.groups.poll()
            self._take_back()
            trials = self._next(pool) if pool.is_free else []
            if trials:
                self._start(pool, trials)
            elif pool.running:
                pool.wait()
            elif self._is_over():
                return
            else:
                # Others still train: their trials may be promoted, or left behind.
                pool.wait()
                time.sleep(0.3)
            self._write()

    def ended(self, key: int, how: Ended) -> None:
        """Note how the process of a trial, or of several that train together, has ended."""
        self.groups.ended(key, how)

    def _ended(self, number: int, how: Ended) -> None:
        """Note how a trial has ended."""
        self.progress.note(number, how)
        job, trial = self.running.jobs.pop(number), self.study.trials()[number]
        self.tasks.pop(number, None)
        if job.status == "stopped":
            # Another process may go on with it, or this one when it is run again.
            self.study.note(number, **{OWNER: ""})
        elif how.code < 0 and not how.is_late and int(trial.attributes.get(ATTEMPTS, 1)) < _MOST_ATTEMPTS:
            self.study.note(number, **{OWNER: ""})
            job.status, job.reason = "stopped", f"{job.reason}; it is begun again"
        elif job.is_done and (trial.is_waiting or trial.attributes.get(OWNER) != self.presence.name):
            # Another process may have promoted it already.
            job.status = "paused"
        else:
            self._tell(number, job)
        self.progress.print_line(job)

    def close(self) -> None:
        """End the trials that wait, if the search is over, and write `sweep.json` and `sweep.csv`."""
        with self.study.deciding():
            is_over = self._is_over()
            for trial in self.study.trials():
                if is_over and trial.is_waiting:
                    self.study.end(trial.number, "pruned")
        self.journal.jobs = self.jobs()
        for job in self.journal.jobs if is_over else []:
            # A process that was killed has left the output of its trials where it was written.
            self.progress.store_log(job)
        for file in self.search.root.glob("population-*") if is_over else []:
            remove(file)
        if self.journal.jobs:
            self.journal.close()

    def jobs(self) -> list[Job]:
        """What became of each trial so far, in all processes."""
        return jobs_of(self.search, self.study)

    def _next(self, pool: Pool) -> list[TrialState]:
        """The trials to run next together, which are this process's from then on; none if there is nothing to do."""
        if not self.groups.queue:
            asked = self._decided(bool(pool.running), pool.size - len(pool.running))
            if len(asked) < 2:
                return asked
            self.running.jobs |= {trial.number: self.search.job(trial) for trial in asked}
            self.groups.divide(asked, self._tasks(asked))
        return self.groups.queue.pop(0)

    def _decided(self, is_busy: bool, num_free: int) -> list[TrialState]:
        """The trial to run next, or several that are asked for at once, where `num_free` processes are free."""
        search, owner = self.search, self.presence.name
        with self.study.deciding():
            trials = [trial for trial in self.study.trials() if trial.state != "waiting"]
            left = [one for one in trials if not (self._has_ended(one) or self._is_owned(one))]
            if left:
                return [self._claimed(left[0].number)]
            limit = search.settings.timeout_s
            if limit is not None and time.monotonic() - self.started >= limit:
                return []
            missing = max(0, self.wanted - len(trials))
            alone = not is_busy and not any(one.is_running for one in trials)
            if search.settings.pruner == "halving":
                # One that has just come to its rung is still being concluded.
                busy = self.running.jobs
                standing = {
                    one.number: Standing(one.values, one.is_waiting and one.number not in busy)
                    for one in trials
                    if one.state != "fail"
                }
                number = promotable(standing, is_last=alone and not missing)
                if number is not None:
                    return [self._claimed(number)]
            count = min(search.settings.group_size, -(-missing // num_free))
            return [self.study.ask(search.settings, search.space.distributions, owner) for _ in range(count)]

    def _claimed(self, number: int) -> TrialState:
        return self.study.claim(number, self.presence.name, self.search.space.distributions)

    def _is_owned(self, trial: TrialState) -> bool:
        """Whether a living process runs the trial; one of this process is in `running`."""
        owner = trial.attributes.get(OWNER, "")
        if owner == self.presence.name:
            return trial.number in self.running.jobs
        return bool(owner) and self.presence.is_alive(owner)

    def _has_ended(self, trial: TrialState) -> bool:
        """Whether nothing of the trial is left to compute for now; a kill may cut off the end of one that waits."""
        if trial.is_waiting and trial.number not in self.concluded:
            if summary_of(self.search.job(trial).run_dir).get("status") != "finished":
                return False
            self.concluded.add(trial.number)
        return not trial.is_running

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

    def _start(self, pool: Pool, trials: Sequence[TrialState]) -> None:
        for trial in trials:
            job = self.search.job(trial)
            attempts = int(trial.attributes.get(ATTEMPTS, 0)) + (not trial.values)
            self.study.note(trial.number, **{RUN_DIR: job.run_dir.name, ATTEMPTS: attempts})
            self.running.jobs[trial.number] = job
        if len(trials) > 1:
            self.groups.start(pool, trials, self._tasks(trials))
            return
        (task,) = self._tasks(trials).values()
        if not job.run_dir.exists():
            # Data and exact estimates are most often those of all trials.
            task.share()
        pool.submit(job.number, partial(task.begin_or_go_on, self.search.root, job.run_dir), self.progress.log(job))

    def _tasks(self, trials: Sequence[TrialState]) -> dict[int, TrialTask]:
        """The computation of each trial, by its number; its settings are composed once."""
        for trial in trials:
            self.tasks.setdefault(trial.number, self.search.task(trial))
        return {trial.number: self.tasks[trial.number] for trial in trials}

    def _take_back(self) -> None:
        """Let trials that were to train together, and cannot, be trained alone."""
        known = self.study.trials() if (left := self.groups.returned()) else []
        self.groups.queue += [[known[number]] for number in left]

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
