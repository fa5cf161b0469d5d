"""The processes of a run by its trainer settings: how many there are, and which of them this one is."""

import os
import sys
from typing import Any, Protocol

from mlefw.errors import UsageError

_STARTED = "MLEFW_RANKS"
"""Environment variable that is set in the processes that a run has started itself."""


class Devices(Protocol):
    """The settings of a trainer that concern devices, with names and values of `lightning.Trainer`."""

    @property
    def devices(self) -> Any:
        """Number of devices on each machine, or a list of their indices, or `auto`."""

    @property
    def num_nodes(self) -> int:
        """Number of machines."""

    @property
    def strategy(self) -> Any:
        """`ddp` where several processes share each batch, `fsdp` where they share the parameters, too."""

    @property
    def accelerator(self) -> Any:
        """`cpu`, `gpu`, `cuda` or `auto`."""


def check(trainer: Devices) -> None:
    """Refuse devices that a run cannot use.

    Raises:
        UsageError: several devices without `strategy=ddp` or `fsdp`, more processes than cores, or several machines
            without a launcher such as srun or torchrun.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if not is_shared(trainer):
        if devices not in (1, "1", "auto", [0]) or nodes != 1:
            name, value = ("devices", devices) if nodes == 1 else ("num_nodes", nodes)
            raise UsageError(f"trainer.{name}={value}: expected 1, or beside it trainer.strategy=ddp or fsdp")
        return
    cores = num_cores()
    if not 1 <= num_local_ranks(trainer) <= max(cores, 2):
        raise UsageError(f"trainer.devices={devices}: expected from 1 to {cores}, the cores of this machine")
    if nodes != 1 and not (_is_started_by_launcher() or is_started_by_run()):
        raise UsageError(
            f"trainer.num_nodes={nodes}: a process for each device has to be started on each machine, "
            "as srun and torchrun do"
        )


def is_shared(trainer: Devices) -> bool:
    """Whether several processes share each batch of the run."""
    return trainer.strategy in ("ddp", "fsdp")


def is_sharded(trainer: Devices) -> bool:
    """Whether the processes of the run share the parameters of the network, too."""
    return trainer.strategy == "fsdp"


def lightning_strategy(trainer: Devices) -> dict[str, str]:
    """The setting `strategy` of a trainer of Lightning that is to check the other settings, if it is another one.

    Lightning refuses its own strategy `fsdp` on a CPU; that of mlefw is one of its `ddp`.
    """
    return {"strategy": "ddp"} if is_sharded(trainer) else {}


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_to_start(trainer: Devices) -> int:
    """Number of processes that the run has to start on this machine; 1 where this process is all there is to it.

    Raises:
        UsageError: as `check`.
    """
    if not is_shared(trainer) or _is_started_by_launcher() or is_started_by_run():
        return 1
    check(trainer)
    return num_local_ranks(trainer)


def num_local_ranks(trainer: Devices) -> int:
    """Number of processes of the run on this machine, one for each device.

    Raises:
        UsageError: `devices` is no number.
    """
    devices = trainer.devices
    if isinstance(devices, list):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        import torch

        return max(1, torch.cuda.device_count()) if trainer.accelerator != "cpu" else 1
    try:
        return int(devices)
    except ValueError as error:
        raise UsageError(f"trainer.devices={devices!r}: expected a whole number") from error


def rank(trainer: Devices) -> int:
    """The number of this process among those of the run on all machines, from 0, before a group is opened."""
    if not is_shared(trainer) or not (_is_started_by_launcher() or is_started_by_run()):
        return 0
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def is_started_by_run() -> bool:
    """Whether this process is a rank that a run has started itself, not srun or torchrun."""
    return _STARTED in os.environ


def set_rank(number: int, count: int, port: int) -> None:
    """Make this process a rank of a run on this machine alone, by the environment variables that torch reads.

    Args:
        number: the rank, from 0.
        count: number of ranks.
        port: free port by which the ranks find each other.
    """
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "NODE_RANK": 0, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", _STARTED: str(count)})
    if sys.platform == "linux":
        # Otherwise gloo looks up the address of the machine by its name, which may have none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _is_started_by_launcher() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
