"""Every setting of every section is held to its range, before anything is written, by a message that names it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import hydra.utils
import lightning
import pytest
import torch
import yaml
from conftest import summary_of

from mlefw.cli import run
from mlefw.configuration import ranges
from mlefw.configuration.read import read_settings, resolve
from mlefw.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")

CONF = Path(__file__).parents[2] / "conf"
SECTIONS = ("data", "step", "early_stopping", "checkpoint")
GROUPS = (
    "head",
    "prior",
    "batch",
    "average",
    "inputs",
    "augment",
    "model",
    "data",
    "baseline",
    "calibrate",
    "uncertainty",
    "loss",
)
FOREIGN = {
    "trainer": [lightning.Trainer],
    "optimizer": [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.LBFGS],
    "scheduler": [torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.lr_scheduler.ReduceLROnPlateau],
}
ENDLESS = ("nan", "inf", "-inf", "1" + "0" * 400, "-1" + "0" * 30)
WRONG = ("-1", "0", "-0.5", "word", "''", "[]", "{}", "true", "[nan]")
FACTS = {
    **{"input_shape": (1, 8, 8), "positions": (6,), "num_tokens": 1, "length": 6},
    **{"num_features": 3, "eta_dim": 1, "num_classes": 3, "floor": 0.0, "targets": ("a", "b")},
}

RIGHT: dict[str, set[str]] = {
    "seed": {"0"},
    "report": {"true"},
    "plots": {"true"},
    "explanation": {"true"},
    "compile": {"true"},
    "step.replay": {"true"},
    "step.recoveries": {"0"},
    # Names of columns and files are free, and looked for in the data; no features are an intercept alone.
    **{
        f"data.{name}": {"word"}
        for name in (
            *("target", "offset", "exposure", "weight", "variance_weight", "trials"),
            *("id", "event", "group", "cluster", "time", "x"),
        )
    },
    **{f"data.{name}": {"[]"} for name in ("features", "categorical", "labels")},
    # A path means what it says, whatever it looks like.
    **{
        f"data.{name}": {*ENDLESS, *WRONG} - {"true"}
        for name in ("path", "test_path", "validation_path", "cache", "download", "table")
    },
    **{f"data.{name}": {"true"} for name in ("standardize", "standardize_target", "header", "stream", "shift")},
    **{f"data.{name}": {"0"} for name in ("test_fraction", "validation_fraction", "seed", "draw_seed")},
    "data.intercept": {"-1", "0", "-0.5"},
    "data.event_code": {"-1", "0", "-0.5", "word", "''", "true"},
    "step.clip_norm": {"0"},
    "early_stopping.min_delta": {"0"},
    "checkpoint.min_seconds": {"0"},
    "checkpoint.every_steps": {"0"},
    "inputs.tail": {"0"},
    "inputs.soft": {"true"},
    "model.dropout": {"0"},
    "model.layer_norm": {"true"},
    "model.hidden": {"[]"},
    "model.layers": {"0"},
    "model.tied": {"true"},
    "head.scale_floor": {"0"},
    "head.lower": {"-1", "0", "-0.5"},
    "head.upper": {"-1", "0", "-0.5"},
    # The shape of a generalised gamma may have either sign, that of a Weibull may not.
    "head=generalised_gamma head.shape": {"-1", "0", "-0.5"},
    "baseline.features": {"[]"},
    "uncertainty.seed": {"0"},
    "calibrate.seed": {"0"},
    "loss.beta": {"0"},
    "loss.gamma": {"0"},
    "loss.amount": {"0"},
}
"""What of the above is right, by setting, or by the choice that has it and the setting."""


def plain() -> Iterator[tuple[str, str]]:
    """Every setting of every YAML file, and the choice that has it."""
    train = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    for name in ("seed", "report", "plots", "explanation", "compile"):
        yield name, ""
    for section in SECTIONS:
        for name in train[section]:
            yield f"{section}.{name}", ""
    for group in GROUPS:
        for file in sorted((CONF / group).glob("*.yaml")):
            node = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            for name in node if file.stem not in ("multitask", "frame", "arrays") else ():
                if name not in ("defaults", "tasks", "component") and not name.startswith("_"):
                    yield f"{group}.{name}", f"{group}={file.stem}"


def refused(setting: str, *overrides: str) -> str:
    """What is said of a setting as the configuration is read or the class is built; empty where it is taken."""
    try:
        config = resolve(read_settings("train", [*overrides], [], ()))
        node = config.get(setting.split(".")[0])
        if isinstance(node, dict) and str(node.get("_target_", "")).startswith("mlefw."):
            kind = hydra.utils.get_class(node["_target_"])
            facts = {name: FACTS[name] for name in inspect.signature(kind).parameters if name in FACTS}
            if "component" not in node:
                kind(**{**facts, **{name: value for name, value in node.items() if not name.startswith("_")}})
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("setting", "choice"), sorted(set(plain())))
def test_a_setting_of_a_file_is_held_to_its_range(setting: str, choice: str) -> None:
    choices = (choice,) if choice else ()
    for value in (*ENDLESS, *WRONG):
        said = refused(setting, *choices, f"{setting}={value}")
        if value in RIGHT.get(f"{choice} {setting}", RIGHT.get(setting, ())):
            assert said == "", value
        else:
            assert setting.split(".")[-1] in said, (setting, value[:9], said)
            assert len(said) < 1000
    assert refused(setting, *choices) == ""


@pytest.mark.parametrize("section", FOREIGN)
def test_every_argument_of_a_foreign_class_is_held_to_its_range(section: str) -> None:
    for kind in FOREIGN[section]:
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in ("params", "optimizer", "logger", "callbacks", "plugins", "strategy", "accelerator", "devices"):
                continue
            target = f"lightning.{kind.__name__}" if section == "trainer" else f"{kind.__module__}.{kind.__name__}"
            required = {"T_max": 10} if "T_max" in inspect.signature(kind).parameters else {}
            node = {"_target_": target, **required}
            default = [] if parameter.default is inspect.Parameter.empty else [parameter.default]
            for value in default:
                assert ranges.problems({section: {**node, name: value}}) == [], (kind, name, value)
            for value in (float("nan"), float("inf"), -float("inf"), 10**400):
                told = ranges.problems({section: {**node, name: value}})
                assert [one.partition("=")[0] for one in told] == [f"{section}.{name}"], (name, value)


OUT_OF_RANGE = [
    *("trainer.max_steps=0", "trainer.max_steps=-2", "trainer.max_epochs=0", "trainer.min_epochs=-1"),
    *("trainer.max_time=-1", "trainer.max_time=0", "trainer.max_time='00:00:00:00'", "trainer.max_time='1 hour'"),
    *("trainer.max_time={hours: -1}", "trainer.fast_dev_run=true", "trainer.fast_dev_run=3"),
    *("trainer.gradient_clip_val=1.0", "trainer.gradient_clip_algorithm=norm", "trainer.default_root_dir=x"),
    *("trainer.limit_train_batches=0", "trainer.limit_train_batches=1.5", "trainer.limit_val_batches=0.0"),
    *("trainer.limit_test_batches=1", "trainer.overfit_batches=-1", "trainer.enable_checkpointing=false"),
    *("trainer.barebones=true", "trainer.log_every_n_steps=-1", "trainer.num_sanity_val_steps=-2"),
    *("trainer.check_val_every_n_epoch=0", "trainer.reload_dataloaders_every_n_epochs=1", "trainer.profiler=fast"),
    *("optimizer.lr=-1", "optimizer.lr=word", "optimizer.lr=[]", "optimizer.lr=null", "optimizer.maximize=true"),
    *("optimizer.betas=0.9", "optimizer.betas=[0.9]", "optimizer.betas=[0.9,1.0]", "optimizer.eps=-1"),
    *("optimizer.weight_decay=-1", "optimizer.weight_decay=true", "scheduler.factor=1.0", "scheduler.factor=0"),
    *("scheduler.mode=max", "scheduler.patience=-1", "scheduler.threshold=-1", "scheduler.threshold_mode=word"),
    *("scheduler.cooldown=-1", "scheduler.min_lr=-1", "scheduler.eps=''"),
]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_what_is_out_of_range_is_told_by_name(override: str) -> None:
    with pytest.raises(UsageError) as told:
        read_settings("train", [override], [], ())
    lines = str(told.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(override.split("=")[0] + "=")
    assert "expected" in lines[0]


@pytest.mark.parametrize(
    "override",
    ["trainer.max_time='00:00:10:00'", "trainer.max_time={minutes: 5}", "trainer.max_steps=3", "step.clip_norm=0"],
)
def test_what_is_in_range_trains(override: str, tmp_path: Path) -> None:
    small = (
        "data=synthetic",
        "data.num_rows=60",
        "model=linear",
        "trainer.max_epochs=2",
        "report=false",
        "plots=false",
    )
    assert run(["train", *small, "logger=none", override, f"run_dir={tmp_path / 'r'}"]) == 0
    assert summary_of(tmp_path / "r")["num_steps"] == (3 if "max_steps" in override else 4)


def test_nothing_is_written_for_a_setting_out_of_range(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "trainer.max_steps=0", "step.clip_norm=-1", f"run_dir={tmp_path / 'r'}"]) == 2
    said = capfd.readouterr().err
    assert "trainer.max_steps=0: expected -1 or a whole number of at least 1" in said
    assert "step.clip_norm=-1: expected a finite number of at least 0" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override",
    ["level=0", "level=1", "level=nan", "level=word", "quantiles=[0.5,1]", "quantiles=0.5", "quantiles=[nan]"],
)
def test_what_predict_is_asked_for_is_held_to_its_range(override: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "run=nowhere", override]) == 2
    assert override.partition("=")[0] + "=" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["step", "early_stopping", "checkpoint"])
@pytest.mark.parametrize("value", ["null", "1", "text"])
def test_a_section_is_no_value(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=.*expected settings of {name}"):
        read_settings("train", [f"{name}={value}"], [], [])
