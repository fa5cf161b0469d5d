"""Every benchmark of speed and memory, as one table of ratios.

    python scripts/bench/all.py [--quick] [--parts steps arrays evaluation startup sweeps peers stream] [--rounds N]
        [--python peers/bin/python]

Each part is a script of this folder, whose docstring says what is measured; a ratio is the median over rounds in which
the variants took turns, on one thread (sweeps: on all cores). Below 1 is faster than what it is compared with.
--quick takes minutes where the whole takes an hour. How peers are installed says `peers.py`.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import metrics
import peers
import startup
import step
import stream
import sweep
import tensors
import torch
from process import Cost
from rich.console import Console
from rich.table import Table


class Ratio(NamedTuple):
    """A line of the table: a variant in a case, compared with another one that took so long; its memory in MiB."""

    part: str
    case: str
    variant: str
    base: str
    ratio: float
    memory: float | None = None


def median_ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """Over rounds."""
    return statistics.median(value / base for value, base in zip(values, bases, strict=True))


def steps(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """Training: a step with everything on, and whole fits."""
    chosen = [case for case in step.CASES if not quick or (case.batch in (32, 128) and case.num_rows > 8000)]
    for case in chosen:
        # A fit that is over before the compiler is done is no use of it.
        variants = {"mlefw": [], **({} if case.whole else {"mlefw, compiled": ["compile=true"]})}
        found = step.measure(case, rounds, not quick, variants)
        base = statistics.median(found["bare"])
        shown = f"bare loop, {base:.2f} s" if case.whole else f"bare loop, {base * 1e6:.0f} us a step"
        for name, seconds in found.items():
            if name != "bare":
                yield Ratio("training", case.name, name, shown, median_ratio(seconds, found["bare"]))


def arrays(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """An epoch on text and on images."""
    for kind in tensors.BATCH:
        found = tensors.measure(kind, rounds, 0.2 if quick else 1.0, [])
        base = f"bare loop, {1e3 * statistics.median(found['bare']):.1f} ms a step"
        for name, seconds in found.items():
            if name != "bare":
                yield Ratio("arrays", kind, name, base, median_ratio(seconds, found["bare"]))


def evaluation(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """All metrics of a pass over rows, and the memory by which they grow."""
    for head in ("heteroscedastic", "categorical"):
        for num_rows in (10_000,) if quick else (10_000, 1_000_000):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                (got,) = pool.map(metrics.measure, [(head, num_rows, rounds, 8192)])
            case, base = f"{head}, {num_rows} rows", f"forward pass, {got['forward']:.3f} s"
            yield Ratio("evaluation", case, "mlefw, all metrics", base, got["both"] / got["forward"], got["memory"])


def start_up(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """Commands, on the clock."""
    found = startup.measure(rounds)

    def ratio(name: str, other: str, shown: str) -> Ratio:
        seconds, bases = ([cost.wall for cost in found[one]] for one in (name, other))
        base = f"{shown}, {statistics.median(bases):.2f} s"
        return Ratio("start-up", name, "mlefw", base, median_ratio(seconds, bases), peak(found[name]))

    for name in startup.MESSAGES:
        yield ratio(name, "import torch", "import torch")
    for end in ("to the first step", "20 epochs"):
        yield ratio(f"mlefw train, {end}", f"Lightning, {end}", "Lightning")


def peak(costs: Sequence[Cost]) -> float:
    """The most memory of any."""
    return max(cost.memory for cost in costs)


def sweeps(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """Whole commands, on the clock of all cores."""
    num_jobs = 8 if quick else 64
    found: dict[str, list[float]] = {name: [] for name in sweep.LAUNCHERS}
    for _ in range(rounds):
        for name, settings in sweep.LAUNCHERS.items():
            found[name].append(sweep.sweep((*sweep.TINY, *settings), num_jobs).wall)
    base = f"Hydra's basic launcher, {statistics.median(found['basic']):.1f} s"
    for name, seconds in found.items():
        if name != "basic":
            yield Ratio("sweep", f"{num_jobs} jobs of 20 steps", name, base, median_ratio(seconds, found["basic"]))


def fits(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """The same task by other libraries."""
    found, left_out = peers.measure(list(peers.VARIANTS), rounds, python)
    bases = [one["cpu"] for one in found["bare loop"]]
    for name, taken in found.items():
        ratio = median_ratio([one["cpu"] for one in taken], bases)
        case = f"MLP 64-64 or trees; test NLL {taken[0]['nll']:.3f}"
        memory = max(one["memory"] for one in taken)
        yield Ratio("peers", case, name, f"bare loop, {statistics.median(bases):.2f} s", ratio, memory)
    for name, why in left_out.items():
        print(f"left out: {name} ({why})")


def streaming(rounds: int, quick: bool, python: str) -> Iterator[Ratio]:
    """An epoch over rows in files."""
    num_rows = 300_000 if quick else 2_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        stream.simulate(path, num_rows)
        memory, files = stream.measure(path, rounds).values()
    base = f"in memory, {memory['epoch']:.2f} s"
    ratio = files["epoch"] / memory["epoch"]
    yield Ratio("stream", f"an epoch of {num_rows:,} rows", "from files", base, ratio, files["RssAnon"])


PARTS = {
    "steps": steps,
    "arrays": arrays,
    "evaluation": evaluation,
    "startup": start_up,
    "sweeps": sweeps,
    "peers": fits,
    "stream": streaming,
}


def machine() -> str:
    """Hardware and versions."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    packages = ", ".join(f"{name} {version(name)}" for name in ("mlefw", "torch", "lightning", "numpy", "hydra-core"))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return f"{model}, {os.cpu_count()} cores, one thread; load {load}\nPython {platform.python_version()}, {packages}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--python", default=sys.executable, help="that of the peers' environment")
    given = parser.parse_args()
    torch.set_num_threads(1)
    python = str(Path(given.python).absolute())
    out, rounds = Console(width=150), given.rounds or (1 if given.quick else 3)
    out.print(machine(), highlight=False)
    table = Table("", "case", "variant", "compared with", "ratio", "memory, MiB")
    for part in PARTS:
        if part in given.parts:
            out.print(f"{part} …")
            for line in PARTS[part](rounds, given.quick, python):
                memory = "" if line.memory is None else f"{line.memory:.0f}"
                table.add_row(line.part, line.case, line.variant, line.base, f"{line.ratio:.2f}", memory)
            table.add_section()
    out.print(table)
    out.print(machine(), highlight=False)


if __name__ == "__main__":
    main()
