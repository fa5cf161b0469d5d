"""CSV files: what is read, and what every kind of broken file is told."""

import gzip
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlefw.data.csv import Csv
from mlefw.errors import UsageError
from mlefw.reading import csv_blocks
from mlefw.reading.table import Table

GOOD = "x,c,y\n1.5,a,3\n-2,b,4\n1e3,a,5\n"
NUMBERS = "".join(f"{i}.5,{i}\n" for i in range(20))


def write(folder: Path, content: str | bytes, name: str = "d.csv") -> str:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def read(folder: Path, content: str | bytes, **settings: Any) -> Table:
    return Csv(path=write(folder, content), target="y", **settings).read()


READS_AS_GOOD: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "plain": (GOOD, {}),
    "no newline at the end": (GOOD.rstrip(), {}),
    "mixed line ends": (GOOD.replace("3\n", "3\r\n"), {}),
    "blank lines": (GOOD.replace("\n", "\n\n\r\n"), {}),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), {}),
    "utf-16": (GOOD.encode("utf-16"), {"encoding": "utf-16"}),
    "semicolons": (GOOD.replace(",", ";"), {"delimiter": ";"}),
    "tabs": (GOOD.replace(",", "\t"), {"delimiter": "\\t"}),
    "decimal comma": (GOOD.replace(",", ";").replace(".", ","), {"delimiter": ";", "decimal": ","}),
    "thousands": (GOOD.replace("1e3", '"1,000"'), {"thousands": ","}),
    "quotes and spaces": (GOOD.replace("1.5", '" 1.5"'), {}),
    "gzip": (gzip.compress(GOOD.encode()), {}),
}


@pytest.mark.parametrize("case", READS_AS_GOOD)
def test_reads(tmp_path: Path, case: str) -> None:
    content, settings = READS_AS_GOOD[case]
    table = read(tmp_path, content, **settings)
    assert list(table.columns) == ["x", "c", "y"]
    assert table.columns["x"].tolist() == [1.5, -2.0, 1000.0]
    assert table.columns["x"].dtype == np.float64
    assert table.columns["c"].tolist() == ["a", "b", "a"]
    assert table.columns["y"].tolist() == [3.0, 4.0, 5.0]


