"""Every built-in head with the metrics that its configuration names: calibrated models pass, distorted ones fail.

Each test of calibration has a size of 5 %: of twenty calibrated samples at most five may fail one (exceeded with a
probability of 3e-4 if the size is right), and of twenty samples from a distorted model all must fail one of them.
Seeds are fixed.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from scipy import stats

from mlefw.configuration.groups import members
from mlefw.configuration.read import read_settings, settings_of
from mlefw.distributed import ranks
from mlefw.distribution import quantile
from mlefw.head.base import Head
from mlefw.metric.base import Metric
from mlefw.run import build

N, REPEATS, MOST_FAILED = 3000, 20, 5
# Heads of several targets, with a number of trials, or around another head have tests of their own.
OTHERS = (
    "multitask",
    "multivariate_gaussian",
    "mixture",
    "censored",
    "truncated",
    "hurdle",
    "binomial",
    "beta_binomial",
)
HEADS = [head for head in members("head") if head not in OTHERS]


def parts(name: str) -> tuple[Head, list[Metric]]:
    config = settings_of(read_settings("train", [f"head={name}"], [], []))
    head = build.build_head(config.head, 4)
    return head, build.build_metrics(config, head)


def etas(head: Head, seed: int, n: int = N) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, head.eta_dim, generator=generator, dtype=torch.float64)


@torch.no_grad()
def draw(head: Head, eta: torch.Tensor, seed: int) -> torch.Tensor:
    distribution = head(eta)
    random = np.random.default_rng(seed)
    if head.target == "labels":
        mass = distribution.probs.detach().numpy().cumsum(1)
        return torch.tensor((random.random((len(eta), 1)) > mass).sum(1).clip(max=mass.shape[1] - 1))
    if head.target == "binary":
        return torch.tensor(random.random(len(eta)) < distribution.probs.detach().numpy()).double()
    level = torch.tensor(random.random(len(eta)))
    y = quantile.quantile(distribution, level.clamp(1e-12, 1 - 1e-12))
    # A share that rounds to one is outside the support.
    return y.clamp(max=1 - 2**-53) if getattr(head.support, "upper_bound", None) == 1 else y


def distort(head: Head, eta: torch.Tensor) -> torch.Tensor:
    """Logits half as large again, those of bins tilted; of a number the first parameter moved by half of its unit."""
    if head.target != "numeric":
        return 1.5 * eta
    if head.reference is not None:
        return eta + torch.linspace(0, 0.5, head.eta_dim, dtype=eta.dtype)
    first = torch.zeros(head.eta_dim, dtype=eta.dtype)
    first[0] = 0.5
    return eta + first


@torch.no_grad()
def figures(
    metrics: list[Metric], head: Head, eta: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None
) -> dict[str, float]:
    weight = torch.ones(len(y), dtype=torch.float64) if weight is None else weight
    values: dict[str, float] = {}
    distribution = head(eta)
    for metric in metrics:
        metric.reset()
        metric.update(distribution, y, weight)
        # What the module does once for all metrics, where several processes share the rows.
        ranks.all_reduce(list(metric.metric_state.values()))
        values |= {name: float(value) for name, value in metric.compute().items()}
    return values


def p_values(values: dict[str, float], head: Head, eta: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Those among the figures, and where there are none (counts) that of the mean standardised residual."""
    found = {name: value for name, value in values.items() if name.endswith("p_value")}
    if found:
        return found
    distribution = head(eta)
    z = ((y - distribution.mean) / distribution.stddev).detach().numpy()
    return {"bias": 2 * stats.norm.sf(abs(z.sum()) / math.sqrt(len(z)))}


@pytest.mark.parametrize("name", HEADS)
def test_a_calibrated_model_passes_and_a_distorted_one_fails(name: str) -> None:
    head, metrics = parts(name)
    few, some = etas(head, 0, 200), draw(head, etas(head, 0, 200), 0)
    tested = [one for one in metrics if any(key.endswith("p_value") for key in figures([one], head, few, some))]
    failed: dict[str, int] = {}
    for seed in range(REPEATS):
        eta = etas(head, seed)
        y = draw(head, eta, seed)
        for test, p in p_values(figures(tested, head, eta, y), head, eta, y).items():
            failed[test] = failed.get(test, 0) + (p < 0.05)
        wrong = distort(head, eta)
        assert min(p_values(figures(tested, head, wrong, y), head, wrong, y).values()) < 0.05
    assert failed
    assert max(failed.values()) <= MOST_FAILED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_a_narrow_eta_is_promoted_first(name: str, dtype: torch.dtype) -> None:
    head, metrics = parts(name)
    eta = etas(head, 1, 300).to(dtype)
    y = draw(head, eta.double(), 1)
    assert figures(metrics, head, eta, y) == figures(metrics, head, eta.double(), y)


@pytest.mark.parametrize("name", HEADS)
def test_a_row_without_weight_does_not_count_however_unlikely(name: str) -> None:
    head, metrics = parts(name)
    eta = etas(head, 2, 300)
    y = draw(head, eta, 2)
    without = figures(metrics, head, eta, y)
    far = torch.full((1, head.eta_dim), -800.0, dtype=torch.float64)
    if head.target == "labels":
        far[0, 0] = -1e308
    last = torch.zeros(1, dtype=y.dtype) if head.target == "labels" else torch.ones(1, dtype=y.dtype)
    if head.target == "numeric" and not head.log_link:
        last = torch.full((1,), 1e200, dtype=torch.float64)
    weight = torch.cat([torch.ones(300, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    with_it = figures(metrics, head, torch.cat([eta, far]), torch.cat([y, last]), weight)
    assert with_it == pytest.approx(without, rel=1e-12, abs=1e-12)


def _share(rank: int, folder: str, work: Callable[[int], Any]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.save(work(rank), Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def _every_head(rank: int) -> dict[str, dict[str, float]]:
    """Figures of each head in a process that sees 100 rows of 300 (rank 0) or the 200 others."""
    part = slice(0, 100) if rank == 0 else slice(100, 300)
    found = {}
    for name in HEADS:
        head, metrics = parts(name)
        eta = etas(head, 3, 300)
        found[name] = figures(metrics, head, eta[part], draw(head, eta, 3)[part])
    return found


@pytest.mark.slow
def test_two_processes_see_the_figures_of_one(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_share, (str(tmp_path), _every_head), nprocs=2)
    for name in HEADS:
        head, metrics = parts(name)
        eta = etas(head, 3, 300)
        alone = figures(metrics, head, eta, draw(head, eta, 3))
        for rank in range(2):
            together = torch.load(tmp_path / f"{rank}.pt")[name]
            assert together == pytest.approx(alone, rel=1e-12, abs=1e-12)
