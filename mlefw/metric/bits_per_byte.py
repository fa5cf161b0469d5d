"""Bits per byte of text, by which models of different tokens can be compared."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, log_prob, sums


class BitsPerByte(Metric):
    """`bits_per_byte` = Σ w·nll / ln 2, divided by the number of bytes of the text that the scored tokens stand for.

    It is the length in which an ideal code writes the text, in bits for each byte of it. Left out where the number of
    bytes of a token is not known.

    Args:
        token_bytes: bytes of text of each token, (num_tokens,): in UTF-8 for characters; None if not known.
    """

    totals: Tensor
    bytes_of: Tensor

    def __init__(self, token_bytes: Sequence[float] | None = None) -> None:
        super().__init__()
        known = [] if token_bytes is None else token_bytes
        self.register_buffer("bytes_of", torch.as_tensor(known, dtype=torch.float64), persistent=False)
        self.add_sum("totals", 3)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the tokens of a block."""
        if len(self.bytes_of):
            size = self.bytes_of.to(promote(weight)).index_select(0, y.long())
            self.totals = self.totals + sums(weight, log_prob(distribution, y), size)

    def compute(self) -> dict[str, Tensor]:
        """The figure."""
        _, log_probability, num_bytes = self.totals
        return {"bits_per_byte": -log_probability / (math.log(2) * num_bytes)} if num_bytes > 0 else {}
