"""Bad and extreme inputs, each told from the command line: exit code, message, and what is left on disk.

`bad_inputs.json` holds the inputs: Python that makes the files, the settings (`fit`: beside those of `FIT`),
Python that damages a run made before (`damage`), the exit code, and patterns that standard error matches; without
patterns it is empty.
"""

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlefw.cli import run
from mlefw.run import archive
from mlefw.system import warning

CASES = json.loads(Path(__file__).with_name("bad_inputs.json").read_text(encoding="utf-8"))
FIT = {
    "head": "gaussian",
    "batch": "full",
    "data": "csv",
    "data.path": "{D}/d.csv",
    "data.target": "y",
    "model": "linear",
    "trainer.max_epochs": "5",
    "run_dir": "{D}/r",
}
QUICK = ("logger=none", "report=false", "plots=false")


def tab(kind: str = "gaussian", n: int = 200, d: int = 3, seed: int = 0) -> pd.DataFrame:
    """Normal features, and a target of the kind that depends on them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d))
    eta = x @ np.linspace(0.5, -0.5, d)
    draw: dict[str, Callable[[], np.ndarray]] = {
        "gaussian": lambda: eta + random.normal(size=n),
        "bernoulli": lambda: (random.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
        "poisson": lambda: random.poisson(np.exp(eta)),
        "categorical": lambda: random.integers(0, 3, n),
        "beta": lambda: np.clip(random.beta(2, 3, n), 1e-3, 1 - 1e-3),
        "gamma": lambda: random.gamma(2, np.exp(eta)),
    }
    return pd.DataFrame({f"x{j}": x[:, j] for j in range(d)} | {"y": draw[kind]()})


def make(folder: Path, code: str) -> None:
    """Run the code that makes the files of a case."""

    def w(name: str, data: str | bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    def csv(frame: pd.DataFrame, name: str = "d.csv") -> None:
        w(name, frame.to_csv(index=False))

    exec(code, {"D": folder, "w": w, "csv": csv, "tab": tab, "np": np, "pd": pd, "os": os})


def command(case: dict[str, Any], folder: Path) -> list[str]:
    if "cli" in case:
        arguments = case["cli"]
    else:
        given = {item.lstrip("~+").split("=")[0] for item in case["fit"]}
        defaults = [f"{key}={value}" for key, value in FIT.items() if key not in given or f"~{key}" in case["fit"]]
        arguments = ["train", *defaults, *QUICK, *case["fit"]]
    return [str(argument).replace("{D}", str(folder)) for argument in arguments]


def check_result(folder: Path, arguments: list[str]) -> None:
    """A result is whole and finite, and reads back."""
    if arguments[0] != "train":
        assert list(folder.glob("predictions.*"))
        return
    assert json.loads((folder / "r" / "summary.json").read_text(encoding="utf-8"))["status"] == "finished"
    state = archive.read(folder / "r" / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_bad_input(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "skip" in case:
        pytest.skip(case["skip"])
    if os.geteuid() == 0 and "chmod" in case["make"]:
        pytest.skip("root reads and writes whatever its mode")
    monkeypatch.chdir(tmp_path)
    make(tmp_path, case["make"])
    arguments = command(case, tmp_path)
    with warnings.catch_warnings():
        warnings.resetwarnings()  # as outside the test runner
        if arguments[0] in ("predict", "evaluate") or "damage" in case:
            kind = "categorical" if "categorical" in case["make"] else "gaussian"
            fit = command({"fit": [f"head={kind}", "run_dir={D}/run", "data.test_fraction=0"]}, tmp_path)
            assert run(fit) == 0
            make(tmp_path, case.get("damage", ""))
            capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        warning.clear()
        code = run(arguments)
    message = capsys.readouterr().err
    assert code == case["exit"], message
    assert "Traceback" not in message
    for pattern in case["says"]:
        assert re.search(pattern.replace("{D}", re.escape(str(tmp_path))), message), message
    if not case["says"]:
        assert message == ""
    if code == 0:
        check_result(tmp_path, arguments)
    if code == 2:
        assert len(message.splitlines()) <= 7
        assert sorted(tmp_path.rglob("*")) == before
