"""What a shell, a notebook or a scheduler has set for other programs: the command works the same in all of them."""

import io
import os
import sys
import warnings


def settle() -> None:
    """Make the process ready for a command: before anything large is imported, which would read what is set."""
    _open_streams()
    # A kernel's own backend is not there in the environment of the command, which draws into files alone.
    os.environ["MPLBACKEND"] = "Agg"
    # Warnings of libraries are no errors of a run, whatever a development shell makes of them.
    sys.warnoptions.clear()
    os.environ.pop("PYTHONWARNINGS", None)
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if not _is_count(os.environ.get(name, "1")):
            del os.environ[name]


def _open_streams() -> None:
    """Let the first three descriptors be open: a file of ours in their place would get what libraries print."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 (for good)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows question marks rather than ending the run.
            stream.reconfigure(errors="replace")


def _is_count(text: str) -> bool:
    """Whether OpenMP can read a number of threads, or one for each level."""
    return all(part.strip().isdigit() and int(part) > 0 for part in text.split(","))
