"""Writes docs/heads.md, the page on every likelihood head, from the classes, their YAML files and the tests."""

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from mlefw.baseline.linear import solver_for  # noqa: E402
from mlefw.baseline.per_target import parts  # noqa: E402
from mlefw.baseline.problem import Problem  # noqa: E402
from mlefw.baseline.starts import is_unimodal  # noqa: E402
from mlefw.configuration.read import read_settings  # noqa: E402
from mlefw.configuration.yaml_folder import config_root, members  # noqa: E402
from mlefw.errors import UsageError  # noqa: E402
from mlefw.head.base import Head  # noqa: E402
from mlefw.head.multitask import JointHead  # noqa: E402
from mlefw.head.quantiles import QuantilesHead  # noqa: E402
from mlefw.prior.none import NoPrior  # noqa: E402
from mlefw.rows.rows import Rows  # noqa: E402
from mlefw.run import build  # noqa: E402

PAGE = ROOT / "docs" / "heads.md"
KINDS = ("Numbers", "Positive and bounded numbers", "Counts", "Classes", "Several targets")
_MOST_NAMES = 12
"""Number of parameters above which only the first and the last are named."""
ORACLES = {
    "mpmath": "mpmath",
    "scipy": "scipy",
    "statsmodels": "statsmodels",
    "sklearn": "scikit-learn",
    "glum": "glum",
    "scoringrules": "scoringrules",
}
INTRO = """\
# Likelihood heads

A head is the distribution of the target given what the network says; its negative log-likelihood, in nats, in the
units of the target and with every constant, is what training descends and what is reported. Which one to choose is a
question to the data: `mlefw train -m 'head=glob(*)'` trains all of them (those that cannot take the target are
skipped), and `mlefw compare` ranks them by NLL on rows that none has seen, with the standard error of each difference.
Densities and masses are in no common unit, and are ranked apart.

The exact estimate of a head is that of the linear model, by the solver named here: where it is *global*, no better one
exists; elsewhere it is the best end of several starts. A dedicated solver is a second derivation, and says of each
estimate whether it is global (`is_global` in `summary.json`).

Every density is held to its definition in arbitrary precision and to scipy. `tests` lists the suites of densities and
of exact estimates that name a head, with the packages that a suite has as oracles.

This page is written by `python scripts/heads.py` from the classes, their YAML files and the tests.
"""


def page() -> str:
    """The whole page."""
    presets: dict[type[Head], list[str]] = {}
    for name in members("head"):
        presets.setdefault(build.head_kind(_config(name)["head"]), []).append(name)
    kinds: dict[str, list[type[Head]]] = {kind: [] for kind in KINDS}
    for head in presets:
        kinds[_kind(head)].append(head)
    parts = [INTRO, _overview(kinds, presets)]
    for kind, heads in kinds.items():
        parts += [f"## {kind}\n"] if heads else []
        parts += [_section(head, presets[head]) for head in heads]
    return "\n".join(parts)


def _overview(kinds: dict[str, list[type[Head]]], presets: dict[type[Head], list[str]]) -> str:
    lines = ["| target | head | the loss or model it is known as |", "|---|---|---|"]
    for kind, heads in kinds.items():
        for head in heads:
            names = ", ".join(f"`{name}`" for name in presets[head])
            lines.append(f"| {kind.lower()} | {names} | {head.also_known_as or '–'} |")
    return "\n".join(lines) + "\n"


def _section(head: type[Head], names: list[str]) -> str:
    parts = sections(head)
    title = ", ".join(f"`head={name}`" for name in names)
    lines = [f"### {title}\n", f"{parts['summary']}\n"]
    lines += [f"{text}\n" for text in parts["notes"]]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(parts[name])} |" for name in ("Domain", "Link", "NLL", "Source") if name in parts]
    lines += [f"| known as | {head.also_known_as} |"] if head.also_known_as else []
    for name in names:
        lines.append(f"| `{name}` | {_cell(_preset(name))} |")
    lines += [f"| tests | {text} |" for text in [_tests(head, names)] if text]
    return "\n".join(lines) + "\n"


