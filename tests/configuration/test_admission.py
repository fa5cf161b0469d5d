"""Nothing of a configuration is built that was not admitted: every way in, with every shape of nesting."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Run
from interrupted import train
from omegaconf import OmegaConf

from mlefw.cli import run
from mlefw.configuration.admission import Part, admit, admitted
from mlefw.configuration.instantiate import class_of, instantiate
from mlefw.configuration.kinds import KINDS
from mlefw.configuration.yaml_folder import config_root
from mlefw.errors import UsageError
from mlefw.fit import fit
from mlefw.run import archive
from mlefw.run.checkpoint import load
from mlefw.system import trust

SMALL = (
    "model=linear",
    "data=synthetic",
    "data.num_rows=60",
    "trainer.max_epochs=1",
    "logger=none",
    "report=false",
    "plots=false",
)

CALLS: dict[str, dict[str, Any]] = {
    "open": {"_target_": "builtins.open", "file": "CANARY", "mode": "w"},
    "write": {"_target_": "pathlib.Path.touch", "self": "CANARY"},
    "module": {"_target_": "harmful.Model", "num_features": 1},
    "shell": {"_target_": "os.system", "command": "touch CANARY"},
    "chain": {"_target_": "mlefw.arguments.os.system", "command": "touch CANARY"},
    "chain of a library": {"_target_": "torch.nn.modules.module.warnings.os.mkdir", "path": "CANARY"},
    "pickle": {"_target_": "torch.load", "f": "harmful.pt", "weights_only": False},
    "hub": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "net", "source": "local"},
    "numpy": {"_target_": "numpy.load", "file": "harmful.npy", "allow_pickle": True},
    "pandas": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "harmful.pt"},
    "joblib": {"_target_": "joblib.load", "filename": "harmful.pt"},
    "jit": {"_target_": "torch.jit.load", "f": "harmful.pt"},
    "export": {"_target_": "torch.export.load", "f": "harmful.pt"},
    "package": {"_target_": "torch.package.PackageImporter", "file_or_buffer": "harmful.pt"},
    "save": {"_target_": "torch.save", "obj": 1, "f": "CANARY"},
    "function of ours": {"_target_": "mlefw.system.atomic.write_text", "path": "CANARY", "text": "x"},
    "program": {"_target_": "mlefw.cli.run", "arguments": ["train", "run_dir=CANARY"]},
    "other writer": {"_target_": "mlefw.callback.event_records.Records", "folder": "CANARY"},
    "method": {"_target_": "hydra.utils.get_method", "path": "harmful.call"},
    "class": {"_target_": "hydra.utils.get_class", "path": "harmful.Model"},
    "object": {"_target_": "hydra.utils.get_object", "path": "harmful.Model"},
    "instantiate": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "harmful.call"}},
    "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "CANARY"},
    "checkpoint": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "CANARY"},
    "keeper": {"_target_": "mlefw.callback.checkpoints.KeepCheckpoints", "folder": "CANARY"},
    "profiler": {"_target_": "lightning.pytorch.profilers.AdvancedProfiler", "dirpath": "CANARY"},
    "trainer": {"_target_": "lightning.Trainer", "default_root_dir": "CANARY"},
    "module of torch": {"_target_": "torch.jit.ScriptModule"},
    "base": {"_target_": "torch.nn.Module"},
    "not a name": {"_target_": ["os.system"]},
    "no module": {"_target_": "system"},
    "relative": {"_target_": ".os.system"},
    "empty": {"_target_": ""},
}
"""Nodes that ask for what is no part, or no part of where they will stand."""

SHAPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "itself": lambda node: node,
    "in a list": lambda node: [1, node],
    "in lists": lambda node: [[node]],
    "in a mapping": lambda node: {"a": node},
    "in mappings": lambda node: {"a": {"b": {"c": node}}},
    "in a mapping of lists": lambda node: {"a": [{"b": node}]},
    "partial": lambda node: {**node, "_partial_": True},
    "recursive": lambda node: {**node, "_recursive_": False},
    "converted": lambda node: {**node, "_convert_": "all"},
    "arguments": lambda node: {**node, "_args_": [node]},
    "in a part": lambda node: {"_target_": "mlefw.model.linear.Linear", "extra": node},
    "in the arguments of a part": lambda node: {"_target_": "mlefw.model.linear.Linear", "_args_": [node]},
    "in a library's part": lambda node: {"_target_": "torch.nn.Sequential", "_args_": [node]},
}

PLACES = {
    "head": {"_target_": "mlefw.head.gaussian.GaussianHead"},
    "inputs": {"_target_": "mlefw.inputs.clipped.Clipped"},
    "model": {"_target_": "mlefw.model.linear.Linear"},
    "prior": {"_target_": "mlefw.prior.l2.L2Prior"},
    "loss": {"_target_": "mlefw.loss.plain.Plain"},
    "batch": {"_target_": "mlefw.batch.full.FullBatch"},
    "data": {"_target_": "mlefw.data.synthetic.Synthetic"},
    "baseline": {"_target_": "mlefw.baseline.linear.LinearBaseline"},
    "calibrate": {"_target_": "mlefw.calibrate.scale.Scale"},
    "uncertainty": {"_target_": "mlefw.uncertainty.laplace.Laplace"},
    "experiment": {"_target_": "mlefw.experiment.kl.Kl"},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 3},
    "trainer": {"_target_": "lightning.Trainer"},
    "metric.nll": {"_target_": "mlefw.metric.nll.Nll"},
    "metric.y.nll": {"_target_": "mlefw.metric.nll.Nll"},
    "callback.mine": {"_target_": "lightning.pytorch.callbacks.Timer"},
    "logger.mine": {"_target_": "mlefw.callback.event_files.EventFiles", "save_dir": "r/log"},
}
"""Every slot, with a part that belongs there."""

HARMFUL = """
from pathlib import Path
import torch
Path("CANARY").touch()


