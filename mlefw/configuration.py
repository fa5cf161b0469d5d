"""From the command line to a checked configuration of plain containers."""

import re
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlefw.composition import compose
from mlefw.errors import UsageError
from mlefw.preflight import check, nearest
from mlefw.warn import warn

REQUIRED = ("head", "prior", "batch", "model", "data", "optimizer", "trainer")


def config_root() -> Path:
    """The folder of the YAML files: inside an installed package, else beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "conf", here.parent / "conf") if folder.is_dir())


class InstalledPlugins(SearchPathPlugin):
    """Puts the configuration packages of installed plugins (entry points `mlefw.configs`) on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append one `pkg://` path for each entry point."""
        for entry in entry_points(group="mlefw.configs"):
            search_path.append(provider=entry.name, path=f"pkg://{entry.value}")


def installed_plugins() -> tuple[str, ...]:
    """The packages that installed entry points admit as `_target_`."""
    return tuple(entry.value.split(".")[0] for entry in entry_points(group="mlefw.configs"))


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
    config = _compose(command, overrides, config_dirs)
    _open_heads(config, command, config_dirs)
    choices = dict(config["hydra"]["runtime"]["choices"])
    del config["hydra"]
    known = known_settings(command)
    missing = [name for name in REQUIRED if name in known and not config.get(name)]
    if missing:
        raise UsageError(
            "\n".join(f"{name} is missing: expected {name}={' | '.join(members(name))}" for name in missing)
        )
    check(_container(config), known, plugins)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    if "head" in known:
        plain["choices"] = {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}
    return plain


def opened(overrides: Sequence[str]) -> list[str]:
    """The overrides with every plain `section.key=value` admitted, whether its YAML file names the key or not.

    A class takes more arguments than its YAML file lists; the check that follows knows them all.

    Raises:
        UsageError: a setting of Hydra that mlefw decides itself.
    """
    for item in overrides:
        if item.startswith(("hydra.run.dir=", "hydra.sweep.dir=")):
            raise UsageError(f"{item}: expected run_dir=…, which says where runs and sweeps are written")
    # A shell strips the quotes from data.delimiter=';', which Hydra's grammar needs.
    quoted = [re.sub(r"^([\w.]+)=([;|,\s]+)$", r"\1='\2'", item) for item in overrides]
    return [f"++{item}" if re.match(r"(?!hydra\.)\w+\.[\w.]+=", item) else item for item in quoted]


def launcher_settings(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> dict[str, Any]:
    """The settings of Hydra's launcher.

    Raises:
        UsageError: one that it does not have.
    """
    return _container(_compose(command, overrides, config_dirs)["hydra"]["launcher"])


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every interpolation replaced by its value."""
    return _container(OmegaConf.create(config))


def _container(config: Any) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UsageError(f"a setting cannot be resolved: {str(error).splitlines()[0]}") from error


def known_settings(command: str) -> dict[str, Any]:
    """The settings of a primary YAML file, its groups among them."""
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


def _compose(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Any:
    extra = [f"hydra.searchpath=[{','.join(f'file://{Path(folder).absolute()}' for folder in config_dirs)}]"]
    try:
        config = compose(config_root(), command, [*overrides, *(extra if config_dirs else [])])
        OmegaConf.set_struct(config, False)
        return config
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(_explain(command, str(error))) from error


def _open_heads(config: Any, command: str, config_dirs: Sequence[str]) -> None:
    """Put the node of a head in the place of its name, in `head.tasks` and `head.component`, and its metrics.

    Raises:
        UsageError: a task that names no head.
    """
    tasks = OmegaConf.select(config, "head.tasks") or {}
    for target, task in list(tasks.items()):
        opened = _opened_head(f"head.tasks.{target}", task, command, config_dirs)
        if opened is not None:
            tasks[target], config.metric[target] = opened
    component = OmegaConf.select(config, "head.component")
    opened = None if component is None else _opened_head("head.component", component, command, config_dirs)
    if opened is not None:
        config.head.component, config.metric = opened


def _opened_head(setting: str, node: Any, command: str, config_dirs: Sequence[str]) -> tuple[Any, Any] | None:
    """The node of a head that is named, and its metrics; None where it is a node already."""
    if isinstance(node, str):
        node = {"head": node}
    if node is None or "_target_" in node:
        return None
    name, own = node.get("head"), {key: value for key, value in node.items() if key != "head"}
    if name in (None, "multitask", "multivariate_gaussian", "mixture"):
        raise UsageError(f"{setting}={name}: expected the name of a head for one target, such as gaussian")
    chosen = _compose(command, [f"head={name}"], config_dirs)
    return OmegaConf.merge(chosen.head, own), chosen.metric


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
