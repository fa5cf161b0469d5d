"""Memory: what stays with the process while it trains, and what a device has room for."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""

_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}
"""What they come to by themselves in a process that works with large tensors."""

_NEVER = 2**31 - 1

_SHARE = 0.5
"""Of the free memory of a device, what tables may take; the rest is for what steps compute."""


@contextmanager
def retained() -> Iterator[None]:
    """Do not give freed memory back to the system while the block runs, and do so when it ends.

    Each step asks for the memory that the one before has freed. Large pieces would come from the system each time,
    page by page and filled with zeros, which takes as long as what a step computes of a hundred thousand rows. Only
    glibc is told; elsewhere nothing happens.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    libc.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def has_room(device: torch.device, num_bytes: int) -> bool:
    """Whether a GPU can hold a table of so many bytes beside the training; on a CPU there is nothing to move."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= _SHARE * free
