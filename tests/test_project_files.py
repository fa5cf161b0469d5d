"""The files around the code agree with each other: versions, hooks, the workflow, and the set-up script."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return content


def test_the_lowest_versions_are_the_floors_of_the_project() -> None:
    written = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    floors = dict(line.split("==") for line in written.splitlines() if not line.startswith("#"))
    wanted = {re.split(r"[<>=,]", requirement)[0]: requirement for requirement in project()["dependencies"]}
    assert floors.keys() == wanted.keys(), "run: python scripts/lowest.py"
    for name, version in floors.items():
        assert f"{name}>={version}" in wanted[name].split(","), "run: python scripts/lowest.py"


def test_every_extra_is_pinned_and_holds_something() -> None:
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    for extra, requirements in project()["optional-dependencies"].items():
        assert requirements, extra
        assert {re.split(r"[<>=]", requirement)[0] for requirement in requirements} <= pinned


def test_the_workflow_tests_each_python_and_both_ends_of_the_dependencies() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    rows = jobs["test"]["strategy"]["matrix"]["include"]
    assert {row["python"] for row in rows if row["versions"] == "pinned"} == {"3.11", "3.12", "3.13"}
    assert {row["versions"] for row in rows} == {"pinned", "lowest", "newest"}
    steps = [step for job in jobs.values() for step in job["steps"] if "run" in step]
    assert len(steps) == 5
    for step in steps:
        assert step["env"]["PYTHON"] == "python"
        assert step["run"].split()[0] == "./scripts/test"
        constraints = step["env"].get("CONSTRAINTS", "/dev/null")
        assert constraints == "/dev/null" or (ROOT / constraints).is_file()


def test_the_hooks_are_local_and_call_what_the_set_up_installs() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert [hook["entry"] for hook in repos[0]["hooks"]] == [".venv/bin/ruff check", ".venv/bin/ruff format --check"]
    assert {hook["language"] for hook in repos[0]["hooks"]} == {"system"}


def test_set_up_takes_the_interpreter_and_the_versions_that_it_is_told(tmp_path: Path) -> None:
    """In a folder of its own, with an interpreter that notes what it is asked."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    for name in ("pyproject.toml", "constraints-lowest.txt"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / "fake"
    fake.write_text(
        '#!/bin/sh\nif [ "$1" = -c ]; then exec "$REAL" "$@"; fi\necho "$@" >> asked\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n',
        encoding="utf-8",
    )
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    environment = {**os.environ, "REAL": sys.executable, "CONSTRAINTS": "constraints-lowest.txt"}

    def setup(**env: str) -> subprocess.CompletedProcess[str]:
        script = ["bash", "scripts/setup", "test,docs", ".venv-extras"]
        return subprocess.run(
            script, cwd=tmp_path, env={**environment, **env}, capture_output=True, text=True, check=False
        )

    assert setup(PYTHON=str(fake)).returncode == 0
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked[0] == "-m venv .venv-extras"
    assert "--constraint constraints-lowest.txt --editable .[test,docs]" in asked[1]
    assert setup(PYTHON=str(fake)).returncode == 0
    assert (tmp_path / "asked").read_text(encoding="utf-8").splitlines() == asked, "it installs once"
    refused = setup(PYTHON="no_such_python")
    assert refused.returncode == 2
    assert "no_such_python" in refused.stderr


def test_the_floors_that_contributors_read_of_are_those_of_the_import_contract() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = next(c["layers"] for c in tool["importlinter"]["contracts"] if c.get("exhaustive"))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(len(layers), 0, -1))
    for layer, (number, rooms) in zip(layers, rows, strict=True):
        assert set(re.findall(r"\w+", layer)) == set(re.findall(r"`(\w+)`", rooms)), f"floor {number}"
