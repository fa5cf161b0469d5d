"""Text that came with data is text alone wherever it is shown: no terminal and no spreadsheet obeys it."""

import csv
from pathlib import Path

import pytest
from interrupted import QUIET, train
from pyarrow import parquet

from mlefw.cli import run
from mlefw.system.inert_text import escaped, spreadsheet_cell

EVIL = ("\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\r", "\x08", "\x7f", "\u202e", "\u2028", "\x00")


@pytest.mark.parametrize("text", EVIL)
def test_what_a_terminal_obeys_is_written_out(text: str) -> None:
    assert escaped(f"a{text}b").isprintable()
    assert escaped(escaped(text)) == escaped(text)


def test_other_text_is_as_it_was() -> None:
    text = "ä€ 'x' \\ 日本\n\tα=1"
    assert escaped(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


def test_names_labels_and_messages_reach_no_terminal_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ["\x1b[31mred", "=cmd|x", "b\x9bl"]
    with Path("d.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["x\x1b]0;t\x07", "y"], *([k * k % 7, labels[k % 3]] for k in range(60))])
    data = ("data=csv", "data.path=d.csv", "data.target=y", "head=categorical")
    assert train(*data, *QUIET, "model=linear", "trainer.max_epochs=1", "run_dir=[bold]r") == 0
    assert run(["predict", "run=[bold]r", "data.path=d.csv", "output=p.csv"]) == 0
    assert run(["predict", "run=[bold]r", "data.path=d.csv", "output=p.parquet"]) == 0
    assert run(["baseline", *data, "run_dir=b"]) == 0
    assert run(["check", "data=csv", "data.path=no\x1b[0m.csv"]) == 2
    assert run(["\x1b[0mtrain"]) == 2
    printed = "".join(capsys.readouterr())
    assert "run:  [bold]r" in printed
    written = Path("p.csv").read_text(encoding="utf-8")
    names = "".join(parquet.read_schema("p.parquet").names)
    for text in (printed, written, names):
        assert escaped(text) == text
