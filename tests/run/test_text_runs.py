"""Whole runs on text: figures against plain counts and torch, resuming, new text, and the command of exact tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run, summary_of
from torch.nn.functional import cross_entropy

import mlefw
from mlefw.fit import fit

LETTERS = "abcé"
SMALL = ("data=text", "data.length=8", "model.width=8", "model.layers=1", "model.heads=2", "batch.size=32")
QUIET = ("report=false", "plots=false", "logger=none", "callback=none")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 3,000 letters, of which one takes two bytes."""
    file = tmp_path_factory.mktemp("text") / "t.txt"
    random = np.random.default_rng(0)
    steps, codes = random.dirichlet(np.full(4, 2.0), 4), [0]
    for _ in range(2999):
        codes.append(int(random.choice(4, p=steps[codes[-1]])))
    file.write_text("".join(LETTERS[k] for k in codes), encoding="utf-8")
    return file


def parts(file: Path) -> dict[str, np.ndarray]:
    """The codes of the splits: the last tenth tests, the tenth before it validates."""
    code = np.array([LETTERS.index(letter) for letter in file.read_text(encoding="utf-8")])
    return dict(zip(("train", "validation", "test"), np.split(code, [2400, 2700]), strict=True))


def counts(code: np.ndarray) -> np.ndarray:
    return np.bincount(code[:-1] * 4 + code[1:], minlength=16).reshape(4, 4)


def expected(code: dict[str, np.ndarray], split: str) -> dict[str, float]:
    """Mean NLL of unigram, bigram MLE, and bigram with a half added, in nats per token."""
    train, held = counts(code["train"]), counts(code[split])
    tables = {
        "null": np.broadcast_to(train.sum(0) / train.sum(), (4, 4)),
        "mle": train / train.sum(1, keepdims=True),
        "map": (train + 0.5) / (train.sum(1, keepdims=True) + 2),
    }
    seen = held > 0
    return {name: float(-(held[seen] * np.log(table[seen])).sum() / held.sum()) for name, table in tables.items()}


def test_a_run_states_its_text_beside_the_exact_tables(mlefw: Run, text: Path, tmp_path: Path) -> None:
    settings = (*SMALL, f"data.path={text}", "baseline.smoothing=0.5", *QUIET)
    done = mlefw("train", *settings, "trainer.max_epochs=4", "run_dir=whole")
    assert done.returncode == 0, done.stderr
    assert "nats per token" in done.stdout
    found, code = summary_of(tmp_path / "whole"), parts(text)
    assert found["head"] == "categorical" and found["model"] == "transformer"
    for split, own in code.items():
        assert found["num_observations"][split] == len(own) - 1
        known, figures = expected(code, split), found["metrics"][split]
        assert found["null"][split]["nll_nats"] == pytest.approx(known["null"], abs=1e-12)
        assert found["baseline"][split]["nll_nats"] == pytest.approx(known["mle"], abs=1e-12)
        assert found["baseline_map"][split]["nll_nats"] == pytest.approx(known["map"], abs=1e-12)
        size = np.array([1, 1, 1, 2])[own[1:]].sum()
        bits = figures["nll_nats"] * (len(own) - 1) / np.log(2)
        assert figures["bits_per_byte"] == pytest.approx(bits / size, rel=1e-12)
        assert figures["perplexity"] == pytest.approx(np.exp(figures["nll_nats"]), rel=1e-12)
    # All pairs occur: the MLE exists, and gaps are measured from it.
    assert found["baseline"]["exists"] is True and found["distance"]["reference"] == "mle"
    assert found["metrics"]["test"]["nll_nats"] < found["null"]["test"]["nll_nats"]

    # A schedule is planned over all steps: only a run without one can be given more of them.
    stopped = mlefw("train", *settings, "trainer.max_epochs=4", "trainer.max_steps=100", "scheduler=none", "run_dir=a")
    assert stopped.returncode == 0
    assert mlefw("train", "resume=a", "trainer.max_steps=150").returncode == 0
    straight = (*settings, "trainer.max_epochs=4", "trainer.max_steps=150", "scheduler=none")
    assert mlefw("train", *straight, "run_dir=b").returncode == 0
    assert summary_of(tmp_path / "a")["metrics"] == summary_of(tmp_path / "b")["metrics"]


def logits_by_hand(model: Any, code: np.ndarray, length: int) -> np.ndarray:
    """The logits for each token but the first, one window after another; the last one reaches back for its context."""
    found, done = np.zeros((len(code) - 1, 4)), 0
    for start in [*range(0, len(code) - 1 - length, length), len(code) - 1 - length]:
        x = torch.from_numpy(code[start : start + length]).unsqueeze(0)
        with torch.no_grad():
            logits = model.objective.eta(x, torch.zeros(1, length, dtype=torch.float64))[0]
        found[done : start + length], done = logits[done - start :], start + length
    return found