BROKEN: dict[str, tuple[str | bytes, dict[str, Any], list[str]]] = {
    "empty": ("", {}, ["empty"]),
    "blank": ("\n \n\n", {}, ["blank lines"]),
    "header alone": ("x,y\n", {}, ["0 data rows"]),
    "long row": ("x,y\n1,2\n3,4,5\n", {}, ["line 3 has 3 fields", "the first line 2"]),
    "short row": ("x,y\n1,2\n\n3\n", {}, ["line 4 has 1 fields"]),
    "open quote": ('x,y\n1,2\n3,"4\n5,6\n', {}, ["line 3", "quotes closed"]),
    "utf-16": (GOOD.encode("utf-16"), {}, ["data.encoding=utf-16"]),
    "latin-1": (
        "x,c,y\n1,a,2\n1,café,2\n".encode("latin-1"),
        {},
        ["line 3", "column 2 ('c')", "data.encoding=latin-1"],
    ),
    "unknown encoding": (GOOD, {"encoding": "utf-9"}, ["data.encoding=utf-9"]),
    "nul": ("x,y\n1,2\n3\0,4\n", {}, ["NUL", "line 3"]),
    "twice": ("x,x,y\n1,2,3\n", {}, ["'x' occurs twice", "[1, 2]"]),
    "no header": ("1.5,2\n3,4\n", {}, ["data.header=false"]),
    "no name": ("x,,y\n5,2,3\n", {}, ["empty name"]),
    "two without names": (",,y\n5,2,3\n", {}, ["2 columns have an empty name"]),
    "wrong delimiter": (GOOD.replace(",", ";"), {}, ["data.delimiter=';'"]),
    "stray word": (f"x,y\n{NUMBERS}foo,1\n", {}, ["'x'", "row 22", "'foo'", "data.categorical=[x]"]),
    "stray word after blank lines": (f"x,y\n\n\n{NUMBERS}foo,1\n", {}, ["row 24"]),
    "stray word after a quoted newline": ('c,x,y\n"a\nb",1,1\n' + 9 * "a,1,1\n" + "a,foo,1\n", {}, ["row 13", "'foo'"]),
    "thousands": ('x,y\n"1,234",1\n"2,345",2\n', {}, ["'x'", "rows 2, 3", "'1,234'", "data.thousands=','"]),
    "hexadecimal": ("x,y\n0x1F,1\n0x2,2\n", {}, ["'x'", "hexadecimal", "'0x1F'"]),
    "hexadecimal among numbers": ("x,y\n" + 9 * "7,1\n" + "0x1F,1\n", {}, ["'x'", "row 11", "'0x1F'"]),
    "decimal comma": ("x;y\n1,5;1\n,25;2\n", {"delimiter": ";"}, ["'x'", "data.decimal=','"]),
    "missing": ("x,c,y\n1,a,2\n,a,3\nNA,,4\n", {}, ["'x': 2, rows 3, 4", "'c': 1, row 4", "data.missing=drop"]),
    "missing word": ("x,y\n1,2\nnan,3\n2,NaN\n", {}, ["'x': 1, row 3", "'y': 1, row 4"]),
    "missing boolean": ("b,y\ntrue,2\n,3\n", {}, ["'b': 1, row 3"]),
    "missing column": ("x,y\n,2\n,3\n", {}, ["'x': 2, rows 2, 3"]),
    "all dropped": ("x,y\n,2\n,3\n", {"missing": "drop"}, ["0 data rows"]),
    "unknown missing": (GOOD, {"missing": "mean"}, ["data.missing=mean", "error, drop"]),
    "too large": ("x,y\n1,2\n1e400,3\n", {}, ["'x'", "infinite", "row 3"]),
    "infinite": ("x,y\n1,2\n3,-Infinity\n", {}, ["'y'", "infinite", "row 3", "-inf"]),
    "date": ("x,y\n2020-01-01,2\n", {}, ["'x'", "date", "data.features"]),
    "time": ("x,y\n2020-01-01 10:00:00,2\n", {}, ["'x'", "timestamp"]),
    "parquet": (b"PAR1....PAR1", {}, ["data=parquet"]),
    "excel": (b"PK\x03\x04....", {}, ["zip archive"]),
    "broken gzip": (gzip.compress(GOOD.encode())[:-9], {}, ["cannot be read"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refuses(tmp_path: Path, case: str) -> None:
    content, settings, expected = BROKEN[case]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content, **settings)
    message = str(caught.value)
    assert [part for part in expected if part not in message] == []
    assert len(message.splitlines()) <= 5
    if not case.startswith("unknown"):
        assert str(tmp_path / "d.csv") in message


@pytest.mark.parametrize("settings", [{"delimiter": ";;"}, {"delimiter": ""}, {"decimal": "··"}, {"decimal": ","}])
def test_refuses_signs(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"data.{next(iter(settings))}"):
        Csv(path="d.csv", **settings)  # type: ignore[arg-type]


def test_refuses_paths(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "table.csv")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    cases = {
        str(tmp_path / "tabel.csv"): f"did you mean {tmp_path}/table.csv",
        str(tmp_path / "empty"): "is a directory without files that end in .csv",
        str(tmp_path / "*.tsv"): "matches no file",
        str(tmp_path / "pipe"): "not a regular file",
        str(tmp_path / "table.csv" / "inside.csv"): "does not exist",
        "nul\0byte": "cannot be read",
        "": "data.path is not set",
    }
    for path, expected in cases.items():
        with pytest.raises(UsageError, match=re.escape(expected)):
            Csv(path=path, target="y").read()


def test_message_names_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=str(tmp_path / "none.csv")):
        Csv(path="none.csv", target="y").read()


WARNS = {
    "index": (",x,y\n0,5,1\n1,6,2\n", ["x", "y"], "unnamed column"),
    "spaces": (" a,a ,y\n5,6,1\n", [" a", "a ", "y"], "differ by spaces"),
    "large integers": (f"x,y\n{2**53 + 2},1\n", ["x", "y"], r"'x' holds integers above 2\*\*53.*row 2"),
    "thirty digits": (f"x,y\n{'7' * 30},1\n5,2\n", ["x", "y"], r"integers above 2\*\*53"),
}


@pytest.mark.parametrize("case", WARNS)
def test_warns(tmp_path: Path, case: str) -> None:
    content, names, expected = WARNS[case]
    with pytest.warns(UserWarning, match=expected):
        table = read(tmp_path, content)
    assert list(table.columns) == names


def test_drops_missing_rows(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 rows"):
        table = read(tmp_path, "x,c,y\n1,a,2\n,a,3\n3,b,4\n5,,6\n", missing="drop")
    assert table.columns["y"].tolist() == [2.0, 4.0]
    assert table.where(np.array([True, True])) == "rows 2, 4"


CELLS: dict[str, tuple[list[str], dict[str, Any], list[Any]]] = {
    "booleans": (["True", "false", "TRUE", "FALSE"], {}, [True, False, True, False]),
    "codes": (["007", "7", "07", "NA"], {"categorical": ["c"]}, ["007", "7", "07", "NA"]),
    "bare points": ([".5", "1.", "+2", "3"], {}, [0.5, 1.0, 2.0, 3.0]),
    "text with the word NA": (["NA", "b", "7", "b"], {}, ["NA", "b", "7", "b"]),
    "quoted newline": (['"a\nb"', "c", '"say ""d"""', "c"], {}, ["a\nb", "c", 'say "d"', "c"]),
    "half numbers": (["1", "2", "a", "b"], {}, ["1", "2", "a", "b"]),
    "inch sign": (['5"', '7"', '5"', "6"], {}, ['5"', '7"', '5"', "6"]),
    "unicode": (["é", "狐", "é", "😀"], {}, ["é", "狐", "é", "😀"]),
    "integer identifiers": (["9007199254740993", "1", "2", "3"], {"id": "c"}, [9007199254740993, 1, 2, 3]),
    "text identifiers": (["01", "1", "2", "3"], {"id": "c"}, ["01", "1", "2", "3"]),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells(tmp_path: Path, case: str) -> None:
    cells, settings, expected = CELLS[case]
    table = read(tmp_path, "c,y\n" + "".join(f"{cell},1\n" for cell in cells), **settings)
    assert table.columns["c"].tolist() == expected


def test_stray_word_is_a_level_where_listed(tmp_path: Path) -> None:
    table = read(tmp_path, f"x,y\n{NUMBERS}foo,1\n", categorical=["x"])
    assert table.columns["x"][-2:].tolist() == ["19.5", "foo"]


def test_columns_without_a_role_are_not_judged(tmp_path: Path) -> None:
    table = read(tmp_path, "x,date,hole,y\n1,2020-01-01,,2\n3,2020-01-02,,4\n", features=["x"])
    assert list(table.columns) == ["x", "y"]


def test_without_header(tmp_path: Path) -> None:
    table = Csv(path=write(tmp_path, "1,2\n3,4\n"), target="f1", header=False).read()
    assert table.columns["f0"].tolist() == [1.0, 3.0]
    assert table.where(np.array([False, True])) == "row 2"


def test_given_splits(tmp_path: Path) -> None:
    source = Csv(
        path=write(tmp_path, "x,y\n" + NUMBERS),
        validation_path=write(tmp_path, "x,y\n1,2\n", "validation.csv"),
        test_path=write(tmp_path, "y,x\n3,4\n5,6\n", "test.csv"),
        target="y",
    )
    splits = source.splits()
    assert {name: table.num_rows for name, table in splits.items()} == {"train": 20, "validation": 1, "test": 2}
    assert splits["test"].columns["y"].tolist() == [3.0, 5.0]
    assert splits["test"].origin == str(tmp_path / "test.csv")


def test_refuses_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    path = write(tmp_path, GOOD)
    monkeypatch.setattr(Path, "open", denied)  # root reads any file, whatever its mode
    with pytest.raises(UsageError, match=r"d.csv cannot be read: .*Permission denied"):
        Csv(path=path, target="y").read()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutilated_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    scraps = [b",", b'"', b"\n", b"\r", b"\xff", b"", b"0x1", b"1,234", b"inf", b"\0", b"1e999", b"2020-01-01", b";"]
    outcomes: set[type] = set()
    for _ in range(300):
        content = bytearray(GOOD.encode())
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(content))
            content[start : start + rng.choice([0, 1, 8])] = rng.choice(scraps)
        try:
            outcomes.add(type(read(tmp_path, bytes(content))))
        except UsageError as error:
            outcomes.add(type(error))
            assert str(tmp_path) in str(error)
    assert outcomes == {Table, UsageError}


HALVES = {"a.csv": "x,c,z,y\n1,a,1,3\n2,b,2,4\n", "b.csv.gz": "z,y,c,x\nu,5,7,2.5\n\nu,6,a,4\n"}


def halves(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for name, text in HALVES.items():
        (folder / "parts" / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (folder / "parts" / "_SUCCESS").write_text("")
    return folder / "parts"


@pytest.mark.parametrize("pattern", ["", "*.csv*", "[ab].*"])
def test_reads_the_files_of_a_folder_as_one_table(tmp_path: Path, pattern: str) -> None:
    source = Csv(path=str(halves(tmp_path) / pattern), target="y")
    table = source.read()
    assert table.columns["x"].tolist() == [1, 2, 2.5, 4]
    assert table.columns["c"].tolist() == ["a", "b", "7", "a"]
    assert table.columns["z"].tolist() == ["1", "2", "u", "u"]
    assert table.columns["y"].tolist() == [3, 4, 5, 6]
    assert table.where(np.array([False, True, False, True])) == "rows 3 of a.csv, 4 of b.csv.gz"


def test_files_of_a_folder_have_the_same_columns(tmp_path: Path) -> None:
    folder = halves(tmp_path)
    (folder / "c.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UsageError, match=r"c.csv and a.csv differ in columns: 'c', 'z'"):
        Csv(path=str(folder), target="y").read()


BLOCKS: dict[str, tuple[str, str]] = {
    "plain": ("x,c,y\n" + "".join(f"{i}.5,{'ab'[i % 2]},{i}\n" for i in range(200)), "utf-8"),
    "quoted newlines": ("x,c,y\n" + "".join(f'{i},"a\n,{i % 3}",{i}\n' for i in range(200)), "utf-8"),
    "blank lines": ("\n\nx,c,y\n" + "".join(f"{i},é,{i}\n\n\n" for i in range(200)), "latin-1"),
    "byte order mark": ("x,c,y\r\n" + "".join(f"{i},狐,{i}\r\n" for i in range(200)), "utf-8-sig"),
    "two bytes a sign": ("x,c,y\n" + "".join(f"{i},狐,{i}\n" for i in range(200)), "utf-16"),
    "no newline at the end": ("x,c,y\n" + "\n".join(f"{i},a,{i}" for i in range(200)), "ascii"),
}


@pytest.mark.parametrize("case", BLOCKS)
@pytest.mark.parametrize("size", [1, 50, 10**6])
def test_blocks_are_the_table_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, size: int) -> None:
    text, encoding = BLOCKS[case]
    source = Csv(path=write(tmp_path, text.encode(encoding)), target="y", encoding=encoding)
    whole = source.read()
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (size,))
    blocks = list(source.read_blocks())
    assert (len(blocks) > 3) == (size < 100)
    assert np.concatenate([block.row for block in blocks]).tolist() == list(range(200))
    assert blocks[-1].share == pytest.approx(1)
    for name, column in whole.columns.items():
        assert np.concatenate([block.table.columns[name] for block in blocks]).tolist() == column.tolist()
    every = np.arange(200)
    lines = np.concatenate([b.table.row_numbers(np.arange(b.table.num_rows)) for b in blocks])
    assert lines.tolist() == whole.row_numbers(every).tolist()


@pytest.mark.parametrize(
    ("line", "words"),
    [("1,2,3", "line 152 has 3 fields"), ("foo,1", "row 152: 'foo'"), ("1e400,1", "row 152"), ("1\0,2", "line 152")],
)
def test_messages_of_blocks_name_the_line_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    lines = [f"{i}.5,{i}" for i in range(200)]
    lines[150] = line
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (300,))
    with pytest.raises(UsageError, match=words):
        list(Csv(path=write(tmp_path, "x,y\n" + "\n".join(lines)), target="y").read_blocks())


def test_blocks_tell_the_position_of_rows_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "x,y\n" + "".join(f"{i if i % 7 else ''},{i}\n" for i in range(100)))
    monkeypatch.setattr(csv_blocks.read_blocks, "__defaults__", (100,))
    with pytest.warns(UserWarning, match="missing values are dropped"):
        blocks = list(Csv(path=path, target="y", missing="drop").read_blocks())
    rows = np.concatenate([block.row for block in blocks]).tolist()
    assert rows == np.concatenate([block.table.columns["y"] for block in blocks]).tolist()
    assert rows == [i for i in range(100) if i % 7]
