"""From the command line to a checked configuration of plain containers."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlefw.configuration import path_setting
from mlefw.configuration.check import check, nearest
from mlefw.configuration.component_heads import open_heads
from mlefw.configuration.compose import compose, contain
from mlefw.configuration.expansion import bounded, check_depth
from mlefw.configuration.interpolate import replaced
from mlefw.configuration.resolvers import own_alone
from mlefw.errors import UsageError
from mlefw.system.warning import warn

T = TypeVar("T")

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

REQUIRED = ("head", "prior", "batch", "model", "data", "optimizer", "trainer")


def config_root() -> Path:
    """The folder of the YAML files: inside an installed package, else beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    return next(folder for folder in (here / "conf", here.parent / "conf") if folder.is_dir())


class InstalledPlugins(SearchPathPlugin):
    """Puts the configuration packages of installed plugins (entry points `mlefw.configs`) on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append one `pkg://` path for each entry point."""
        for entry in entry_points(group="mlefw.configs"):
            search_path.append(provider=entry.name, path=f"pkg://{entry.value}")


def register_plugins() -> None:
    """Make Hydra see the installed plugins."""
    Plugins.instance().register(InstalledPlugins)


def read(command: str, overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> dict[str, Any]:
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


def opened(overrides: Sequence[str], sweeps: bool = False) -> list[str]:
    """The overrides with every plain `section.key=value` admitted, whether its YAML file names the key or not,
    and paths in quotes; in what `sweeps` a comma separates values.

    A class takes more arguments than its YAML file lists; the check that follows knows them all.

    Raises:
        UsageError: a setting of Hydra that mlefw decides itself, or a value that is nested too deeply.
    """
    for item in overrides:
        if item.startswith(("hydra.run.dir=", "hydra.sweep.dir=")):
            raise UsageError(f"{item}: expected run_dir=…, which says where runs and sweeps are written")
        check_depth(item)
    # A shell strips the quotes from data.delimiter=';', which Hydra's grammar needs.
    quoted = [re.sub(r"^([\w.]+)=([;|,\s]+)$", r"\1='\2'", item) for item in overrides]
    quoted = [path_setting.opened(item, sweeps) for item in quoted]
    return [f"++{item}" if re.match(r"(?!hydra\.)\w+\.[\w.]+=", item) else item for item in quoted]


def globbed(overrides: Sequence[str], config_dirs: Sequence[str]) -> list[str]:
    """The overrides with `head=glob(*)` replaced by the names it stands for, those of plugins among them.

    Raises:
        UsageError: there is no such member.
    """
    return [_named(item, config_dirs) if re.match(r"[\w/]+=glob\(", item) else item for item in overrides]


def _named(override: str, config_dirs: Sequence[str]) -> str:
    try:
        item = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from error
    group, value = item.key_or_group, item.value()
    packages = [Path(str(files(entry.value))) for entry in entry_points(group="mlefw.configs")]
    folders = [root / group for root in (config_root(), *map(Path, config_dirs), *packages)]
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    found: list[str] = value.filter(known) if isinstance(value, Glob) else []
    if not found:
        raise UsageError(f"{override}: there is no such {group}. Known: {', '.join(known) or 'none'}")
    return f"{group}={','.join(found)}"


def hydra_section(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Any:
    """Hydra's own settings, as they are composed.

    Raises:
        UsageError: an override is wrong.
    """
    return _compose(compose, command, overrides, config_dirs)["hydra"]


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every interpolation replaced by its value."""
    plain = replaced(config)
    return _container(OmegaConf.create(config)) if plain is None else plain


def located(config: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The same of a run in a directory: absolute, so that whoever goes on with the run finds its parts from anywhere.

    The name of a directory is taken as it is, even where it looks like a reference to a setting.
    """
    return resolve({**config, "run_dir": path_setting.escaped(str(run_dir.absolute()))})


def as_yaml(config: dict[str, Any]) -> str:
    """The text of `config.yaml`."""
    return str(yaml.dump(config, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def _container(config: Any) -> dict[str, Any]:
    try:
        with own_alone(), bounded():
            return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("Error raised while resolving interpolation: ")[-1]
        raise UsageError(f"a setting cannot be resolved: {reason}") from error


@cache
def known_settings(command: str) -> dict[str, Any]:
    """The settings of a primary YAML file, its groups among them; not to be changed."""
    name = "train" if command in ("baseline", "check") else command
    content = OmegaConf.to_container(OmegaConf.load(config_root() / f"{name}.yaml"), resolve=False)
    assert isinstance(content, dict)
    groups: dict[str, Any] = {
        str(name).split("@")[0].removeprefix("optional ").strip(): {}
        for entry in content.pop("defaults", [])
        if isinstance(entry, dict)
        for name in entry
        if not str(name).startswith("override ")
    }
    content.pop("hydra", None)
    return {**groups, **{str(key): value for key, value in content.items()}}


def members(group: str) -> list[str]:
    """The names of the members of a group."""
    return sorted(file.stem for file in (config_root() / group).glob("*.yaml"))


def _compose(
    how: Callable[[Path, str, Sequence[str]], T], command: str, overrides: Sequence[str], config_dirs: Sequence[str]
) -> T:
    folders = ",".join(path_setting.quoted(f"file://{Path(folder).absolute()}") for folder in config_dirs)
    extra = [f"hydra.searchpath=[{folders}]"]
    try:
        with own_alone(), bounded():
            return how(config_root(), command, [*overrides, *(extra if config_dirs else [])])
    except UnicodeDecodeError as error:
        raise UsageError(f"a YAML file is not in UTF-8, as expected: {error}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(_explain(command, str(error))) from error
    except yaml.YAMLError as error:
        raise UsageError(f"a YAML file cannot be read: {error}") from error
    except RecursionError as error:
        raise UsageError("the defaults of a YAML file lead back to itself: expected defaults that end") from error


def _check_repeated(overrides: Sequence[str]) -> None:
    keys = [override.split("=")[0] for override in overrides if "=" in override]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        warn(f"{key} is given {keys.count(key)} times: the last one counts")


def _explain(command: str, message: str) -> str:
    """Hydra's message in a few words, with the nearest spelling."""
    lines = [line for line in message.splitlines() if line.strip()]
    if "Exception" in lines[0].split(":")[0] or "viable alternative" in lines[0]:
        lines = [line.replace("++", "").split("Exception: ")[-1] for line in lines]
        lines.insert(0, "a setting cannot be read; expected key=value, lists as [a,b], text with odd signs in quotes:")
    if found := re.search(r"Could not find '([\w/]+)/([^']*)'", message):
        group, member = found.groups()
        if (config_root() / group).is_dir():
            known = members(group)
            return f"{group}={member}: there is no such {group}.{nearest(member, known)} Known: {', '.join(known)}"
    if found := re.search(r"Could not override '([\w.@/]+)'", message):
        return f"unknown setting {found.group(1)}.{_suggest(command, found.group(1))}"
    if found := re.search(r"Key '(\w+)' is not in struct\s+full_key: (\S+)", message):
        return f"unknown setting {found.group(2)}.{_suggest(command, found.group(2))}"
    if (found := re.search(r"full_key: (\S+)", message)) and found.group(1) not in lines[0]:
        return f"{found.group(1)}: {lines[0]}"
    if message.startswith("Config group override must be"):
        return "a group was given no member: expected a name, such as head=gaussian (mlefw --help lists them)"
    if message.startswith("Ambiguous value"):
        lines.insert(0, lines.pop(0) + ": -m runs a sweep over the values;")
    lines = [line for line in lines if not line.startswith(("See https", "To append to your", "    "))]
    return "\n".join(lines[:3])


def _suggest(command: str, key: str) -> str:
    known = known_settings(command)
    head, _, rest = key.partition(".")
    if command in ("evaluate", "predict") and head in known_settings("train") and head not in known:
        return " It is that of the trained run, which is read from its checkpoint: leave it out."
    if rest and head in known and isinstance(known[head], dict):
        return nearest(rest, known[head]) or f" {head} has other settings: mlefw {command} --cfg job shows them."
    return nearest(key, known) or f" Known: {', '.join(sorted(known))}"


def sweep_values(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The swept keys, each with its values as overrides, in order.

    Raises:
        UsageError: an override that cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from error
    return {
        item.get_key_element().lstrip("+"): [
            f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()
        ]
        for item in parsed
        if item.is_sweep_override()
    }
