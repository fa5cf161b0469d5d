"""The page of `mlefw app`: its answers, its bounds, and the whole in a browser."""

import http.client
import json
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from urllib.parse import urlencode

import pytest

from mlefw.app.request import _content, answer, settings
from mlefw.app.server import _MOST_CLIENTS, Page, open_server, port_of
from mlefw.errors import UsageError


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with open_server(0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: ThreadingHTTPServer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_the_page_and_a_race(server: ThreadingHTTPServer) -> None:
    status, page = get(server, "/")
    assert status == 200
    assert "http" not in page.replace("http-equiv", "").split("<body>")[1]
    status, text = get(server, "/race?" + urlencode({"iterations": 50, "head": "gaussian"}))
    content = json.loads(text)
    assert status == 200
    assert "<svg" in content["svg"]
    assert [row[0] for row in content["rows"]] == ["exact MLE", "full-batch GD", "mini-batch SGD"]


def test_it_is_for_this_machine_alone(server: ThreadingHTTPServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", Host="evil.example")[0] == 403
    assert get(server, "/../pyproject.toml")[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/page"},
    ],
)
def test_no_other_page_may_ask(server: ThreadingHTTPServer, headers: dict[str, str]) -> None:
    assert get(server, "/race?iterations=50", **headers)[0] == 403


def test_the_page_itself_may_ask_and_an_answer_is_known_the_second_time(server: ThreadingHTTPServer) -> None:
    host = f"localhost:{server.server_address[1]}"
    own = {"Host": host, "Origin": f"http://{host}", "Referer": f"http://{host}/", "Sec_Fetch_Site": "same-origin"}
    before = _content.cache_info().hits
    for _ in range(2):
        assert get(server, "/race?iterations=60", **own)[0] == 200
    assert _content.cache_info().hits == before + 1


def test_clients_that_reset_or_leave_or_say_nothing_are_no_error(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlefw.app.server._REQUEST_S", 0.2)
    monkeypatch.setattr(Page, "timeout", 0.2)
    silent = socket.create_connection(server.server_address)
    silent.send(b"GET / HT")
    for request in (b"GET /race?iterations=70 HTTP/1.0\r\nHost: localhost\r\n\r\n", b"GET"):
        client = socket.create_connection(server.server_address)
        # With a linger of no time the connection is reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(request)
        client.close()
    # The server ends the connection: until then this waits.
    with silent:
        assert silent.recv(100) == b""
    assert get(server, "/")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_there_are_never_more_clients_than_places(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [socket.create_connection(server.server_address) for _ in range(_MOST_CLIENTS)]
    for client in clients:
        client.send(b"GET")
    # Taken in the order in which they came, the next one finds no place, and is not kept waiting.
    with socket.create_connection(server.server_address) as one_more:
        assert one_more.recv(1) == b""
    for client in clients:
        client.close()


def test_a_rate_that_is_too_large_stands_beside_one_that_is_not() -> None:
    content = answer({"head": "poisson", "lr": "5", "iterations": "50"})
    assert "full-batch GD at rate" in content["svg"]
    assert "full-batch GD at rate" not in answer({"iterations": "50"})["svg"]


@pytest.mark.parametrize("query", ["n=1e9", "lr=nan", "batch_size=x", "head=os", "prior=l3", "iterations=501"])
def test_what_no_slider_has_is_refused(server: ThreadingHTTPServer, query: str) -> None:
    status, text = get(server, f"/race?{query}")
    assert status == 400
    assert "expected" in json.loads(text)["error"]


def test_heads_and_priors_reach_the_race() -> None:
    chosen, prior = settings({"head": "poisson", "prior": "l1", "scale": "0.1", "n": "200"})
    assert (chosen.kind, chosen.num_rows, prior.rate) == ("poisson", 200, pytest.approx(10))
    content = answer({"head": "poisson", "prior": "l2", "n": "200", "iterations": "50", "lr": "5"})
    assert "diverges" in content["headline"]


def test_the_command_line() -> None:
    assert (port_of([]), port_of(["port=0"])) == (8000, 0)
    with pytest.raises(UsageError, match="takes port"):
        port_of(["host=0.0.0.0"])


@pytest.mark.slow
def test_in_a_browser(server: ThreadingHTTPServer, tmp_path: object) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait_for_selector("#picture svg")
        page.screenshot(path=f"{tmp_path}/first.png")
        moves = {"n": "1000", "batch_size": "200", "lr": "0.5", "iterations": "100"}
        for name, value in moves.items():
            before = page.inner_html("#picture")
            page.locator(f"[name={name}]").fill(value)
            page.wait_for_selector(f"body[data-shown*='{name}={value}']")
            assert page.inner_html("#picture") != before
        for name, value in (("head", "poisson"), ("prior", "l2")):
            before = page.inner_html("tbody")
            page.select_option(f"[name={name}]", value)
            page.wait_for_selector(f"body[data-shown*='{name}={value}']")
            assert page.inner_html("tbody") != before
        before = page.inner_html("tbody")
        page.click("#draw")
        page.wait_for_selector("body[data-shown*='seed=1']")
        assert page.inner_html("tbody") != before
        page.screenshot(path=f"{tmp_path}/last.png")
        browser.close()
    assert problems == []
