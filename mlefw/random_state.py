"""The states of all random generators, as plain containers and tensors."""

import random
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """Seed all of them."""
    random.seed(number)
    np.random.seed(number)
    # For a GPU that is not there, torch would keep the whole stack of calls.
    generator: Any = torch if torch.cuda.is_available() else torch.default_generator
    generator.manual_seed(number)


def capture() -> dict[str, Any]:
    """The states of torch (and its GPUs, where they are in use), numpy and Python."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, torch.tensor(internal), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any]) -> None:
    """Put the generators back to where `capture` saw them."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    # As many as are here: a run may go on with another number of GPUs.
    for device, known in zip(range(torch.cuda.device_count()), state.get("cuda", []), strict=False):
        torch.cuda.set_rng_state(known, device)
