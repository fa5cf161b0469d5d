"""A stranger's head: one Python file and one YAML, and everything else comes for nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, summary_of
from pyarrow import csv
from scipy.optimize import minimize

HEAD = '''
from typing import ClassVar

from torch.distributions import Exponential, constraints

from mlefw import inverse_link
from mlefw.head.base import FactorizedHead


class ExponentialHead(FactorizedHead):
    """Waiting times with a log-linear rate."""

    inverse_links: ClassVar = {"rate": inverse_link.exp}
    support = constraints.nonnegative
    convex = True

    def __init__(self) -> None:
        super().__init__(rate="predicted")

    def build(self, rate):
        return Exponential(rate, validate_args=False)
'''

YAML = """# Waiting times
defaults:
  - override /metric@_global_.metric: continuous
_target_: waiting.ExponentialHead
"""


@pytest.fixture
def plugin(tmp_path: Path, table: Callable[..., Path]) -> tuple[str, ...]:
    (tmp_path / "waiting.py").write_text(HEAD, encoding="utf-8")
    (tmp_path / "my_conf" / "head").mkdir(parents=True)
    (tmp_path / "my_conf" / "head" / "waiting.yaml").write_text(YAML, encoding="utf-8")
    random = np.random.default_rng(2)
    frame = csv.read_csv(table("gaussian", 300)).to_pandas()
    frame["y"] = random.exponential(np.exp(1 + 0.5 * frame.x0 - 0.3 * frame.x2))
    frame.to_csv(tmp_path / "wait.csv", index=False)
    return ("head=waiting", "data=csv", "data.path=wait.csv", "data.target=y", "--config-dir", "my_conf")


def test_a_plugin_head_trains_and_has_its_exact_estimate(mlefw: Run, tmp_path: Path, plugin: tuple[str, ...]) -> None:
    whole = ("data.test_fraction=0", "data.validation_fraction=0", "logger=none")
    linear = ("model=linear", "batch=full", "optimizer=lbfgs")
    done = mlefw("train", *plugin, *whole, *linear, "run_dir=r", "--plugin", "waiting")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "r")
    assert abs(summary["distance"]["excess_objective"]) < 1e-9
    assert summary["metrics"]["train"]["crps"] > 0

    frame = csv.read_csv(tmp_path / "wait.csv").to_pandas()
    x = np.column_stack([np.ones(300), frame.x0, frame.x1, frame.x2])

    def nll(beta: np.ndarray) -> float:
        return float(np.mean(frame.y * np.exp(x @ beta) - x @ beta))

    oracle = minimize(nll, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    assert summary["baseline"]["train"]["nll_nats"] == pytest.approx(oracle.fun, abs=1e-9)
    evaluated = mlefw("evaluate", "run=r", "split=train", "--plugin=waiting")
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_plugin_is_admitted_by_the_command_line_alone(mlefw: Run, plugin: tuple[str, ...]) -> None:
    done = mlefw("train", *plugin)
    assert done.returncode == 2
    assert "refused" in done.stderr
    assert "--plugin" in done.stderr


def test_plugins_reach_the_jobs_of_a_sweep(mlefw: Run, tmp_path: Path, plugin: tuple[str, ...]) -> None:
    few = ("trainer.max_epochs=2", "logger=none", "run_dir=s")
    done = mlefw("train", "-m", "seed=0,1", *plugin, *few, MLEFW_PLUGINS="waiting")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s").glob("*/summary.json"))) == 2


def test_a_plugin_model_is_given_its_sizes_and_held_to_its_shape(mlefw: Run, tmp_path: Path) -> None:
    code = (
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, num_features, eta_dim, flat=False):\n"
        "        super().__init__()\n        self.layer, self.flat = torch.nn.Linear(num_features, eta_dim), flat\n\n"
        "    def forward(self, x):\n        return self.layer(x)[..., 0] if self.flat else self.layer(x)\n"
    )
    (tmp_path / "nets.py").write_text(code, encoding="utf-8")
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "net.yaml").write_text("# mine\n_target_: nets.Net\nflat: false\n", "utf-8")
    common = ("train", "model=net", "--config-dir", "my_conf", "--plugin", "nets", "trainer.max_epochs=2", "run_dir=r")
    refused = mlefw(*common, "model.flat=true")
    assert refused.returncode == 2
    assert "expected (1, 1)" in refused.stderr
    done = mlefw(*common)
    assert done.returncode == 0, done.stderr
    assert summary_of(tmp_path / "r")["num_parameters"] == 12