def sections(head: type[Head]) -> dict[str, Any]:
    """The docstring of a head: its summary, its other paragraphs, and what follows `Domain:` and the like."""
    text = inspect.cleandoc(head.__doc__ or "")
    found: dict[str, Any] = {"notes": []}
    for number, paragraph in enumerate(text.split("\n\n")):
        if paragraph.startswith("Args:"):
            continue
        named = re.split(r"^(Domain|Link|NLL|Source): ", paragraph, flags=re.M)
        found |= {name: " ".join(body.split()) for name, body in zip(named[1::2], named[2::2], strict=True)}
        said = " ".join(named[0].split())
        if number == 0:
            found["summary"] = said
        elif said:
            found["notes"].append(said)
    return found


def _preset(name: str) -> str:
    """What a YAML file says of itself, its parameters, and its exact solver."""
    text = (config_root() / "head" / f"{name}.yaml").read_text(encoding="utf-8")
    first = next(line for line in text.splitlines() if line.startswith("# "))
    words = [first.removeprefix("# ")]
    head = _instance(name)
    if head is None:
        return words[0]
    fixed = [f"{key} = {value:g}" for key, value in getattr(head, "fixed", {}).items()]
    for verb, names in (("predicted", head.eta_names), ("shared", head.shared_names), ("fixed", fixed)):
        some = names if len(names) <= _MOST_NAMES else [*names[:2], "…", names[-1]]
        words += [f"{verb}: {', '.join(some)}"] if names else []
    rows = Rows(*(torch.zeros(shape, dtype=torch.float64) for shape in ((1, 1), (1, *head.event_shape), 1, 1)))
    problem = Problem.of(head, rows, torch.zeros(1), torch.ones(1), NoPrior())
    if isinstance(head, QuantilesHead):
        problem = parts(problem)[0]
    solver = solver_for(problem)
    is_dedicated = type(solver).__module__.rsplit(".", 1)[1] not in ("newton", "proximal_newton")
    sure = "dedicated" if is_dedicated else "global" if is_unimodal(problem) else "several starts"
    return "; ".join([*words, f"exact: {_words(type(solver).__name__)} ({sure})"])


def _instance(name: str) -> Head | None:
    """The head with facts that any data have; None where it needs more of them."""
    try:
        head: Head = build.instantiate("head", _config(name)["head"], num_classes=3, targets=("a", "b"))
    except (UsageError, TypeError, ValueError):
        return None
    return head


def _tests(head: type[Head], names: list[str]) -> str:
    """The suites of densities and of exact estimates that name it, and the packages that these compare with."""
    words = [rf"\b{head.__name__}\b", *(rf"[\"'=]{name}[\"',]" for name in names)]
    found = []
    suites = [path for room in ("head", "baseline") for path in (ROOT / "tests" / room).glob("test_*.py")]
    for file in sorted([ROOT / "tests/head/head_examples.py", *suites]):
        text = file.read_text(encoding="utf-8")
        if any(re.search(word, text) for word in words) and (packages := _packages(text)):
            found.append(f"`{file.relative_to(ROOT)}` ({', '.join(packages)})")
    return "; ".join(found)


def _packages(text: str) -> list[str]:
    nodes = list(ast.walk(ast.parse(text)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    roots = {name.split(".")[0] for name in names}
    return [word for root, word in ORACLES.items() if root in roots]


def _kind(head: type[Head]) -> str:
    if issubclass(head, JointHead):
        return "Several targets"
    if head.target != "numeric":
        return "Classes"
    support = getattr(head, "support", torch.distributions.constraints.real)
    if support.is_discrete:
        return "Counts"
    return "Numbers" if support is torch.distributions.constraints.real else "Positive and bounded numbers"


def _config(name: str) -> dict[str, Any]:
    return read_settings("train", [f"head={name}"], [], [])


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _cell(text: str) -> str:
    """Text for a cell of a table: bars, underscores and angles are signs of a formula, not of Markdown."""
    return re.sub(r"([|_<>*\\])", r"\\\1", text) if "`" not in text else text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
