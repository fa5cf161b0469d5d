"""Streams of random numbers: each consumer has its own, which follows from the seed of the run and its name alone."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
"""Of the global generators of torch (and its GPUs, where they are in use), numpy and Python: plain containers."""


def number_of(seed: int, name: str) -> int:
    """The seed of a consumer's stream, below 2**63."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A generator of a consumer's own, on the CPU."""
    return torch.Generator().manual_seed(number_of(seed, name))


class Stream:
    """The global generators as one consumer finds them: for code that takes no generator, as dropout and plugins.

    Inside a block they go on from where the block before left them, and after it they are as they were before it.
    Blocks of several streams may lie within each other.

    Args:
        seed: of the run.
        name: of the consumer.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.number = number_of(seed, name)
        self._outside = capture()
        try:
            _seed(self.number)
            self._state = capture()
        finally:
            restore(self._outside)
        self._is_entered = False

    @property
    def state(self) -> State:
        """Where the stream is, inside a block of it or outside."""
        return capture() if self._is_entered else self._state

    @state.setter
    def state(self, state: State) -> None:
        if self._is_entered:
            restore(state)
        self._state = state

    def __enter__(self) -> "Stream":
        """Put the generators to where the stream is."""
        self._outside = capture()
        if "cuda" in self._outside and "cuda" not in self._state:
            # GPUs have come into use since.
            _seed(self.number)
        restore(self._state)
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note where the stream is, and put the generators back."""
        self._state, self._is_entered = capture(), False
        restore(self._outside)


@contextmanager
def isolated(name: str) -> Iterator[None]:
    """The same outside a run, for a block or a whole function: what it draws is always the same, and moves nothing."""
    with Stream(0, name):
        yield


def capture() -> State:
    """The states of the global generators."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: State = {
        "torch": torch.get_rng_state(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, torch.tensor(internal), gauss],
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: State) -> None:
    """Put the generators back to where `capture` saw them."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    # As many as are here: a run may go on with another number of GPUs.
    for device, known in zip(range(torch.cuda.device_count()), state.get("cuda", []), strict=False):
        torch.cuda.set_rng_state(known, device)


def _seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        # Otherwise torch would keep the whole stack of calls for later.
        torch.cuda.manual_seed_all(number)
