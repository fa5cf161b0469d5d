"""A small text may not become a large configuration: every way in, with every way to grow."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from interrupted import train

from mlefw.cli import run
from mlefw.configuration import expansion
from mlefw.configuration.expansion import MAX_CHAIN, MAX_DEPTH, VALUE_CHARS, check_size
from mlefw.errors import UsageError
from mlefw.sweep.task import Task

SMALL = (
    "model=linear",
    "data=synthetic",
    "data.num_rows=60",
    "trainer.max_epochs=1",
    "logger=none",
    "report=false",
    "plots=false",
)


def grown(first: str, level: str, count: int = 7) -> str:
    """Lines, each of which is made of the one before."""
    return "\n".join([first, *(level.format(k, k - 1) for k in range(1, count + 1))])


ALIASES = grown("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "a{0}: &a{0} [" + "*a{1}, " * 10 + "]")

GROWING = {
    "aliases": (ALIASES, "mine.yaml is too large"),
    "aliases of mappings": (
        grown("a0: &a0 {x: 1}", "a{0}: &a{0} {{x: *a{1}, y: *a{1}}}", 25),
        "mine.yaml is too large",
    ),
    "merged mappings": (
        grown("a0: &a0 {x: 1}", "a{0}: &a{0} {{<<: [" + "*a{1}, " * 10 + "]}}"),
        "mine.yaml is too large",
    ),
    "aliases of a text": (f"a: &a {'x' * 9_000}\nb: [{'*a, ' * 200}]", "mine.yaml is too large"),
    "many values": (f"hidden: [{'1, ' * 20_000}]", "mine.yaml is too large"),
    "a long text": (f"a: {'x' * 1_000_001}", "mine.yaml is too large"),
    "deep lists": (f"hidden: {'[' * 65}{']' * 65}", "mine.yaml is nested too deeply"),
    "very deep lists": (f"hidden: {'[' * 3000}{']' * 3000}", "mine.yaml"),
    "deep mappings": ("\n".join(" " * k + "a:" for k in range(70)), "mine.yaml is nested too deeply"),
    "itself": ("hidden: &a [*a]", "*a within itself"),
    "references": (
        grown("a0: [1, 1, 1, 1]", "a{0}: [" + ", ".join(['"${{model.a{1}}}"'] * 10) + "]"),
        "references stand for too much",
    ),
    "references in a text": (
        grown("a0: xxxxxxxxxx", 'a{0}: "' + "${{model.a{1}}}" * 2 + '"', 12),
        "references stand for",
    ),
    "one text, often": (f"a0: {'x' * 9_000}\na1: '{'${model.a0}' * 200}'", "references stand for too much"),
    "a chain of references": (grown("a0: 1", "a{0}: ${{model.a{1}}}", MAX_CHAIN + 5), "references lead to one another"),
}

BROKEN = {
    "defaults that lead back": ("defaults: [mine]", "lead back to itself"),
    "no YAML": ("a: [1", "mine.yaml"),
    "a key twice": ("a: 1\na: 2", "duplicate key a"),
    "a tag of Python": ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "an alias of nothing": ("a: *b", "undefined alias"),
    "a number": ("3", "is the single value '3'"),
    "a text": ("text", "is the single value 'text'"),
    "a tab": ("\ta: 1", "mine.yaml"),
    "two documents": ("a: 1\n---\na: 2", "a single document"),
    "a control character": ("a: \x00", "mine.yaml"),
}


def put(text: str, group: str = "model", encoding: str = "utf-8", head: str = "") -> list[str]:
    """Arguments that choose a file with this text."""
    Path("conf", group).mkdir(parents=True, exist_ok=True)
    Path("conf", group, "mine.yaml").write_text(f"{head}# mine\n{text}\n", encoding=encoding)
    return [f"{group}=mine", "--config-dir", "conf"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert run(arguments) == 2, arguments
    error = capsys.readouterr().err
    assert error.startswith("mlefw: error:")
    assert len(error) < 600
    return error


@pytest.mark.parametrize("what", {**GROWING, **BROKEN})
def test_what_would_grow_or_is_broken_is_refused_by_name(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = {**GROWING, **BROKEN}[what]
    own = "" if text in ("3", "text") else "_target_: mlefw.model.mlp.Mlp\n"
    assert words in refusal(capsys, ["check", *put(own + text)])


def test_a_file_in_another_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not in UTF-8" in refusal(capsys, ["check", *put("a: ü", encoding="utf-16")])


@pytest.mark.parametrize("command", [["check"], ["train"], ["baseline"], ["train", "-m", "seed=0,1"]])
@pytest.mark.parametrize("group", ["model", "experiment", "callback", "hydra/launcher"])
def test_ways_in_through_files(command: list[str], group: str, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("", "# @package _global_\n"):
        assert "too large" in refusal(capsys, [*command, *put(ALIASES, group, head=place), "run_dir=r"])
    assert not Path("r").exists()


@pytest.mark.parametrize("page", [["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "job", "--resolve"], ["--info"]])
def test_ways_in_through_pages(page: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "too large" in refusal(capsys, ["train", *put(ALIASES), *page])


def test_ways_in_through_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GROWING", "{" + ALIASES.replace("\n", ", ") + "}")
    deep = f"model.hidden={'[' * 3000}{']' * 3000}"
    for words, way in (
        ("too large", ["++model.a='${oc.create:${oc.env:GROWING}}'"]),
        ("nested too deeply", [deep]),
        ("nested too deeply", [deep.replace("[", "{a:").replace("]", "}")]),
    ):
        assert words in refusal(capsys, ["check", *way])
        assert words in refusal(capsys, ["train", "-m", "seed=0,1", *way, "run_dir=r"])


def test_ways_in_through_what_an_earlier_run_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SMALL, "run_dir=r") == 0
    given = Task("train", (*SMALL, "run_dir=r"), ())
    assert given._has_settings(Path("r"))
    Path("r/config.yaml").write_text(ALIASES, encoding="utf-8")
    assert not given._has_settings(Path("r"))
    assert "r/config.yaml is too large" in refusal(capsys, ["train", "resume=r"])


def written_out(value: Any) -> int:
    """The size of plain containers, counted value by value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        return max(VALUE_CHARS, len(str(value)))
    keys = VALUE_CHARS * len(value) if isinstance(value, dict) else 0
    return VALUE_CHARS + keys + sum(map(written_out, inner))


