"""Resuming a run: reads its settings and checkpoint, and refuses what would make it another run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mlefw.callback.resume import KEY, Place, objective_state
from mlefw.callback.stored_state import Content
from mlefw.configuration.check import check
from mlefw.configuration.expansion import load_yaml
from mlefw.configuration.groups import known_settings
from mlefw.configuration.override import for_hydra
from mlefw.configuration.read import located, moved, read_settings, resolve
from mlefw.configuration.record import typed
from mlefw.configuration.settings import Settings
from mlefw.configuration.yaml_folder import config_root
from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.run import archive, checkpoint
from mlefw.run.build import Data
from mlefw.run.trainer import is_planned
from mlefw.schema.kinds import schema_from

_MAY_CHANGE = (
    *("resume", "run_dir", "report", "explanation", "logger", "callback", "early_stopping", "checkpoint"),
    *("step.per_chunk", "step.replay"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.accelerator", "trainer.devices"),
    *("trainer.strategy", "trainer.num_nodes"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "data"),
    *(f"choices.{group}" for group in ("data", "logger", "callback", "experiment")),
)
"""Settings that may change: the length, what is shown and written, and where the rows are, which are compared."""

_MAY_NOT_CHANGE = ("data.standardize", "data.standardize_target")
"""Exceptions to `_MAY_CHANGE`: settings of `data` that change the model and not the rows."""

_MAY_BE_MISSING = (
    *("loss", "inputs", "augment", "average", "calibrate", "uncertainty", "experiment", "compile", "plots"),
    *("cv", "ensemble", "explanation"),
)
"""Sections of the settings that runs of earlier versions do not have."""

_MAX_LINES = 5
"""The most differences that a message lists."""


def settings(run_dir: Path, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> Settings:
    """The settings of a run directory, changed by the overrides of the command line.

    Args:
        run_dir: the directory of the run.
        overrides: as on the command line, `key=value`.
        config_dirs: folders with settings of plugins.
        plugins: packages other than mlefw and torch whose classes may be built.

    Raises:
        UsageError: there are no settings of a run, or an override is unknown or would make it another run.
    """
    config = _read(run_dir / "config.yaml")
    choices = config.pop("choices")
    config = moved(config, str(config.get("run_dir")), str(run_dir))
    for override in _parsed([item for item in overrides if not item.startswith("resume=")]):
        key, value = override.key_or_group.lstrip("+"), override.value()
        if override.is_delete() or override.is_sweep_override():
            raise UsageError(f"{override.input_line}: expected one value; resume= continues one run")
        if key == "run_dir" and Path(str(value)).absolute() != run_dir:
            raise UsageError(f"run_dir={value}: resume= goes on in the run's own directory")
        if key not in choices:
            # Merged as plain containers: a stored text such as ${x} must not become a reference of OmegaConf.
            given = OmegaConf.create()
            OmegaConf.update(given, key, value, force_add=True)
            config = _merged(config, resolve(OmegaConf.to_container(given)))  # type: ignore[arg-type]
        elif value != choices[key]:
            if key not in ("logger", "callback"):
                raise UsageError(f"{key}={value}: the run in {run_dir} has {key}={choices[key]}; start another run")
            chosen = read_settings("train", [f"{key}={value}"], config_dirs, plugins)
            config[key] = located(chosen, run_dir).plain[key]
            choices[key] = value
    known = known_settings("train")
    if lacking := [name for name in known if name not in config and name not in _MAY_BE_MISSING]:
        raise UsageError(f"{run_dir / 'config.yaml'} lacks {', '.join(lacking)}: it is not the configuration of a run")
    check(config, known, plugins)
    return Settings.of({**config, "resume": str(run_dir), "run_dir": str(run_dir), "choices": choices})


def read(run_dir: Path, config: Settings) -> Content:
    """The content of `last.ckpt`, after comparing its settings with the present ones.

    Raises:
        UsageError: it cannot be read or resumed from, or a setting differs that may not change.
    """
    path = run_dir / "checkpoints" / "last.ckpt"
    content = archive.read(path)
    lacking = [name for name in (KEY, "callbacks", "optimizer_states", "lr_schedulers") if name not in content]
    if lacking:
        raise UsageError(f"{path} holds a model alone: it cannot be resumed from (it lacks {', '.join(lacking)})")
    before = _flat(checkpoint.Card.of(path, content).config)
    try:
        done = Place.of(content).epoch
    except UsageError as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    after = _flat(config.plain)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name) and not _may_change(name)]
    _refuse(run_dir, [f"{name} is {_shown(after, name)}, and was {_shown(before, name)}" for name in sorted(names)])
    _check_length(config, before, content[KEY], done)
    return content


def check_rows(run_dir: Path, content: Content, card: Content, data: Data, objective: Objective) -> None:
    """Compare the coded rows and the model with those of the checkpoint.

    Args:
        run_dir: the directory of the run.
        content: the content of its `last.ckpt`.
        card: the description that a checkpoint written now would have.
        data: the rows, coded now.
        objective: the objective, built now.

    Raises:
        UsageError: naming what differs.
    """
    before, problems = checkpoint.Card.of(run_dir, content), []
    if schema_from(card["schema"]) != before.schema:
        problems.append("the columns differ in names, roles, kinds or levels")
    known = before.fingerprint
    for split in dict.fromkeys([*known, *card["fingerprint"]]):
        if known.get(split) != card["fingerprint"].get(split):
            now = data.splits[split].num_rows if split in data.splits else 0
            problems.append(f"the {split} rows ({now} now) are not those of the run")
    if card["stored"] != (was := before.stored):
        where = "in files" if was else "in memory"
        problems.append(f"its rows were {where}, which have an order of their own: data.stream={str(was).lower()}")
    _refuse(run_dir, problems)
    path = run_dir / "checkpoints" / "last.ckpt"
    checkpoint.check_tensors(path, objective.state_dict(), objective_state(content))
    best = typed(dict[str, Content], content["callbacks"], f"{path} is damaged: callbacks").get("KeepCheckpoints", {})
    if best.get("best_state"):
        state = typed(dict[str, torch.Tensor], best["best_state"], f"{path} is damaged: the best state")
        checkpoint.check_tensors(path, objective.state_dict(), state)


def _read(path: Path) -> Content:
    """The settings in a YAML file, which is read with limits on size, depth and references."""
    try:
        config = load_yaml(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or not isinstance(config.get("choices"), dict):
        raise UsageError(f"{path} is not the configuration of a run")
    return config


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(for_hydra(overrides))
    except HydraException as error:
        raise UsageError(f"a setting cannot be read: {str(error).splitlines()[0]}") from error


def _merged(node: Any, other: Any) -> Any:
    """Nested dicts, in which the leaves of `other` replace those of `node`."""
    if not (isinstance(node, dict) and isinstance(other, dict)):
        return other
    return {**node, **{key: _merged(node.get(key), value) for key, value in other.items()}}


def _flat(node: Any, prefix: str = "") -> Content:
    """The leaves of nested dicts, by dotted name."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        name: leaf
        for key, value in node.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _may_change(name: str) -> bool:
    is_listed = any(name == listed or name.startswith(f"{listed}.") for listed in _MAY_CHANGE)
    return is_listed and name not in _MAY_NOT_CHANGE


