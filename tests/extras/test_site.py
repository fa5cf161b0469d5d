"""The documentation builds as a site without a network, and what it documents has docstrings."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

import griffe
import pytest
from conftest import ROOT

MODULES = sorted(
    {
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.M)
    }
)


class Page(HTMLParser):
    """The links of a page, the places in it that may be linked to, and what a browser loads by itself."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links, self.places, self.loaded = list[str](), set[str](), list[str]()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given or (tag == "link" and given.get("rel") not in ("canonical", "prev", "next")):
            self.loaded.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # Nothing answers at this address: a build that fetched anything would fail.
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_and_module_is_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert '<a href="tutorial.ipynb" download>' in (site / "tutorial.html").read_text(encoding="utf-8")
    text = (site / "api" / "interfaces.html").read_text(encoding="utf-8")
    assert "Negative log-likelihood of each observation, (*batch,), in nats." in text


def test_internal_links_resolve_and_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    num_internal = 0
    for file, page in pages.items():
        assert not [url for url in page.loaded if re.match(r"(\w+:)?//", url)]
        for link in page.links:
            url, place = urldefrag(link)
            if re.match(r"\w+:", url):
                continue
            target = (file.parent / unquote(url)).resolve() if url else file
            assert target.is_file(), f"{file.relative_to(site)}: {link}"
            known = pages[target].places if target in pages else set()
            assert not place or unquote(place) in known, f"{file.relative_to(site)}: {link}"
            num_internal += 1
    assert num_internal > 500


def test_styles_and_scripts_fetch_nothing_from_elsewhere(site: Path) -> None:
    styles = [file.read_text(encoding="utf-8") for file in site.rglob("*.css")]
    assert len(styles) > 2
    for text in styles:
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:\w+:)?//[^)]*", text)
    # What the theme would load where a page has such parts: diagrams, and browsers older than ResizeObserver.
    known = {"https://unpkg.com/mermaid@11/dist/mermaid.min.js", "https://unpkg.com/resize-observer-polyfill"}
    for file in site.rglob("*.js"):
        text = file.read_text(encoding="utf-8")
        found = set(re.findall(r"https?://(?:unpkg|cdn|cdnjs|fonts|polyfill)\.[^\"'` )]+", text))
        assert found <= known or file.name == "search_index.js", (file, found - known)
    for file in site.rglob("*.html"):
        assert 'class="mermaid"' not in file.read_text(encoding="utf-8")


def test_it_is_searched_without_a_server(site: Path) -> None:
    """The index is a script beside the pages, and has the text of pages, docstrings and the notebook."""
    text = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    index = json.loads(text.partition("=")[2])
    places = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"statistics.html", "faq.html", "tutorial.html", "api/python.html", "heads.html"} <= places
    assert 'src="iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")


def test_formulas_are_drawn_by_the_browser_itself(site: Path) -> None:
    source = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```math$", source, re.M)
    prose = re.sub(r"^```[^\n]*\n.*?^```$|`[^`\n]+`", "", source, flags=re.M | re.S)
    inline = re.findall(r"\$[^$\n]+\$", prose)
    page = (site / "statistics.html").read_text(encoding="utf-8")
    assert len(blocks) > 8 and len(inline) > 60
    assert page.count("<math ") == page.count("</math>") == len(blocks) + len(inline)
    assert page.count('display="block"') == len(blocks)
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"FORMULA\d+Q", text), file
        for formula in re.findall(r"<math .*?</math>", text, re.S):
            # A command that is not known would stand there as text.
            assert "\\" not in formula and ElementTree.fromstring(formula).tag.endswith("math"), formula


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    found = loader.load("mlefw")
    assert isinstance(found, griffe.Module)
    return found


def public(whole: Any) -> Iterator[Any]:
    """A module, class or function and what is public in it, of its own."""
    yield whole
    for name, member in whole.members.items():
        if not name.startswith("_") and not member.is_alias and (member.is_class or member.is_function):
            yield from public(member)


def test_there_are_modules() -> None:
    assert len(MODULES) > 50


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str, package: griffe.Module) -> None:
    without = [one.path for one in public(package[name.removeprefix("mlefw.")]) if one.docstring is None]
    assert not without
