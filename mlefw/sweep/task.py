"""What a job of a sweep computes: its configuration, and how it is run. What became of it is in `record.Job`."""

import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import yaml

from mlefw.command.job import run_alone
from mlefw.configuration.expansion import load_yaml
from mlefw.configuration.read import located, read_settings, settings_of
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.run import resume
from mlefw.run.directory import summary_of
from mlefw.sweep.record import Job, attempts, supersede
from mlefw.system import file_system, shared_work, trust

_POLL_S = 0.2
"""Seconds between two looks at a directory in which another process trains."""


@dataclass(frozen=True)
class Task:
    """The computation of one job, which can be run in any process.

    Args:
        command: the command that the job runs.
        overrides: the settings of the job.
        config_dirs: folders of further YAML files.
        skips_misfits: whether a head that cannot model the target is skipped rather than counted as a failure.
    """

    command: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    skips_misfits: bool = False

    @cached_property
    def config(self) -> Node:
        """The configuration of the job, composed and checked like that of a single run.

        Raises:
            UsageError: settings are wrong.
        """
        return read_settings(self.command, self.overrides, self.config_dirs, trust.trusted())

    @property
    def is_valid(self) -> bool:
        """Whether the configuration can be composed; if not, the job reports the error when it runs."""
        try:
            return bool(self.config)
        except UsageError:
            return False

    def run(self, run_dir: Path) -> int:
        """Run the job in this process into a directory, and return its exit code."""
        return run_alone(self.command, lambda: self.config, run_dir, self.skips_misfits)

    def begin_or_go_on(self, root: Path, run_dir: Path) -> int:
        """Run the job in this process, from the last checkpoint if there is one; the exit code.

        What a process that was killed has left without a checkpoint is moved aside. A fork of such a process, which
        still writes its last checkpoint, is waited for.
        """
        while run_dir.is_dir() and not _is_free(run_dir):
            time.sleep(_POLL_S)
        if (run_dir / "checkpoints" / "last.ckpt").is_file():
            composed = partial(resume.settings, run_dir, [], self.config_dirs, trust.trusted())
            return run_alone(self.command, lambda: composed().plain, run_dir, self.skips_misfits)
        if run_dir.exists():
            supersede(root, run_dir)
        return self.run(run_dir)

    def share(self) -> None:
        """Read data and solve exact estimates in this process, if that is little work by mlefw's own code.

        Forks with equal settings find the results in memory (`shared_work`). Errors and warnings are dropped here.
        """
        with suppress(Exception), shared_work.shared_with_forks(), warnings.catch_warnings():
            # The job meets errors and warnings again and reports them.
            warnings.simplefilter("ignore")
            if self.command != "check" and shared_work.is_shareable(self.config):
                from mlefw.command import train
                from mlefw.run import prepare

                share = train.share if self.command == "train" else prepare.share
                share(settings_of(self.config))

    def keep_finished(self, root: Path, job: Job) -> bool:
        """Take over the result of an earlier attempt that finished with equal settings; whether there is one.

        Attempts that did not finish are moved aside (`record.supersede`).
        """
        # The configuration is composed here, so that it is in memory after the fork.
        _ = self.is_valid
        for path in attempts(root, job):
            summary = summary_of(path)
            if summary.get("status") != "finished":
                supersede(root, path)
            elif self._has_settings(path):
                job.run_dir = path
                job.finish("kept")
                return True
        return False

    def _has_settings(self, path: Path) -> bool:
        """Whether `config.yaml` in a run directory has exactly the settings of this job."""
        try:
            written = load_yaml(path / "config.yaml")
            return bool(located(self.config, Path(written["run_dir"])).plain == written)
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, UsageError):
            # Not a run with these settings; if the settings are wrong, the job reports that itself.
            return False


def _is_free(run_dir: Path) -> bool:
    """Whether no process trains in a run directory."""
    with file_system.locked(run_dir) as is_held:
        return is_held
