"""Data of an object store: moto's server, with real requests of pyarrow, behind a proxy that counts and breaks."""

import http.client
import logging
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from remote_rows import NUM_ROWS, as_csv, as_parquet, drawn

from mlefw.cli import run
from mlefw.data.csv import Csv
from mlefw.data.parquet import Parquet
from mlefw.errors import MlefwError, StorageError, UsageError
from mlefw.reading.remote import store as object_store
from mlefw.system.address import VARIABLE

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

QUICK = ("trainer.max_epochs=1", "logger=none", "report=false", "plots=false", "baseline=none", "model=linear")
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "verysecret"}


@dataclass
class Proxy:
    """What passes to the store and back.

    Attributes:
        faults: what happens to the next requests for objects, one each: a code; `cut`, the connection ends after half
            of the bytes; a function that is called before; None for no fault.
        log: for each request its method, path, range, and the number of bytes of content that came back.
    """

    server: str
    faults: deque[Any] = field(default_factory=deque)
    log: list[tuple[str, str, str | None, int]] = field(default_factory=list)

    @property
    def fetched(self) -> int:
        """Bytes of objects that were fetched."""
        return sum(size for method, _, part, size in self.log if method == "GET" and part)


def handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            fault = proxy.faults.popleft() if proxy.faults else None
            if isinstance(fault, Callable):  # type: ignore[arg-type]
                fault()
            connection = http.client.HTTPConnection(proxy.server)
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            code = fault if isinstance(fault, int) else answer.status
            content = b"" if isinstance(fault, int) else content
            cut = len(content) // 2 if fault == "cut" else len(content)
            proxy.log.append((self.command, self.path, self.headers.get("Range"), cut))
            self.send_response(code)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            is_head = self.command == "HEAD" and not isinstance(fault, int)
            self.send_header("Content-Length", answer.getheader("Content-Length") if is_head else str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])
            if fault == "cut":
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

    return Handler


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def client(moto: str) -> Any:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    one = boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{moto}", **keys)
    one.create_bucket(Bucket="bucket")
    yield one
    for found in one.list_objects_v2(Bucket="bucket").get("Contents", []):
        one.delete_object(Bucket="bucket", Key=found["Key"])
    one.delete_bucket(Bucket="bucket")
    one.close()


