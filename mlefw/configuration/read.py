"""Reads the settings of a command line: composed, checked, and in plain containers."""

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
from mlefw.configuration.compose import compose, compose_plain, insert_heads, replace_references
from mlefw.configuration.expansion import bounded
from mlefw.configuration.explain import explain
from mlefw.configuration.groups import known_settings
from mlefw.configuration.override import for_hydra
from mlefw.configuration.resolvers import admitted_resolvers
from mlefw.configuration.settings import Node, Settings
from mlefw.configuration.terms import insert_terms
from mlefw.configuration.yaml_folder import config_root, members
from mlefw.errors import UsageError
from mlefw.system.address import withheld
from mlefw.system.warning import warn

T = TypeVar("T")

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

REQUIRED = ("head", "prior", "batch", "model", "data", "optimizer", "trainer")


def read_settings(command: str, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> Node:
    """The checked settings of a command in plain containers; `choices` has the name of the member of each group.

    References such as `${run_dir}` are not replaced yet, since the run directory is filled in later (`located`).

    Args:
        command: the command of mlefw.
        overrides: of the command line.
        config_dirs: folders of further YAML files (`--config-dir`).
        plugins: packages admitted by `--plugin` and installed plugins, from which classes may come.

    Raises:
        UsageError: settings are wrong; the message names all mistakes where possible.
    """
    _check_repeated(overrides)
    overrides = for_hydra(overrides)
    plain, choices = _compose(compose_plain, command, overrides, config_dirs)
    insert_heads(plain, lambda name: _compose(compose_plain, command, [f"head={name}"], config_dirs)[0])
    known = known_settings(command)
    missing = [name for name in REQUIRED if name in known and not plain.get(name)]
    if missing:
        raise UsageError(
            "\n".join(f"{name} is missing: expected {name}={' | '.join(members(name))}" for name in missing)
        )
    insert_terms(plain)
    touched = {match[1] for item in overrides if (match := re.match(r"[+~]*(\w+)\.[\w.]+=", item))}
    check(resolve(plain), known, plugins, touched)
    if "head" in known:
        plain["choices"] = {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}
    return plain


def hydra_section(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Any:
    """Hydra's own section `hydra` of the composed configuration, an OmegaConf node.

    Args:
        command: the command of mlefw.
        overrides: as `override.for_hydra` prepares them.
        config_dirs: folders of further YAML files.

    Raises:
        UsageError: an override is wrong.
    """
    return _compose(compose, command, overrides, config_dirs)["hydra"]


def resolve(config: Node) -> Node:
    """The configuration with every reference to another setting replaced by its value.

    Addresses of data lose passwords and signatures, which are kept apart (`system.address`).

    Raises:
        UsageError: a reference cannot be resolved, or references break the limits of `expansion`.
    """
    plain = replace_references(config)
    plain = _container(OmegaConf.create(config)) if plain is None else plain
    data = plain.get("data")
    addresses = {name: text for name, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    if any("://" in text for text in addresses.values()):
        plain["data"] = {**plain["data"], **dict(zip(addresses, withheld(addresses.values()), strict=True))}
    return plain


def search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override by which Hydra also looks for YAML files in some folders; an empty list without folders."""
    folders = ",".join(path_setting.quoted(f"file://{Path(folder).absolute()}") for folder in config_dirs)
    return [f"hydra.searchpath=[{folders}]"] if config_dirs else []


def settings_of(config: Node) -> Settings:
    """The typed settings of a composed configuration of `train`, `baseline` or `check`."""
    return Settings.of(resolve(config))


def located(config: Node, run_dir: Path) -> Settings:
    """The typed settings of a composed configuration with an absolute `run_dir`.

    The name of the directory is taken literally, even if it looks like a reference to a setting.
    """
    return settings_of({**config, "run_dir": path_setting.escaped(str(run_dir.absolute()))})


def as_yaml(config: Node) -> str:
    """The text of `config.yaml` for a configuration in plain containers."""
    return str(yaml.dump(config, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def _container(config: Any) -> Node:
    """Plain containers of a configuration of OmegaConf, resolved within the limits of `expansion`."""
    try:
        with admitted_resolvers(), bounded():
            return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("Error raised while resolving interpolation: ")[-1]
        raise UsageError(f"a setting cannot be resolved: {reason}") from error


def _compose(
    how: Callable[[Path, str, Sequence[str]], T], command: str, overrides: Sequence[str], config_dirs: Sequence[str]
) -> T:
    """What `how` (`compose` or `compose_plain`) returns for mlefw's YAML files; errors become a UsageError."""
    try:
        with admitted_resolvers(), bounded():
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
    """Warn of settings that are given more than once."""
    keys = [override.split("=")[0] for override in overrides if "=" in override]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        warn(f"{key} is given {keys.count(key)} times: the last one counts")


def moved(node: Any, before: str, after: str) -> Any:
    """A copy of plain containers in which every path at or below the directory `before` begins with `after` instead."""
    if isinstance(node, dict):
        return {key: moved(value, before, after) for key, value in node.items()}
    if isinstance(node, str) and (node == before or node.startswith(f"{before}/")):
        return after + node[len(before) :]
    return node
