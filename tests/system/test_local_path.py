"""Addresses of other machines are refused by name wherever a path is a setting; nothing is written beside."""

from pathlib import Path
from typing import Any

import pytest

from mlefw.data.csv import Csv
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.system.local_path import local_path

SCHEMES = ("hdfs", "abfss", "az", "ftp", "memory", "FTP")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("setting", ["path", "validation_path", "test_path"])
@pytest.mark.parametrize("source", [Csv, Parquet])
def test_data_are_read_from_this_machine(scheme: str, setting: str, source: Any) -> None:
    address = f"{scheme}://bucket/part-*.parquet"
    given = source(**{setting: address}, target="y")
    read = {"path": given.read, "validation_path": given.read_validation, "test_path": given.read_test}[setting]
    with pytest.raises(UsageError) as caught:
        read()
    assert str(caught.value).startswith(f"data.{setting}={address}: only local files")


COMMANDS = (
    ("train", "run_dir=s3://b/run"),
    ("train", "run_dir=s3://b/run", "-m", "seed=0,1"),
    ("train", "resume=s3://b/run"),
    ("baseline", "run_dir=s3://b/run"),
    ("baseline", "data=npz", "data.target=y", "data.path=s3://b/run"),
    ("evaluate", "run=s3://b/run"),
    ("predict", "run=x", "output=s3://b/run"),
    ("predict", "run=s3://b/run", "output=p.csv"),
    ("evaluate", "run=x", "output=s3://b/run"),
    ("evaluate", "run=x", "plots=s3://b/run"),
    ("compare", "runs=s3://b/run"),
    ("compare", "runs=x", "report=s3://b/run"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_setting_that_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    from mlefw.cli import run

    monkeypatch.chdir(tmp_path)
    assert run(list(arguments)) == 2
    said = capsys.readouterr().err
    assert "=s3://b/run: only" in said
    assert not list(tmp_path.iterdir())


def test_the_address_of_a_local_file_is_its_path(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_text("x,y\n1,2\n3,5\n")
    for address in (
        f"file://{tmp_path}/a%20b.csv",
        f"file://localhost{tmp_path}/a%20b.csv",
        f"file:{tmp_path}/a b.csv",
    ):
        assert Csv(path=address, target="y").read().columns["y"].tolist() == [2.0, 5.0]
    for path in ("a.csv", "C:/a.csv", "/a:b/c", "a/b:c/d", "x:y"):
        assert local_path(path, "data.path") == Path(path)
    with pytest.raises(UsageError, match="elsewhere"):
        local_path("file://server/a.csv", "data.path")
