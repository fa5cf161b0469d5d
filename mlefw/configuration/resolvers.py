"""Which functions an interpolation may call: those of OmegaConf and Hydra, and none that another library registered.

A program that uses mlefw may have registered `eval`, and a file of somebody else may then say `${eval:…}`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mlefw.configuration.hydra_internals import resolving

ADMITTED = (
    *("oc.env", "oc.select", "oc.decode", "oc.create", "oc.deprecated", "oc.dict.keys", "oc.dict.values"),
    *("now", "hydra", "python_version"),
)


@contextmanager
def own_alone() -> Iterator[None]:
    """Let interpolations call these alone while the block runs; others are not known to it."""
    with resolving(ADMITTED):
        yield
