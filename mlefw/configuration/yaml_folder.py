"""The folder of mlefw's own YAML files, `conf/`. It needs neither Hydra nor OmegaConf, so that `--help` is quick."""

from pathlib import Path


def config_root() -> Path:
    """The folder of the YAML files: `mlefw/conf` in an installed package, `conf` beside `mlefw` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def members(group: str) -> list[str]:
    """The names of mlefw's own members of a group, sorted; those of plugins are not among them."""
    return sorted(file.stem for file in (config_root() / group).glob("*.yaml"))
