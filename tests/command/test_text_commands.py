"""mlefw sample, predict and evaluate with runs on characters, bytes and ids: what they write, and what they refuse."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from conftest import summary_of
from pyarrow import parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlefw.cli import run
from mlefw.data import text_source
from mlefw.errors import UsageError
from mlefw.objective import objective
from mlefw.run import predict_tokens
from mlefw.trained import load

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

T = 8
FEW = (f"data.length={T}", "model.width=8", "model.layers=1", "model.heads=2", "trainer.max_epochs=3")
QUIET = ("report=false", "plots=false", "logger=none", "baseline=none")
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to")


def told(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", FutureWarning)
        return run(list(arguments))


def written(seed: int, lines: int) -> str:
    random = np.random.default_rng(seed)
    return "\n".join(" ".join(random.choice(WORDS, 6)) + "." for _ in range(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs on characters (`chars`), on bytes that are no UTF-8 (`bytes`) and on ids (`ids`)."""
    root = tmp_path_factory.mktemp("text")
    text = written(1, 60)
    (root / "chars.txt").write_text(text, encoding="utf-8")
    (root / "bytes.txt").write_bytes(text.replace("o", "€").encode("cp1252"))
    np.random.default_rng(0).integers(0, 300, 1500).astype("<u2").tofile(root / "ids.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert told("train", "data=text", "data.path=chars.txt", *FEW, "optimizer.lr=0.02", "run_dir=chars") == 0
        assert (
            told("train", "data=text", "data.path=bytes.txt", "data.tokens=bytes", *FEW, *QUIET, "run_dir=bytes") == 0
        )
        ids = ("data.path=ids.bin", "data.tokens=ids", "data.vocabulary=300")
        assert told("train", "data=text", *ids, *FEW, *QUIET, "run_dir=ids") == 0
        yield root


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


# ------------------------------------------------------------------------------------------------------------ sample


def test_a_sample_is_printed_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("sample", "run=chars", "prompt=the cat", "length=40") == 0
    first = capsys.readouterr().out
    text, note = first.rsplit("\n(", 1)
    assert text.startswith("the cat") and len(text) == 47
    assert note == "40 characters drawn by chars/checkpoints/best.ckpt, seed 0)\n"
    assert told("sample", "run=chars", "prompt=the cat", "length=40") == 0
    assert capsys.readouterr().out == first
    assert told("sample", "run=chars", "prompt=the cat", "length=40", "seed=1") == 0
    assert capsys.readouterr().out.rsplit("\n(", 1)[0] != text
    assert load("chars").sample(40, prompt="the cat") == text
    assert told("sample", "run=chars", "length=40", "temperature=0.5") == 0
    assert "seed 0, temperature 0.5 (the model's own distribution has 1))" in capsys.readouterr().out


def test_a_sample_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("sample", "run=bytes", "prompt=mat", "length=300", "output=b.txt") == 0
    raw = Path("b.txt").read_bytes()
    assert len(raw) == 303 and raw.startswith(b"mat") and b"\x80" in raw
    assert raw == load("bytes").sample(300, prompt=b"mat")
    assert "written: " in capsys.readouterr().out
    assert told("sample", "run=bytes", "prompt=mat", "length=300") == 0
    assert capsys.readouterr().out.rsplit("\n(", 1)[0] == raw.decode("utf-8", "replace")
    assert told("sample", "run=bytes", "output=b.txt") == 2
    assert "output=b.txt exists" in capsys.readouterr().err
    assert told("sample", "run=bytes", "output=b.txt", "overwrite=true", "length=5") == 0
    assert len(Path("b.txt").read_bytes()) == 5
    assert told("sample", "run=ids", "prompt=7,299", "length=20", "output=i.txt") == 0
    found = load("ids").sample(20, prompt=[7, 299])
    assert isinstance(found, np.ndarray) and found[:2].tolist() == [7, 299]
    assert Path("i.txt").read_text(encoding="utf-8").split() == [str(one) for one in found]


@pytest.mark.parametrize(
    "prompt", ["a,b", '"the"', "${run}", "[(", "\n", "null", "a=b", "'", ",", "the\ncat\\", "{a: b", "true", "5"]
)
def test_a_prompt_is_taken_as_it_stands(prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("any").is_dir():
        Path("any.txt").write_text("".join(map(chr, [*range(32, 127), 10])) * 20, encoding="utf-8")
        assert told("train", "data=text", "data.path=any.txt", *FEW, *QUIET, "run_dir=any") == 0
    assert told("sample", "run=any", f"prompt={prompt}", "length=1", "output=p.txt", "overwrite=true") == 0
    assert Path("p.txt").read_text(encoding="utf-8")[:-1] == prompt


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("run=chars", "prompt=the Cät"), r"'C' at position 4, '\xe4' at position 5"),
        (("run=bytes", "prompt=€"), "0xE2 at position 0, 0x82 at position 1, 0xAC at position 2"),
        (("run=ids", "prompt=7,300"), "ids that are not 0 … 299: 300 at position 1"),
        (("run=ids", "prompt=seven"), "expected whole numbers, such as prompt=5,17,3"),
        (("run=chars", "temperature=0"), "expected a number above 0"),
        (("run=chars", "length=0"), "length=0"),
        (("run=chars", "output=no/where.txt"), "there is no directory"),
        (("run=nowhere",), "nowhere"),
        (("prompt=the",), "run= is missing"),
        (("run=chars", "data.path=x"), "unknown setting data"),
    ],
)
def test_what_cannot_be_drawn(
    given: tuple[str, ...], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    assert told("sample", *given) == 2
    assert words in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_run_on_a_table_draws_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    few = ("model=linear", "trainer.max_epochs=1", "report=false", "plots=false", "logger=none", "run_dir=table")
    assert told("train", *few) == 0
    assert told("sample", "run=table") == 2
    assert "the model does not forecast the next token of a text\n  expected: a run with data=text" in (
        capsys.readouterr().err
    )
    with pytest.raises(UsageError, match="next token of a text"):
        load("table").sample(5)


# ----------------------------------------------------------------------------------------------------------- predict


def documents() -> Path:
    """Three documents: of several windows, of less than one, and of one token, which is never scored."""
    new = Path("new")
    if not new.is_dir():
        (new).mkdir()
        (new / "a.txt").write_text(written(2, 5), encoding="utf-8")
        (new / "b.txt").write_text("cat", encoding="utf-8")
        (new / "c.txt").write_text("a", encoding="utf-8")
        (new / "d.txt").write_text(written(3, 2), encoding="utf-8")
    return new


@torch.no_grad()
def by_hand(run_dir: str, files: dict[str, list[int]]) -> pd.DataFrame:
    """The forecast of each token but the first of each document, from a window of its own, without padding."""
    trained = load(run_dir)._trained
    lines = []
    for name, tokens in files.items():
        count = len(tokens) - 1
        for p in range(1, len(tokens)):
            last = min(-(-p // T) * T, count)
            context = tokens[max(0, last - T) : p]
            raw = trained.objective.model(torch.tensor([context]))[0, -1]
            logits = (trained.objective.head.center + raw.double()).numpy()
            q = np.exp(logits - logits.max())
            q /= q.sum()
            lines.append((name, p, tokens[p], -np.log(q[tokens[p]]), q[tokens[p]], q.argmax(), -(q * np.log(q)).sum()))
    return pd.DataFrame(lines, columns=["document", "position", "token", "nll_nats", "prob", "top", "entropy_nats"])


def agree(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    for name in found.columns:
        if name in ("nll_nats", "prob", "entropy_nats"):
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-5)
        else:
            assert found[name].tolist() == expected[name].tolist(), name


def test_each_token_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file.name: file.read_text(encoding="utf-8") for file in sorted(documents().iterdir())}
    alphabet = sorted(set(Path("chars.txt").read_text(encoding="utf-8")))
    expected = by_hand("chars", {name: [alphabet.index(one) for one in text] for name, text in files.items()})
    expected[["token", "top"]] = expected[["token", "top"]].map(lambda code: alphabet[code])
    assert told("predict", "run=chars", "data.path=new", "output=p.parquet") == 0
    agree(parquet.read_table("p.parquet").to_pandas(), expected)
    assert told("predict", "run=chars", "data.path=new", "output=p.csv") == 0
    agree(pd.read_csv("p.csv", keep_default_na=False), expected)
    # In blocks of a few windows, and tables of a few lines.
    monkeypatch.setattr(text_source, "_BLOCK_TOKENS", 3 * T)
    monkeypatch.setattr(objective, "_CELLS", 2 * T * len(alphabet))
    monkeypatch.setattr(predict_tokens, "_LINES", 5)
    assert told("predict", "run=chars", "data.path=new", "output=q.parquet") == 0
    assert parquet.ParquetFile("q.parquet").num_row_groups > 5
    agree(parquet.read_table("q.parquet").to_pandas(), expected)
    assert told("evaluate", "run=chars", "data.path=new", "output=e.json") == 0
    figures = json.loads(Path("e.json").read_text(encoding="utf-8"))
    assert figures["num_observations"] == len(expected)
    assert figures["metrics"]["nll_nats"] == pytest.approx(expected["nll_nats"].mean(), rel=1e-5)


def test_a_new_text_may_be_shorter_than_a_window() -> None:
    alphabet = sorted(set(Path("chars.txt").read_text(encoding="utf-8")))
    Path("cat.txt").write_text("cat", encoding="utf-8")
    expected = by_hand("chars", {"cat.txt": [alphabet.index(one) for one in "cat"]})
    expected[["token", "top"]] = expected[["token", "top"]].map(lambda code: alphabet[code])
    assert told("predict", "run=chars", "data.path=cat.txt", "output=c.csv") == 0
    agree(pd.read_csv("c.csv"), expected)
    assert told("evaluate", "run=chars", "data.path=cat.txt", "output=c.json") == 0
    nll = json.loads(Path("c.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
    assert nll == pytest.approx(expected["nll_nats"].mean(), rel=1e-5)


def test_tokens_that_are_bytes_or_ids_have_lines_too() -> None:
    alphabet = sorted(set(Path("bytes.txt").read_bytes()))
    raw = bytes(alphabet) * 2
    Path("n.bin").write_bytes(raw)
    expected = by_hand("bytes", {"n.bin": [alphabet.index(one) for one in raw]})
    expected[["token", "top"]] = expected[["token", "top"]].map(lambda code: f"0x{alphabet[code]:02X}")
    assert told("predict", "run=bytes", "data.path=n.bin", "output=b.csv") == 0
    agree(pd.read_csv("b.csv"), expected)
    ids = np.arange(0, 299, 7)
    ids.astype("<u2").tofile("m.bin")
    assert told("predict", "run=ids", "data.path=m.bin", "output=i.csv") == 0
    agree(pd.read_csv("i.csv"), by_hand("ids", {"m.bin": ids.tolist()}))


def test_tokens_that_training_never_saw_have_no_line_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.txt").write_text("the cät sat § on the mat. the dog ran", encoding="utf-8")
    for command, words in (
        (("predict", "output=o.csv"), "have no line"),
        (("evaluate", "output=o.json"), "are in no figure"),
    ):
        assert told(*command, "run=chars", "data.path=odd.txt") == 2
        said = capsys.readouterr().err
        assert "'ä' at byte offset 5, '§' at byte offset 13" in said and "data.unseen=ignore" in said
        assert not Path(command[1].removeprefix("output=")).exists()
        assert told(*command, "run=chars", "data.path=odd.txt", "data.unseen=ignore") == 0
        seen = capsys.readouterr()
        assert "2 tokens that training never saw " + words in seen.out + seen.err
    positions = pd.read_csv("o.csv")["position"].tolist()
    assert positions == [p for p in range(1, 37) if p not in (5, 12)]
    figures = json.loads(Path("o.json").read_text(encoding="utf-8"))
    assert figures["num_unseen"] == 2 and figures["num_observations"] == 34


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("output=p.npz",), "ends in .parquet or .csv, with a line for each token"),
        (("output=x.csv", "quantiles=[0.5]"), "which have no quantiles"),
        (("output=x.csv", "uncertainty=laplace"), "expected none"),
        (("output=x.csv", "data.missing=drop"), "data.missing=drop is for columns of a table"),
        (("output=x.csv", "data.unseen=reference"), "expected error or ignore with a text"),
        (("output=x.csv", "data.path=empty.txt"), "empty.txt is empty (0 bytes)"),
        (("output=x.csv", "data.path=short.txt"), "holds documents of one token only"),
        (("output=x.csv", "data.path=latin.txt"), "byte 0xE4 at byte offset 9"),
    ],
)
def test_what_cannot_be_predicted(
    given: tuple[str, ...], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("short.txt").write_bytes(b"c")
    Path("latin.txt").write_bytes(b"the cat, \xe4 dog ran to the mat")
    before = sorted(folder.iterdir())
    path = () if given[-1].startswith("data.path") else ("data.path=chars.txt",)
    assert told("predict", "run=chars", *path, *given) == 2
    assert words in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


# ---------------------------------------------------------------------------------------------------------- evaluate


def cluster(nll: np.ndarray, unit: np.ndarray) -> float:
    fit = sm.OLS(nll, np.ones(len(nll))).fit(cov_type="cluster", cov_kwds={"groups": unit})
    return float(fit.bse[0])


@pytest.mark.parametrize("whole", [True, False])
def test_errors_on_a_new_text_are_over_blocks_of_windows(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(4, 20)
    Path("long.txt").write_text(text, encoding="utf-8")
    if not whole:
        monkeypatch.setattr(text_source, "_BLOCK_TOKENS", 7 * T)
    assert told("evaluate", "run=chars", "data.path=long.txt", "output=l.json", "overwrite=true") == 0
    assert told("predict", "run=chars", "data.path=long.txt", "output=l.parquet", "overwrite=true") == 0
    found = json.loads(Path("l.json").read_text(encoding="utf-8"))
    lines = parquet.read_table("l.parquet").to_pandas()
    windows = -(-(len(text) - 1) // T)
    count = int(np.sqrt(windows))
    # Consecutive windows in blocks of equal size as nearly as can be, the longer ones spread evenly.
    starts = np.floor(np.arange(count) * windows / count).astype(int)
    unit = np.searchsorted(starts, (lines["position"] - 1) // T, "right")
    assert found["nll_se_unit"] == f"{count} blocks"
    assert found["metrics"]["nll_se"] == pytest.approx(cluster(lines["nll_nats"].to_numpy(), unit), rel=1e-9)
    assert {"null", "baseline_map", "baseline_longer"} <= found.keys() and found["baseline_map"]["order"] == 1
    code = {token: k for k, token in enumerate(sorted(set(Path("chars.txt").read_text(encoding="utf-8"))))}
    train = Path("chars.txt").read_text(encoding="utf-8")
    train = train[: len(train) - 2 * round(0.1 * len(train))]
    share = np.bincount([code[one] for one in train[1:]], minlength=len(code)) / (len(train) - 1)
    unigram = -np.log(share)[[code[one] for one in text[1:]]].mean()
    assert found["null"]["nll_nats"] == pytest.approx(unigram, rel=1e-9)


def test_errors_on_many_documents_are_over_documents() -> None:
    many = Path("many")
    if not many.is_dir():
        many.mkdir()
        for number in range(33):
            (many / f"{number:02}.txt").write_text(written(number, 1 + number % 3), encoding="utf-8")
    assert told("evaluate", "run=chars", "data.path=many", "output=m.json", "overwrite=true") == 0
    assert told("predict", "run=chars", "data.path=many", "output=m.parquet", "overwrite=true") == 0
    found = json.loads(Path("m.json").read_text(encoding="utf-8"))
    lines = parquet.read_table("m.parquet").to_pandas()
    assert found["nll_se_unit"] == "33 documents" and sorted(set(lines["document"])) == sorted(
        file.name for file in many.iterdir()
    )
    error = cluster(lines["nll_nats"].to_numpy(), lines["document"].factorize()[0])
    assert found["metrics"]["nll_se"] == pytest.approx(error, rel=1e-9)


def test_the_runs_own_rows_have_the_figures_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    summary: dict[str, Any] = summary_of(Path("chars"))
    for split in ("validation", "test"):
        assert told("evaluate", "run=chars", f"split={split}", "output=own.json", "overwrite=true") == 0
        found = json.loads(Path("own.json").read_text(encoding="utf-8"))
        assert found["nll_se_unit"] == summary["nll_se_unit"][split]
        assert found["metrics"] == pytest.approx(summary["metrics"][split], rel=1e-9)
        assert found["distance"]["gap_se"] == pytest.approx(summary["distance"]["gap_se"][split], rel=1e-9)
        said = capsys.readouterr().out
        assert "null model (unigram), in nats" in said and "minus bigram MAP: " in said and "linear" not in said
    assert told("evaluate", "run=chars", "uncertainty=laplace") == 2
    assert "averages forecasts of rows of one observation" in capsys.readouterr().err


def test_pictures_of_the_runs_own_rows_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_source, "_BLOCK_TOKENS", 3 * T)
    assert told("evaluate", "run=chars", "plots=own") == 0
    names = {file.name for file in Path("own").iterdir()}
    assert names == {"reliability.png", "confusion.png", "nll_by_position.png", "hardest.txt"}
    for name in ("confusion.png", "nll_by_position.png"):
        own, known = (matplotlib.image.imread(folder / name) for folder in (Path("own"), Path("chars/plots")))
        assert own.shape == known.shape and (np.abs(own - known).max(-1) > 0.1).mean() < 1e-3, name
    assert Path("own/hardest.txt").read_bytes() == Path("chars/plots/hardest.txt").read_bytes()
    # The test text as a file of its own: other words, and passages in several blocks.
    text = Path("chars.txt").read_text(encoding="utf-8")
    Path("tail.txt").write_text(text[len(text) - round(0.1 * len(text)) :], encoding="utf-8")
    assert told("evaluate", "run=chars", "data.path=tail.txt", "plots=tail") == 0
    shown = Path("tail/hardest.txt").read_text(encoding="utf-8")
    assert shown.replace(" new passages", " test passages") == Path("own/hardest.txt").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ report


def test_a_report_has_the_hardest_passages_and_a_sample() -> None:
    page = Path("chars/report.html").read_text(encoding="utf-8")
    hardest = Path("chars/plots/hardest.txt").read_text(encoding="utf-8")
    sample = Path("chars/plots/sample.txt").read_text(encoding="utf-8")
    assert "<h2>Hardest passages</h2>" in page and "<h2>A sample of text</h2>" in page
    assert sample == load("chars").sample(500) and sample.splitlines()[0] in page
    with np.load("chars/row_nll.npz") as stored:
        nll = stored["test_nll_nats"]
    text = Path("chars.txt").read_text(encoding="utf-8")
    test = text[len(text) - round(0.1 * len(text)) :]
    assert told("predict", "run=chars", "output=t.parquet", "overwrite=true") == 0
    lines = parquet.read_table("t.parquet").to_pandas()
    blocks = hardest.split("\n\n")[1:]
    assert len(blocks) == 10
    order = [int(block.split("passage ")[1].split(":")[0]) for block in blocks]
    full = [row for row in np.argsort(-nll, kind="stable") if row < (len(test) - 1) // T]
    assert [row for row in order if row < (len(test) - 1) // T] == full[: sum(row in full for row in order)]
    for row, block in zip(order, blocks, strict=True):
        if row not in full:
            continue
        here = lines[row * T : row * T + T]
        _, shown, nats, forecast = (line[12:].ljust(T + 1) for line in block.split("\n"))
        assert shown == test[row * T : row * T + T + 1].replace("\n", "↵")
        assert nats == "·" + "".join(str(int(one)) for one in here["nll_nats"])
        assert forecast == "·" + "".join(here["top"]).replace("\n", "↵").replace(" ", "␣")
        assert f"{nll[row]:.3g} nats per character over 8" in block
    events = EventAccumulator("chars/tensorboard", size_guidance={"tensors": 0}).Reload()
    assert sample.splitlines()[0] in events.Tensors("sample/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "1. passage" in events.Tensors("hardest/text_summary")[0].tensor_proto.string_val[0].decode()
