"""The house rules that no linter knows."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlefw"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("head", "prior", "loss", "batch", "inputs", "augment", "model", "data", "calibrate", "experiment", "scheduler")


def targets(group: str) -> set[str]:
    """Modules that the YAML files of a group configure."""
    found = set()
    for file in (ROOT / "conf" / group).glob("*.yaml"):
        found |= set(re.findall(r"_target_: (mlefw\.[\w.]+)\.\w+", file.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_member_module_has_a_yaml(room: str) -> None:
    members = {f"mlefw.{room}.{file.stem}" for file in (PACKAGE / room).glob("*.py")} - {
        f"mlefw.{room}.base",
        f"mlefw.{room}.{room}",  # what a member is, where that has a file of its own
        f"mlefw.{room}.__init__",
        "mlefw.head.location_scale",  # what three heads have in common
        "mlefw.head.component",  # what heads around another one have in common
        "mlefw.head.trials",  # what heads of counts out of trials have in common
        "mlefw.data.tensor_source",  # what sources of arrays have in common
        "mlefw.data.text_source",  # what sources of text have in common
    }
    assert members
    assert members == targets(room)


def test_every_metric_is_configured_by_a_head() -> None:
    members = {f"mlefw.metric.{file.stem}" for file in (PACKAGE / "metric").glob("*.py")} - {
        "mlefw.metric.base",
        "mlefw.metric.adapter",  # makes one of a metric of torchmetrics
        "mlefw.metric.accumulator",  # adds up the sums of metrics
        "mlefw.metric.__init__",
    }
    assert members == targets("metric")


@pytest.mark.parametrize("module", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_stay_readable(module: Path) -> None:
    """By lines of code and comments: no docstring should be shorter than it has to be."""
    text = module.read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            num_lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 75, f"{module.name}: {node.name} is long"
    assert num_lines <= 250


@pytest.mark.parametrize(
    "module",
    # The package itself and mlefw.sklearn are doors: what they offer is imported from them.
    [m for m in MODULES if m.name == "__init__.py" and m.parent not in (PACKAGE, PACKAGE / "sklearn")],
    ids=lambda file: file.parent.name,
)
def test_package_files_hold_a_docstring_only(module: Path) -> None:
    body = ast.parse(module.read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_scripts_are_not_imported_and_pickle_is_not_used_to_load() -> None:
    for module in MODULES:
        text = module.read_text(encoding="utf-8")
        assert "import scripts" not in text
        assert "pickle.load" not in text
        assert "weights_only=False" not in text


def test_only_callbacks_write_to_loggers() -> None:
    loggers = re.compile(r"(?<!mlefw)(?<!config)\.experiment\b")
    users = {m.relative_to(PACKAGE).parts[0] for m in MODULES if loggers.search(m.read_text(encoding="utf-8"))}
    assert users <= {"callback"}


def test_every_yaml_starts_with_a_comment_that_says_what_it_is() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        first = next(line for line in file.read_text(encoding="utf-8").splitlines() if "@package" not in line)
        assert first.startswith("# "), file


def test_direct_dependencies_are_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in wanted}
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    assert names <= pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    floors = dict(re.split(r">=", r.split(",")[0]) for r in project["dependencies"])
    assert floors["lightning"] == "2.6.4"  # 2.6.2 and 2.6.3 were malicious uploads
    assert floors["hydra-core"] == "1.3.8"


def test_defaults_of_the_contract() -> None:
    defaults = yaml.safe_load((ROOT / "conf" / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    wanted = {"data": "diabetes", "head": "gaussian", "model": "mlp", "batch": "mini", "optimizer": "adam"}
    assert wanted.items() <= chosen.items()
    assert chosen["prior"] == "none"
