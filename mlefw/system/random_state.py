"""Random streams: each consumer of randomness has one, which depends on the seed of the run and its name alone."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
"""State of the global generators of torch (with GPUs in use), numpy and Python, in plain containers and tensors."""


def stream_seed(seed: int, name: str) -> int:
    """The seed of the stream of the consumer `name` in a run with this seed; at least 0 and below 2**63."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A new generator on the CPU for the consumer `name` in a run with this seed."""
    return torch.Generator().manual_seed(stream_seed(seed, name))


class RandomStream:
    """A random stream for code that draws from the global generators and takes none, such as dropout and plugins.

    A context manager: on entering, the global generators continue where the stream's last block left them; on leaving,
    they are as they were before the block. Blocks of several streams may be nested.

    Args:
        seed: seed of the run.
        name: name of the consumer.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.seed = stream_seed(seed, name)
        self._outside = capture()
        try:
            _seed(self.seed)
            self._state = capture()
        finally:
            restore(self._outside)
        self._is_entered = False

    @property
    def state(self) -> State:
        """Where the stream is now; may be read and set inside its block or outside."""
        return capture() if self._is_entered else self._state

    @state.setter
    def state(self, state: State) -> None:
        if self._is_entered:
            restore(state)
        self._state = state

    def __enter__(self) -> "RandomStream":
        """Set the global generators to the state of the stream."""
        self._outside = capture()
        if "cuda" in self._outside and "cuda" not in self._state:
            # GPUs have come into use since the stream was made: begin with their state for the seed of the stream.
            _seed(self.seed)
        restore(self._state)
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store the state of the stream, and restore the global generators."""
        self._state, self._is_entered = capture(), False
        restore(self._outside)


@contextmanager
def isolated(name: str) -> Iterator[None]:
    """Outside a run: let a block, or a decorated function, draw the same numbers each time.

    The caller's global generators do not move.
    """
    with RandomStream(0, name):
        yield


def capture() -> State:
    """The state of the global generators."""
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
    """Set the global generators to a state that `capture` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    # A resumed run may have fewer or more GPUs than before.
    for device, known in zip(range(torch.cuda.device_count()), state.get("cuda", []), strict=False):
        torch.cuda.set_rng_state(known, device)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        # Without the condition, torch would keep the call, with its traceback, until GPUs come into use.
        torch.cuda.manual_seed_all(seed)
