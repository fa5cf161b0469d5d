"""What belongs to the caller of the Python doors stays as it was, and what the caller has set does not reach inside."""

import asyncio
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
import matplotlib
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from mlefw.errors import NumericalError, UsageError
from mlefw.fit import fit
from mlefw.system import process_state
from mlefw.trained import Model, load

pytestmark = pytest.mark.filterwarnings("default")  # as outside the test runner: Lightning has some of its own

RANDOM = np.random.default_rng(33)
X = RANDOM.normal(size=(60, 2))
Y = X[:, 0] + RANDOM.normal(size=60)
QUICK = ("model=linear", "trainer.max_epochs=2", "uncertainty=laplace", "report=false", "plots=false", "logger=none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        fit(X, Y, *QUICK, run_dir=folder)
    return folder


def loggers() -> dict[str, Any]:
    known = {n: one for n, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {n: (one.level, list(one.handlers), one.propagate, one.disabled) for n, one in known.items()}


STATES: dict[str, Callable[[], Any]] = {
    "random": random.getstate,
    "numpy": lambda: str(np.random.get_state(legacy=False)),
    "torch": lambda: torch.get_rng_state().tolist(),
    "default dtype": torch.get_default_dtype,
    "default device": lambda: str(torch.get_default_device()),
    "grad mode": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "deterministic": torch.are_deterministic_algorithms_enabled,
    "deterministic, warn only": torch.is_deterministic_algorithms_warn_only_enabled,
    "cudnn": lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    "precision of products": torch.get_float32_matmul_precision,
    "anomalies": torch.is_anomaly_enabled,
    "threads": torch.get_num_threads,
    "filters": lambda: list(warnings.filters),
    "showwarning": lambda: warnings.showwarning,
    "signals": lambda: [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)],
    "environment": lambda: dict(os.environ),
    "levels": lambda: {n: s for n, s in loggers().items() if n.startswith(("lightning", "torch", "matplotlib"))},
    "root logger": lambda: (logging.root.level, list(logging.root.handlers)),
    "directory": Path.cwd,
    "errors of numpy": np.geterr,
    "printing of numpy": lambda: str(np.get_printoptions()),
    "pictures": lambda: (matplotlib.get_backend(), dict(matplotlib.rcParams)),
}


def no_file(run: Path, folder: Path) -> None:
    with pytest.raises(UsageError):
        load(folder / "none")


def refused(run: Path, folder: Path) -> None:
    with pytest.raises(UsageError):
        fit(X, Y, *QUICK, "head=poisson", run_dir=folder / "refused")


def diverges(run: Path, folder: Path) -> None:
    with pytest.raises(NumericalError):
        wild = ("optimizer=sgd", "optimizer.lr=1e30", "step.clip_norm=0", "step.recoveries=0")
        fit(X, 1e9 * Y, *QUICK, *wild, run_dir=folder / "diverges")


def settings(run: Path, folder: Path) -> None:
    fit(
        X,
        Y,
        *QUICK,
        "trainer.deterministic=true",
        "trainer.benchmark=true",
        "trainer.detect_anomaly=true",
        run_dir=folder / "s",
    )


DOORS: dict[str, Callable[[Path, Path], Any]] = {
    "fit": lambda run, folder: fit(X, Y, *QUICK, "model=mlp", "model.dropout=0.2", "seed=7", run_dir=folder / "fit"),
    "fit that is refused": refused,
    "fit that diverges": diverges,
    "fit with modes of its own": settings,
    "load": lambda run, folder: load(run),
    "load of nothing": no_file,
    "predict": lambda run, folder: load(run).predict(X, uncertainty="laplace"),
    "distribution": lambda run, folder: load(run).distribution(X),
    "evaluate": lambda run, folder: load(run).evaluate({"x0": X[:, 0], "x1": X[:, 1], "y": Y}),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_state_of_the_process_is_put_back(run: Path, tmp_path: Path, door: str) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    # Values that nothing inside would choose.
    os.environ["MLEFW_TESTED"] = "as it was"
    logging.getLogger("lightning.pytorch").setLevel(17)
    torch.use_deterministic_algorithms(True, warn_only=True)
    np.set_printoptions(precision=3)
    try:
        before = {name: state() for name, state in STATES.items()}
        DOORS[door](run, tmp_path)
        changed = [name for name, state in STATES.items() if state() != before[name]]
        assert changed == []
    finally:
        del os.environ["MLEFW_TESTED"]
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        torch.use_deterministic_algorithms(False)
        np.set_printoptions(precision=8)


def test_environment_loggers_and_threads_come_back_after_an_error() -> None:
    before = {name: state() for name, state in STATES.items()}
    with suppress(ZeroDivisionError), process_state.preserved():
        os.environ["MLEFW_TESTED"] = "inside"
        os.environ.pop("PATH")
        logging.getLogger("torch").setLevel(3)
        logging.getLogger("torch").propagate = False
        torch.set_num_threads(before["threads"] + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.rand(3), np.random.rand(), random.random()
        raise ZeroDivisionError
    assert [name for name, state in STATES.items() if state() != before[name]] == []


@contextmanager
def dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64 by default": dtype,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "tensors without values by default": lambda: torch.device("meta"),
}


def figures(folder: Path) -> Any:
    model: Model = fit(X, Y, *QUICK, run_dir=folder)
    predicted = model.predict(X, uncertainty="laplace")["sd"].tolist()
    return model.summary["metrics"], predicted, model.distribution(X).mean.tolist()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return figures(tmp_path_factory.mktemp("expected") / "run")


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_modes_of_the_caller_do_not_reach_inside(tmp_path: Path, expected: Any, context: str) -> None:
    with CONTEXTS[context]():
        found = figures(tmp_path / "run")
    assert found == expected


def test_in_a_thread_and_in_a_loop(tmp_path: Path, expected: Any) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(figures(tmp_path / "thread")))
    thread.start()
    thread.join()

    async def later() -> Any:
        return figures(tmp_path / "loop")

    assert [*found, asyncio.run(later())] == [expected, expected]


def test_a_program_of_hydra_keeps_its_own(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        fit(X, Y, *QUICK, run_dir=tmp_path / "run")
        assert GlobalHydra.instance().hydra is own
        assert own is not None


def test_draws_between_fits_differ(tmp_path: Path) -> None:
    drawn = []
    for k in range(2):
        fit(X, Y, *QUICK, run_dir=tmp_path / str(k))
        drawn.append((float(np.random.random()), random.random(), float(torch.rand(()))))
    assert all(a != b for a, b in zip(*drawn, strict=True))
