"""What must hold at size: a hundredth of it, where memory and counts must not grow faster than they may.

The sizes themselves are slow tests; those of rows in files stand in `rows/test_stored.py`.
"""

import json
from pathlib import Path

import pytest
from rows.test_stored import Start, peak_bytes, wide

has_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list what is open")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@has_proc
def test_an_exact_fit_takes_a_few_copies_of_the_rows(started: Start) -> None:
    small, large, p = 20_000, 60_000, 50
    wide("small.parquet", small, p), wide("large.parquet", large, p)
    peaks = [
        peak_bytes(started, f"{name}.parquet", f"run_dir={name}", command="baseline") for name in ("small", "large")
    ]
    assert (peaks[1] - peaks[0]) / ((large - small) * p * 8) < 5


# ------------------------------------------------------------------------------------------------- the whole sizes


@pytest.mark.slow
def test_a_million_rows_of_a_hundred_features_are_fitted_exactly(started: Start) -> None:
    wide("huge.parquet", 1_000_000, 100)
    assert peak_bytes(started, "huge.parquet", "run_dir=r", command="baseline") < 5 * 1_000_000 * 100 * 8 + 10**9
    assert json.loads(Path("r/baseline.json").read_text("utf-8"))["num_rows"] == 1_000_000
