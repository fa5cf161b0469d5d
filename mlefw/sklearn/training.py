"""Training on tables in memory, without a run directory unless one is asked for."""

import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlefw.callback.progress import ShowProgress
from mlefw.callback.stored_state import Content
from mlefw.command.outermost import print_warning
from mlefw.command.train import KEPT
from mlefw.configuration.path_setting import without_secrets
from mlefw.configuration.settings import Node, Settings
from mlefw.data.frame import offered
from mlefw.errors import MlefwError, UsageError
from mlefw.fit import as_program, composed, train_in
from mlefw.run import archive, checkpoint, pooled
from mlefw.run.directory import checkpoint_of, summary_of
from mlefw.run.source import head_kind
from mlefw.sklearn.rows import ROLES, Columns
from mlefw.system.atomic import Json
from mlefw.system.local_path import local_path
from mlefw.trained import Model

alone = threading.RLock()
"""Held while a thread trains or predicts: both change global state, such as random generators, for a while."""

NOWHERE = Path("<not kept>")
"""In the place of the directory of a run that is kept in memory alone."""

_OTHER_ROLES = ("group", "time", "cluster", "id", "trials", "event", "variance_weight", "weight", "offset", "exposure")
"""Settings of `data` that may name columns of X, which are then no features."""


class RefusedError(UsageError, ValueError):
    """A mistake in parameters or data, as an error of the type that scikit-learn expects."""


@contextmanager
def refusing() -> Iterator[None]:
    """Raise every `UsageError` of the block as `RefusedError`."""
    try:
        yield
    except UsageError as error:
        raise RefusedError(str(error)) from error


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves: the contents of checkpoints in plain containers and tensors, by their files; the summary."""

    contents: dict[str, Content]
    summary: Json


def train(
    settings: Sequence[str],
    columns: Columns,
    table: pa.Table,
    check: Callable[[str], None],
    run_dir: Any = None,
    plugins: Sequence[str] = (),
    verbose: bool = False,
) -> Fitted:
    """Train on the rows of a table.

    Args:
        settings: as on the command line.
        columns: the names of the columns.
        table: the rows, with target and values of rows.
        check: gets the kind of target that the head takes (`TargetKind`), and may refuse it.
        run_dir: where the run is kept; None for nowhere.
        plugins: packages from which parts may come.
        verbose: whether warnings and, on a terminal, progress are printed; else warnings are those of Python.

    Raises:
        UsageError, NumericalError, StorageError: as `mlefw.fit`.
    """
    told: list[str] = []
    kept = None if run_dir is None else local_path(run_dir, "run_dir").absolute()
    place: Any = tempfile.TemporaryDirectory(prefix="mlefw-") if kept is None else nullcontext()
    with place as made, alone, as_program(print_warning if verbose else told.append), offered(rows=table):
        folder = kept or Path(made) / "run"
        config = composed("frame", without_secrets(settings), columns.target, folder, plugins, [])
        check(head_kind(config.head).target)
        with _without_directory() if kept is None else nullcontext():
            train_in(folder, config.replaced(data=_data(config, columns), callback=_callbacks(config, verbose)))
        paths = [checkpoint_of(path) for path in pooled.paths_of(folder)]
        names = [path if kept else NOWHERE / path.relative_to(folder) for path in paths]
        contents = [checkpoint.essential(archive.read(path)) for path in paths]
        fitted = Fitted({str(name): content for name, content in zip(names, contents, strict=True)}, summary_of(folder))
    for text in told:
        warnings.warn(text, UserWarning, stacklevel=3)
    return fitted


@contextmanager
def _without_directory() -> Iterator[None]:
    """Let a failure of the block not point to a directory that is removed after it."""
    try:
        yield
    except MlefwError as error:
        error.args = (str(error).partition(KEPT)[0],)
        raise


def model_of(contents: Mapping[str, Content], plugins: Sequence[str]) -> Model:
    """The model in the contents of checkpoints, by their files."""
    with alone:
        return Model(pooled.restored({Path(path): content for path, content in contents.items()}, tuple(plugins)))


def _data(config: Settings, columns: Columns) -> Node:
    """The section `data` with the roles of the columns; features are those columns of X that have no other role."""
    for name in columns.roles:
        if (known := config.data.get(ROLES[name])) is not None:
            raise UsageError(f"data.{ROLES[name]}={known} and {name}= are given\n  expected: one of them")
    roles = {ROLES[name]: column for name, column in columns.roles.items()}
    if config.data.get("features") is not None:
        return {**config.data, **roles}
    named = [config.data.get(role) for role in _OTHER_ROLES]
    flat = [name for one in named for name in (one.values() if isinstance(one, dict) else [one])]
    others = [name for one in flat for name in (one if isinstance(one, list) else [one])]
    return {**config.data, **roles, "features": [name for name in columns.features if name not in others]}


def _callbacks(config: Settings, verbose: bool) -> Node:
    """The callbacks of the settings; without the line of progress unless it is asked for."""
    progress = f"{ShowProgress.__module__}.{ShowProgress.__name__}"
    return {name: node for name, node in config.callback.items() if verbose or node.get("_target_") != progress}
