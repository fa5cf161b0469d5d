"""The private names of Hydra and OmegaConf that mlefw uses, all in one place, because a new version may change them.

`tests/configuration/test_hydra_internals.py` fails with a sentence that names the one that has changed.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.callbacks import Callbacks as Callbacks
from omegaconf import _utils
from omegaconf.base import Container as Container
from omegaconf.basecontainer import BaseContainer


@contextmanager
def only_resolvers(names: Collection[str]) -> Iterator[None]:
    """Let interpolations call no resolvers but those named while the block runs; the others are back afterwards."""
    # OmegaConf has no public list of its resolvers.
    known = BaseContainer._resolvers
    BaseContainer._resolvers = {name: known[name] for name in names if name in known}
    try:
        yield
    finally:
        # Resolvers that were registered inside the block stay.
        BaseContainer._resolvers = {**known, **BaseContainer._resolvers}


@contextmanager
def patched_reading(
    loader: Callable[[Callable[[], Any]], Callable[[], Any]], follow: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Wrap how OmegaConf parses YAML texts and how it resolves references while the block runs.

    Args:
        loader: maps OmegaConf's function that returns a YAML loader class to the function that is used instead.
        follow: maps OmegaConf's method that resolves one reference to the method that is used instead.
    """
    usual, resolve = _utils.get_yaml_loader, Container.resolve_parse_tree
    _utils.get_yaml_loader, Container.resolve_parse_tree = loader(usual), follow(resolve)  # type: ignore[method-assign]
    try:
        yield
    finally:
        _utils.get_yaml_loader, Container.resolve_parse_tree = usual, resolve  # type: ignore[method-assign]
