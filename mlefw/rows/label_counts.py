"""How often each label is observed, of windows of a text and of other rows with labels."""

import math

import numpy as np
import torch

from mlefw.rows.rows import Rows
from mlefw.rows.scored_tokens import scored_counts
from mlefw.rows.tokens import TokenRows

_BLOCK = 2**18
"""Observations that are counted at a time."""


def label_counts(rows: Rows, num_labels: int) -> np.ndarray:
    """Sum of the weights of the observations of each of K labels, (K,): int64 for a text, else float64."""
    if isinstance(rows, TokenRows):
        return scored_counts(rows, num_labels)
    found = torch.zeros(num_labels, dtype=torch.float64)
    for part in rows.blocks(max(1, _BLOCK // max(1, math.prod(rows.positions)))):
        found += torch.bincount(part.y.long().flatten(), part.weight.flatten().double(), num_labels)
    return np.asarray(found.numpy())
