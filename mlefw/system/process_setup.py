"""Set-up of the process of a command: it works the same in a shell, a notebook and a job of a scheduler."""

import io
import os
import sys
import warnings


def set_up_process() -> None:
    """Undo settings of the environment that would disturb a command.

    To be called before large libraries are imported, since they read environment variables on import.
    """
    _open_streams()
    # A notebook sets the backend of its kernel, which may not be installed here; commands draw into files only.
    os.environ["MPLBACKEND"] = "Agg"
    # A shell may have set PYTHONWARNINGS=error, by which a warning of a library would end the run.
    sys.warnoptions.clear()
    os.environ.pop("PYTHONWARNINGS", None)
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if not _is_count(os.environ.get(name, "1")):
            del os.environ[name]
    _spin_less()


def _spin_less() -> None:
    """Let threads that wait for work spin for microseconds before they sleep.

    GNU OpenMP lets them spin for milliseconds, in which they hold a processor. Beside other work that is one which
    another thread of the same kernel waits for: a training then takes several times as long. A user's setting stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _open_streams() -> None:
    """Open file descriptors 0, 1 and 2 where they are closed.

    Otherwise the next file that is opened would get their number, and with it what libraries print.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 (never closed)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows question marks rather than ending the run.
            stream.reconfigure(errors="replace")


def _is_count(text: str) -> bool:
    """Whether OpenMP accepts the text: a positive number of threads, or several for nested levels ("4,2")."""
    return all(part.strip().isdigit() and int(part) > 0 for part in text.split(","))
