"""Data of a web server: what is fetched, what is said of faults, and that secrets stay out of all that is written."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remote_rows import NUM_ROWS, as_csv, as_parquet, drawn
from website import Site, website

from mlefw.cli import run
from mlefw.data.csv import Csv
from mlefw.data.parquet import Parquet
from mlefw.errors import StorageError, UsageError
from mlefw.reading.remote import web
from mlefw.system.address import VARIABLE

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

QUICK = ("trainer.max_epochs=1", "logger=none", "report=false", "plots=false", "baseline=none", "model=linear")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv(VARIABLE, "{}")
    with website() as one:
        yield one


@pytest.fixture(scope="module")
def frame() -> pa.Table:
    return drawn()


def test_a_csv_file_is_fetched_once(site: Site, frame: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.reading.remote.content.PIECE_BYTES", 50_000)
    monkeypatch.setattr("mlefw.reading.remote.file.PIECE_BYTES", 50_000)
    site.files["/a b.csv"] = as_csv(frame)
    table = Csv(path=f"{site.url}/a b.csv", target="y").read()
    assert table.origin == f"{site.url}/a b.csv"
    for name, column in table.columns.items():
        assert column.tolist() == frame[name].to_pylist()
    assert len(site.log) > 3
    assert site.sent == len(site.files["/a b.csv"])


@pytest.mark.parametrize("ranges", [True, False])
def test_gzip_and_servers_without_ranges(site: Site, frame: pa.Table, ranges: bool) -> None:
    site.ranges = ranges
    site.files |= {"/d.csv.gz": gzip.compress(as_csv(frame)), "/d.parquet": as_parquet(frame)}
    for table in (
        Csv(path=f"{site.url}/d.csv.gz", target="y").read(),
        Parquet(path=f"{site.url}/d.parquet", target="y").read(),
    ):
        assert table.columns["y"].tolist() == frame["y"].to_pylist()
    assert ranges or site.sent == sum(map(len, site.files.values()))


@pytest.mark.parametrize("stream", [True, False])
def test_only_the_columns_that_are_used_are_fetched(site: Site, frame: pa.Table, stream: bool, tmp_path: Path) -> None:
    site.files["/d.parquet"] = as_parquet(frame, compression="none", use_dictionary=False, row_group_size=1000)
    size = len(site.files["/d.parquet"])
    source = Parquet(path=f"{site.url}/d.parquet", target="y", features=["a"], stream=stream, cache=str(tmp_path))
    table = source.read()
    assert table.columns["a"].tolist() == frame["a"].to_pylist()
    footer = 2**16
    # Two of five columns of 8 bytes a cell.
    assert 2 * 8 * NUM_ROWS <= site.sent <= 2 * 8 * NUM_ROWS + footer + 4000
    site.log.clear()
    Parquet(path=f"{site.url}/d.parquet", target="y").read()
    assert size - 4000 <= site.sent <= size + footer


@pytest.mark.parametrize("fault", ["cut", "silent", 503, 429])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_made_again(site: Site, frame: pa.Table, fault: Any, ranges: bool) -> None:
    site.files["/d.csv"], site.ranges = as_csv(frame), ranges
    site.faults.extend([fault] * 3)
    table = Csv(path=f"{site.url}/d.csv", target="y").read()
    assert table.columns["y"].tolist() == frame["y"].to_pylist()
    assert len(site.log) == 4
    site.faults.extend([fault] * 4)
    with pytest.raises(StorageError) as caught:
        Csv(path=f"{site.url}/d.csv", target="y").read()
    said = str(caught.value)
    assert said.startswith(f"{site.url}/d.csv could not be read: asked 4 times for bytes 0 to ")
    assert {"cut": "ended after", "silent": "no answer"}.get(fault, f"answered {fault}") in said


@pytest.mark.parametrize("code", [401, 403, 404, 410, 400])
def test_what_a_server_refuses_is_a_mistake_of_the_settings(site: Site, code: int) -> None:
    site.files["/d.csv"] = b"a,y\n1,2\n"
    site.faults.append(code)
    with pytest.raises(UsageError) as caught:
        Csv(path=f"{site.url}/d.csv?signature=secret", target="y").read()
    expected = "does not exist" if code in (404, 410) else "may not be read" if code in (401, 403) else "cannot be read"
    assert f"{site.url}/d.csv {expected}: the server answered {code}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert site.log[0][0] == "/d.csv?signature=secret"
    assert len(site.log) == 1


@pytest.mark.parametrize("change", ["content", "length", "shorter"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    site: Site, frame: pa.Table, monkeypatch: pytest.MonkeyPatch, change: str, kind: str
) -> None:
    monkeypatch.setattr("mlefw.reading.remote.content.PIECE_BYTES", 50_000)
    monkeypatch.setattr("mlefw.reading.remote.file.PIECE_BYTES", 50_000)
    path = f"/d.{kind}"
    before = as_csv(frame) if kind == "csv" else as_parquet(frame)
    after = {"content": before[:-1] + b"7", "length": before + before, "shorter": before[:9]}[change]
    site.files[path] = before
    site.faults.extend([None, None, lambda: site.files.update({path: after})])
    with pytest.raises(UsageError, match="changed while it was read") as caught:
        (Csv if kind == "csv" else Parquet)(path=site.url + path, target="y").read()
    said = "as many bytes" if change == "content" else f"it has {len(after):,} bytes, and had {len(before):,}"
    assert said in str(caught.value)


def test_an_empty_file_and_a_wrong_one(site: Site) -> None:
    site.files |= {"/e.csv": b"", "/d.parquet": b"a,y\n1,2\n" * 9, "/p.csv": b"PAR1" + bytes(9)}
    for path, kind, said in (
        ("/e.csv", Csv, "is empty"),
        ("/d.parquet", Parquet, "is not a Parquet file"),
        ("/p.csv", Csv, "is a Parquet file"),
        ("/part-*.csv", Csv, "does not list"),
    ):
        with pytest.raises(UsageError, match=said):
            kind(path=site.url + path, target="y").read()


@pytest.mark.parametrize("address", ["https://", "https:///a.csv", "http://h:port/a.csv", "https://[h/a.csv"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a file"):
        Csv(path=address, target="y").read()


def test_nobody_listens(site: Site) -> None:
    with pytest.raises(StorageError, match="there was no answer"):
        Csv(path="http://127.0.0.1:9/d.csv", target="y").read()


def test_a_password_goes_to_the_server_alone(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/d.csv"] = b"a,y\n1,2\n3,4\n"
    monkeypatch.setenv("HOME", str(tmp_path))
    with website() as other:
        other.files["/d.csv"] = site.files["/d.csv"]
        site.moved["/moved.csv"] = f"{other.url}/d.csv"
        address = site.url.replace("://", "://me:pass%20word@")
        table = Csv(path=f"{address}/moved.csv", target="y").read()
        assert table.origin == f"{site.url}/moved.csv"
        assert site.log[0][1]["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"  # base64 of me:pass word
        assert other.log[0][1]["Authorization"] is None
        assert other.log[0][1]["Range"].startswith("bytes=0-")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login you password word\n")
    (tmp_path / ".netrc").chmod(0o600)
    Csv(path=f"{site.url}/d.csv", target="y").read()
    assert site.log[-1][1]["Authorization"] == "Basic eW91OndvcmQ="  # base64 of you:word


def test_copies_are_kept_and_checked(site: Site, frame: pa.Table, tmp_path: Path) -> None:
    site.files["/d.parquet"] = whole = as_parquet(frame)

    def read() -> int:
        site.log.clear()
        table = Parquet(path=f"{site.url}/d.parquet?s=1", target="y", features=["a"], download=str(tmp_path)).read()
        assert table.columns["a"].tolist() == frame["a"].to_pylist()
        return site.sent

    assert read() == len(whole)
    [copy] = [file for file in tmp_path.iterdir() if not file.suffix]
    assert copy.read_bytes() == whole
    assert "s=1" not in "".join(file.read_text() for file in tmp_path.glob("*.json"))
    assert read() == len(b"PAR1")
    # A damaged copy is noticed, and a new version has a copy of its own.
    copy.write_bytes(whole[:-1] + b"x")
    read()
    assert copy.read_bytes() == whole
    site.files["/d.parquet"] = as_parquet(frame, compression="gzip")
    read()
    assert len([file for file in tmp_path.iterdir() if not file.suffix]) == 2
    with pytest.raises(UsageError, match="expected a directory"):
        Parquet(path=f"{site.url}/d.parquet", target="y", download=str(tmp_path / "none")).read()


def test_a_run_knows_its_rows_wherever_they_are(
    site: Site, frame: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = tmp_path / "d.csv", f"{site.url}/d.csv"
    local.write_bytes(as_csv(frame))
    site.files["/d.csv"] = local.read_bytes()
    signed = f"{remote}?X-Amz-Credential=AKIAXYZ&X-Amz-Signature=abcdef0123"
    folder = tmp_path / "run"
    assert run(["train", "data=csv", f"data.path={signed}", "data.target=y", *QUICK, f"run_dir={folder}"]) == 0
    assert run(["train", f"resume={folder}", f"data.path={local}", "trainer.max_epochs=2"]) == 0
    assert run(["train", f"resume={folder}", f"data.path={signed}", "trainer.max_epochs=3"]) == 0
    monkeypatch.setenv(VARIABLE, "{}")
    # The address is stored now, and might be a stranger's.
    site.log.clear()
    for command in (["evaluate", f"run={folder}"], ["train", f"resume={folder}", "trainer.max_epochs=4"]):
        assert run(command) == 2
        assert f"{remote} stands in a file" in capsys.readouterr().err
    assert not site.log
    monkeypatch.setenv("MLEFW_REMOTE", f"s3://b,{site.url}/")
    assert run(["evaluate", f"run={folder}", "output=" + str(tmp_path / "e.json")]) == 0
    assert site.log[-1][0] == "/d.csv"
    output = tmp_path / "p.parquet"
    assert run(["predict", f"run={folder}", f"data.path={signed}", f"output={output}"]) == 0
    assert pq.read_table(output).num_rows == NUM_ROWS
    assert f"path: {remote}\n" in (folder / "config.yaml").read_text()
    site.faults.append(403)
    assert run(["evaluate", f"run={folder}", f"data.path={signed}"]) == 2
    said = capsys.readouterr()
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"d.csv" in written
    for secret in ("AKIAXYZ", "abcdef0123", "X-Amz"):
        assert secret.encode() not in written
        assert secret not in said.out + said.err


def test_an_address_in_a_settings_file_or_a_reference(
    site: Site, frame: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/d.csv"] = as_csv(frame)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        f"defaults: [csv]\npath: {site.url}/d.csv?${{oc.env:SIGNATURE}}\ntarget: y\n"
    )
    monkeypatch.setenv("SIGNATURE", "s=abcdef0123")
    folder = tmp_path / "run"
    command = ["train", "data=mine", "--config-dir", str(tmp_path), *QUICK, f"run_dir={folder}"]
    assert run(command) == 2
    said = capsys.readouterr().err
    assert f"{site.url}/d.csv stands in a file" in said
    assert "abcdef0123" not in said
    assert not site.log
    assert run([*command, f"data.path={site.url}/d.csv?${{oc.env:SIGNATURE}}"]) == 0
    assert site.log[0][0] == "/d.csv?s=abcdef0123"
    assert b"abcdef0123" not in b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_jobs_of_a_sweep_and_ranks_read_signed_addresses(site: Site, frame: pa.Table, tmp_path: Path) -> None:
    site.files |= {"/d.csv": as_csv(frame), "/e.csv": as_csv(frame.slice(9))}
    folder, copies = tmp_path / "sweep", tmp_path / "copies"
    copies.mkdir()
    source = ["data=csv", f"data.path={site.url}/d.csv?s=abcdef0123", "data.target=y", f"data.download={copies}"]
    several = f"{source[1]},{site.url}/e.csv?s=abcdef0123"
    assert run(["train", "-m", source[0], several, *source[2:], *QUICK, f"run_dir={folder}"]) == 0
    jobs = json.loads((folder / "sweep.json").read_text())
    assert b"abcdef0123" not in b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert len(list(folder.glob("*/summary.json"))) == 2, jobs
    assert {path for path, _, _ in site.log} == {"/d.csv?s=abcdef0123", "/e.csv?s=abcdef0123"}
    site.log.clear()
    ranks = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", f"run_dir={tmp_path / 'ranks'}"]
    assert run(["train", *source, *QUICK, *ranks]) == 0
    assert {path for path, _, _ in site.log} == {"/d.csv?s=abcdef0123"}
