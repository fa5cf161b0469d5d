"""A command line taken apart: plugins, settings, and flags."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

VALUE_FLAGS = ("--config-dir", "-cd", "--package", "-p", "--cfg", "-c")
HYDRA_PAGES = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--version")
FLAGS = (*VALUE_FLAGS, *HYDRA_PAGES, "-m", "--multirun", "--resolve")
"""Hydra has more: one reads a pickle, others read the primary settings from elsewhere."""


def take_plugins(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The packages admitted by --plugin or MLEFW_PLUGINS (jobs in other processes inherit them); the rest."""
    plugins = [name for name in os.environ.get("MLEFW_PLUGINS", "").split(",") if name]
    left: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == "--plugin" and position + 1 < len(arguments):
            position += 1
            plugins.append(arguments[position])
        elif argument.startswith("--plugin="):
            plugins.append(argument.removeprefix("--plugin="))
        else:
            left.append(argument)
        position += 1
    if plugins:
        os.environ["MLEFW_PLUGINS"] = ",".join(dict.fromkeys(plugins))
        # At the end, so that nothing in the working directory can shadow an installed module.
        sys.path.append(str(Path.cwd()))
    return tuple(plugins), left


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings, and flags with their values, in words of their own.

    Raises:
        UsageError: a flag that is none of ours, and would be passed on to Hydra, or go unheard.
    """
    settings: list[str] = []
    flags: list[str] = []
    takes_value = False
    for argument in arguments:
        if takes_value:
            flags.append(argument)
            takes_value = False
        elif argument.startswith("-"):
            words = argument.split("=", 1) if argument.startswith("--") else [argument]
            _check(words[0])
            flags += words
            takes_value = words[0] in VALUE_FLAGS and len(words) == 1
        else:
            settings.append(argument)
    return settings, flags


def _check(flag: str) -> None:
    if flag not in FLAGS:
        from mlefw.errors import UsageError
        from mlefw.preflight import nearest

        hint = nearest(flag, FLAGS) or " Settings are given as setting=value; mlefw --help lists the flags."
        raise UsageError(f"unknown flag {flag}.{hint}")
