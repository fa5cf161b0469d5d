"""Prepares the overrides of a command line for Hydra: quotes paths, replaces globs by names, lists swept values."""

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
from mlefw.configuration.yaml_folder import config_root
from mlefw.errors import UsageError


def for_hydra(overrides: Sequence[str], sweeps: bool = False) -> list[str]:
    """The overrides as Hydra's grammar needs them: paths in quotes, and `++` before `section.key=value`.

    With `++` Hydra takes keys that no YAML file lists: a class may have more parameters than its file lists. Whether
    the class has a parameter of that name is checked later (`configuration.check`).

    Args:
        overrides: of the command line.
        sweeps: whether a comma in a value separates the values of a sweep.

    Raises:
        UsageError: `hydra.run.dir` or `hydra.sweep.dir` is set, or a value is nested too deeply.
    """
    for item in overrides:
        if item.startswith(("hydra.run.dir=", "hydra.sweep.dir=")):
            raise UsageError(f"{item}: expected run_dir=…, which says where runs and sweeps are written")
        if not item.startswith(path_setting.TEXT) and not path_setting.is_formula(item):
            check_depth(item)
    # A shell strips the quotes from data.delimiter=';', which Hydra's grammar needs.
    quoted = [re.sub(r"^(?!prompt=)([\w.]+)=([;|,\s]+)$", r"\1='\2'", item) for item in overrides]
    quoted = [path_setting.with_quoted_path(path_setting.with_quoted_formula(item), sweeps) for item in quoted]
    return [f"++{item}" if re.match(r"(?!hydra\.)\w+\.[\w.]+=", item) else item for item in quoted]


def expand_globs(overrides: Sequence[str], config_dirs: Sequence[str]) -> list[str]:
    """The overrides with `head=glob(*)` replaced by the names that match, `head=a,b`, those of plugins included.

    Args:
        overrides: of the command line.
        config_dirs: folders of further YAML files.

    Raises:
        UsageError: no member matches.
    """
    return [_expand_glob(item, config_dirs) if re.match(r"[\w/]+=glob\(", item) else item for item in overrides]


def _expand_glob(override: str, config_dirs: Sequence[str]) -> str:
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
    """The overrides of each swept setting by its key: `seed=0,1` gives `{"seed": ["seed=0", "seed=1"]}`.

    Raises:
        UsageError: an override that cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from error
    return {
        item.get_key_element().lstrip("+"): [
            f"{item.get_key_element()}={_plain(value)}" for value in item.sweep_string_iterator()
        ]
        for item in parsed
        if item.is_sweep_override()
    }


def _plain(value: str) -> str:
    r"""A swept value as it was given, where Hydra has escaped an address to `s3\://bucket/a.csv`; else unchanged."""
    return re.sub(r"\\(.)", r"\1", value) if re.match(r"(s3|gs|https?)\\://", value, re.IGNORECASE) else value


def is_swept(override: str) -> bool:
    """Whether an override has several values, or an interval of them.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from error
