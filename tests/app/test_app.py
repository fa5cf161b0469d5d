"""The page of `mlefw app`: its answers, its bounds, and the whole in a browser."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from urllib.parse import urlencode

import pytest

from mlefw.app.request import answer, settings
from mlefw.app.server import open_server, port_of
from mlefw.errors import UsageError


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with open_server(0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: ThreadingHTTPServer, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("GET", path, headers={"Host": host} if host else {})
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
    assert get(server, "/", host="evil.example")[0] == 403
    assert get(server, "/../pyproject.toml")[0] == 404


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
