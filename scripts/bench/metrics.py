"""Cost of the metrics beside the forward pass they score: seconds of one CPU thread, ratio, and memory.

usage: python scripts/bench/metrics.py [--rows 10000 1000000] [--heads heteroscedastic categorical] [--repeat 5]

A 64-64 network on 20 standardised features is passed over the rows in the blocks of an evaluation epoch, once alone
and once with every metric that the head's configuration names, `compute` included; the least of the repeats counts.
Memory is the growth of the process's peak while the metrics run, each table in a process of its own.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable

FEATURES, CLASSES = 20, 10
_WARM = 10


def measure(job: tuple[str, int, int, int]) -> dict[str, float]:
    """Seconds of both passes, and the growth of the peak memory in MiB, for one head and number of rows."""
    head_name, num_rows, repeat, block = job
    import torch

    from mlefw.configuration.read import read_settings, settings_of
    from mlefw.model.mlp import Mlp
    from mlefw.objective.objective import Objective
    from mlefw.prior.none import NoPrior
    from mlefw.rows.batch import Batch
    from mlefw.rows.rows import Rows
    from mlefw.rows.standardize import Standardized
    from mlefw.run import build
    from mlefw.system.allocator import keep_freed_memory
    from mlefw.training.evaluator import Evaluator

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = settings_of(read_settings("train", [f"head={head_name}"], [], []))
    head = build.build_head(config.head, CLASSES)
    mean, scale = torch.zeros(FEATURES).double(), torch.ones(FEATURES).double()
    model = Standardized(Mlp(FEATURES, head.eta_dim, [64, 64]), mean, scale)
    torch.nn.init.normal_(model.model.last.weight, std=0.5)
    objective = Objective(model, head, NoPrior(), num_rows).eval()
    x = torch.randn(num_rows, FEATURES, dtype=torch.float64)
    ones = torch.ones(num_rows, dtype=torch.float64)
    y = {
        "labels": lambda: torch.randint(CLASSES, (num_rows,)),
        "binary": lambda: torch.bernoulli(ones / 2),
        "numeric": lambda: torch.poisson(ones) if head_name == "poisson" else torch.randn_like(ones),
    }[head.target]()
    blocks = list(Rows(x, y, ones, torch.zeros_like(ones)).blocks(block))
    evaluator = Evaluator(objective, build.build_metrics(config, head))

    def forward() -> None:
        for part in blocks:
            objective.eta(part.x, part.offset)

    def scored() -> None:
        for part in blocks:
            evaluator.add(Batch(part, 1.0))
        evaluator.figures()

    with torch.no_grad(), keep_freed_memory():
        alone = _seconds(forward, repeat)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        both = _seconds(scored, repeat)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"forward": alone, "both": both, "memory": grown / 1024}


def _seconds(task: Callable[[], None], repeat: int) -> float:
    # Ten times, so that what an evaluation records of small tables is recorded.
    for _ in range(_WARM):
        task()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        task()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure every combination and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--heads", nargs="+", default=["heteroscedastic", "categorical"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--block", type=int, default=8192, help="rows of one block, as the evaluation loaders have")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    columns = ("rows", "forward, s", "with metrics, s", "ratio", "memory, MiB")
    print(f"{'head':<18}" + "".join(f"{name:>18}" for name in columns))
    for head in arguments.heads:
        for num_rows in arguments.rows:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                (got,) = pool.map(measure, [(head, num_rows, arguments.repeat, arguments.block)])
            ratio = got["both"] / got["forward"]
            seconds = (f"{got['forward']:.4f}", f"{got['both']:.4f}")
            cells = (f"{num_rows}", *seconds, f"{ratio:.2f}", f"{got['memory']:.1f}")
            print(f"{head:<18}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
