"""Memory that stays with the process while it trains."""

import platform
import subprocess
import sys

import pytest
import torch

from mlefw.system.allocator import has_room, keep_freed_memory

SCRIPT = """
import resource, torch
from contextlib import nullcontext
from pathlib import Path
from mlefw.system.allocator import keep_freed_memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1_000_000

def faults(block):
    with block:
        for _ in range(3):
            torch.ones(16_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(16_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, held()

first = held()
outside, (inside, kept) = faults(nullcontext())[0], faults(keep_freed_memory())
print(outside, inside, kept - first, held() - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_freed_memory_is_used_again_in_the_block_and_given_back_after_it():
    found = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    outside, inside, kept, left = map(int, found.stdout.split())
    # 64 MB each time: page by page outside, and mostly the same pages again in the block.
    assert inside < outside / 2
    assert kept > 60
    assert left < 20


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("no library is asked"))
    with keep_freed_memory():
        pass


def test_tables_go_to_a_gpu_that_has_twice_the_room(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 5000))
    assert has_room(torch.device("cuda"), 500)
    assert not has_room(torch.device("cuda"), 501)
    assert not has_room(torch.device("cpu"), 1)
