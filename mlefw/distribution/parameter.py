"""Where a distribution parameter comes from, and the simpler distribution in its limit."""

from typing import Literal, NamedTuple

import torch
from torch.distributions.transforms import Transform

from mlefw import inverse_link
from mlefw.errors import UsageError

ParameterSource = Literal["predicted", "shared"] | float
"""Where a distribution parameter comes from: the network, one learnt value, or a fixed number."""


class Limit(NamedTuple):
    """A simpler distribution, reached as the eta of a parameter goes to infinity.

    Attributes:
        name: the parameter.
        end: an eta beyond which data can hardly distinguish the two distributions; its sign is the sign of the limit.
        reason: why the likelihood may grow up to the limit, and the simpler head: one clause for messages.
        beside: a parameter whose eta goes to infinity at the same rate, if any.
        start: the eta from which training starts where the null model lies further out: steps there are large enough
            to come back, which they are no longer at `end`; by default `end` itself.
        opposite: whether the eta of `beside` goes to the other infinity.
    """

    name: str
    end: float
    reason: str
    beside: str | None = None
    start: float | None = None
    opposite: bool = False


def check_source(name: str, source: ParameterSource, link: Transform) -> None:
    """Check that a parameter's source is known, and that a fixed number lies in the range of its inverse link.

    Raises:
        UsageError: the source is an unknown word, or a number outside the range of the inverse link.
    """
    if isinstance(source, str):
        if source not in ("predicted", "shared"):
            raise UsageError(f"head.{name}={source!r}: expected 'predicted', 'shared' or a number")
        return
    value = torch.tensor(float(source), dtype=torch.float64)
    if not (torch.isfinite(value) and link.codomain.check(value)):
        expected = inverse_link.codomain_words(link)
        raise UsageError(f"head.{name}={source}: expected {expected}, 'predicted' or 'shared'")
