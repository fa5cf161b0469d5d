"""Whose code an error comes from: that of a plugin is the user's to mend, and is told with its file and line."""

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
    """A plugin has failed."""


def place(error: BaseException, plugins: Sequence[str] | None = None) -> str:
    """`file, line n, in function` of the innermost code of a plugin that an error went through; empty where none did.

    An error that was raised because of another one comes from where that one does.
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


def of_plugin(error: BaseException) -> PluginError | None:
    """What to tell of an error that the code of a plugin raised; None of any other.

    Signals, a lack of memory, and what mlefw itself has to say of a run are nobody's mistake.
    """
    is_told = isinstance(error, MlefwError) and error.exit_code != MlefwError.exit_code
    if is_told or isinstance(error, Stopped | KeyboardInterrupt) or is_out_of_memory(error):
        return None
    where = place(error)
    if not where:
        return None
    cause = error.__cause__ if isinstance(error.__cause__, SystemExit) else error
    said = f": {error}" if str(error) else ""
    told = PluginError(f"a plugin failed with {type(cause).__name__}{said}\n  {where}")
    told.__cause__ = error
    return told


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error after what it was raised because of."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return reversed(chain)


def _is_of_plugin(frame: FrameType, plugins: Sequence[str]) -> bool:
    """Whether a frame is of an admitted package, or of another file of the user's own, which a plugin may import."""
    if str(frame.f_globals.get("__name__", "")).split(".")[0] in plugins:
        return True
    path = Path(frame.f_code.co_filename)
    if not (path.is_absolute() and path.is_file()):
        # Code without a file of its own, such as that of a tape.
        return False
    path = path.resolve()
    known = (_OURS, *_LIBRARIES, Path(sys.argv[0]).resolve())
    return not any(path == folder or folder in path.parents for folder in known) and _is_below(path, frame)


def _is_below(path: Path, frame: FrameType) -> bool:
    """Whether a module lies where Python looks for modules: caches of compilers do not."""
    top = str(frame.f_globals.get("__name__", "")).split(".")[0]
    roots = [Path(folder or ".").resolve() for folder in sys.path]
    return top != "__main__" and any(root in path.parents for root in roots)
