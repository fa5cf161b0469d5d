"""Whatever a damaged or crafted checkpoint holds: a message of what is wrong, soon; or a model that predicts."""

import copy
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import summary_of
from interrupted import train

from mlefw.cli import run
from mlefw.configuration.record import typed
from mlefw.errors import UsageError
from mlefw.run import archive
from mlefw.schema.schema import Schema
from mlefw.trained import load

SECTIONS = ("head", "model", "prior", "loss", "metric", "data", "calibrate", "inputs", "choices")
GONE = object()
MAX_S = 20.0
"""Far more than any of them takes; a hang would take for ever."""


def shared(depth: int = 45) -> list[Any]:
    """2^depth paths through `depth` lists."""
    node: list[Any] = [0]
    for _ in range(depth):
        node = [node, node]
    return node


def cycle(kind: type) -> Any:
    node = kind()
    if isinstance(node, dict):
        node["a"] = node
    else:
        node.append(node)
    return node


def values(old: Any) -> list[Any]:
    """What may stand in the place of a value."""
    tensors = [torch.tensor(float("nan")), torch.zeros(2, 9), torch.zeros(0), torch.zeros(3, dtype=torch.complex64)]
    tensors += [torch.zeros(4).to_sparse(), torch.zeros(2, dtype=torch.int8)]
    if isinstance(old, torch.Tensor):
        numbers: list[float] = [-1, 0, 1, 10**12]
        if old.is_floating_point():
            numbers = [float("nan"), float("inf"), -1.0, torch.finfo(old.dtype).max / 2, 0.0]
        for value in numbers:
            changed = old.clone()
            changed.view(-1)[:1] = value
            tensors.append(changed)
        tensors += [old.half(), old.long(), old.expand(2, *old.shape), torch.zeros(1).expand(10**12)]
    plain = [GONE, None, True, -1, 0, 10**9, 10**30, float("nan"), float("inf"), 1e308, "", "x", "../x", b"x"]
    nested = [[], {}, [1], (1, 2), {1: 2}, {"a": {}}, shared(), cycle(list), cycle(dict), {"_target_": "os.system"}]
    return [*plain, *nested, *tensors]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in nested containers."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any] | None:
    """The content with another value at a path; None where a tuple holds it."""
    content = copy.deepcopy(content)
    node: Any = content
    for key in path[:-1]:
        node = node[key]
    if isinstance(node, tuple):
        return None
    if value is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return content


