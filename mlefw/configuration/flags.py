"""The flags of a command line: ours, and those of Hydra that have an effect. Any other is refused."""

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
_VALUED = ("--plugin", "--config-dir", "--cfg", "--package")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
PAGES = ("--cfg", "--info", "--shell-completion", "--hydra-help", "--version")
"""Flags that ask for a page of Hydra's instead of running the command."""

_COMPOSING = ("--plugin", "--config-dir", "--package", "--resolve", *PAGES)
_KNOWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "baseline", "check"), ("--multirun", *_COMPOSING)),
    **dict.fromkeys(("evaluate", "predict"), _COMPOSING),
}


@dataclass
class Flags:
    """The flags given, by their long names.

    Attributes:
        plugins: packages admitted by `--plugin`, those of MLEFW_PLUGINS first.
        config_dirs: folders of further YAML files.
        names: of all flags but these two.
        arguments: what Hydra is handed, without the flags that are ours.
    """

    plugins: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    arguments: list[str] = field(default_factory=list)

    @property
    def page(self) -> bool:
        """Whether a page of Hydra's is asked for."""
        return bool(self.names & set(PAGES))


def parse(command: str, arguments: Sequence[str]) -> tuple[list[str], Flags]:
    """Overrides, and the flags among them.

    Raises:
        UsageError: a flag that the command does not have, with what may be meant; one without its value.
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
        raise UsageError("--resolve and --package are for --cfg alone, which shows the settings: expected --cfg job")
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


def admit(plugins: Sequence[str]) -> None:
    """Let jobs in other processes inherit the plugins, and the working directory hold their modules."""
    if plugins:
        trust.trust_everywhere(plugins)
        # At the end, so that nothing in the working directory can shadow an installed module.
        sys.path.append(str(Path.cwd()))


def _unknown(command: str, argument: str, after: Sequence[str], known: Sequence[str]) -> str:
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
    """What may be set on the command line of a command."""
    if command == "compare":
        return ["runs", "report", "measure", "overwrite"]
    if command == "app":
        return ["port"]
    from mlefw.configuration.groups import known_settings

    return list(known_settings(command))


def of_many_runs(command: str, overrides: Sequence[str]) -> list[str]:
    """What is set for folds of a cross-validation and members of an ensemble unless the command line says otherwise."""
    chosen = {item.partition("=")[0]: item.partition("=")[2] for item in overrides}
    one = {"train": {"cv": "cv.fold", "ensemble": "ensemble.member"}, "baseline": {"cv": "cv.fold"}}.get(command, {})
    many = [group for group, key in one.items() if chosen.get(group, "none") != "none" and key not in chosen]
    if not many:
        return list(overrides)
    # Threads that a library starts when it is imported would be lost in the forks; folds and members start their own.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    is_quiet = "cv" in many and command == "train" and not {"report", "plots"} & {*chosen}
    return [*(["report=false", "plots=false"] if is_quiet else []), *overrides]
