"""Test NLL of default settings on UCI regression tables, beside the exact linear MLE and published results.

usage: python scripts/bench/uci.py FOLDER [--splits 20] [--head student_t] [--jobs 2] [setting=value …]

FOLDER holds `<name>.csv` or `<name>.csv.gz` with a target column `y`. Protocol (Hernandez-Lobato & Adams, 2015): for
each table one RandomState(1), a permutation for each split, the first 90 % of it train, the rest test; the last 20 %
of the training order validates. One network a split, never refitted on the validation rows; with `ensemble=folds` five,
each of which validates on a fifth of the training rows. Without settings they are `head.scale=predicted inputs=auto`
for the Student-t head: these were chosen in view of four of the tables, so compare on others before you believe them.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
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
    """Train on one split of one table by `mlefw train`; test NLL, and CPU seconds of all processes."""
    path, split, count, overrides = job
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from mlefw import cli
    from mlefw.command import train  # noqa: F401 - imported here, so that no fit is charged for it

    torch.set_num_threads(1)
    table = csv.read_csv(path)
    parts = splits(table.num_rows, count)[split]
    is_folds = any(override.startswith("ensemble=folds") for override in overrides)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.parquet" for name in ("fit", "validation", "test")}
        for file, rows in zip(files.values(), parts, strict=True):
            parquet.write_table(table.take(pa.array(rows)), file)
        settings = ["data=parquet", "data.target=y", f"data.test_path={files['test']}", "logger=none", "callback=none"]
        if is_folds:
            # Members validate on folds of all rows that are not held out.
            parquet.write_table(table.take(pa.array(np.concatenate(parts[:2]))), files["fit"])
            settings += ["data.validation_fraction=0"]
        else:
            settings += [f"data.validation_path={files['validation']}"]
        run_dir, start = Path(folder) / "run", _cpu_seconds()
        with (Path(folder) / "said").open("w", encoding="utf-8") as said, redirect_stdout(said), redirect_stderr(said):
            code = cli.run(["train", *settings, f"data.path={files['fit']}", *overrides, f"run_dir={run_dir}"])
        if code:
            sys.exit(f"{path}, split {split}: exit code {code}\n{(Path(folder) / 'said').read_text(encoding='utf-8')}")
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return {
        "nll": summary["metrics"]["test"]["nll_nats"],
        "linear": summary.get("baseline", {}).get("test", {}).get("nll_nats", float("nan")),
        "seconds": _cpu_seconds() - start,
    }


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    """Run all tables and print one table of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--tables", nargs="*", help="names of tables (default: all in the folder)")
    parser.add_argument("--head", default="student_t")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every result here, too")
    arguments, overrides = parser.parse_known_args()
    if arguments.head == "student_t":
        overrides = ["head.scale=predicted", "inputs=auto", *overrides]
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
