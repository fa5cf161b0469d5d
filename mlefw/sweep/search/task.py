"""What a trial computes: a training that is watched, begun or gone on with."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from mlefw.command.job import run_alone
from mlefw.configuration.settings import Node
from mlefw.run import resume
from mlefw.run.directory import summary_of
from mlefw.sweep.record import supersede
from mlefw.sweep.task import Task
from mlefw.system import trust

WATCH = "search"
"""The name of the callback that watches a trial, in `callback` of its settings."""


@dataclass(frozen=True)
class TrialTask(Task):
    """The computation of one trial.

    Args:
        watch: the node of the callback that watches it; empty for none.
    """

    watch: Node = field(default_factory=dict)

    @cached_property
    def config(self) -> Node:
        """The configuration of the trial.

        Raises:
            UsageError: settings are wrong.
        """
        config = Task(self.command, self.overrides, self.config_dirs).config
        more = {WATCH: self.watch} if self.watch else {}
        return {**config, "callback": {**(config.get("callback") or {}), **more}}

    def begin_or_go_on(self, root: Path, run_dir: Path) -> int:
        """Train in this process, from the last checkpoint if there is one; the exit code.

        What a process that was killed has left without a checkpoint is moved aside.
        """
        if (run_dir / "checkpoints" / "last.ckpt").is_file():
            composed = partial(resume.settings, run_dir, [], self.config_dirs, trust.trusted())
            return run_alone("train", lambda: composed().plain, run_dir)
        if run_dir.exists():
            supersede(root, run_dir)
        return self.run(run_dir)


def has_ended(run_dir: Path, epochs: int) -> bool:
    """Whether the run in a directory has finished, after more than so many epochs."""
    summary = summary_of(run_dir)
    return summary.get("status") == "finished" and int(summary.get("num_epochs", 0)) > epochs
