"""A hundred million bytes are counted in seconds, in memory that is hardly more than the text."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import resource, sys, time
import numpy as np, torch
from mlefw.baseline.ngram.counts import count_ngrams
from mlefw.reading.documents import read_documents
from mlefw.reading.token_split import split_tokens
from mlefw.schema.tokens import TokenSchema

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

before = peak()
documents = read_documents(sys.argv[1], "chars")
schema = TokenSchema.learn(documents, "chars", 256)
stream = schema.code(documents)
parts = split_tokens(stream.documents, "tail", 0.1, 0.1, 0, 256)
rows = stream.rows(parts["train"], 256)
began = time.process_time()
pairs = count_ngrams(rows, schema.num_tokens, 1)
counted = time.process_time() - began
count_ngrams(rows, schema.num_tokens, 2)
for index in torch.randperm(rows.num_rows).split(64):
    rows.take(index)
print(pairs.total, counted, peak() - before)
"""


@pytest.mark.slow
def test_a_hundred_million_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = (rng.gamma(2.0, 8.0, 10**6).astype(np.uint8) % 90 + 32).tobytes()
    with (tmp_path / "text.txt").open("wb") as file:
        for _ in range(100):
            file.write(words)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "text.txt")], capture_output=True, text=True, check=True
    )
    total, seconds, megabytes = map(float, done.stdout.split())
    assert total == 80_000_000 - 1
    assert seconds <= 3
    assert megabytes <= 400
