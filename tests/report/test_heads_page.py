"""The page on all heads is what the classes, their YAML files and the tests say now."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mlefw.configuration.groups import members
from mlefw.configuration.read import read_settings
from mlefw.run import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("heads_page", ROOT / "scripts" / "heads.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["heads_page"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale(script: ModuleType) -> None:
    written = (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")
    assert written == script.page(), "run: python scripts/heads.py"


@pytest.mark.parametrize("name", members("head"))
def test_every_head_says_what_the_page_needs(script: ModuleType, name: str) -> None:
    head = build.head_kind(read_settings("train", [f"head={name}"], [], [])["head"])
    found = script.sections(head)
    assert {"summary", "Domain", "Link", "NLL"} <= set(found)
    assert any("Choose" in text for text in found["notes"])
    assert f"`head={name}`" in (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")


def test_sections_of_a_docstring(script: ModuleType) -> None:
    class Some:
        """A summary
        on two lines.

        Choose it never.

        Domain: y real.
        Link: loc = eta,
            on two lines.
        NLL: ½ y².

        Source: Nobody (1900).

        Args:
            none: at all.
        """

    assert script.sections(Some) == {
        "summary": "A summary on two lines.",
        "notes": ["Choose it never."],
        "Domain": "y real.",
        "Link": "loc = eta, on two lines.",
        "NLL": "½ y².",
        "Source": "Nobody (1900).",
    }
