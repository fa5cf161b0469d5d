"""Memory of the process during training, and free memory of a device."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""

_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}
"""Values set again afterwards: about what glibc adjusts them to by itself in a process with large tensors."""

_NEVER = 2**31 - 1

_TABLE_SHARE = 0.5
"""Share of the free memory of a device that a table of rows may take; the rest is for the steps of training."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process while the block runs, and give it back to the system when the block ends.

    Each training step allocates what the previous step has freed. By default glibc gets large pieces from the system
    anew each time, page by page and filled with zeros, which takes about as long as a step on a hundred thousand rows.
    Without glibc the block runs unchanged.
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
    """Whether a GPU has room for a table of `num_bytes` beside the training; False on a CPU, where nothing is moved."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= _TABLE_SHARE * free