def _shown(flat: Content, name: str) -> str:
    return str(flat[name]) if name in flat else "not set"


def _check_length(config: Settings, before: Content, place: Content, done: int) -> None:
    """Refuse another length of the run where its past depends on the length, or the past is longer already.

    Args:
        config: the present settings.
        before: the settings of the checkpoint, by dotted name.
        place: where the run stopped, as `callback.resume` stores it.
        done: number of epochs that are done.
    """
    trainer = config.trainer
    epochs, planned = trainer.max_epochs, before.get("trainer.max_epochs")
    if epochs is not None and 0 <= epochs < done:
        raise UsageError(f"trainer.max_epochs={epochs}: the run has {done} epochs already; expected at least as many")
    file = config_root() / "scheduler" / f"{config.choice('scheduler')}.yaml"
    by_epochs = file.is_file() and "${trainer.max_epochs}" in file.read_text(encoding="utf-8")
    by_steps = is_planned(config.scheduler)
    if epochs != planned and (by_epochs or by_steps):
        raise _other_length(f"trainer.max_epochs={epochs}", file.stem, f"{planned} epochs")
    if by_steps and trainer.max_steps != (steps := before.get("trainer.max_steps", -1)):
        raise _other_length(f"trainer.max_steps={trainer.max_steps}", file.stem, f"trainer.max_steps={steps}")
    partial = place["step"] > place["first_step"]
    counted = [
        name for name in ("limit_train_batches", "val_check_interval") if trainer.node.get(name) not in (None, 1.0)
    ]
    if partial and counted:
        raise UsageError(f"trainer.{counted[0]} counts from the start of an epoch, and the run stopped within one")


def _other_length(setting: str, scheduler: str, planned: str) -> UsageError:
    return UsageError(
        f"{setting}: scheduler={scheduler} was planned over {planned}\n"
        "  a run of another length is another run: start it anew without resume="
    )


def _refuse(run_dir: Path, problems: list[str]) -> None:
    if problems:
        more = [f"and {len(problems) - _MAX_LINES} more"] if len(problems) > _MAX_LINES else []
        lines = "\n".join(f"  {line}" for line in [*problems[:_MAX_LINES], *more])
        raise UsageError(
            f"resume={run_dir}: this would be another run\n{lines}\n"
            "  start it anew without resume=; trainer.max_epochs, early_stopping, checkpoint, logger, report may change"
        )


def purge_step(content: Content | None) -> int | None:
    """The first step whose entries in a log are void, since they came after the checkpoint; None for a new run.

    A checkpoint at the end of an epoch is written after the log of its last step, one within an epoch before the log of
    its step.
    """
    if content is None:
        return None
    place = content[KEY]
    return int(place["step"]) + (place["step"] == place["first_step"])
