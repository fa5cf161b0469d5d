"""Random states survive a checkpoint: all generators go on as if nothing had been drawn between."""

import random
from pathlib import Path

import numpy as np
import torch

from mlefw import random_state


def draws() -> list[float]:
    normal = np.random.standard_normal()
    return [float(torch.rand(())), float(normal), float(np.random.random()), random.random(), random.gauss()]


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    kept = random_state.capture()
    try:
        draws()
        torch.save(random_state.capture(), tmp_path / "state")
        expected = draws()
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        draws()
        random_state.restore(torch.load(tmp_path / "state", weights_only=True))
        assert draws() == expected
    finally:
        random_state.restore(kept)
