"""The overrides of a command line before Hydra reads them: paths in quotes, globs as names, swept values."""

import re
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from mlefw.configuration import path_setting
from mlefw.configuration.expansion import check_depth
from mlefw.configuration.groups import config_root
from mlefw.errors import UsageError


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
