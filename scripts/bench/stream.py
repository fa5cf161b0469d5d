"""What rows in files cost beside rows in memory: time of an epoch, of what comes before it, and memory, in one run.

    OMP_NUM_THREADS=1 python scripts/bench/stream.py [--rows 500000 2000000] [--rounds 3]

A Parquet file of 20 normal features; the network is 20-64-64-2 (SiLU), a heteroscedastic Gaussian, Adam, batches of
1024. Each run is a process of its own that trains 3 epochs, in memory (`data.stream=false`) or from files (`true`), in
turns. *Epoch* is process CPU time between the starts of the second and the last epoch, evaluation included; *before*
is what passes until the first epoch begins: reading, coding, and the exact estimates. *Own* memory is what the system
cannot take back (RssAnon); *all* has the pages of files, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

NUM_FEATURES = 20
KINDS = ("in memory", "from files")


def simulate(path: Path, num_rows: int) -> None:
    """Write the file, in row groups of 200,000."""
    random, writer = np.random.default_rng(0), None
    for start in range(0, num_rows, 200_000):
        x = random.normal(size=(min(200_000, num_rows - start), NUM_FEATURES))
        y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + np.exp(0.4 * x[:, 3] - 0.5) * random.normal(size=len(x))
        table = pa.table({**{f"x{k}": x[:, k] for k in range(NUM_FEATURES)}, "y": y})
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def run(path: str, stream: bool) -> None:
    """One training, as `mlefw train` has it; its figures as a line of JSON."""
    peak = {"RssAnon": 0, "VmRSS": 0}
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    from mlefw.cli import run as mlefw
    from mlefw.training import module

    times: list[float] = []
    start = module.LikelihoodModule.on_train_epoch_start

    def noted(self: Any) -> None:
        times.append(time.process_time())
        start(self)

    module.LikelihoodModule.on_train_epoch_start = noted  # type: ignore[method-assign]
    few = ("data=parquet", f"data.path={path}", "data.target=y", "head=heteroscedastic", "report=false", "plots=false")
    few += ("data.test_fraction=0", "data.validation_fraction=0.1", "batch.size=1024", "trainer.max_epochs=3")
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        code = mlefw(["train", *few, f"data.stream={str(stream).lower()}", f"run_dir={folder}/run"])
    if code:
        sys.exit(code)
    memory = {name: value // 1024 for name, value in peak.items()}
    print(json.dumps({"epoch": (times[-1] - times[0]) / (len(times) - 1), "before": times[0] - began, **memory}))


def _watch(peak: dict[str, int]) -> None:
    while True:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name = line.partition(":")[0]
            if name in peak:
                peak[name] = max(peak[name], int(line.split()[1]))
        time.sleep(0.01)


def measure(path: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The median of each figure by kind."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, "--run", str(path), *(["--stream"] if kind == KINDS[1] else [])]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found[kind].append(json.loads(said.stdout.splitlines()[-1]))
    return {
        kind: {name: statistics.median(one[name] for one in some) for name in some[0]} for kind, some in found.items()
    }


def table(sizes: list[int], rounds: int) -> Table:
    """A row for each size and kind."""
    shown = Table(title=f"{os.cpu_count()} cores, {NUM_FEATURES} features", title_justify="left")
    for column in ("rows", "", "epoch, s", "v memory", "before, s", "own memory, MiB", "all, MiB"):
        shown.add_column(column, justify="right" if column else "left")
    with tempfile.TemporaryDirectory() as folder:
        for num_rows in sizes:
            path = Path(folder) / "rows.parquet"
            simulate(path, num_rows)
            known = measure(path, rounds)
            for kind, one in known.items():
                ratio = f"{one['epoch'] / known[KINDS[0]]['epoch']:.2f}"
                memory = (f"{one['RssAnon']:.0f}", f"{one['VmRSS']:.0f}")
                shown.add_row(f"{num_rows:,}", kind, f"{one['epoch']:.2f}", ratio, f"{one['before']:.1f}", *memory)
    return shown


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.run:
        run(given.run, given.stream)
    else:
        Console(width=120).print(table(given.rows, given.rounds))


if __name__ == "__main__":
    main()
