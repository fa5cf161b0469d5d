"""The outermost call of a command: turns errors into a few lines and an exit code, and warnings into one line each."""

import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from mlefw.errors import MlefwError, Stopped, UsageError, is_out_of_memory
from mlefw.system import error_origin, warning
from mlefw.system.inert_text import escaped
from mlefw.system.signals import handled

Task = Callable[[], None]

_MAX_CHARACTERS = 10_000
"""The most characters of an error that are printed: it may list many settings."""

_NO_MEMORY = "out of memory: a smaller batch (batch=mini batch.size=…) or batch.max_rows needs less"


def guarded(task: Task) -> int:
    """Run a task, with errors told as a few lines on standard error; the exit code, 0 for success."""
    try:
        with handled():
            task()
    except (Exception, KeyboardInterrupt, Stopped) as error:  # noqa: BLE001 - the outermost frame
        return print_error(error)
    return 0


def print_error(error: BaseException) -> int:
    """Print an error as a few lines on standard error; its exit code."""
    if isinstance(error, Stopped) or (isinstance(error, MlefwError) and error.exit_code != MlefwError.exit_code):
        where = error_origin.plugin_location(error) if isinstance(error, UsageError) else ""
        return _fail(f"{error}\n  {where}" if where and where not in str(error) else str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail("stopped by SIGINT", 130)
    if isinstance(error, BrokenPipeError):
        # The reader of the output went away (`| head -1`): the work is done and on disk. Python would fail once more
        # when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if is_out_of_memory(error):
        return _fail(_NO_MEMORY, 6)
    if (of_plugin := error_origin.plugin_error(error)) is not None:
        return _fail(str(of_plugin), of_plugin.exit_code)
    if isinstance(error, MlefwError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError):
        return _fail(f"storage: {error}", 4)
    # Any other error is a bug of mlefw.
    return _fail(f"unexpected {type(error).__name__}: {error}\n  This is a bug; MLEFW_TRACEBACK=1 shows where", 70)


def _fail(message: str, code: int) -> int:
    if os.environ.get("MLEFW_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"mlefw: error: {escaped(warning.shortened(message, _MAX_CHARACTERS))}", file=sys.stderr)
    return code


def finish_imports() -> None:
    """Call it after the last large import.

    Importing Lightning turns its log messages on again, so they are silenced once more. The objects that exist now are
    never freed: the garbage collector, which is off during imports, need not look at them.
    """
    take_over_signals()
    gc.freeze()
    gc.enable()


def print_warning(text: str) -> None:
    """Print a warning as one line on standard error."""
    print(f"mlefw: warning: {escaped(text)}", file=sys.stderr)


def take_over_signals(tell: Callable[[str], None] = print_warning) -> None:
    """Tell warnings of mlefw, once each, and collect them for the summary; silence those of other libraries."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        ours = issubclass(category, UserWarning) and f"{os.sep}mlefw{os.sep}" in filename
        if ours and warning.collect(text := warning.shortened(str(message))):
            tell(text)

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show  # type: ignore[assignment]
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
