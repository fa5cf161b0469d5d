"""What the processes of a run, called ranks, exchange: sums and copies of tensors; and which rows each has.

The group of processes is opened by Lightning. A run in a single process has no group, and is rank 0 of 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from mlefw.errors import LostRankError


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if _is_open() else 1


def rank() -> int:
    """The number of this process, from 0; rank 0 alone writes files and adds the penalty to the objective."""
    return distributed.get_rank() if _is_open() else 0


def own_rows(num_rows: int) -> slice:
    """The rows, of `num_rows` in all, that this process evaluates: consecutive ones, since a slice copies nothing."""
    start, end = (-(-num_rows * k // world_size()) for k in (rank(), rank() + 1))
    return slice(start, end)


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor in place by its sum over the processes, equal to the last bit in all of them.

    Raises:
        LostRankError: another process has ended.
    """
    if world_size() == 1:
        return
    # One message for each dtype rather than for each tensor: latency is most of the cost of small ones.
    by_kind: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_kind.setdefault(tensor.dtype, []).append(tensor)
    try:
        for kind in by_kind.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in kind])
            distributed.all_reduce(flat)
            for tensor, total in zip(kind, flat.split([tensor.numel() for tensor in kind]), strict=True):
                tensor.copy_(total.view_as(tensor))
    except RuntimeError as error:
        raise LostRankError("another process of this run has ended") from error


def maximum(tensor: Tensor) -> None:
    """Replace a tensor in place by its entrywise maximum over the processes.

    Raises:
        LostRankError: another process has ended.
    """
    if world_size() == 1:
        return
    try:
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    except RuntimeError as error:
        raise LostRankError("another process of this run has ended") from error


def decided(choice: bool, device: torch.device) -> bool:
    """The choice of rank 0, for something that all processes do or leave together.

    Raises:
        LostRankError: another process has ended.
    """
    chosen = torch.tensor(float(choice and rank() == 0), device=device)
    maximum(chosen)
    return bool(chosen)


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Turn the errors of torch for a broken connection, inside the block, into one that says what they mean.

    Raises:
        LostRankError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        # Errors of gloo have no class of their own; they name the file of its source where they arose.
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise LostRankError("another process of this run has ended") from error
        raise


@torch.no_grad()
def broadcast(tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors in place by those of rank 0."""
    for tensor in tensors:
        distributed.broadcast(tensor, 0)


def close() -> None:
    """Leave the group of processes: from here on this process is rank 0 of 1."""
    if _is_open():
        distributed.destroy_process_group()


def _is_open() -> bool:
    return distributed.is_available() and distributed.is_initialized()
