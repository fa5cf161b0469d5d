"""Commands in processes of their own that need not start from nothing: forks of one that has imported all of mlefw.

Starting Python and the libraries takes longer than most commands of the suite. A fork shares nothing else with the
tests or with other commands. Whatever is about starting itself runs `python -m mlefw.cli`.
"""

import importlib
import json
import os
import pkgutil
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SECONDS = 300

_LATE = ("matplotlib.backends.backend_agg", "tensorboard.plugins.hparams.metadata")
"""What modules of mlefw import when it is needed."""


class Warm:
    """A process that runs commands, one after another, each in a fork.

    Args:
        environment: of the process and of its commands.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def run(self, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command line; what it printed."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {"arguments": list(arguments), "cwd": str(cwd), "out": str(out), "err": str(err)}
            self.server.stdin.write(json.dumps(request).encode() + b"\n")
            if not select.select([self.server.stdout], [], [], _SECONDS)[0]:
                os.killpg(self.server.pid, 9)
                raise subprocess.TimeoutExpired(list(arguments), _SECONDS)
            code = int(self.server.stdout.readline())
            texts = (file.read_text(encoding="utf-8") for file in (out, err))
            return subprocess.CompletedProcess(list(arguments), code, *texts)

    def close(self) -> None:
        """End the process."""
        self.server.communicate(timeout=_SECONDS)


def _serve() -> None:
    from mlefw import cli
    from mlefw.system.process_setup import set_up_process

    set_up_process()
    _import_all()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _begin(**json.loads(line))
            cli.main()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _import_all() -> None:
    import mlefw

    for name in (*(module.name for module in pkgutil.walk_packages(mlefw.__path__, "mlefw.")), *_LATE):
        importlib.import_module(name)


def _begin(arguments: list[str], cwd: str, out: str, err: str) -> None:
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, err, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    # As `python -m` has it.
    sys.path[0] = cwd
    argv: Any = ["mlefw", *arguments]
    sys.argv = argv


if __name__ == "__main__":
    _serve()
