"""The outermost frame of a command: errors become a few lines and an exit code, warnings one line each."""

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


_LONGEST = 10_000
"""Characters of an error, which may list many settings."""


_NO_MEMORY = "out of memory: a smaller batch (batch=mini batch.size=…) or batch.max_rows needs less"


def guarded(task: Task) -> int:
    """Run a task; its exit code. Errors become a few lines on standard error."""
    try:
        with handled():
            task()
    except (Exception, KeyboardInterrupt, Stopped) as error:  # noqa: BLE001 - the outermost frame
        return told(error)
    return 0


def told(error: BaseException) -> int:
    """Say what went wrong in a few lines on standard error; the exit code for it."""
    if isinstance(error, Stopped) or (isinstance(error, MlefwError) and error.exit_code != MlefwError.exit_code):
        where = error_origin.plugin_location(error) if isinstance(error, UsageError) else ""
        return _fail(f"{error}\n  {where}" if where and where not in str(error) else str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail("stopped by SIGINT", 130)
    if isinstance(error, BrokenPipeError):
        # The reader went away (`| head -1`): the work is done, and its result is on disk.
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
    # Whatever is left is a bug, and says so.
    return _fail(f"unexpected {type(error).__name__}: {error}\n  This is a bug; MLEFW_TRACEBACK=1 shows where", 70)


def _fail(message: str, code: int) -> int:
    if os.environ.get("MLEFW_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"mlefw: error: {escaped(warning.shortened(message, _LONGEST))}", file=sys.stderr)
    return code


def imported() -> None:
    """After the last import: Lightning's has turned its messages on again, and what is there now stays for good."""
    listen()
    gc.freeze()
    gc.enable()


def listen() -> None:
    """Show warnings of mlefw as one line each, collect them for the summary, and keep other people's chatter off."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        ours = issubclass(category, UserWarning) and f"{os.sep}mlefw{os.sep}" in filename
        if ours and warning.collect(text := warning.shortened(str(message))):
            print(f"mlefw: warning: {escaped(text)}", file=sys.stderr)

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show  # type: ignore[assignment]
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