def test_a_text_is_as_large_as_what_is_built_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    for _ in range(100):
        made: list[Any] = ["x" * draw.randrange(1, 300) for _ in range(2)]
        for _ in range(draw.randrange(1, 7)):
            parts = draw.choices(made, k=draw.randrange(1, 5))
            made.append(parts if draw.random() < 0.5 else {f"k{k}": part for k, part in enumerate(parts)})
        text = yaml.safe_dump({"a": made[-1]})
        plain = written_out(yaml.safe_load(text))
        # An alias is counted as itself and as what it stands for.
        own = VALUE_CHARS * sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        monkeypatch.setattr(expansion, "MAX_CHARS", plain - 1)
        with pytest.raises(UsageError, match="too large"):
            check_size(text, "a.yaml")
        inner = own * (1 + plain // VALUE_CHARS)
        monkeypatch.setattr(expansion, "MAX_CHARS", plain + inner)
        check_size(text, "a.yaml")


def test_what_is_within_the_limits_is_read() -> None:
    check_size(f"hidden: {'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}", "a.yaml")
    check_size("a: &a [1, 2]\nb: [*a, *a]", "a.yaml")
    own = "_target_: mlefw.model.mlp.Mlp\nhidden: &a [3, 3]\ndropout: 0.0"
    assert run(["check", "data=synthetic", *put(own)]) == 0
