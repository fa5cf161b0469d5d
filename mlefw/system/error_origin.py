"""Whether an error comes from the code of a plugin, and from which file and line."""

import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from mlefw.errors import MlefwError, Stopped, UsageError, is_out_of_memory
from mlefw.system.trust import trusted

_OURS = Path(__file__).resolve().parents[1]
_LIBRARIES = tuple(
    Path(folder).resolve()
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        sys.base_prefix + "/lib",
    )
)


class PluginError(UsageError):
    """The code of a plugin has raised an error."""


def plugin_location(error: BaseException, plugins: Sequence[str] | None = None) -> str:
    """`file, line n, in function` of the innermost plugin code in the traceback of an error; empty where there is none.

    Where errors caused one another, the first cause with plugin code in its traceback counts.

    Args:
        error: the error.
        plugins: names of the plugins' packages; by default all that are trusted.
    """
    plugins = trusted() if plugins is None else plugins
    if not plugins:
        return ""
    for one in _causes(error):
        found = ""
        for frame, line in traceback.walk_tb(one.__traceback__):
            if _is_of_plugin(frame, plugins):
                found = f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_qualname}"
        if found:
            return found
    return ""


def plugin_error(error: BaseException) -> PluginError | None:
    """The error to report to the user for one that comes from plugin code; None for any other error.

    None also for signals, a lack of memory, and errors of mlefw that carry an exit code of their own.
    """
    is_explained = isinstance(error, MlefwError) and error.exit_code != MlefwError.exit_code
    if is_explained or isinstance(error, Stopped | KeyboardInterrupt) or is_out_of_memory(error):
        return None
    where = plugin_location(error)
    if not where:
        return None
    cause = error.__cause__ if isinstance(error.__cause__, SystemExit) else error
    message = f": {error}" if str(error) else ""
    wrapped = PluginError(f"a plugin failed with {type(cause).__name__}{message}\n  {where}")
    wrapped.__cause__ = error
    return wrapped


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that led to this one, the first cause first, and the error itself."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return reversed(chain)


def _is_of_plugin(frame: FrameType, plugins: Sequence[str]) -> bool:
    """Whether a frame is code of a plugin's package, or of another file of the user, which a plugin may import."""
    if str(frame.f_globals.get("__name__", "")).split(".")[0] in plugins:
        return True
    path = Path(frame.f_code.co_filename)
    if not (path.is_absolute() and path.is_file()):
        # Code that was generated, such as a recorded training step, has no file.
        return False
    path = path.resolve()
    known = (_OURS, *_LIBRARIES, Path(sys.argv[0]).resolve())
    return not any(path == folder or folder in path.parents for folder in known) and _is_below(path, frame)


def _is_below(path: Path, frame: FrameType) -> bool:
    """Whether the module at `path` lies below a folder of `sys.path`: code in caches of compilers does not."""
    top = str(frame.f_globals.get("__name__", "")).split(".")[0]
    roots = [Path(folder or ".").resolve() for folder in sys.path]
    return top != "__main__" and any(root in path.parents for root in roots)
