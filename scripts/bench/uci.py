"""Test NLL of default settings on UCI regression tables, beside the exact linear MLE and published results.

usage: python scripts/bench/uci.py FOLDER [--splits 20] [--head heteroscedastic] [--jobs 2] [setting=value …]

FOLDER holds `<name>.csv` or `<name>.csv.gz` with a target column `y`. Protocol (Hernandez-Lobato & Adams, 2015): for
each table one RandomState(1), a permutation for each split, the first 90 % of it train, the rest test; the last 20 %
of the training order validates. One network a split, never refitted on the validation rows.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

PUBLISHED = {
    "probabilistic backpropagation, 2015": {"concrete": 3.16, "kin8nm": -0.90, "power": 2.84, "yacht": 1.63},
    "MC dropout, tuned, 2018": {"concrete": 2.93, "kin8nm": -1.14, "power": 2.80, "yacht": 1.25},
    "deep ensembles of 5, 2017": {"concrete": 3.06, "kin8nm": -1.20, "power": 2.79, "yacht": 1.18},
    "deep evidential regression, 2020": {"concrete": 3.01, "kin8nm": -1.24, "power": 2.81, "yacht": 1.03},
    "NGBoost, 2020": {"concrete": 3.04, "kin8nm": -0.49, "power": 2.79, "yacht": 0.20},
}


def splits(num_rows: int, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row numbers to train on, to validate on, and to test on, for each split."""
    random = np.random.RandomState(1)
    found = []
    for _ in range(count):
        order = random.choice(range(num_rows), num_rows, replace=False)
        num_train = round(0.9 * num_rows)
        num_fit = round(0.8 * num_train)
        found.append((order[:num_fit], order[num_fit:num_train], order[num_train:]))
    return found


def run(job: tuple[str, int, int, list[str]]) -> dict[str, float]:
    """Train on one split of one table, as `mlefw train` would."""
    path, split, count, overrides = job
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from mlefw.command import train
    from mlefw.command.outermost import listen
    from mlefw.configuration.read import read_settings, settings_of

    torch.set_num_threads(1)
    listen()
    table = csv.read_csv(path)
    parts = splits(table.num_rows, count)[split]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.parquet" for name in ("fit", "validation", "test")]
        for file, rows in zip(files, parts, strict=True):
            parquet.write_table(table.take(pa.array(rows)), file)
        data = [
            "data=parquet",
            "data.target=y",
            f"data.path='{files[0]}'",
            f"data.validation_path='{files[1]}'",
            f"data.test_path='{files[2]}'",
            "logger=none",
            "callback=none",
        ]
        run_dir = Path(folder) / "run"
        config = settings_of({**read_settings("train", [*data, *overrides], [], []), "run_dir": str(run_dir)})
        start = time.process_time()
        summary = train.run(config, run_dir)
    return {
        "nll": summary["metrics"]["test"]["nll_nats"],
        "linear": summary["baseline"].get("test", {}).get("nll_nats", float("nan")),
        "steps": summary["num_steps"],
        "seconds": time.process_time() - start,
    }


def main() -> None:
    """Run all tables and print one table of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--tables", nargs="*", help="names of tables (default: all in the folder)")
    parser.add_argument("--head", default="heteroscedastic")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every result here, too")
    arguments, overrides = parser.parse_known_args()
    files = {file.name.split(".")[0]: file for file in sorted(arguments.folder.glob("*.csv*"))}
    files = {name: file for name, file in files.items() if not arguments.tables or name in arguments.tables}
    if not files:
        sys.exit(f"no .csv or .csv.gz table in {arguments.folder.absolute()}")
    results: dict[str, list[dict[str, float]]] = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name, file in files.items():
            jobs = [
                (str(file), split, arguments.splits, [f"head={arguments.head}", *overrides])
                for split in range(arguments.splits)
            ]
            results[name] = list(pool.map(run, jobs))
            print(f"{name}: " + " ".join(f"{result['nll']:.3f}" for result in results[name]), file=sys.stderr)
    _print(results, arguments.head, overrides)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _print(results: dict[str, list[dict[str, float]]], head: str, overrides: list[str]) -> None:
    width = 42
    settings = " ".join(overrides) or "default settings"
    print(f"\n{'test NLL, nats per row':<{width}}" + "".join(f"{name:>18}" for name in results))
    for key, label in (("linear", "linear MLE, same head (exact)"), ("nll", f"mlefw head={head}, {settings}")):
        cells = []
        for rows in results.values():
            values = np.array([row[key] for row in rows if not np.isnan(row[key])])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            cells.append(f"{values.mean():.3f} ± {error:.3f}" if len(values) else "none")
        print(f"{label:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    for label, key in (
        ("  worst split", "nll"),
        ("  optimiser steps, mean", "steps"),
        ("  CPU seconds a fit, mean", "seconds"),
    ):
        pick = np.max if "worst" in label else np.mean
        cells = [f"{pick([row[key] for row in rows]):.4g}" for rows in results.values()]
        print(f"{label:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    for method, values in PUBLISHED.items():
        cells = [f"{values[name]:.2f}" if name in values else "-" for name in results]
        print(f"{method:<{width}}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
