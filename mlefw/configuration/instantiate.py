"""From an admitted node of a configuration to the object that it describes."""

import functools
import inspect
import warnings
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from mlefw.configuration.admission import Part, admit
from mlefw.configuration.kinds import KINDS
from mlefw.errors import UsageError


def instantiate(slot: str, node: Any, /, **facts: Any) -> Any:
    """The object of a node that stands in a slot of the configuration.

    Args:
        slot: one of those of `admission`, which says what kind of object it is.
        node: as the configuration has it.
        facts: what only the data can tell; the object gets those that it asks for by name.

    Raises:
        UsageError: the node is not admitted, or its class refuses its settings.
    """
    return make(admit(slot, node), **facts)


def make(part: Part, /, **facts: Any) -> Any:
    """The object of an admitted part; of a deferred one what makes it from its last argument.

    Raises:
        UsageError: its class is of another kind, or refuses its settings.
    """
    target = found(part)
    settings = {name: _made(value) for name, value in part.settings.items()}
    names = inspect.signature(target).parameters
    settings |= {name: fact for name, fact in facts.items() if name in names}
    if KINDS[part.kind].deferred:
        return functools.partial(target, **settings)
    try:
        with warnings.catch_warnings():
            # torch says this of the weights of a model without features, which is an intercept
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            return target(**settings)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UsageError(f"{part.target} refused its settings: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Libraries add a stack of their own calls to a message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def found(part: Part) -> type:
    """The class of a part.

    Raises:
        UsageError: there is none of its kind by this name.
    """
    try:
        return part.find()
    except UsageError as error:
        raise UsageError(f"{part.kind}._target_={part.target!r} was refused: expected {error}") from error
    except ImportError as error:
        raise UsageError(f"{part.kind}._target_={part.target!r} cannot be imported: {error}") from error


def _made(value: Any) -> Any:
    """A copy of plain containers with objects for parts."""
    if isinstance(value, Part):
        return make(value)
    if isinstance(value, dict):
        return {key: _made(item) for key, item in value.items()}
    return [_made(item) for item in value] if isinstance(value, list) else value
