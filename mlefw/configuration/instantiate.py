"""Builds the object that an admitted node of a configuration describes."""

import functools
import inspect
import warnings
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from mlefw.configuration.admission import Part, admit
from mlefw.configuration.kinds import KINDS
from mlefw.errors import UsageError


def instantiate(slot: str, node: Any, /, **facts: Any) -> Any:
    """The object that a node describes.

    Args:
        slot: a key of `kinds.KINDS`, which says what kind of object it is.
        node: a node of a configuration, in plain containers.
        facts: arguments that the data determine, such as `num_features`; the class gets those it has parameters for.

    Raises:
        UsageError: the node is not admitted, or its class refuses its settings.
    """
    return make(admit(slot, node), **facts)


def make(part: Part, /, **facts: Any) -> Any:
    """The object that an admitted part describes; for a deferred kind a function that builds it from one more argument.

    Args:
        part: the part.
        facts: arguments that the data determine; the class gets those it has parameters for.

    Raises:
        UsageError: the class cannot be imported, is of another kind, or refuses its settings.
    """
    target = class_of(part)
    settings = {name: _made(value) for name, value in part.settings.items()}
    names = inspect.signature(target).parameters
    settings |= {name: fact for name, fact in facts.items() if name in names}
    if KINDS[part.kind].deferred:
        return functools.partial(target, **settings)
    try:
        with warnings.catch_warnings():
            # torch warns of the empty weights of a model without features, which is an intercept.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            return target(**settings)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UsageError(f"{part.target} refused its settings: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The first line of a message, as libraries may add a stack of their own calls after it."""
    return (str(error) or type(error).__name__).splitlines()[0]


def class_of(part: Part) -> type:
    """The class that a part names, imported.

    Raises:
        UsageError: it cannot be imported, or there is no class of this kind by its name.
    """
    try:
        return part.find()
    except UsageError as error:
        raise UsageError(f"{part.kind}._target_={part.target!r} was refused: expected {error}") from error
    except ImportError as error:
        raise UsageError(f"{part.kind}._target_={part.target!r} cannot be imported: {error}") from error


def _made(value: Any) -> Any:
    """A copy of plain containers in which parts are replaced by the objects they describe."""
    if isinstance(value, Part):
        return make(value)
    if isinstance(value, dict):
        return {key: _made(item) for key, item in value.items()}
    return [_made(item) for item in value] if isinstance(value, list) else value
