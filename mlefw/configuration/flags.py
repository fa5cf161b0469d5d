"""The flags of a command line: mlefw's own, and those of Hydra that have an effect here. Any other is refused."""

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlefw.errors import UsageError
from mlefw.system import trust

_LONG: Mapping[str, str] = {
    "-m": "--multirun",
    "-cd": "--config-dir",
    "-c": "--cfg",
    "-p": "--package",
    "-i": "--info",
    "-sc": "--shell-completion",
}
"""Long names of flags by their short ones."""
_VALUED = ("--plugin", "--config-dir", "--cfg", "--package")
"""Flags that need a value."""
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""Values that `--info` may have."""
PAGES = ("--cfg", "--info", "--shell-completion", "--hydra-help", "--version")
"""Flags that make Hydra print something instead of running the command."""

_COMPOSING = ("--plugin", "--config-dir", "--package", "--resolve", *PAGES)
APPLIED = ("evaluate", "predict", "explain", "export", "sample")
"""Commands that take a trained run, and have the settings of their own file alone."""
_KNOWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "baseline", "check"), ("--multirun", *_COMPOSING)),
    **dict.fromkeys(APPLIED, _COMPOSING),
    "anova": ("--plugin",),
}


@dataclass
class Flags:
    """The flags of a command line.

    Attributes:
        plugins: packages admitted by the environment variable MLEFW_PLUGINS, then those of `--plugin`.
        config_dirs: folders of further YAML files (`--config-dir`).
        names: long names of all other flags.
        arguments: the flags with their values, without `--plugin`, as Hydra takes them.
    """

    plugins: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    arguments: list[str] = field(default_factory=list)

    @property
    def page(self) -> bool:
        """Whether Hydra is to print something instead of running the command."""
        return bool(self.names & set(PAGES))


def parse(command: str, arguments: Sequence[str]) -> tuple[list[str], Flags]:
    """The overrides and the flags of a command line.

    Args:
        command: the command of mlefw.
        arguments: everything after the command.

    Raises:
        UsageError: the command does not have a flag (the message says what may be meant), or a value is missing.
    """
    known = _KNOWN.get(command, ())
    flags, overrides, waiting = Flags(), list[str](), list(arguments)
    flags.plugins = list(trust.named_by_user())
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            # What follows are no flags: a path may begin with a dash.
            overrides += waiting
            break
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        given, has_value, value = argument.partition("=")
        name = _LONG.get(given, given)
        if name not in known:
            raise UsageError(_unknown(command, argument, waiting, known))
        if name in _VALUED and not has_value:
            if not waiting or waiting[0].startswith("-"):
                raise UsageError(f"{given}: expected a value after it")
            value = waiting.pop(0)
        elif name == "--info" and not has_value and waiting and waiting[0] in _INFO:
            value = waiting.pop(0)
        elif has_value and name not in (*_VALUED, "--info"):
            raise UsageError(f"{argument}: {given} takes no value")
        if name == "--config-dir" and not Path(value).is_dir():
            raise UsageError(f"{given}={value}: there is no such directory ({Path(value).absolute()})")
        _add(flags, name, value)
    if flags.names & {"--resolve", "--package"} and "--cfg" not in flags.names:
        raise UsageError("--resolve and --package change what --cfg shows: expected --cfg job beside them")
    return overrides, flags


def _add(flags: Flags, name: str, value: str) -> None:
    if name == "--plugin":
        flags.plugins.append(value)
        return
    flags.arguments += [name, value] if value else [name]
    if name == "--config-dir":
        flags.config_dirs.append(value)
    else:
        flags.names.add(name)


def admit_plugins(plugins: Sequence[str]) -> None:
    """Admit the plugins in processes started later, and let their modules lie in the working directory."""
    if plugins:
        trust.trust_everywhere(plugins)
        # At the end, so that nothing in the working directory can shadow an installed module.
        sys.path.append(str(Path.cwd()))


def _unknown(command: str, argument: str, after: Sequence[str], known: Sequence[str]) -> str:
    """The message on an unknown flag, which may be a setting written with dashes: `--seed 1` for `seed=1`."""
    name, has_value, value = argument.lstrip("-").partition("=")
    settings, word = _settings(command), name.replace("-", "_")
    head = word.split(".")[0]
    if close := [head] if head in settings else difflib.get_close_matches(head, settings, n=1, cutoff=0.75):
        value = value if has_value else next((item for item in after[:1] if not item.startswith("-")), "…")
        meant = f"{close[0]}{word.removeprefix(head)}={value}"
        return f"unknown flag {argument}: settings have no dashes. Did you mean {meant!r}?"
    near = difflib.get_close_matches(argument.partition("=")[0], known, n=1, cutoff=0.6)
    meant = f" Did you mean {near[0]!r}?" if near else f" mlefw {command} has {', '.join(['--help', *known])}"
    return f"unknown flag {argument}.{meant}"


def _settings(command: str) -> list[str]:
    """Names of the settings of a command."""
    if command == "compare":
        return ["runs", "report", "measure", "overwrite"]
    if command == "anova":
        return ["runs", "table"]
    if command == "app":
        return ["port"]
    from mlefw.configuration.groups import known_settings

    return list(known_settings(command))


def with_defaults_of_many_runs(command: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a command, with the defaults of a cross-validation and of an ensemble before them.

    A cross-validation of networks writes no report and no pictures unless asked to. Numerical libraries that this
    process imports afterwards start no threads.
    """
    chosen = {item.partition("=")[0]: item.partition("=")[2] for item in overrides}
    # Settings that choose one run out of many, by group.
    single = {"train": {"cv": "cv.fold", "ensemble": "ensemble.member"}, "baseline": {"cv": "cv.fold"}}.get(command, {})
    many = [group for group, key in single.items() if chosen.get(group, "none") != "none" and key not in chosen]
    if not many:
        return list(overrides)
    # Forked processes lack the threads that a library starts on import; folds and members start threads themselves.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    is_quiet = "cv" in many and command == "train" and not {"report", "plots"} & {*chosen}
    return [*(["report=false", "plots=false"] if is_quiet else []), *overrides]
