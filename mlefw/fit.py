"""Training from Python, as `mlefw.fit(…)`, or by `from mlefw.fit import fit`; and tests of models, `mlefw.anova(…)`."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hydra.core.global_hydra import GlobalHydra

from mlefw.command import anova as tests
from mlefw.command import ensemble, train
from mlefw.command.outermost import print_warning, take_over_signals
from mlefw.configuration.groups import register_plugins
from mlefw.configuration.path_setting import without_secrets
from mlefw.configuration.read import located, read_settings
from mlefw.configuration.settings import Settings
from mlefw.data.arrays import are_arrays, as_arrays, is_dataset
from mlefw.data.frame import as_arrow, offered, target_names, with_target
from mlefw.data.strings import token_kind
from mlefw.errors import Stopped, UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.in_memory import as_frame, pair_of
from mlefw.run.directory import default_path, run_of
from mlefw.run.held_out import is_ensemble
from mlefw.run.resume import settings as settings_of
from mlefw.system import trust, warning
from mlefw.system.local_path import local_path
from mlefw.system.process_state import preserved
from mlefw.system.signals import handled
from mlefw.trained import Model, load


def fit(
    data: Any,
    target: Any = None,
    *settings: str,
    validation: Any = None,
    test: Any = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    plugins: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
) -> Model:
    """Train as `mlefw train` does, on rows in memory, and return the model with the best validation NLL.

        model = fit(frame, "claims", "head=poisson", "data.exposure=years", run_dir="claims")
        model = fit(frame, None, "formula=claims ~ age + offset(log(years))", "head=poisson")
        model = fit(x, y, "model.hidden=[64,64]")
        model.predict(new), model.summary["metrics"]["test"]["nll_nats"]
        model = fit(images, labels, "model=cnn", "head=categorical")  # images (n, C, H, W)
        model = fit(dataset, None, "model=cnn", "head=categorical")  # a Dataset of torch, or a LightningDataModule
        model = fit(text, None, "model=transformer")  # str, bytes, or a vector of ids with data.vocabulary

    Args:
        data: a frame of pandas, polars or Arrow, a mapping of arrays (n,), or a matrix (n, num_features), whose
            columns are named x0, x1, …. Or an array or tensor (n, …) of more dimensions, or of ids (n, length) with
            `data.vocabulary`; a mapping of arrays of which some have more dimensions than one; or a map-style dataset
            of items (x, y) or (x, y, weight), a mapping of such datasets by split, or a LightningDataModule. Or a text,
            for the likelihood of the next token: str, bytes, a vector of ids, or a list of these, each a document.
        target: the name of a column of `data`, or a list of names for a head of several columns; or the values, (n,),
            or (n, *positions) of arrays, whose column is named by their attribute `name`, or y; of several targets
            (n, k), named y0, y1, …, or a frame of theirs. None for datasets and text, where a setting `formula=`
            names it, and where `data` is a pair (x, y) of what `data` and `target` may be.
        settings: settings as on the command line, such as `head=poisson` or `model.hidden=[64,64]`.
        validation: validation rows instead of a random share: anything that `data` may be, or a pair (data, target).
            Of datasets a dataset.
        test: test rows instead of a random share, alike.
        run_dir: the directory of the run; by default `outputs/<date>/<time>`.
        resume: the directory of a run on the same rows, which is continued.
        plugins: packages from which heads, models and other parts may come, like those of `--plugin`.
        config_dirs: folders with YAML files of such parts, like those of `--config-dir`.

    Raises:
        UsageError: settings or data are wrong; nothing was written.
        NumericalError: training diverged.
        StorageError: a file could not be written.
        KeyboardInterrupt: Ctrl-C; the state that was reached is on disk.
    """
    settings = tuple(without_secrets(settings))
    if target is None and token_kind(data) is None:
        data, target = pair_of(data)
    source = _source(data, target, settings)
    is_named = _is_named(data, target, source, settings)
    name = target if is_named else target_names(target) if source == "frame" else _label(target)
    read = {"frame": partial(_part, target=name), "arrays": partial(_arrays, name=name)}.get(source, _as_it_is)
    given = {"rows": data if is_named or source in ("datasets", "strings") else (data, target)}
    given |= {name: part for name, part in (("validation", validation), ("test", test)) if part is not None}
    reading = partial(_parts, read, given)
    dirs = [str(folder) for folder in config_dirs]
    with as_program(), offered(**reading()):
        if resume is not None:
            if run_dir is not None:
                raise UsageError(f"run_dir={run_dir}: resume= goes on in the run's own directory")
            folder = run_of(str(resume))
            config = settings_of(folder, list(settings), dirs, plugins)
        else:
            folder = (default_path() if run_dir is None else local_path(run_dir, "run_dir")).absolute()
            if source == "strings":
                name, settings = [], (f"data.tokens={token_kind(data)}", *settings)
            member = "arrays" if source == "datasets" else source
            config = composed(member, settings, name, folder, plugins, dirs)
        train_in(folder, config)
    return load(folder, plugins=plugins).with_rows(reading)


def train_in(folder: Path, config: Settings) -> None:
    """Train a run, or an ensemble, in a directory; within `as_program`, and `offered` the rows.

    Raises:
        UsageError, NumericalError, StorageError: as `fit`.
    """
    if is_ensemble(config):
        # Members are not forked here: forks of a process with threads of other libraries may deadlock.
        ensemble.run(config, folder)
    else:
        train.run(config, folder)


def anova(
    *models: Model | str | Path, data: Any = None, validation: Any = None, test: Any = None, plugins: Sequence[str] = ()
) -> Any:
    """The tests of `mlefw anova`: of nested exact estimates, each against the next smaller one, or of the terms of one.

        anova(small, large, data=frame)     # two models of `fit(frame, …)`
        anova("small", "large")             # directories of `mlefw baseline` or `mlefw train`

    Args:
        models: models of runs, or directories of runs, in any order.
        data: the rows, where the runs have them from Python: a frame or mapping with the target among its columns.
        validation: validation rows that `fit` was given, alike.
        test: test rows that `fit` was given, alike.
        plugins: packages from which parts of the runs may come.

    Returns:
        A row for each model, from the smallest to the largest, with its log-likelihood, AIC and tests against the row
        above it; or for each term its joint test. It is a frame of pandas if that is installed, else a dict of lists by
        column.

    Raises:
        UsageError: there is no such run, its rows have changed or are not given, or the models are not nested.
    """
    parts = {"rows": data, "validation": validation, "test": test}
    given = {name: as_arrow(rows) for name, rows in parts.items() if rows is not None}
    runs = [str(one.path.parent.parent if isinstance(one, Model) else one) for one in models]
    with as_program(), offered(**given):
        return as_frame(tests.frame(tests.run(runs, plugins=(*plugins, *trust.installed()))))


def _source(data: Any, target: Any, settings: Sequence[str]) -> str:
    """What data are: a `frame`, `arrays` of any shape, `datasets`, or `strings`, which are text."""
    if target is None and token_kind(data) is not None:
        return "strings"
    if target is None and is_dataset(data):
        return "datasets"
    are_ids = any(item.startswith("data.vocabulary=") and not item.endswith("=null") for item in settings)
    return "arrays" if are_arrays(data, are_ids) else "frame"


def _is_named(data: Any, target: Any, source: str, settings: Sequence[str]) -> bool:
    """Whether a target is the names of columns of `data`, or a formula has them, rather than values.

    Raises:
        UsageError: rows of a table without a target.
    """
    if target is None and source == "frame":
        if not any(item.startswith("formula=") for item in settings):
            raise UsageError(
                "the target is missing\n  expected: the name of a column, values, a pair (x, y), or a setting formula="
            )
        return True
    # The columns of a matrix have no names that a list could hold: its strings are labels.
    names = list | tuple if source == "arrays" or not isinstance(data, np.ndarray | torch.Tensor | list) else ()
    return isinstance(target, str) or (isinstance(target, names) and all(isinstance(one, str) for one in target))


def _label(target: Any) -> str:
    """The name of the values of a target."""
    return str(getattr(target, "name", None) or "y")


def composed(
    source: str,
    settings: Sequence[str],
    target: str | Sequence[str] | None,
    folder: Path,
    plugins: Sequence[str],
    dirs: Sequence[str],
) -> Settings:
    """The checked settings of a run on rows in memory.

    Args:
        source: `frame`, `arrays`, `datasets` or `strings`.
        settings: as on the command line.
        target: name of the target, or names of several.
        folder: the run directory.
        plugins: packages from which parts may come, beside installed plugins.
        dirs: folders with YAML files.

    Raises:
        UsageError: a setting is wrong, or stands for an argument of `fit`.
    """
    register_plugins()
    for item in settings:
        if item.startswith(("data=", "data.target=", "run_dir=", "resume=")):
            raise UsageError(f"{item}: expected as an argument of fit, not among its settings")
    admitted = (*plugins, *trust.installed())
    config = read_settings("train", [f"data={source}", *settings], dirs, admitted)
    plain = located(config, folder).plain
    # The target is set afterwards, because names of columns may hold characters that overrides cannot.
    known, given = plain["data"]["target"], target if isinstance(target, str) else list(target or ()) or None
    if plain.get("formula") and known is not None and given not in (None, known):
        raise UsageError(f"formula={plain['formula']!r} is of the target {known!r}, and fit of {given!r}")
    named = {**plain["data"], "target": known if given is None else given}
    return Settings.of({**plain, "data": named})


@contextmanager
def as_program(tell: Callable[[str], None] = print_warning) -> Iterator[None]:
    """Handle warnings, signals and Hydra's global state as the program does, and restore the caller's afterwards.

    `tell` gets each warning of mlefw.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SystemExit: another signal that ends a process.
    """
    hydra = GlobalHydra.instance()
    callers = hydra.hydra
    try:
        with preserved(), warnings.catch_warnings(), handled():
            warning.clear()
            take_over_signals(tell)
            yield
    except Stopped as error:
        if error.exit_code == 130:
            raise KeyboardInterrupt(str(error)) from None
        raise SystemExit(error.exit_code) from None
    finally:
        hydra.hydra = callers


def _parts(read: Callable[[Any], Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the sources of rows in memory take, by `rows`, `validation` and `test`."""
    return {name: read(part) for name, part in given.items()}


def _as_it_is(data: Any) -> Any:
    return data


def _part(data: Any, target: Any) -> pa.Table:
    """Rows as a table, of a frame or a pair (data, target)."""
    is_pair = isinstance(data, tuple) and len(data) == 2 and target is not None
    return with_target(data[0], data[1], target) if is_pair else as_arrow(data)


def _arrays(data: Any, name: Any) -> ArrayTable:
    """Rows as arrays, of a mapping or a pair (inputs, target)."""
    inputs, target = pair_of(data)
    return as_arrays(inputs, target, "x", str(name))


class _Callable(ModuleType):
    """A module that can be called, because `import mlefw.fit` makes `mlefw.fit` the module instead of the function."""

    def __call__(self, *given: Any, **named: Any) -> Model:
        return fit(*given, **named)


sys.modules[__name__].__class__ = _Callable
