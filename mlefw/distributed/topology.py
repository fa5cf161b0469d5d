"""How many processes a run has by its trainer settings, and which of them this one is."""

import os
import sys
from typing import Any, Protocol

from mlefw.errors import UsageError

_STARTED = "MLEFW_RANKS"
"""Set in the processes that a run has started itself."""


class Devices(Protocol):
    """What the settings of a trainer say of its devices: names and values are those of `lightning.Trainer`."""

    @property
    def devices(self) -> Any:
        """How many on each machine, or which."""

    @property
    def num_nodes(self) -> int:
        """Machines."""

    @property
    def strategy(self) -> Any:
        """`ddp` where several processes share each batch."""

    @property
    def accelerator(self) -> Any:
        """`cpu`, `gpu`, `cuda` or `auto`."""


def check(trainer: Devices) -> None:
    """Refuse devices that a run cannot use.

    Raises:
        UsageError: several without `ddp`, more than there are cores, or several machines with a process on this alone.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if not is_ddp(trainer):
        if devices not in (1, "1", "auto", [0]) or nodes != 1:
            name, value = ("devices", devices) if nodes == 1 else ("num_nodes", nodes)
            raise UsageError(f"trainer.{name}={value}: expected 1, or beside it trainer.strategy=ddp")
        return
    cores = num_cores()
    if not 1 <= num_local(trainer) <= max(cores, 2):
        raise UsageError(f"trainer.devices={devices}: expected from 1 to {cores}, the cores of this machine")
    if nodes != 1 and not (_from_outside() or own()):
        raise UsageError(
            f"trainer.num_nodes={nodes}: a process for each device has to be started on each machine, "
            "as srun and torchrun do"
        )


def is_ddp(trainer: Devices) -> bool:
    """Whether the processes of a run share its batches."""
    return trainer.strategy == "ddp"


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_start(trainer: Devices) -> int:
    """How many processes the run has to start on this machine; 1 where it runs in this one.

    Raises:
        UsageError: as `check`.
    """
    if not is_ddp(trainer) or _from_outside() or own():
        return 1
    check(trainer)
    return num_local(trainer)


def num_local(trainer: Devices) -> int:
    """Processes on this machine, one for each device."""
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


def number(trainer: Devices) -> int:
    """The number of this process among those of the run, over all machines, from 0."""
    if not is_ddp(trainer) or not (_from_outside() or own()):
        return 0
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def own() -> bool:
    """Whether this process is one that a run has started itself."""
    return _STARTED in os.environ


def become(number: int, count: int, port: int) -> None:
    """Be one of the processes of a run, all on this machine."""
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "NODE_RANK": 0, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", _STARTED: str(count)})
    if sys.platform == "linux":
        # The name of the machine, which is asked for otherwise, may have no address.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _from_outside() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
