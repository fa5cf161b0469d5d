"""Settings in which runs differ: those that were asked for, without what follows from them."""

from typing import Any

import pytest

from mlefw.configuration.read import read_settings
from mlefw.configuration.scalars import differing


def of(*overrides: str) -> dict[str, Any]:
    return read_settings("train", overrides, [], ())


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([["seed=0"], ["seed=1"]], {"seed": [0, 1]}),
        ([["head=gaussian"], ["head=poisson"]], {"head": ["gaussian", "poisson"]}),
        ([["model=linear"], ["model=mlp"]], {"model": ["linear", "mlp"]}),
        ([["optimizer=lbfgs"], ["optimizer=adam"]], {"optimizer": ["lbfgs", "adam"]}),
        ([["model.hidden=[8]"], ["model.hidden=[8,8]"]], {"model.hidden": [[8], [8, 8]]}),
        ([["prior=none"], ["prior=l2"]], {"prior": ["none", "l2"]}),
        (
            [["prior=l2", "prior.scale=1"], ["prior=l2", "prior.scale=2"], ["prior=none"]],
            {"prior": ["l2", "l2", "none"], "prior.scale": [1, 2, None]},
        ),
        (
            [["head=gaussian", "optimizer.lr=0.1"], ["head=laplace", "optimizer.lr=0.2"]],
            {"head": ["gaussian", "laplace"], "optimizer.lr": [0.1, 0.2]},
        ),
        (
            [[f"step.clip_norm={clip}", f"optimizer={name}"] for clip in (1, 2) for name in ("sgd", "adam")],
            {"step.clip_norm": [1, 1, 2, 2], "optimizer": ["sgd", "adam"] * 2},
        ),
        ([["formula=y ~ x", "data=csv"], ["formula=y ~ z", "data=csv"]], {"formula": ["y ~ x", "y ~ z"]}),
        ([["run_dir=a", "report=false", "logger=none"], ["run_dir=b", "plots=false"]], {}),
    ],
)
def test_they_are_those_asked_for(runs: list[list[str]], expected: dict[str, list[Any]]) -> None:
    assert differing([of(*overrides) for overrides in runs]) == expected
