"""Every name of OmegaConf that it does not promise to keep, in one place: a new version is looked at here.

`tests/configuration/test_hydra_internals.py` says which of them has moved, should one ever do so.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import _utils
from omegaconf.base import Container as Container
from omegaconf.basecontainer import BaseContainer


@contextmanager
def resolving(names: Collection[str]) -> Iterator[None]:
    """Let interpolations call the resolvers of these names alone while the block runs."""
    # OmegaConf has no public list of its resolvers.
    known = BaseContainer._resolvers
    BaseContainer._resolvers = {name: known[name] for name in names if name in known}
    try:
        yield
    finally:
        BaseContainer._resolvers = {**known, **BaseContainer._resolvers}


@contextmanager
def reading(
    loader: Callable[[Callable[[], Any]], Callable[[], Any]], follow: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Put a loader of YAML texts, and what follows a reference, in the place of OmegaConf's while the block runs.

    Args:
        loader: gets what makes OmegaConf's class of loaders, and returns what makes the one to use.
        follow: gets what OmegaConf follows a reference with, and returns what to follow it with.
    """
    usual, followed = _utils.get_yaml_loader, Container.resolve_parse_tree
    _utils.get_yaml_loader, Container.resolve_parse_tree = loader(usual), follow(followed)  # type: ignore[method-assign]
    try:
        yield
    finally:
        _utils.get_yaml_loader, Container.resolve_parse_tree = usual, followed  # type: ignore[method-assign]
