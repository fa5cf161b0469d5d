"""What a long text costs: memory above import, and seconds, of reading it, its exact tables, and an epoch of gathers.

    OMP_NUM_THREADS=1 python scripts/bench/text.py [--bytes 100000000] [--length 256] [--tokens bytes chars]

The text is Markov: words of letters whose next letter depends on the two before, 65 symbols in all. Each run is a
process of its own. *Reading* is until the rows are there; *null*, *bigram* and *trigram* fit the tables on the training
rows and score them; *epoch* gathers every window once, in random order. Memory is the most that the process held
(VmHWM, the pages of mapped files included) less what it held after its imports, at the end of each part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

NUM_SYMBOLS = 65


def simulate(path: Path, size: int) -> None:
    """Write a text, in pieces of a million bytes: 1000 chains side by side, one behind the other in the file."""
    random = np.random.default_rng(0)
    table = np.sort(random.integers(0, NUM_SYMBOLS, (NUM_SYMBOLS, NUM_SYMBOLS, 16)), -1).astype(np.uint8)
    with path.open("wb") as file:
        while size:
            piece = min(size, 1_000_000)
            found = np.zeros((1000, 1000), dtype=np.uint8)
            for k in range(2, 1000):
                found[:, k] = table[found[:, k - 2], found[:, k - 1], random.integers(0, 16, 1000)]
            file.write((found.reshape(-1)[:piece] + ord("0")).astype(np.uint8).tobytes())
            size -= piece


def memory(name: str = "VmHWM") -> float:
    """A figure of /proc/self/status, in MB of a million bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def run(path: str, tokens: str, length: int) -> None:
    """All parts, each with its seconds and the most memory so far; a line of JSON."""
    import torch

    from mlefw.baseline.ngram.counts import count_ngrams
    from mlefw.baseline.ngram.estimate import ngram_estimates, null_table
    from mlefw.baseline.ngram.scores import score
    from mlefw.data.text import Text
    from mlefw.rows.tokens import TokenRows
    from mlefw.schema.tokens import TokenSchema

    base, found = memory("VmRSS"), dict[str, dict[str, float]]()

    def note(part: str, clock: float) -> float:
        found[part] = {"seconds": time.process_time() - clock, "memory": memory() - base}
        return time.process_time()

    clock = time.process_time()
    source = Text(path=path, tokens=tokens, length=length)  # type: ignore[arg-type]
    table = source.read()
    schema = TokenSchema.learn_source(table, source, "labels")
    rows = {name: schema.rows(part, False) for name, (part, _) in source.parts(table).items()}
    train = rows["train"]
    assert isinstance(train, TokenRows)
    clock = note("reading", clock)
    num_tokens = schema.num_tokens
    null = null_table(train, num_tokens)
    assert null is not None
    score(null, train)
    clock = note("null", clock)
    count_ngrams(train, num_tokens, 1)
    clock = note("counts of pairs", clock)
    ngram_estimates(train, schema.row_shape, num_tokens, 1, None)
    clock = note("bigram", clock)
    ngram_estimates(train, schema.row_shape, num_tokens, 2, None)
    clock = note("bigram and trigram", clock)
    epoch = train.of_epoch(torch.Generator().manual_seed(0))
    for index in torch.randperm(epoch.num_rows).split(256):
        part = epoch.take(index)
        assert part.x.shape == part.y.shape
    note("epoch of gathers", clock)
    print(json.dumps(found))


def table(path: Path, kinds: list[str], length: int) -> Table:
    """A row for each part and kind of token."""
    shown = Table("tokens", "part", "CPU, s", "memory above import, MB")
    for kind in kinds:
        command = [sys.executable, __file__, "--run", str(path), "--tokens", kind, "--length", str(length)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for part, one in json.loads(said.stdout.splitlines()[-1]).items():
            shown.add_row(kind, part, f"{one['seconds']:.2f}", f"{one['memory']:.0f}")
        shown.add_section()
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=100_000_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--tokens", nargs="+", choices=("bytes", "chars"), default=["bytes", "chars"])
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run, given.tokens[0], given.length)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        simulate(path, given.bytes)
        Console(width=100).print(table(path, given.tokens, given.length))


if __name__ == "__main__":
    main()
