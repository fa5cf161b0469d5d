"""A job of a sweep under a launcher of Hydra's own: in a process apart, so that its end is no end of the launcher."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from mlefw.errors import Stopped
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Job
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred, handled, is_handled


def run_apart(task: Callable[[], int], job: Job, has_summary: bool) -> int:
    """Run a job in a fork of this process and note how it ended in its directory; its exit code.

    Raises:
        Stopped: a signal has come, and this process is that of the sweep.
    """
    if not hasattr(os, "fork"):
        return task()
    import torch

    journal: Any = SimpleNamespace(root=job.run_dir.parent, jobs={job.number: job}, tick=lambda: None)
    progress = Progress(journal, has_summary, None)
    with ExitStack() as held:
        is_worker = not is_handled()
        if is_worker:
            held.enter_context(handled())
        try:
            with deferred(), Pool(1, torch.get_num_threads(), None, progress.ended) as pool:
                pool.submit(job.number, task, progress.log(job))
                pool.drain()
        except Stopped as error:
            if is_worker:
                return error.exit_code
            raise
    return job.exit_code or 0
