"""A search in processes that a launcher of Hydra starts, here or on many machines: each takes part in the study."""

from functools import partial

from omegaconf import DictConfig

from mlefw.configuration.groups import register_plugins
from mlefw.distributed import topology
from mlefw.errors import Stopped
from mlefw.sweep.hydra_launcher import Engine
from mlefw.sweep.launcher import ForkLauncher
from mlefw.sweep.record import Job
from mlefw.sweep.search.participation import take_part
from mlefw.sweep.search.search import Search, results
from mlefw.system import trust
from mlefw.system.signals import handled


def search(engine: Engine, wanted: Search) -> list[Job]:
    """Let a launcher start processes that take part in a search; what became of each trial.

    Args:
        engine: the launcher.
        wanted: the search.

    Raises:
        UsageError: the directory holds a search of other settings.
        Stopped: a signal ended it.
    """
    wanted.open()
    count = wanted.settings.workers
    engine.run(partial(_take_part, wanted, trust.named_by_user()), [[] for _ in range(count)])
    return results(wanted)


def _take_part(wanted: Search, packages: tuple[str, ...], _: DictConfig) -> int:
    """Run trials in the process that the launcher chose, one at a time, until the search is over."""
    register_plugins()
    trust.trust_everywhere(packages)
    # Cores that the launcher has given to this process alone, or that all processes of this machine share.
    threads = max(1, topology.num_cores() // wanted.settings.workers)
    with handled():
        try:
            take_part(wanted, ForkLauncher(jobs=1, threads=threads))
        except Stopped as error:
            return error.exit_code
    return 0
