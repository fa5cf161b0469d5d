"""Turns Hydra's messages on a wrong setting into short ones that suggest the nearest spelling."""

import re

from mlefw.configuration.check import nearest
from mlefw.configuration.flags import APPLIED
from mlefw.configuration.groups import known_settings
from mlefw.configuration.yaml_folder import config_root, members


def explain(command: str, message: str) -> str:
    """A short message for a message of Hydra or OmegaConf, with the nearest spelling or the names that are known.

    Args:
        command: the command of mlefw, whose settings are suggested.
        message: the text of the exception.
    """
    lines = [line for line in message.splitlines() if line.strip()]
    if "Exception" in lines[0].split(":")[0] or "viable alternative" in lines[0]:
        lines = [line.replace("++", "").split("Exception: ")[-1] for line in lines]
        lines.insert(
            0, "a setting cannot be read; expected key=value, lists as [a,b], text with special characters in quotes:"
        )
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
    """What may be meant by an unknown setting, to follow the message that it is unknown."""
    known = known_settings(command)
    head, _, rest = key.partition(".")
    if command in APPLIED and head in known_settings("train") and head not in known:
        return " It is that of the trained run, which is read from its checkpoint: leave it out."
    if rest and head in known and isinstance(known[head], dict):
        return nearest(rest, known[head]) or f" {head} has other settings: mlefw {command} --cfg job shows them."
    return nearest(key, known) or f" Known: {', '.join(sorted(known))}"
