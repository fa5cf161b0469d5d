"""What a trial computes: a training that is watched, begun or gone on with."""

from dataclasses import dataclass, field
from functools import cached_property

from mlefw.configuration.settings import Node
from mlefw.sweep.task import Task

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
