"""Every YAML of every group composes, passes the pre-flight check, and builds."""

import re
from importlib.util import find_spec
from inspect import Parameter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hydra.utils import get_class
from pyarrow import csv

from mlefw.configuration import source_signature
from mlefw.configuration.check import _annotated, accepts, describe, nearest
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import Settings
from mlefw.configuration.yaml_folder import config_root, members
from mlefw.data import synthetic
from mlefw.errors import UsageError
from mlefw.run import build, trainer
from mlefw.run.prepare import prepare
from mlefw.testing import plugins

GROUPS = {
    "head": ["data=synthetic", "data.num_rows=60"],
    "prior": [],
    "loss": [],
    "batch": [],
    "inputs": [],
    "augment": [],
    "model": [],
    "data": [],
    "baseline": [],
    "calibrate": ["data=synthetic", "data.num_rows=5000"],
    "uncertainty": [],
    "optimizer": ["batch=full"],
    "scheduler": [],
    "average": [],
    "trainer": [],
    "callback": [],
    "logger": [],
    "metric": [],
    "experiment": [],
    "cv": [],
    "ensemble": [],
}
ONE = {"cv": ["cv.fold=0", "data=synthetic"], "ensemble": ["ensemble.member=0"]}
"""What makes one run of many."""
KINDS = {
    "gaussian_fixed": "gaussian",
    "breast_cancer": "bernoulli",
    "iris": "categorical",
    "digits": "categorical",
    "digits_images": "categorical",
    "wine": "categorical",
}
SEVERAL = {"multitask": ["head.tasks.y=beta", "head.tasks.z=gaussian"], "multivariate_gaussian": [], "censored": []}
"""Heads of several targets, with the settings that they need."""
FEW = {"histogram": ["head.bins=8"]}
"""Settings of a head for a few dozen rows."""
METRICS = {
    "binary": ["head=bernoulli", "data=breast_cancer"],
    "categorical": ["head=categorical", "data=iris"],
    "censored": ["head=censored"],
    "quantile": ["head=quantile"],
    "quantiles": ["head=quantiles"],
    "tokens": ["data=shakespeare"],
    "ordinal": ["head=ordinal", "data=iris", "data.labels=[setosa,versicolor,virginica]"],
}
"""Heads that the metrics of a group are for."""
HELD = ("head", "prior", "loss", "batch", "inputs", "model", "metric")
"""Groups whose plugins are held to the rules of their kind."""
OF_TENSORS = {("model", "cnn"), ("model", "transformer"), *(("augment", m) for m in ("shift", "flip", "shift_flip"))}
"""Members that are for images or tokens."""
PACKAGES = ("mlflow", "wandb")
"""Loggers that are refused before training without the package of their name, which is in an extra."""
CASES = [(group, member) for group in GROUPS for member in members(group)]


TARGETS = sorted(
    {match for file in config_root().rglob("*.yaml") for match in re.findall(r"_target_: ([\w.]+)", file.read_text())}
    - {"mlefw.loss.plain.Plain"}
)


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_of_a_class_says_of_its_parameters_what_an_import_says(target: str) -> None:
    written, imported = source_signature.parameters(target), _annotated(get_class(target))
    assert written is not None
    assert written.keys() == imported.keys()
    for name, parameter in imported.items():
        assert written[name].kind in (parameter.kind, Parameter.KEYWORD_ONLY)
        assert (written[name].default is Parameter.empty) == (parameter.default is Parameter.empty)
        for value in (None, True, 1, 1.5, "x", [1], ["x"], [1.5, "x"]):
            # What the source leaves open is anything; it never refuses what is right.
            assert accepts(written[name].annotation, value) or not accepts(parameter.annotation, value)


def test_every_group_is_tried() -> None:
    folders = {folder.name for folder in config_root().iterdir() if folder.is_dir() and list(folder.glob("*.yaml"))}
    assert folders == set(GROUPS)


