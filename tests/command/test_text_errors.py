"""What a text cannot be trained with, over the members of each group: exit code 2, a remedy, and nothing on disk."""

from pathlib import Path

import numpy as np
import pytest

from mlefw.cli import run
from mlefw.configuration.yaml_folder import members
from mlefw.data.text_source import _REFUSED

TEXT = ("train", "data=text", "data.path=t.txt", "data.length=8", "run_dir=r")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("the cat sat on the mat and the dog ran to it.\n" * 20, encoding="utf-8")


def refused(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What a command says that ends with 2 and writes nothing."""
    before = sorted(Path().iterdir())
    assert run(list(given)) == 2
    assert sorted(Path().iterdir()) == before
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("mlefw: error: ") and "unexpected" not in said.err
    return said.err


@pytest.mark.parametrize("name", [name for name in members("head") if name != "categorical"])
def test_heads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "head=categorical" in refused(capsys, *TEXT, f"head={name}")


@pytest.mark.parametrize("name", [name for name in members("model") if name not in ("linear", "transformer")])
def test_models(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "rows hold 8 tokens of 16 kinds, and it takes numbers: expected" in refused(capsys, *TEXT, f"model={name}")


@pytest.mark.parametrize("data", ["digits_images", "iris"])
def test_a_transformer_takes_no_numbers(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", f"data={data}", "model=transformer", "head=categorical", "run_dir=r")
    assert "asks for num_tokens" in said and "expected tokens (data=text), or model=cnn for images" in said


@pytest.mark.parametrize("name", [name for name in members("augment") if name != "none"])
def test_augmentations(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "augment=none" in refused(capsys, *TEXT, f"augment={name}")


@pytest.mark.parametrize("name", [name for name in members("inputs") if name not in ("standard", "clipped")])
def test_input_maps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected inputs=standard" in refused(capsys, *TEXT, f"inputs={name}")


@pytest.mark.parametrize("command", ["train", "baseline", "check"])
@pytest.mark.parametrize("name", [name for name in members("cv") if name != "none"])
def test_cross_validations(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, command, *TEXT[1:], f"cv={name}")
    assert "windows that go on from each other" in said and "data.split=documents" in said


@pytest.mark.parametrize("name", [name for name in members("ensemble") if name != "none"])
def test_ensembles(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *TEXT, f"ensemble={name}")
    assert "expected ensemble=none" in said or "expected: ensemble=none" in said


@pytest.mark.parametrize("name", [name for name in members("uncertainty") if name != "none"])
def test_uncertainties(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected uncertainty=none" in refused(capsys, *TEXT, f"uncertainty={name}", "model.dropout=0.1")


@pytest.mark.parametrize("name", [name for name in members("calibrate") if name not in ("none", "temperature")])
def test_recalibrations(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"calibrate={name}: the head predicts a Categorical" in refused(capsys, *TEXT, f"calibrate={name}")


@pytest.mark.parametrize("name", _REFUSED)
def test_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    several = name in ("features", "categorical", "labels")
    said = refused(capsys, *TEXT, f"data.{name}={'[a]' if several else 'a'}")
    assert f"data.{name}=" in said and "expected" in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("data.path=null", "data.path is not set\n  expected: a text file, a folder or a pattern"),
        ("data.path=empty.txt", "empty.txt is empty (0 bytes)\n  expected: text in data.path"),
        ("data.path=latin.txt", "is not UTF-8 text: byte 0xE4 at byte offset 4\n  expected: UTF-8; data.tokens=bytes"),
        ("data.path=folder", "is a directory without files (data.path)\n  expected: text files in it, or a pattern"),
        ("data.path=nowhere.txt", "nowhere.txt does not exist (data.path)"),
        ("data.path=same.txt", "holds only one distinct token, 'a'\n  expected: two or more"),
        ("data.path=short.txt", "has 8 tokens, and one window needs 9 (data.length=8 and the one after it)"),
        ("data.length=100", "the test split has 92 tokens, and one window needs 101"),
        ("data.validation_path=empty.txt", "expected: text in data.validation_path"),
        ("data.test_path=latin.txt", "byte offset 4"),
        ("data.split=documents", "1 documents for test and validation and train\n  expected: more than 2 documents"),
        ("data.stride=9", "expected at most data.length=8"),
        ("data.missing=drop", "expected error with a text"),
        ("data.vocabulary=9", "are for data.tokens=ids, not chars"),
        ("model.width=10", "is no multiple of model.heads=4: expected one, such as model.width=8"),
        ("baseline.order=20", "16^(order + 1) below 2^63"),
        ("baseline.features=[a]", "expected null with a text"),
    ],
)
def test_texts_and_settings(given: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("latin.txt").write_bytes(b"abc \xe4 def")
    Path("folder/below").mkdir(parents=True)
    Path("same.txt").write_text("a" * 500, encoding="utf-8")
    Path("short.txt").write_text("abcabcab", encoding="utf-8")
    name = given.split("=")[0]
    assert words in refused(capsys, *(one for one in TEXT if not one.startswith(f"{name}=")), given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("data.path=half.bin", "data.vocabulary=9"), "1001 bytes, which is no whole number of uint16 ids of 2 bytes"),
        (("data.path=ids.bin", "data.vocabulary=9"), "holds ids outside 0 … 8: 9 at position 9, 10 at position 10"),
        (("data.path=ids.bin",), "data.vocabulary=null with data.tokens=ids\n  expected: the number of ids"),
        (("data.path=ids.bin", "data.vocabulary=1"), "expected null or a whole number of at least 2"),
        (("data.path=ids.bin", "data.vocabulary=99", "data.dtype=float32"), "data.dtype='float32': expected uint8"),
    ],
)
def test_ids(given: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (np.arange(600) % 50).astype("<u2").tofile("ids.bin")
    Path("half.bin").write_bytes(b"\0\1" * 500 + b"x")
    ids = ("train", "data=text", "data.tokens=ids", "data.length=8", "run_dir=r")
    assert words in refused(capsys, *ids, *given)


def test_the_text_of_the_package_is_no_ids(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "data=shakespeare", "data.tokens=ids", "run_dir=r")
    assert "data.tokens=ids: expected chars or bytes" in said
