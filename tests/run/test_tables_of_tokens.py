"""The linear model of tokens is a table of logits: trained on all rows it reaches the table of the exact estimate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlefw.command import train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.shakespeare import Shakespeare

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

SETTINGS = ("model=linear", "batch=full", "optimizer=lbfgs", "logger=none", "report=false", "plots=false")
WHOLE = ("data.validation_fraction=0", "data.test_fraction=0")
"""All rows train."""


def trained(folder: Path, *settings: str) -> dict[str, Any]:
    config = read_settings("train", [*SETTINGS, *settings], [], [])
    run_dir = folder / "run"
    return train.run(settings_of({**config, "run_dir": str(run_dir)}), run_dir)


def conditional_entropy(count: np.ndarray) -> float:
    """−Σ c ln(c / n) / N of a table of counts, the least mean NLL of all tables of probabilities."""
    share = count / count.sum(1, keepdims=True)
    return float(-(count * np.log(share, out=np.zeros(share.shape), where=count > 0)).sum() / count.sum())


def counts_of(previous: np.ndarray, following: np.ndarray, num_tokens: int) -> np.ndarray:
    return np.bincount(previous * num_tokens + following, minlength=num_tokens**2).reshape(num_tokens, num_tokens)


def play(size: int | None = None) -> np.ndarray:
    """The beginning of the bundled text, as code points."""
    return np.concatenate([symbols for _, symbols in Shakespeare().load()[0].blocks()])[:size]


def four_classes(text: np.ndarray) -> str:
    """v for vowels, l for other letters, b for blanks and newlines, o for all else."""
    return "".join(
        "v" if c in "aeiouAEIOU" else "l" if c.isalpha() else "b" if c in " \n" else "o" for c in map(chr, text)
    )


def as_text(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "text.txt").write_text(text)
    return "data=text", f"data.path={folder / 'text.txt'}", "data.shift=false"


def test_the_zero_layer_net_is_the_table_of_pairs(tmp_path: Path) -> None:
    text = four_classes(play(20_000))
    codes = np.array(["blov".index(c) for c in text])
    counts = counts_of(codes[:-1], codes[1:], 4)
    assert (counts > 0).all()
    summary = trained(tmp_path, *as_text(tmp_path, text), "trainer.max_epochs=4", *WHOLE)
    expected = conditional_entropy(counts)
    assert summary["metrics"]["train"]["objective"] == pytest.approx(expected, rel=0, abs=1e-10)
    assert summary["baseline"]["train"]["nll_nats"] == pytest.approx(expected, rel=0, abs=1e-12)
    assert abs(summary["distance"]["excess_objective"]) < 1e-10
    assert summary["distance"]["reference"] == "mle"


@pytest.mark.slow
def test_the_table_of_the_whole_text(tmp_path: Path) -> None:
    """Values of a prototype, from counts by numpy."""
    summary = trained(tmp_path, *as_text(tmp_path, four_classes(play())), "trainer.max_epochs=6")
    assert summary["null"]["train"]["nll_nats"] == pytest.approx(1.1720619751269747, rel=0, abs=1e-12)
    assert summary["metrics"]["train"]["objective"] == pytest.approx(1.0153012664430952, rel=0, abs=1e-9)
    assert summary["metrics"]["test"]["nll_nats"] == pytest.approx(1.029692719755848, rel=0, abs=1e-7)


def test_the_excess_counts_from_the_infimum_where_pairs_never_occur(tmp_path: Path) -> None:
    text = play(6_000)
    _, codes = np.unique(text, return_inverse=True)
    counts = counts_of(codes[:-1], codes[1:], codes.max() + 1)
    assert (counts == 0).any()
    summary = trained(tmp_path, *as_text(tmp_path, "".join(map(chr, text))), "trainer.max_epochs=2", *WHOLE)
    infimum, reached = conditional_entropy(counts), summary["metrics"]["train"]["objective"]
    assert summary["baseline"]["exists"] is False
    assert summary["baseline"]["nll_infimum"] == pytest.approx(infimum, rel=0, abs=1e-12)
    assert summary["distance"]["excess_objective"] == pytest.approx(reached - infimum, rel=0, abs=1e-12)
    assert summary["distance"]["excess_objective"] > 0


def test_under_a_prior_there_is_no_closed_form_and_the_run_says_so(tmp_path: Path) -> None:
    text = four_classes(play(3_000))
    with pytest.warns(UserWarning, match=r"the MAP over the 4 x 4 logits .* has no closed form"):
        summary = trained(tmp_path, *as_text(tmp_path, text), "trainer.max_epochs=2", "prior=l2", *WHOLE)
    assert "excess_objective" not in summary["distance"]


def test_weights_of_labels_at_positions_count_pairs(tmp_path: Path) -> None:
    """Each position has a pair of characters, which weighs as often as the pair occurs, plus a half."""
    _, codes = np.unique(play(100_000), return_inverse=True)
    size = int(codes.max()) + 1
    counts = counts_of(codes[:-1], codes[1:], size) + 0.5
    x, y = np.indices(counts.shape).astype(np.uint8)
    np.savez(tmp_path / "pairs.npz", x=x, y=y, weight=counts)
    settings = ("data=npz", f"data.path={tmp_path / 'pairs.npz'}", f"data.vocabulary={size}", "data.weight=weight")
    summary = trained(tmp_path, *settings, "head=categorical", "trainer.max_epochs=40", *WHOLE)
    expected = conditional_entropy(counts)
    assert summary["baseline"]["train"]["nll_nats"] == pytest.approx(expected, rel=0, abs=1e-12)
    assert -1e-12 < summary["distance"]["excess_objective"] < 1e-6
    assert summary["metrics"]["train"]["objective"] == pytest.approx(expected, rel=0, abs=1e-6)
