"""From the command line to a checked configuration of plain containers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlefw.configuration import path_setting
from mlefw.configuration.check import check
from mlefw.configuration.compose import compose, contain, open_heads, replaced
from mlefw.configuration.expansion import bounded
from mlefw.configuration.explain import explain
from mlefw.configuration.groups import config_root, known_settings, members
from mlefw.configuration.override import opened
from mlefw.configuration.resolvers import own_alone
from mlefw.configuration.settings import Node, Settings
from mlefw.errors import UsageError
from mlefw.system.warning import warn

T = TypeVar("T")

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

REQUIRED = ("head", "prior", "batch", "model", "data", "optimizer", "trainer")


def read_settings(command: str, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> Node:
    """Compose, check, and return plain containers; `choices` names the chosen member of each group.

    Interpolations stay as they are, so that a run directory can still be filled in; `resolve` ends that.

    Raises:
        UsageError: whatever is wrong, all of it where possible.
    """
    _check_repeated(overrides)
    overrides = opened(overrides)
    plain, choices = _compose(contain, command, overrides, config_dirs)
    open_heads(plain, lambda name: _compose(contain, command, [f"head={name}"], config_dirs)[0])
    known = known_settings(command)
    missing = [name for name in REQUIRED if name in known and not plain.get(name)]
    if missing:
        raise UsageError(
            "\n".join(f"{name} is missing: expected {name}={' | '.join(members(name))}" for name in missing)
        )
    touched = {match[1] for item in overrides if (match := re.match(r"[+~]*(\w+)\.[\w.]+=", item))}
    check(resolve(plain), known, plugins, touched)
    if "head" in known:
        plain["choices"] = {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}
    return plain


def hydra_section(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Any:
    """Hydra's own settings, as they are composed.

    Raises:
        UsageError: an override is wrong.
    """
    return _compose(compose, command, overrides, config_dirs)["hydra"]


def resolve(config: Node) -> Node:
    """The configuration with every interpolation replaced by its value."""
    plain = replaced(config)
    return _container(OmegaConf.create(config)) if plain is None else plain


def search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override that lets Hydra look for YAML files in these folders, too; none where there are no folders."""
    folders = ",".join(path_setting.quoted(f"file://{Path(folder).absolute()}") for folder in config_dirs)
    return [f"hydra.searchpath=[{folders}]"] if config_dirs else []


def settings_of(config: Node) -> Settings:
    """The typed settings of a composed configuration of `train`, `baseline` or `check`."""
    return Settings.of(resolve(config))


def located(config: Node, run_dir: Path) -> Settings:
    """The settings of a run in a directory, whose parts are found from anywhere.

    The name of a directory is taken as it is, even where it looks like a reference to a setting.
    """
    return settings_of({**config, "run_dir": path_setting.escaped(str(run_dir.absolute()))})


def as_yaml(config: Node) -> str:
    """The text of `config.yaml`."""
    return str(yaml.dump(config, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def _container(config: Any) -> Node:
    try:
        with own_alone(), bounded():
            return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("Error raised while resolving interpolation: ")[-1]
        raise UsageError(f"a setting cannot be resolved: {reason}") from error


def _compose(
    how: Callable[[Path, str, Sequence[str]], T], command: str, overrides: Sequence[str], config_dirs: Sequence[str]
) -> T:
    try:
        with own_alone(), bounded():
            return how(config_root(), command, [*overrides, *search_path(config_dirs)])
    except UnicodeDecodeError as error:
        raise UsageError(f"a YAML file is not in UTF-8, as expected: {error}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(explain(command, str(error))) from error
    except yaml.YAMLError as error:
        raise UsageError(f"a YAML file cannot be read: {error}") from error
    except RecursionError as error:
        raise UsageError("the defaults of a YAML file lead back to itself: expected defaults that end") from error


def _check_repeated(overrides: Sequence[str]) -> None:
    keys = [override.split("=")[0] for override in overrides if "=" in override]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        warn(f"{key} is given {keys.count(key)} times: the last one counts")


def moved(node: Any, before: str, after: str) -> Any:
    """Plain containers with every path into a run directory as it is in another one."""
    if isinstance(node, dict):
        return {key: moved(value, before, after) for key, value in node.items()}
    if isinstance(node, str) and (node == before or node.startswith(f"{before}/")):
        return after + node[len(before) :]
    return node
