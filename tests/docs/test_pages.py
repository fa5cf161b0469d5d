"""Every document: its links, its commands, and that what it lists is what there is."""

import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urldefrag

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, summary_of
from pages import PAGES, blocks, commands, execute

from mlefw.configuration.flags import parse
from mlefw.configuration.groups import members
from mlefw.configuration.read import read_settings

README = ROOT / "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    for link in found:
        url, place = urldefrag(link)
        if re.match(r"\w+:", url):
            continue
        target = page.parent / url if url else page
        assert target.is_file(), link
        if place:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert place in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_every_page_is_found_from_the_first_ones() -> None:
    """Those of the folder from README's "Read on", from the first page of the site, and from its navigation."""
    names = {page.name for page in (ROOT / "docs").glob("*.*") if page.suffix in (".md", ".ipynb")} - {"index.md"}
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    read_on = README.read_text(encoding="utf-8").partition("## Read on")[2]
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert len(names) > 20
    assert names <= set(re.findall(r"\]\(([\w.-]+)", first))
    assert names <= set(re.findall(r"\]\(docs/([\w.-]+)", read_on))
    assert {Path(name).with_suffix(".md").name for name in names} <= set(re.findall(r"([\w-]+\.md)$", navigation, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        # In its tables the first column holds addresses as they were.
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.M)
    for name in set(re.findall(r"`(mlefw(?:\.\w+)+)", text)) - {"mlefw.configs"}:
        parent, _, last = name.rpartition(".")
        assert find_spec(name) if is_module(name) else hasattr(import_module(parent), last), name


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_examples_for_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for kind, code in blocks(ROOT / "docs" / "scikit-learn.md"):
        if kind == "python":
            exec(code, names)
    assert not list(tmp_path.iterdir())


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a module, which the others are names in."""
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def first_choices(argument: str) -> str:
    """An override of a sweep with the first of its values."""
    key, _, value = argument.partition("=")
    is_one = value.startswith(("[", "glob(")) or key == "formula" or ".terms." in key
    if found := re.search(r"(?:interval|range|choice)\((\[[^]]*\]|[^,]+),", value):
        return f"{key}={found[1]}"
    return argument if is_one else f"{key}={value.split(',')[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_settings_that_there_are(page: Path) -> None:
    for _, text in blocks(page):
        for program, command, *arguments in commands(text):
            if program != "mlefw" or command not in ("train", "baseline") or "--plugin" in arguments:
                continue
            overrides, _ = parse(command, arguments)
            resumed = [item for item in overrides if not item.startswith(("resume=", "hydra", "++hydra", "search."))]
            config = read_settings(command, [first_choices(item) for item in resumed], [], [])
            assert config["choices"]["head"] in members("head")


def test_the_groups_of_the_first_page_have_the_members_that_there_are() -> None:
    text = README.read_text(encoding="utf-8")
    for group in ("loss", "uncertainty", "prior", "batch", "inputs", "augment", "model", "calibrate"):
        (row,) = re.findall(rf"^\| `{group}=` \|(.*)$", text, re.M)
        assert set(re.findall(r"`(\w+)`", row)) >= set(members(group)), group
    heads = text[text.index("| target | `head=` |") : text.index("`mlefw --help`")]
    assert set(members("head")) <= set(re.findall(r"`(\w+)`", heads)) | set(re.findall(r"`(\w+)` \(", heads))


def test_the_commands_of_the_first_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("claims.csv", "next_year.csv", "new.csv"):
        x, years = random.normal(size=(120, 2)), random.uniform(0.5, 1, 120)
        claims = random.poisson(years * np.exp(0.3 * x[:, 0]))
        frame = pd.DataFrame({"age": x[:, 0], "power": x[:, 1], "years": years, "claims": claims})
        frame.to_csv(name, index=False)
    (text,) = [text for info, text in blocks(README) if not info and "claims.csv" in text]
    lines = commands(text)
    assert [command for _, command, *_ in lines] == ["train", "evaluate", "predict", "explain", "baseline"]
    for _, *arguments in lines:
        execute(*arguments)
    assert summary_of(Path("run"))["head"] == "poisson"
    assert len(pd.read_csv("predictions.csv")) == 120
    (code,) = [text for info, text in blocks(README) if info == "python"]
    scope = {"frame": frame}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, scope)
    assert scope["model"].evaluate(frame)["nll_nats"] > 0
