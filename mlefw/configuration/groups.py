"""The settings of each command and of the members of each group, from YAML files; files of plugins on Hydra's path."""

from functools import cache
from importlib.metadata import entry_points

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from mlefw.configuration.settings import Node
from mlefw.configuration.yaml_folder import config_root, members


class InstalledPlugins(SearchPathPlugin):
    """Puts the configuration packages of installed plugins (entry points `mlefw.configs`) on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append one `pkg://` path for each entry point."""
        for entry in entry_points(group="mlefw.configs"):
            search_path.append(provider=entry.name, path=f"pkg://{entry.value}")


def register_plugins() -> None:
    """Make Hydra see the installed plugins."""
    Plugins.instance().register(InstalledPlugins)


@cache
def known_settings(command: str) -> Node:
    """The settings that a command knows, with their defaults, as its primary YAML file (`conf/train.yaml`) has them.

    A group, such as `head`, is an empty dict. The result is cached: callers must not change it.
    """
    name = "train" if command in ("baseline", "check") else command
    content = OmegaConf.to_container(OmegaConf.load(config_root() / f"{name}.yaml"), resolve=False)
    own = OmegaConf.to_container(OmegaConf.load(config_root() / f"{command}.yaml"), resolve=False)
    assert isinstance(content, dict)
    assert isinstance(own, dict)
    content |= {key: value for key, value in own.items() if key not in content}
    groups: Node = {
        str(name).split("@")[0].removeprefix("optional ").strip(): {}
        for entry in content.pop("defaults", [])
        if isinstance(entry, dict)
        for name in entry
        if not str(name).startswith("override ")
    }
    content.pop("hydra", None)
    return {**groups, **{str(key): value for key, value in content.items()}}


def member_settings(group: str) -> dict[str, Node]:
    """The content of the YAML file of every member of a group, by its name; members without settings are left out."""
    folder = config_root() / group
    files = {name: OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")) for name in members(group)}
    return {
        name: {str(key): value for key, value in content.items()}
        for name, content in files.items()
        if isinstance(content, dict)
    }