@pytest.mark.filterwarnings("ignore:digits .* constant features")
@pytest.mark.parametrize(("group", "member"), CASES)
def test_member_composes_and_builds(group: str, member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No member would be refused or warned of if it were a plugin, either."""
    if group == "logger" and member in PACKAGES and find_spec(member) is None:
        pytest.skip(f"needs the package {member}: tests/extras has it")
    monkeypatch.setattr(plugins, "is_plugin", lambda part: group in HELD)
    config = chosen(group, member, tmp_path)
    assert config.choices[group] == member
    prepared = prepare(config, None)
    module = trainer.build_module(config, prepared.estimand, prepared.rows)
    assert next(prepared.rows.batches(0)).rows.num_rows >= 1
    assert len(module.metrics) == 2
    build.build_baseline(config.baseline)


@pytest.mark.parametrize("member", ["linear", "transformer"])
def test_a_model_of_tokens_takes_pixels_and_is_held_to_the_rules_of_plugins(
    member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "is_plugin", lambda part: True)
    overrides = ["data=digits_images", "data.levels=3", "head=categorical", f"model={member}"]
    settings = {**read_settings("train", overrides, [], []), "run_dir": str(tmp_path)}
    prepared = prepare(settings_of(settings), None)
    assert prepared.data.train.positions == (64,)
    assert prepared.estimand.objective.head.eta_dim == 3


def tensors(group: str, member: str, file: Path) -> list[str]:
    """Settings of images, or for a transformer of sequences of ids; none for members that take tables."""
    if (group, member) not in OF_TENSORS:
        return []
    if member != "transformer":
        return ["data=digits_images", "head=categorical"]
    ids = np.random.default_rng(0).integers(4, size=(40, 7))
    np.savez(file, x=ids[:, :-1], y=ids[:, 1:])
    return ["data=npz", f"data.path={file}", "data.vocabulary=4", "head=categorical"]


def chosen(group: str, member: str, tmp_path: Path) -> Settings:
    """The settings of a training with a member, on rows that it can take."""
    overrides = [f"{group}={member}", *GROUPS[group]]
    overrides += tensors(group, member, tmp_path / "ids.npz")
    if group == "head" and KINDS.get(member, member) in synthetic.KINDS:
        overrides.append(f"data.kind={KINDS.get(member, member)}")
    elif group == "head":
        overrides = [f"head={member}", *some_table(member, tmp_path / "some.csv"), *FEW.get(member, [])]
    if group == "calibrate":
        head = "gaussian" if member in ("none", "scale", "conformal") else "bernoulli"
        overrides += [f"head={head}", f"data.kind={head}"]
    if (group, member) == ("uncertainty", "mc_dropout"):
        overrides.append("model.dropout=0.1")
    if group == "loss" and member in ("label_smoothing", "focal", "class_weights"):
        overrides += ["head=bernoulli", "data=breast_cancer"]
    if (group, member) == ("loss", "beta_nll"):
        overrides.append("head=heteroscedastic")
    if group in ONE and member != "none":
        overrides += [*ONE[group], *(["data.time=x0"] if member == "rolling" else [])]
    if group == "metric":
        overrides += METRICS.get(member, [])
    if (group, member) == ("metric", "censored"):
        overrides += some_table("censored", tmp_path / "some.csv")
    if group == "data":
        if member in ("csv", "parquet", "frame", "npz", "images", "torch", "arrays", "text", "strings"):
            pytest.skip("a source of other people's rows has none of its own: its reading is tested with the sources")
        overrides += [] if member == "shakespeare" else [f"head={KINDS.get(member, 'gaussian')}"]
    return settings_of({**read_settings("train", overrides, [], []), "run_dir": str(tmp_path)})


def some_table(head: str, file: Path) -> list[str]:
    """Sixty rows whose target the head can take, and the settings that read them."""
    random = np.random.default_rng(0)
    if head in SEVERAL:
        x, *targets = random.beta(2, 3, (3, 60))
        low, high = np.sort(targets, axis=0)
        csv.write_csv(pa.table({"x": x, "y": low, "z": high}), file)
        return ["data=csv", f"data.path={file}", "data.target=[y,z]", *SEVERAL[head]]
    whole = random.negative_binomial(2, 0.3, 60) + (head == "truncated")
    drawn = {"share": random.beta(2, 3, 60), "count": whole}
    node = read_settings("train", [f"head={head}"], [], [])["head"]
    kind = get_class(node.get("component", node)["_target_"])
    if kind.takes_trials:
        count, trials = random.binomial(9, 0.4, 60), random.integers(9, 20, 60)
        csv.write_csv(pa.table({"x": random.normal(size=60), "y": count, "n": trials}), file)
        return ["data=csv", f"data.path={file}", "data.target=y", "data.trials=n"]
    if kind.target != "numeric":
        csv.write_csv(pa.table({"x": random.normal(size=60), "y": random.integers(1, 4, 60)}), file)
        return ["data=csv", f"data.path={file}", "data.target=y"]
    support = kind.support
    y = next(y for y in drawn.values() if bool(support.check(torch.as_tensor(y, dtype=torch.float64)).all()))
    csv.write_csv(pa.table({"x": random.normal(size=60), "y": y}), file)
    return ["data=csv", f"data.path={file}", "data.target=y"]


@pytest.mark.parametrize("head", [head for head in members("head") if head not in ("multitask", "mixture", "censored")])
def test_a_head_chooses_its_metrics(head: str) -> None:
    config = read_settings("train", [f"head={head}"], [], [])
    kind = get_class(config["head"].get("component", config["head"])["_target_"])
    labelled = kind.target != "numeric"
    assert ("classification" in config["metric"]) == labelled
    assert ("pit" in config["metric"]) != labelled
    # The perplexity of a density would have a unit.
    assert ("perplexity" in config["metric"]) == (labelled or kind.takes_trials or kind.support.is_discrete)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings("train", ["+haed=x", "trainer.max_epoch=3", "batch.size=many", "model.hiden=[3]"], [], [])
    message = str(caught.value)
    assert "unknown setting haed. Did you mean 'head'?" in message
    assert "trainer.max_epoch. Did you mean 'max_epochs'?" in message
    assert "model.hiden. Did you mean 'hidden'?" in message
    assert "batch.size='many': expected a whole number" in message


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.run", "pandas.read_pickle"])
def test_foreign_targets_are_refused(target: str) -> None:
    with pytest.raises(UsageError, match="refused"):
        read_settings("train", [f"model._target_={target}"], [], [])


def test_typos_inside_yaml_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mlefw.model.mlp.Mlp\nhiden: [3]\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"model\.hiden\. Did you mean 'hidden'"):
        read_settings("train", ["model=mine"], [str(tmp_path)], [])


@pytest.mark.parametrize(
    ("hint", "value", "fits"),
    [
        (int, 3, True),
        (int, True, False),
        (int, 3.0, False),
        (float, 3, True),
        (float, "3", False),
        (bool, 1, False),
        (int | None, None, True),
        (list[int], [1, 2], True),
        (list[int], [1, "x"], False),
        (str | list[str], ["a"], True),
        (Path, "anything", True),
    ],
)
def test_accepts(hint: object, value: object, fits: bool) -> None:
    assert accepts(hint, value) is fits


def test_words() -> None:
    assert describe(int | None) == "a whole number or null"
    assert nearest("posson", ["poisson", "gaussian"]) == " Did you mean 'poisson'?"
    assert nearest("zzz", ["poisson"]) == ""
