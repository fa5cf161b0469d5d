"""The processes of one run, called ranks: their shares of rows, and sums over them."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from mlefw.errors import LostRankError


def count() -> int:
    """How many processes train together: one, unless a group of them has been opened."""
    return distributed.get_world_size() if _is_open() else 1


def number() -> int:
    """The number of this one, from 0; the first alone writes files and counts the penalty."""
    return distributed.get_rank() if _is_open() else 0


def share(num_rows: int) -> slice:
    """The rows that this process evaluates: consecutive ones, so that taking them copies nothing."""
    start, end = (-(-num_rows * k // count()) for k in (number(), number() + 1))
    return slice(start, end)


def add(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, the same to the last bit in all of them.

    Raises:
        LostRankError: another process has ended.
    """
    if count() == 1:
        return
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


@torch.no_grad()
def copy_first(tensors: Sequence[Tensor]) -> None:
    """Give every process the values of the first."""
    for tensor in tensors:
        distributed.broadcast(tensor, 0)


def close() -> None:
    """Leave the group: from here on this process works alone."""
    if _is_open():
        distributed.destroy_process_group()


def _is_open() -> bool:
    return distributed.is_available() and distributed.is_initialized()
