"""Training from Python: `from mlefw.fit import fit`."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlefw import configuration, resumption, warn
from mlefw.command import train
from mlefw.data.frame import as_arrow, offered
from mlefw.errors import Stopped, UsageError
from mlefw.interrupt import handled
from mlefw.run_directory import default_path, run_of
from mlefw.single import listen
from mlefw.trained import Model, load


def fit(
    data: Any,
    target: Any,
    *settings: str,
    validation: Any = None,
    test: Any = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    plugins: Sequence[str] = (),
) -> Model:
    """Train as `mlefw train` does, on rows in memory, and return the model that was kept.

        model = fit(frame, "claims", "head=poisson", "data.exposure=years", run_dir="claims")
        model = fit(x, y, "model.hidden=[64,64]")
        model.predict(new), model.summary["metrics"]["test"]["nll_nats"]

    Args:
        data: a frame of pandas, polars or Arrow, a mapping of arrays (n,), or a matrix (n, num_features), whose
            columns are called x0, x1, ….
        target: a column of `data`; or the values themselves, (n,), which are called as they are named, or y.
        settings: as on the command line, such as `head=poisson` or `model.hidden=[64,64]`.
        validation: rows to watch, in place of a random share: what `data` may be, or a pair of that and targets.
        test: the same for the rows of the final score.
        run_dir: where the run is written; by default `outputs/<date>/<time>`.
        resume: the directory of a run on the same rows, to go on with.
        plugins: packages that heads, models and priors may come from, as of `--plugin`.

    Raises:
        UsageError: a mistake in settings or data, before anything is written.
        NumericalError, StorageError: during the training.
        KeyboardInterrupt: Ctrl-C, after what was reached is on disk.
    """
    name = target if isinstance(target, str) else str(getattr(target, "name", None) or "y")
    rows = as_arrow(data) if isinstance(target, str) else _with_target(data, target, name)
    parts = {split: _part(value, name) for split, value in (("validation", validation), ("test", test))}
    with _as_program(), offered(rows=rows, **parts):
        if resume is not None:
            if run_dir is not None:
                raise UsageError(f"run_dir={run_dir}: resume= goes on in the run's own directory")
            folder = run_of(str(resume))
            config = resumption.settings(folder, list(settings), [], plugins)
        else:
            folder = (default_path() if run_dir is None else Path(run_dir)).absolute()
            config = _composed(settings, name, folder, plugins)
        train.run(config, folder)
    return load(folder, plugins=plugins)


def _composed(settings: Sequence[str], target: str, folder: Path, plugins: Sequence[str]) -> dict[str, Any]:
    configuration.register_plugins()
    for item in settings:
        if item.startswith(("data=", "data.target=", "run_dir=", "resume=")):
            raise UsageError(f"{item}: expected as an argument of fit")
    admitted = (*plugins, *configuration.installed_plugins())
    config = configuration.read("train", ["data=frame", *settings], [], admitted)
    config = configuration.located(config, folder)
    # Afterwards, so that a name may hold what the grammar of settings does not.
    config["data"]["target"] = target
    return config


@contextmanager
def _as_program() -> Iterator[None]:
    """Warnings and signals as in the program; Ctrl-C ends as Python's own."""
    try:
        with warnings.catch_warnings(), handled():
            warn.clear()
            listen()
            yield
    except Stopped as error:
        if error.exit_code == 130:
            raise KeyboardInterrupt(str(error)) from None
        raise SystemExit(error.exit_code) from None


def _part(data: Any, target: str) -> pa.Table | None:
    if data is None:
        return None
    return _with_target(*data, target) if isinstance(data, tuple) and len(data) == 2 else as_arrow(data)


def _with_target(data: Any, target: Any, name: str) -> pa.Table:
    table = as_arrow(data)
    values = np.asarray(target)
    if values.shape != (table.num_rows,):
        raise UsageError(f"the target has shape {values.shape}\n  expected: ({table.num_rows},), a value for each row")
    if name in table.column_names:
        raise UsageError(
            f"the target is called {name!r}, and so is a column\n  expected: another name, or the column's"
        )
    return table.append_column(name, as_arrow({name: values}).column(name))
