"""Which functions an interpolation such as `${oc.env:HOME}` may call: those that OmegaConf and Hydra bring themselves.

Resolvers are global to a process. A program that uses mlefw may have registered `eval`, and a YAML file or checkpoint
from somebody else could then run code by `${eval:…}`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mlefw.configuration.hydra_internals import only_resolvers

ADMITTED = (
    *("oc.env", "oc.select", "oc.decode", "oc.create", "oc.deprecated", "oc.dict.keys", "oc.dict.values"),
    *("now", "hydra", "python_version"),
)


@contextmanager
def admitted_resolvers() -> Iterator[None]:
    """Let interpolations call the resolvers of `ADMITTED` alone while the block runs; others are unknown there."""
    with only_resolvers(ADMITTED):
        yield
