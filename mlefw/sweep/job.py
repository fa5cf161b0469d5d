"""A job of a sweep: its configuration, and what it is to run it."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from mlefw.command.job import run_alone
from mlefw.configuration.expansion import load
from mlefw.configuration.read import located, read_settings, settings_of
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.run.directory import summary_of
from mlefw.sweep.record import Job, attempts, supersede
from mlefw.system import shared_work, trust


@dataclass(frozen=True)
class Task:
    """What a job computes, wherever it runs.

    Args:
        command: that it runs.
        overrides: its settings.
        config_dirs: folders of further YAML files.
        skips_misfits: whether a head that is not for the target is no failure.
    """

    command: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    skips_misfits: bool = False

    @cached_property
    def config(self) -> Node:
        """Its configuration, composed and checked as that of a single run."""
        return read_settings(self.command, self.overrides, self.config_dirs, trust.trusted())

    @property
    def is_valid(self) -> bool:
        """Whether it can be composed; what is wrong with it the job itself will say."""
        try:
            return bool(self.config)
        except UsageError:
            return False

    def run(self, run_dir: Path) -> int:
        """Run it in this process; its exit code."""
        return run_alone(self.command, lambda: self.config, run_dir, self.skips_misfits)

    def share(self) -> None:
        """Do here what jobs have in common, where it is little work by code of ours."""
        with suppress(Exception), shared_work.shared_with_forks(), warnings.catch_warnings():
            # Whatever goes wrong, and whatever there is to warn of, the job itself meets it and says so.
            warnings.simplefilter("ignore")
            if self.command != "check" and shared_work.is_shareable(self.config):
                from mlefw.command import train
                from mlefw.run import prepare

                share = train.share if self.command == "train" else prepare.share
                share(settings_of(self.config))

    def is_kept(self, root: Path, job: Job) -> bool:
        """Whether an earlier attempt has finished it with these very settings; attempts that failed are put aside."""
        # Composed here, it is there in the fork.
        _ = self.is_valid
        for path in attempts(root, job):
            summary = summary_of(path)
            if summary.get("status") != "finished":
                supersede(root, path)
            elif self._has_written(path):
                job.run_dir = path
                job.finish("kept")
                return True
        return False

    def _has_written(self, path: Path) -> bool:
        try:
            written = load(path / "config.yaml")
            return bool(located(self.config, Path(written["run_dir"])).plain == written)
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, UsageError):
            # Whatever it is, it is not a run with these settings: the job itself meets it and says so.
            return False
