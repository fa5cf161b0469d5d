"""Commands in processes of their own that need not start from nothing: forks of one that has imported all of mlefw.

Starting Python and the libraries takes longer than most commands of the suite. A fork shares nothing else with the
tests or with other commands. Whatever is about starting itself runs `python -m mlefw.cli`.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 300

_LATE = ("matplotlib.backends.backend_agg", "tensorboard.plugins.hparams.metadata")
"""What modules of mlefw import when it is needed."""


class Started:
    """A command that runs in a fork.

    Attributes:
        pid: of its process.
    """

    def __init__(self, warm: "Warm", arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self._warm, self._arguments = warm, list(arguments)
        self._done: subprocess.CompletedProcess[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        out, err = (str(Path(self._folder.name, name)) for name in ("out", "err"))
        request = {"arguments": self._arguments, "cwd": str(cwd), "environment": dict(environment)}
        self.pid = int(warm.ask({"begin": {**request, "out": out, "err": err}}))

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._done is None and self._warm.ask({"poll": self.pid}) is None

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; what it printed."""
        if self._done is None:
            code = self._warm.ask({"wait": self.pid})
            texts = (Path(self._folder.name, name).read_text(encoding="utf-8") for name in ("out", "err"))
            self._done = subprocess.CompletedProcess(self._arguments, code, *texts)
            self._folder.cleanup()
        return self._done

    def kill(self) -> None:
        """End it in the midst of what it does, if it has not ended yet."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


class Warm:
    """A process that runs commands, each in a fork.

    Args:
        environment: in which the process starts.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any]) -> Any:
        """What the process answers to a request."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        if not select.select([self.server.stdout], [], [], _SECONDS)[0]:
            os.killpg(self.server.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(request), _SECONDS)
        return json.loads(self.server.stdout.readline())

    def start(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Started:
        """Begin a command line, in an environment of which Python's start has nothing to read."""
        return Started(self, arguments, cwd, environment)

    def close(self) -> None:
        """End the process."""
        self.server.communicate(timeout=_SECONDS)


def _serve() -> None:
    from mlefw import cli
    from mlefw.system.process_setup import set_up_process

    set_up_process()
    _import_all()
    codes: dict[int, int] = {}
    for line in sys.stdin:
        ((kind, of),) = json.loads(line).items()
        if kind == "begin":
            answer = os.fork()
            if answer == 0:
                _begin(**of)
                cli.main()
        else:
            answer = _code(of, 0 if kind == "wait" else os.WNOHANG, codes)
        print(json.dumps(answer), flush=True)
    # Without looking through all objects once more.
    os._exit(0)


def _code(pid: int, options: int, codes: dict[int, int]) -> int | None:
    """The exit code of a process, minus the number of the signal that ended it, or None while it runs."""
    if pid not in codes:
        ended, status = os.waitpid(pid, options)
        if not ended:
            return None
        codes[pid] = os.waitstatus_to_exitcode(status)
    return codes[pid]


def _import_all() -> None:
    import mlefw

    # mlefw.skpro needs a package that no command needs.
    names = {module.name for module in pkgutil.walk_packages(mlefw.__path__, "mlefw.")} - {"mlefw.skpro"}
    for name in (*sorted(names), *_LATE):
        importlib.import_module(name)


def _begin(arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, err, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    # It is TMPDIR as it was when it was first asked for.
    tempfile.tempdir = None
    os.chdir(cwd)
    # As `python -m` has it.
    sys.path[0] = cwd
    argv: Any = ["mlefw", *arguments]
    sys.argv = argv


if __name__ == "__main__":
    _serve()