def call(*args, **kwargs):
    return Path("CANARY").touch()


class Model(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        Path("CANARY").touch()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory with a module that leaves a canary where it is so much as imported, and no trust from elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_in_process", {})
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != "MLEFW_PLUGINS"})
    Path("harmful.py").write_text(HARMFUL, encoding="utf-8")
    yield
    assert not Path("CANARY").exists()
    assert "harmful" not in sys.modules


_imported: list[str] = []
_audited: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _audited and event == "import":
        _imported.append(str(arguments[0]))


@pytest.fixture
def imports() -> Iterator[list[str]]:
    """The names of modules that are imported during a test. A hook of Python's auditing cannot be taken off again."""
    if not _audited:
        sys.addaudithook(_hook)
    _audited.append("on")
    _imported.clear()
    yield _imported
    _audited.clear()


def at(path: str, value: Any) -> dict[str, Any]:
    """A configuration with a value at a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def put(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The same with a value at a dotted path."""
    name, _, rest = path.partition(".")
    inner = config.get(name)
    return {**config, name: put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        action()
    return str(caught.value)


def decided(config: Any) -> list[type]:
    """The classes of a configuration, those of parts within parts among them."""
    if isinstance(config, Part):
        return [class_of(config), *decided(dict(config.settings))]
    parts = config if isinstance(config, list) else list(config.values()) if isinstance(config, dict) else []
    return [one for part in parts for one in decided(part)]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_takes_its_own_parts_and_nothing_else(place: str, imports: list[str]) -> None:
    slot, own = place.split(".")[0], PLACES[place]
    parts = admitted({**at(place, own), "run_dir": "r"})
    assert parts.keys() == {place}
    assert issubclass(parts[place].find(), object)
    imports.clear()
    for name, call in CALLS.items():
        if (slot, name) in (("trainer", "trainer"), ("model", "base")):
            continue
        for shape, nested in SHAPES.items():
            for where in (nested(call), {**own, "more": nested(call)}, {**own, "hidden": [1, nested(call)]}):
                config = {**at(place, where), "run_dir": "r"}
                message = refusal(lambda config=config: decided(admitted(config)))  # type: ignore[misc]
                assert re.search("refused|writes to|names no member|cannot be imported", message), (name, shape)
                assert slot in message
    for other, part in PLACES.items():
        if other.split(".")[0] != slot:
            assert "refused" in refusal(lambda part=part: decided(admitted(at(place, part))))  # type: ignore[misc]
    homes = {name.split(".")[0] for name in imports if not name.startswith("_")}
    assert homes <= {"mlefw", "torch", "lightning"}, "it is decided before anything else is imported"


@pytest.mark.parametrize("name", ["seed", "step", "step.clip_norm", "early_stopping", "choices", "run_dir", "unknown"])
def test_no_part_stands_where_there_is_no_place_for_one(name: str) -> None:
    for call in CALLS.values():
        for nested in SHAPES.values():
            value = at(name, nested(call))
            assert "refused" in refusal(lambda value=value: admitted(value))  # type: ignore[misc]


def test_a_class_of_another_kind_or_only_passed_on_is_none_of_a_home() -> None:
    for slot, target in (
        ("model", "torch.nn.functional.relu"),
        ("model", "torch.nn.Parameter"),
        ("model", "torch.nn.modules.module.OrderedDict"),
        ("model", "torch.nn.quantized.Linear"),
        ("model", "mlefw.model.mlp.nn.Linear"),
        ("model", "mlefw.model.mlp.UsageError"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR"),
        ("optimizer", "torch.optim.swa_utils.AveragedModel"),
        ("scheduler", "torch.optim.Adam"),
        ("head", "mlefw.head.base.check_source"),
        ("data", "mlefw.data.csv.open_text"),
        ("data", "mlefw.data.frame.offered"),
        ("metric", "mlefw.metric.base.torchmetrics"),
        ("experiment", "mlefw.experiment.kl.png"),
    ):
        message = refusal(lambda slot=slot, target=target: instantiate(slot, {"_target_": target}))  # type: ignore[misc]
        assert "refused" in message or "imported" in message, target


def test_plain_values_of_every_form_stay_what_they_are() -> None:
    node = {
        "_target_": "mlefw.model.mlp.Mlp",
        "hidden": [3, 4],
        "activation": "relu",
        "dropout": 0.5,
        "more": {"a": [1, {"b": None}], 3: "torch.load", "_y": "${x}"},
    }
    part = admit("model", node)
    assert {**part.settings, "_target_": part.target} == node
    assert part.settings["more"] is not node["more"]


def test_parts_within_parts_are_of_the_same_kind() -> None:
    gaussian = {"_target_": "mlefw.head.gaussian.GaussianHead"}
    mixture = {"_target_": "mlefw.head.mixture.MixtureHead", "component": gaussian, "num_components": 3}
    head = instantiate("head", mixture)
    assert type(head.component).__name__ == "GaussianHead"
    model = {"_target_": "mlefw.model.linear.Linear"}
    assert "component" in refusal(lambda: admit("head", {**mixture, "component": model}))


def test_containers_within_themselves_or_too_many_end_soon() -> None:
    shared: Any = [0]
    for _ in range(45):
        shared = [shared, shared]
    cycle: Any = []
    cycle.append(cycle)
    ring: dict[str, Any] = {"_target_": "mlefw.model.linear.Linear"}
    ring["inner"] = ring
    for value in (shared, cycle, {"a": cycle}):
        assert "too many" in refusal(
            lambda value=value: admit("model", {"_target_": "mlefw.model.mlp.Mlp", "hidden": value})  # type: ignore[misc]
        )
        assert "too many" in refusal(lambda value=value: admitted({"step": value}))  # type: ignore[misc]
    assert "refused" in refusal(lambda: admit("model", ring))
    for value in (torch.zeros(1), b"x", {1, 2}, object()):
        assert "plain value" in refusal(lambda value=value: admitted({"seed": value}))  # type: ignore[misc]


@pytest.mark.parametrize(
    "places",
    [
        {"save_dir": "/tmp"},
        {"save_dir": "r/.."},
        {"save_dir": "r/log", "name": "../../x"},
        {"save_dir": "r/log", "name": "/tmp"},
        {"save_dir": "r/log", "version": "../../../x"},
        {"save_dir": "r/$HOME"},
        {"save_dir": "file:///tmp"},
        {"save_dir": "rr"},
        {"save_dir": ""},
    ],
    ids=str,
)
def test_a_log_stays_in_the_run(places: dict[str, str]) -> None:
    for target in KINDS["logger"].names:
        node = {"_target_": target, **places}
        assert "below" in refusal(lambda node=node: admitted({"logger": {"a": node}, "run_dir": "r"}))  # type: ignore[misc]


def arguments(path: str, value: Any) -> list[str]:
    """A node as settings of a command line."""
    if isinstance(value, dict) and value:
        return [item for key, inner in value.items() for item in arguments(f"{path}.{key}", inner)]
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return [f"++{path}={text}"]


MIXED = [
    SHAPES[shape](CALLS[name])
    for name, shape in (
        *(("open", "itself"), ("shell", "in a list"), ("chain", "in mappings"), ("pickle", "in a mapping of lists")),
        *(("module", "partial"), ("method", "recursive"), ("logger", "arguments"), ("function of ours", "in a part")),
    )
]
"""Of each way to ask, and of each way to nest it, one: the product is tried where it takes no time."""


@pytest.mark.parametrize("place", ["head.scale", "model", "callback.mine", "step.x"])
def test_ways_in_through_settings_and_files(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    group = place.split(".")[0]
    known = f"{group}={'default' if group in ('callback', 'trainer') else 'mlp' if group == 'model' else 'gaussian'}"
    Path(f"conf/{group}").mkdir(parents=True)
    for number, value in enumerate(MIXED if place == "model" else MIXED[1::2]):
        given = [*([known] if group != "step" else []), *arguments(place, value)]
        inner = at(place, value)[group]
        base = PLACES.get(group, {}) if place != "model" else {}
        text = yaml.safe_dump({**base, **inner} if isinstance(inner, dict) else {"more": inner})
        Path(f"conf/{group}/mine{number}.yaml").write_text(f"# mine\n{text}", encoding="utf-8")
        listed = [f"{'+' if group == 'step' else ''}{group}=mine{number}", "--config-dir", "conf"]
        for way in (given, listed):
            assert run(["check", *way]) == 2, way
            assert capsys.readouterr().err
    before = sorted(Path().rglob("*"))
    assert run(["train", *given, "run_dir=r"]) == 2
    assert run(["train", "-m", *given, "seed=0,1", "run_dir=r"]) == 2
    assert run(["baseline", *given, "run_dir=r"]) == 2
    assert sorted(Path().rglob("*")) == before
    with pytest.raises(UsageError):
        fit({"x": np.arange(9.0), "y": np.arange(9.0)}, "y", *given, run_dir="r")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "r"
    assert train(*SMALL, f"run_dir={folder}") == 0
    return folder


@pytest.mark.parametrize("section", ["head", "model", "prior", "loss", "data", "metric.nll", "calibrate", "inputs"])
def test_ways_in_through_a_checkpoint(section: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = archive.read(trained / "checkpoints" / "best.ckpt")
    group, *rest = section.split(".")
    own = content["mlefw"]["config"][group]
    for evil in MIXED:
        for value in (evil, {**(own[rest[0]] if rest else own or PLACES[group]), "more": evil}):
            changed = {**own, rest[0]: value} if rest else value
            config = {**content["mlefw"]["config"], group: changed}
            archive.write(Path("x.ckpt"), {**content, "mlefw": {**content["mlefw"], "config": config}})
            message = refusal(lambda: load("x.ckpt"))
            assert "x.ckpt" in message, value
            assert group in message
    assert run(["predict", "run=x.ckpt", "data.path=d.csv"]) == 2
    assert run(["evaluate", "run=x.ckpt"]) == 2
    assert not Path("predictions.parquet").exists()


@pytest.mark.parametrize(
    "place", ["head.scale", "model", "model.x", "callback.mine", "logger.mine", "seed", "data.path"]
)
def test_ways_in_through_the_settings_of_a_run_to_go_on_with(place: str, trained: Path) -> None:
    known = yaml.safe_load((trained / "config.yaml").read_text(encoding="utf-8"))
    (Path("r") / "checkpoints").mkdir(parents=True)
    (Path("r") / "checkpoints" / "last.ckpt").write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    for value in MIXED:
        config = put(known, place, value)
        Path("r/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        before = Path("r/config.yaml").read_bytes()
        assert run(["train", "resume=r", "trainer.max_epochs=2"]) == 2, value
        assert Path("r/config.yaml").read_bytes() == before
    assert not Path("r/summary.json").exists()
    for name in (*KINDS, "choices", "step", "seed"):
        lacking = {key: value for key, value in known.items() if key != name}
        Path("r/config.yaml").write_text(yaml.safe_dump(lacking), encoding="utf-8")
        assert run(["train", "resume=r", "trainer.max_epochs=0"]) == 2, name


PLUGIN = """
import os
from os import system
from torch.nn import Linear as Passed
import torch


def build(num_features, eta_dim):
    return torch.nn.Linear(num_features, eta_dim)


class Net(torch.nn.Module):
    def __init__(self, num_features, eta_dim, inner=None, choose="relu"):
        super().__init__()
        self.inner, self.layer = inner, torch.nn.Linear(num_features, eta_dim)

    def forward(self, x):
        return self.layer(x)


class NoModel:
    def __init__(self, *args, **kwargs):
        open("CANARY", "w").close()
"""


def test_a_plugin_is_code_and_its_parts_are_admitted_by_kind_all_the_same(trained: Path) -> None:
    Path("somenet.py").write_text(PLUGIN, encoding="utf-8")
    sizes = {"num_features": 2, "eta_dim": 1}
    net = {"_target_": "somenet.Net"}
    assert "--plugin" in refusal(lambda: admitted({"model": net}))
    parts = admitted({"model": {**net, "inner": {**net, **sizes}}}, ["somenet"])
    assert parts["model"].settings["inner"].target == "somenet.Net"
    assert type(instantiate("model", {**net, "inner": {**net, **sizes}}, **sizes).inner).__name__ == "Net"
    for target in ("build", "NoModel", "system", "os.system", "Passed", "Nothing", "Net.forward", "torch.load"):
        refused = refusal(lambda target=target: instantiate("model", {"_target_": f"somenet.{target}"}, **sizes))  # type: ignore[misc]
        assert "refused" in refused or "imported" in refused
    for slot in ("head", "optimizer", "callback"):
        assert "refused" in refusal(lambda slot=slot: instantiate(slot, {**net, **sizes}))  # type: ignore[misc]
    with pytest.raises(UsageError):
        fit(
            {"x": np.arange(9.0), "y": np.arange(9.0)},
            "y",
            "model=linear",
            "model._target_=somenet.build",
            plugins=["somenet"],
        )


def test_functions_that_others_registered_are_not_called(capsys: pytest.CaptureFixture[str]) -> None:
    called: list[str] = []
    OmegaConf.register_new_resolver("called", lambda text: called.append(text) or "mlp")
    try:
        Path("conf/model").mkdir(parents=True)
        Path("conf/model/a.yaml").write_text("# a\ndefaults: ['${called:x}']\n", encoding="utf-8")
        Path("conf/model/b.yaml").write_text(
            "# b\n_target_: mlefw.model.mlp.Mlp\nactivation: ${called:y}\n", encoding="utf-8"
        )
        for way in (["model=a"], ["model=b"], ["model.activation=${called:z}"]):
            assert run(["check", "data=synthetic", *way, "--config-dir", "conf"]) == 2
        assert called == []
        assert OmegaConf.has_resolver("called")
        assert "called" in capsys.readouterr().err
    finally:
        OmegaConf.clear_resolver("called")


HYDRA = {
    "a callback": {"callbacks": {"x": CALLS["open"]}},
    "a callback in a list": {"callbacks": {"x": {"_target_": "mlefw.model.linear.Linear", "y": [CALLS["open"]]}}},
    "a handler": {"job_logging": {"handlers": {"x": {"class": "logging.FileHandler", "filename": "CANARY"}}}},
    "a factory": {"hydra_logging": {"formatters": {"x": {"()": "harmful.call"}}}},
    "the environment": {"job": {"env_set": {"LD_PRELOAD": "harmful.so"}}},
    "a launcher": {"launcher": {"_target_": "harmful.Model"}},
    "in a launcher": {"launcher": {"jobs": CALLS["open"]}},
    "in a list of a launcher": {"launcher": {"timeout_s": [CALLS["open"]]}},
    "a sweeper": {"sweeper": {"_target_": "harmful.Model"}},
    "in a sweeper": {"sweeper": {"x": CALLS["open"]}},
    "parameters": {"sweeper": {"params": {"seed": "0,1"}}},
    "a search path": {"searchpath": ["pkg://harmful"]},
}


@pytest.mark.parametrize("what", HYDRA)
def test_ways_in_through_hydra(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/model").mkdir(parents=True)
    text = yaml.safe_dump({"model": {"_target_": "mlefw.model.linear.Linear"}, "hydra": HYDRA[what]})
    Path("conf/model/mine.yaml").write_text(f"# @package _global_\n# mine\n{text}", encoding="utf-8")
    for way in (["model=mine", "--config-dir", "conf"], arguments("hydra", HYDRA[what])):
        assert run(["train", "-m", *way, "seed=0,1", *SMALL[1:], "run_dir=r"]) == 2
        assert "hydra" in capsys.readouterr().err
    assert not Path("r").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--experimental-rerun", "harmful.pt"],
        ["--experimental-rerun=harmful.pt"],
        ["--exp=harmful.pt"],
        ["--config-path", "conf"],
        ["-cp", "conf"],
        ["--config-name=mine"],
        ["-cn", "mine"],
        ["--run"],
        ["--seed=1"],
    ],
)
def test_flags_of_hydra_that_read_or_choose_files_are_none(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["train"], ["train", "-m", "seed=0,1"], ["check"], ["predict"]):
        assert run([*command, *SMALL, *flags, "run_dir=r"]) == 2
        assert "unknown flag" in capsys.readouterr().err
    assert not Path("r").exists()


def test_every_part_that_mlefw_offers_is_admitted() -> None:
    for file in config_root().rglob("*.yaml"):
        slot = file.parent.name if file.parent.parent == config_root() else f"hydra.{file.parent.name}"
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        node = content.get(slot, content)
        if slot in KINDS and "_target_" in node:
            own = {key: value for key, value in node.items() if key not in ("defaults", "component")}
            assert admit(slot, own).find()


def test_a_program_runs_nothing_of_a_foreign_file(mlefw: Run, tmp_path: Path) -> None:
    Path("conf/callback").mkdir(parents=True)
    node = {"_target_": "mlefw.callback.progress.ShowProgress", "x": [{"y": CALLS["open"]}]}
    Path("conf/callback/mine.yaml").write_text(f"# mine\n{yaml.safe_dump({'a': node})}", encoding="utf-8")
    for command in (["train"], ["train", "-m", "seed=0,1"]):
        done = mlefw(*command, *SMALL, "callback=mine", "--config-dir", "conf", "run_dir=r", "--plugin", "json")
        assert done.returncode == 2, done.stderr
        assert "callback.a.x[0].y._target_='builtins.open' was refused" in done.stderr
    assert not (tmp_path / "r").exists()