def get(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: of numbers with a category, missing cells and a recalibration; and of labels, without."""
    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    x, kind = draw.normal(size=(90, 2)), draw.choice(["a", "b", "c"], 90)
    for name, y in (("number", x @ [1, 2] + draw.normal(size=90)), ("label", draw.choice(["u", "v", "w"], 90))):
        rows = [f"{a},{b if k % 9 else ''},{c},{d}" for k, (a, b, c, d) in enumerate(zip(*x.T, kind, y, strict=True))]
        (folder / f"{name}.csv").write_text("\n".join(["p,q,kind,y", *rows]), encoding="utf-8")
    common = (
        "data=csv",
        "data.target=y",
        "data.missing=impute",
        "model.hidden=[2]",
        "logger=none",
        "report=false",
        "plots=false",
    )
    common = (*common, "trainer.max_epochs=1", "baseline=none")
    for name, more in (
        ("number", ("calibrate=scale",)),
        ("label", ("head=categorical", "prior=l2", "inputs=piecewise_linear")),
    ):
        assert train(*common, *more, f"data.path={folder / name}.csv", f"run_dir={folder / name}") == 0
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["number", "label"])
def test_a_changed_record_is_refused_or_predicts(runs: Path, name: str, seed: int, tmp_path: Path) -> None:
    content = archive.read(runs / name / "checkpoints" / "best.ckpt")
    wanted = [
        path
        for path in places(content)
        if (path[:1] == ("mlefw",) and (len(path) < 3 or path[1] != "config" or path[2] in SECTIONS))
        or path[:1] in (("state_dict",), ("calibration",))
    ]
    draw, file, told = random.Random(f"{name}{seed}"), tmp_path / "x.ckpt", 0
    cases = [(path, value) for path in wanted if path for value in values(get(content, path))]
    rows = {"p": np.array([0.5, -1.0]), "q": np.array([0.0, 1.0]), "kind": np.array(["a", "b"])}
    for path, value in draw.sample(cases, 120):
        other = changed(content, path, value)
        if other is None:
            continue
        archive.write(file, other)
        clock = time.monotonic()
        try:
            predicted = load(file).predict(rows)
        except UsageError as error:
            told += 1
            assert len(str(error)) < 1000, (path, value)
        else:
            numbers = [column for column in predicted.values() if column.dtype.kind == "f"]
            assert numbers, (path, value)
            assert all(np.isfinite(column).all() for column in numbers), (path, value)
        assert time.monotonic() - clock < MAX_S, (path, value)
    assert told > 30


def test_the_damages_that_were_seen(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = archive.read(runs / "number" / "checkpoints" / "best.ckpt")
    file = tmp_path / "x.ckpt"
    nan = content["state_dict"]["objective.model.mean"] * float("nan")
    for path, value, words in (
        (("extra",), shared(), "far larger than the file, or within itself"),
        (("extra",), cycle(list), "far larger than the file, or within itself"),
        (("mlefw", "config", "model", "hidden"), [10**9], "expected"),
        (("mlefw", "config", "model", "hidden"), [10**30], "refused its settings"),
        (("state_dict", "objective.model.mean"), nan, "model.mean holds a value that is not a finite number"),
        (("mlefw", "population"), "many", "population is 'many'"),
        (("mlefw", "schema", "features"), GONE, "schema lacks 'features'"),
        (("mlefw", "schema", "features", 0, "kind"), "text", "features[0].kind is 'text'"),
    ):
        broken = copy.deepcopy(content)
        if value is GONE:
            broken = changed(content, path, value) or {}
        else:
            get(broken, path[:-1])[path[-1]] = value
        archive.write(file, broken)
        data = ["data.path=d.csv", f"output={tmp_path / 'p.csv'}"]
        for command in (["predict", f"run={file}", *data], ["evaluate", f"run={file}"]):
            assert run(command) == 2, words
            message = capsys.readouterr().err
            assert str(file) in message
            assert words in message
    assert not (tmp_path / "p.csv").exists()


RESUMED: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("resume",), GONE),
    (("resume",), []),
    (("resume", "epoch"), "1"),
    (("resume", "step"), -1),
    (("resume", "losses"), [{}, 1]),
    (("resume", "figures"), {"train": 3}),
    (("resume", "random", "torch"), torch.zeros(3)),
    (("resume", "random", "python"), GONE),
    (("optimizer_states",), []),
    (("optimizer_states", 0, "param_groups", 0, "lr"), None),
    (("optimizer_states", 0, "param_groups", 0, "betas"), (1,)),
    (("optimizer_states", 0, "param_groups", 0, "params"), [0]),
    (("optimizer_states", 0, "state", 0, "exp_avg"), 0),
    (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(7)),
    (("optimizer_states", 0, "state", 0, "exp_avg_sq"), GONE),
    (("lr_schedulers",), [{"optimizer": 3}]),
    (("lr_schedulers", 0, "factor"), "x"),
    (("callbacks",), []),
    (("callbacks", "KeepCheckpoints", "folder"), "/tmp"),
    (("callbacks", "KeepCheckpoints", "best_value"), "x"),
    (("callbacks", "KeepCheckpoints", "best_state"), {"a": torch.zeros(1)}),
    (("callbacks", "LogFigures", "num_logged"), None),
    (("state_dict", "objective.head.gain"), torch.zeros(9)),
    (("mlefw", "fingerprint"), 3),
)


@pytest.mark.parametrize(("path", "value"), RESUMED, ids=lambda part: "absent" if part is GONE else str(part)[:60])
def test_a_run_does_not_go_on_from_a_damaged_state(
    runs: Path, path: tuple[Any, ...], value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "number", tmp_path / "r")
    last = tmp_path / "r" / "checkpoints" / "last.ckpt"
    broken = changed(archive.read(last), path, value)
    assert broken is not None
    archive.write(last, broken)
    before = summary_of(tmp_path / "r")
    assert train(f"resume={tmp_path / 'r'}", "trainer.max_epochs=2") == 2
    message = capsys.readouterr().err
    assert "bug" not in message
    assert "last.ckpt" in message or "checkpoint" in message
    assert summary_of(tmp_path / "r") == before


def test_a_record_is_held_to_its_annotations() -> None:
    plain = {
        "targets": [{"name": "y", "kind": "numeric"}],
        "features": [{"name": "x", "kind": "category", "levels": ["a", "b"], "means": [0.5], "indicator": False}],
    }
    schema = typed(Schema, plain, "schema")
    assert schema.features[0].levels == ("a", "b")
    for path in [path for path in places(plain) if path]:
        for value in (GONE, object(), [object()], {"a": object()}):
            other = changed(plain, path, value)
            try:
                assert isinstance(typed(Schema, other, "schema"), Schema)
            except UsageError as error:
                assert "schema" in str(error)
    with pytest.raises(UsageError, match=r"schema\.features\[0\]\.means\[0\] is nan"):
        typed(Schema, changed(plain, ("features", 0, "means", 0), float("nan")), "schema")
