"""What can be said of one parameter of a distribution: where it comes from, and where it makes a simpler one."""

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
        end: the eta from which the two can hardly be told apart; infinity lies on its side of zero.
        reason: why a maximum may lie there, one clause, with the simpler head.
        beside: a parameter whose eta goes there at the same rate, if any.
        start: the eta from which training starts where the null model lies further out: steps there are large enough
            to come back, which they are no longer at `end`; by default `end` itself.
    """

    name: str
    end: float
    reason: str
    beside: str | None = None
    start: float | None = None


def check_source(name: str, source: ParameterSource, link: Transform) -> None:
    """Hold a source to the inverse link of its parameter.

    Raises:
        UsageError: a word that is none, or a number that the link cannot give.
    """
    if isinstance(source, str):
        if source not in ("predicted", "shared"):
            raise UsageError(f"head.{name}={source!r}: expected 'predicted', 'shared' or a number")
        return
    value = torch.tensor(float(source), dtype=torch.float64)
    if not (torch.isfinite(value) and link.codomain.check(value)):
        expected = inverse_link.codomain_words(link)
        raise UsageError(f"head.{name}={source}: expected {expected}, 'predicted' or 'shared'")
