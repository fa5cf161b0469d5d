"""From a node of a configuration to the object that it describes."""

import copy
import functools
import inspect
import warnings
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mlefw.errors import MlefwError, UsageError

Config = dict[str, Any]


def instantiate(node: Config, **facts: Any) -> Any:
    """The object of a node; of the `facts` that only the data can tell it gets those that it asks for by name."""
    target = hydra.utils.get_object(node["_target_"])
    names = inspect.signature(target).parameters
    wanted = {name: fact for name, fact in facts.items() if name in names}
    settings = {name: value for name, value in node.items() if name != "_target_"}
    try:
        with warnings.catch_warnings():
            # torch says this of the weights of a model without features, which is an intercept
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            partial = settings.get("_partial_", False)
            settings.pop("_partial_", None)
            if not any(_is_special(*item) for item in settings.items()):
                # Hydra's way takes ten times as long, and is for what a node seldom has.
                given = {**copy.deepcopy(settings), **wanted}
                return functools.partial(target, **given) if partial else target(**given)
            return hydra.utils.instantiate(node, **wanted, _convert_="all")
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UsageError(f"{node['_target_']} refused its settings: {error}") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, MlefwError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError | ValueError | MisconfigurationException):
            raise UsageError(f"{node['_target_']} refused its settings: {error.__cause__}") from error
        raise


def _is_special(name: str, value: Any) -> bool:
    """Whether a setting is one of Hydra's own, or holds a mapping, which may be a node."""
    held = value if isinstance(value, list) else [value]
    return name.startswith("_") or any(isinstance(item, dict | list) for item in held)