@pytest.fixture
def proxy(moto: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    one = Proxy(moto)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(one))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv(VARIABLE, "{}")
    environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}"}
    for name, value in {**environment, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    yield one
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def frame() -> pa.Table:
    return drawn()


def put(client: Any, key: str, content: bytes) -> None:
    client.put_object(Bucket="bucket", Key=key, Body=content)


def test_a_csv_file_is_fetched_once(
    proxy: Proxy, client: Any, frame: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlefw.reading.remote.content.PIECE_BYTES", 50_000)
    content = as_csv(frame)
    put(client, "a folder/d ü.csv", content)
    table = Csv(path="s3://bucket/a folder/d ü.csv", target="y").read()
    for name, column in table.columns.items():
        assert column.tolist() == frame[name].to_pylist()
    assert proxy.fetched == len(content)


@pytest.mark.parametrize("stream", [True, False])
def test_only_the_columns_that_are_used_are_fetched(
    proxy: Proxy, client: Any, frame: pa.Table, stream: bool, tmp_path: Path
) -> None:
    content = as_parquet(frame, compression="none", use_dictionary=False, row_group_size=1000)
    put(client, "d.parquet", content)
    source = Parquet(path="s3://bucket/d.parquet", target="y", features=["a"], stream=stream, cache=str(tmp_path))
    assert source.read().columns["a"].tolist() == frame["a"].to_pylist()
    # Two of five columns of 8 bytes a cell, the footer, and what tells the format.
    assert 2 * 8 * NUM_ROWS <= proxy.fetched <= 2 * 8 * NUM_ROWS + 2**16 + 4000
    # A request for each column of each group of rows.
    assert len([1 for method, _, part, _ in proxy.log if method == "GET" and part]) == 2 + 2 * 3


NAMES = ("s/part-0.parquet", "s/part-1.parquet", "s/_skipped.parquet", "s/.hidden.parquet", "s/deep/part-2.parquet")
MEANT = {
    "s": [0, 1],
    "s/": [0, 1],
    "s/*.parquet": [0, 1, 2],
    "s/part-[0-9].parquet": [0, 1],
    "s/part-?.parquet": [0, 1],
    "*/part-1.parquet": [1],
    "s/**/part-*.parquet": [0, 1, 4],
    "**/part-2.parquet": [4],
}


@pytest.mark.parametrize("path", MEANT)
def test_folders_and_patterns(proxy: Proxy, client: Any, path: str, tmp_path: Path) -> None:
    for k, name in enumerate(NAMES):
        content = as_parquet(pa.table({"a": [float(k), k + 0.5], "y": [1.0, 2.0]}))
        put(client, name, content)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    put(client, "s/d.csv", b"a,y\n1,2\n")
    found = Parquet(path=f"s3://bucket/{path}", target="y").read()
    local = Parquet(path=f"{tmp_path}/{path}", target="y").read()
    for table in (found, local):
        assert sorted({int(value) for value in table.columns["a"]}) == MEANT[path]
    assert found.columns["a"].tolist() == local.columns["a"].tolist()
    assert found.files == local.files


def test_a_name_with_signs_of_patterns(proxy: Proxy, client: Any) -> None:
    put(client, "d[1]*.csv", b"a,y\n1,2\n")
    put(client, "d1x.csv", b"a,y\n3,4\n")
    assert Csv(path="s3://bucket/d[1]*.csv", target="y").read().columns["a"].tolist() == [1.0]


MISSING = {
    "s3://bucket/none.csv": "does not exist",
    "s3://bucket/none/*.csv": "matches no object",
    "s3://nobody-has-this/d.csv": "there is no bucket nobody-has-this",
    "s3://nobody-has-this/*.csv": "there is no bucket nobody-has-this",
    "s3://bucket": "is a folder without objects that end in .csv",
    "s3:///d.csv": "names no bucket",
}


@pytest.mark.parametrize("address", MISSING)
def test_what_is_not_there(proxy: Proxy, client: Any, address: str) -> None:
    put(client, "d.parquet", b"x")
    with pytest.raises(UsageError) as caught:
        Csv(path=address, target="y").read()
    assert MISSING[address] in str(caught.value)
    assert address in str(caught.value)


# The requests are: what is at the address, its size, its bytes, and whether it is still the same.
FAULTS = {
    "no permission": ([403], UsageError, "may not be read (ACCESS_DENIED HeadObject)"),
    "no permission for the bytes": ([None, None, 403], UsageError, "may not be read (ACCESS_DENIED GetObject)"),
    "wrong region": ([301], UsageError, "AWS_REGION"),
    "busy": ([503] * 9, StorageError, "could not be read: asked several times for its kind"),
    "a connection that breaks": ([None, None, *["cut"] * 9], StorageError, "asked several times for bytes 0 to "),
    "gone meanwhile": ([None, None, 404], UsageError, "does not exist"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_the_store_refuses(
    proxy: Proxy, client: Any, frame: pa.Table, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, kind, said = FAULTS[case]
    put(client, "d.csv", as_csv(frame))
    proxy.faults.extend(faults)
    folder = tmp_path / "run"
    command = ["train", "data=csv", "data.path=s3://bucket/d.csv", "data.target=y", f"run_dir={folder}"]
    assert run(command) == kind.exit_code
    told = capsys.readouterr().err
    assert "s3://bucket/d.csv" in told
    assert said in told
    assert not any(key in told for key in KEYS.values())
    assert not folder.exists()
    assert issubclass(kind, MlefwError)


@pytest.mark.parametrize("fault", ["cut", 503])
def test_a_connection_that_breaks_is_made_again(proxy: Proxy, client: Any, frame: pa.Table, fault: Any) -> None:
    put(client, "d.csv", as_csv(frame))
    proxy.faults.extend([None, None, fault, fault])
    assert Csv(path="s3://bucket/d.csv", target="y").read().columns["y"].tolist() == frame["y"].to_pylist()
    assert not proxy.faults


@pytest.mark.parametrize("change", ["content", "longer", "shorter"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_object_that_changes_while_it_is_read_is_refused(
    proxy: Proxy, client: Any, frame: pa.Table, change: str, kind: str
) -> None:
    before = as_csv(frame) if kind == "csv" else as_parquet(frame)
    after = {"content": before[:-1] + b"7", "longer": before + before, "shorter": before[:9]}[change]
    put(client, f"d.{kind}", before)
    proxy.faults.extend([None, None, None, lambda: put(client, f"d.{kind}", after)])
    with pytest.raises(UsageError, match="changed while it was read") as caught:
        (Csv if kind == "csv" else Parquet)(path=f"s3://bucket/d.{kind}", target="y").read()
    said = "as many bytes" if change == "content" else f"it has {len(after):,} bytes, and had {len(before):,}"
    assert said in str(caught.value)


def test_a_run_knows_its_rows_wherever_they_are(
    proxy: Proxy,
    client: Any,
    frame: pa.Table,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local, folder = tmp_path / "d.parquet", tmp_path / "run"
    pq.write_table(frame, local)
    put(client, "shards/d.parquet", local.read_bytes())
    source = ["data=parquet", "data.path=s3://bucket/shards", "data.test_path=s3://bucket/shards/d.parquet"]
    assert run(["train", *source, "data.target=y", *QUICK, f"run_dir={folder}"]) == 0
    here = [f"data.path={local}", f"data.test_path={local}"]
    assert run(["train", f"resume={folder}", *here, "trainer.max_epochs=2"]) == 0
    assert run(["train", f"resume={folder}", *source[1:], "trainer.max_epochs=3"]) == 0
    monkeypatch.setenv("MLEFW_REMOTE", "s3://bucket")
    assert run(["evaluate", f"run={folder}"]) == 0
    capsys.readouterr()
    assert run(["evaluate", f"run={folder}", "data.path=s3://bucket/shards/"]) == 0
    remote = capsys.readouterr().out
    assert run(["evaluate", f"run={folder}", f"data.path={local}"]) == 0
    assert capsys.readouterr().out == remote
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, path in zip(files, ("s3://bucket/shards/*.parquet", local), strict=True):
        assert run(["predict", f"run={folder}", f"data.path={path}", f"output={file}"]) == 0
    assert pq.read_table(files[0]).equals(pq.read_table(files[1]))
    changed = frame.set_column(0, "a", pa.array(frame["a"].to_numpy() * 2))
    put(client, "shards/d.parquet", as_parquet(changed))
    assert run(["train", f"resume={folder}", *source[1:], "trainer.max_epochs=4"]) == 2
    assert "are not those of the run" in capsys.readouterr().err


def test_processes_and_jobs_read_for_themselves(proxy: Proxy, client: Any, frame: pa.Table, tmp_path: Path) -> None:
    content, copies = as_parquet(frame), tmp_path / "copies"
    put(client, "d.parquet", content)
    # Connections of this process must not be used in its forks.
    Parquet(path="s3://bucket/d.parquet", target="y").read()
    source = ["data=parquet", "data.path=s3://bucket/d.parquet", "data.target=y", *QUICK]
    assert run(["train", "-m", *source, "seed=0,1", f"run_dir={tmp_path / 'sweep'}"]) == 0
    copies.mkdir()
    proxy.log.clear()
    ranks = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", f"data.download={copies}"]
    assert run(["train", *source, *ranks, f"run_dir={tmp_path / 'ranks'}"]) == 0
    # Two processes share a copy: one of them fetches the object.
    assert proxy.fetched == len(content)


EMULATOR = """
import sys
from http.server import ThreadingHTTPServer
from gcp_storage_emulator import server
server.server.HTTPServer = ThreadingHTTPServer
running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
running.start()
print(running._api._httpd.server_address[1], flush=True)
sys.stdin.read()
running.stop()
"""


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    # A process of its own: pyarrow holds Python's lock while it waits for an answer about an object.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", EMULATOR], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.communicate()


def put_google(url: str, name: str, content: bytes) -> None:
    query = urlencode({"uploadType": "media", "name": name})
    headers = {"Content-Type": "application/octet-stream"}
    request = Request(f"{url}/upload/storage/v1/b/bucket/o?{query}", content, headers, method="POST")
    with urlopen(request) as answer:
        assert answer.status == 200


def test_google_cloud_storage(google: str, frame: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google)
    for k in range(2):
        put_google(google, f"shards/part-{k}.parquet", as_parquet(frame.slice(k * 1000, 1000)))
    for path in ("shards", "shards/part-?.parquet", "**/part-*.parquet"):
        table = Parquet(path=f"gs://bucket/{path}", target="y").read()
        assert table.columns["a"].tolist() == frame["a"].to_pylist()[:2000]
    for path, said in (("bucket/none", "does not exist"), ("nobucket/d.parquet", "there is no bucket nobucket")):
        with pytest.raises(UsageError, match=said):
            Parquet(path=f"gs://{path}", target="y").read()
    read = object_store.StoredContent.fetch

    def fetch(content: Any, start: int, stop: int) -> bytes:
        found = read(content, start, stop)
        put_google(google, "shards/part-0.parquet", as_parquet(frame.slice(5, 1000)))
        return found

    monkeypatch.setattr(object_store.StoredContent, "fetch", fetch)
    with pytest.raises(UsageError, match="changed while it was read"):
        Parquet(path="gs://bucket/shards/part-0.parquet", target="y").read()
