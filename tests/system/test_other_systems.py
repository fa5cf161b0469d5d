"""Where modules and calls of POSIX are missing, as on Windows, a run and a sweep need none of them."""

import subprocess
import sys
from pathlib import Path

from conftest import summary_of

HIDDEN = """
import os, signal, sys
import torch, lightning, torchmetrics, hydra, joblib, multiprocessing, subprocess, rich.console, matplotlib.pyplot
import scipy.stats, tensorboard.summary, pyarrow.csv, sklearn.datasets, threadpoolctl, torch.utils.tensorboard

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
calls = "fork setsid setpgid killpg posix_fallocate sched_getaffinity sysconf uname statvfs getloadavg O_NOFOLLOW"
for name in (*calls.split(), "O_TMPFILE"):
    delattr(os, name)
for name in ("SIGALRM", "setitimer"):
    delattr(signal, name)

from mlefw.cli import run

few = ("model=linear", "trainer.max_epochs=1", "logger=none", "plots=false", "report=false")
assert run(["train", *few, "run_dir=r"]) == 0
assert run(["train", "resume=r", "trainer.max_epochs=2"]) == 0
assert run(["predict", "run=r", "data.path=d.csv", "output=p.csv"]) == 0
assert run(["train", "trainer.strategy=ddp", "trainer.devices=2"]) == 2
assert run(["train", "-m", *few, "seed=0,1", "run_dir=s"]) == 0
"""


def test_a_run_a_prediction_and_a_sweep(tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes

    load_diabetes(as_frame=True, scaled=False).frame.head(20).to_csv(tmp_path / "d.csv", index=False)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HIDDEN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bug" not in done.stderr
    assert "fork" in done.stderr
    assert summary_of(tmp_path / "r")["num_epochs"] == 2
    assert len(list((tmp_path / "s").glob("00*/summary.json"))) == 2
