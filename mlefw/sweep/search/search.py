"""A search: its directory and settings, what its trials compute, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlefw.configuration.settings import AUTO_INPUTS, Node
from mlefw.errors import UsageError
from mlefw.run.directory import summary_of
from mlefw.sweep.record import Job, Journal, folder_name
from mlefw.sweep.search.rungs import rungs
from mlefw.sweep.search.settings import SearchSettings
from mlefw.sweep.search.space import Space
from mlefw.sweep.search.study import RUN_DIR, SharedStudy, TrialState
from mlefw.sweep.search.task import TrialTask

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
        own = {f"search.{name}": getattr(self.settings, name) for name in ("sampler", "pruner", "seed")}
        return {**own, "settings": sorted(self.space.fixed), **spaces}


def results(search: Search) -> list[Job]:
    """What became of each trial of a search that other processes have run, which is written to `sweep.json`, too."""
    jobs = jobs_of(search, search.open())
    if jobs:
        Journal(search.root, jobs).close()
    return jobs


def jobs_of(search: Search, study: SharedStudy) -> list[Job]:
    """What became of each trial so far, in all processes."""
    return [search.job(trial) for trial in study.trials() if trial.state != "waiting"]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def check(settings: SearchSettings, configs: Sequence[Node]) -> int | None:
    """Whether a search of these settings can be: `trainer.max_epochs`, or None where trials may differ in it.

    Args:
        settings: of the search.
        configs: the settings of trials at the ends of what varies.

    Raises:
        UsageError: it cannot be.
    """
    for name in ("cv", "ensemble", "experiment"):
        if any("_target_" in (config.get(name) or {}) for config in configs):
            raise UsageError(f"{name}= is many fits: a search is over single ones")
    if settings.pruner == "none":
        return None
    if any((config.get("inputs") or {}).get("_target_") == AUTO_INPUTS for config in configs):
        raise UsageError(
            "inputs=auto trains several models in one trial: expected inputs=clipped,… or search.pruner=none"
        )
    value, *others = (config["trainer"].get("max_epochs") for config in configs)
    if any(other != value for other in others) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"search.pruner={settings.pruner} compares trials after equal numbers of epochs: expected one "
            "trainer.max_epochs for all of them, or search.pruner=none"
        )
    if settings.pruner == "halving" and not rungs(value):
        raise UsageError(f"trainer.max_epochs={value}: expected at least 3 for search.pruner=halving")
    return value