def test_new_text_is_scored_as_torch_scores_it(mlefw: Run, text: Path, tmp_path: Path) -> None:
    settings = (*SMALL, f"data.path={text}", *QUIET, "trainer.max_epochs=2", "run_dir=run")
    assert mlefw("train", *settings).returncode == 0
    other = tmp_path / "other.txt"
    other.write_text("abéabcéacabbéacbaé")
    done = mlefw("evaluate", "run=run", f"data.path={other}", "output=e.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    code = np.array([LETTERS.index(letter) for letter in other.read_text(encoding="utf-8")])
    logits = torch.from_numpy(logits_by_hand(loaded(tmp_path / "run"), code, 8))
    assert found["metrics"]["nll_nats"] == pytest.approx(
        float(cross_entropy(logits, torch.from_numpy(code[1:]))), abs=1e-6
    )
    train = counts(parts(text)["train"])
    null = -np.log(train.sum(0)[code[1:]] / train.sum()).mean()
    assert found["null"]["nll_nats"] == pytest.approx(null, abs=1e-12)
    other.write_text("abéabcxyacabbéacbaé")
    refused = mlefw("evaluate", "run=run", f"data.path={other}")
    assert refused.returncode == 2
    assert "'x' at byte offset 7" in refused.stderr and "data.unseen=ignore" in refused.stderr
    ignored = mlefw("evaluate", "run=run", f"data.path={other}", "data.unseen=ignore", "output=i.json")
    assert ignored.returncode == 0, ignored.stderr


def loaded(folder: Path) -> Any:
    return mlefw.load(str(folder))._trained


def test_the_exact_tables_alone(mlefw: Run, text: Path, tmp_path: Path) -> None:
    done = mlefw("baseline", "data=text", f"data.path={text}", "run_dir=b")
    assert done.returncode == 0, done.stderr
    for name in ("unigram", "bigram MLE", "bigram MAP", "trigram MAP"):
        assert name in done.stdout
    content = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    code = np.concatenate(list(parts(text).values()))
    count = counts(code)
    shares = count / count.sum(1, keepdims=True)
    assert content["nll_nats"] == pytest.approx(float(-(count * np.log(shares)).sum() / count.sum()), abs=1e-12)
    assert content["map"]["order"] == 1 and content["longer"]["order"] == 2
    with np.load(tmp_path / "b" / "baseline.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["count_1"], count.reshape(-1)) and arrays["count_1"].dtype == np.int64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("data.tokens=ids", "data.vocabulary=4"), "data.dtype"),
        (("data.stride=9",), "data.stride=9"),
        (("data.split=random",), "tail | documents"),
        (("data.length=4000",), "one window needs 4001"),
        (("head=poisson",), "head=categorical"),
        (("model=mlp",), "model=transformer"),
        (("data.target=y",), "data.target=y"),
        (("data.test_fraction=0.6", "data.validation_fraction=0.5"), "leave nothing to train on"),
    ],
)
def test_what_a_text_cannot_take_is_said_before_anything_is_written(
    mlefw: Run, text: Path, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    done = mlefw("train", "data=text", "data.length=8", f"data.path={text}", *settings, "run_dir=r")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_text_in_memory_is_that_of_its_file(mlefw: Run, text: Path, tmp_path: Path) -> None:
    small = (*SMALL[1:], *QUIET, "trainer.max_epochs=1")
    assert mlefw("train", "data=text", f"data.path={text}", *small, "run_dir=file").returncode == 0
    model = fit(text.read_text(encoding="utf-8"), None, *small, run_dir=tmp_path / "memory")
    assert model.summary["metrics"] == summary_of(tmp_path / "file")["metrics"]
    ids = np.concatenate(list(parts(text).values())).astype(np.uint16)
    coded = fit(ids, None, "data.vocabulary=4", *small, run_dir=tmp_path / "ids")
    found = {name: value for name, value in coded.summary["metrics"]["test"].items() if name != "bits_per_byte"}
    known = {name: value for name, value in model.summary["metrics"]["test"].items() if name != "bits_per_byte"}
    assert found == known
    # As a document of its own the test text is scored as before.
    own = "".join(LETTERS[k] for k in parts(text)["test"])
    assert model.evaluate(own)["nll_nats"] == pytest.approx(known["nll_nats"], rel=1e-12)
    assert model.distribution(own[:20]).probs.shape == (3, 8, 4)
    lines = model.predict(own[:6])
    assert list(lines["token"]) == list(own[1:6])
    assert lines["nll_nats"].mean() == pytest.approx(model.evaluate(own[:6])["nll_nats"], rel=1e-12)
