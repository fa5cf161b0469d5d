"""The rows of a split as the members of a population see them: one table of all members, or one of each in a block."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.rows.rows import Rows


class Table:
    """Standardised rows of M members.

    Members with the same rows have one table, whose columns are (n, …). Members with rows of their own, as those of an
    ensemble of folds, have one each, in columns (M, length, …). The length is one more than the most rows of a member:
    at the end of every table there are rows of weight zero. Where a member has fewer inputs, there are inputs of zero.

    Args:
        parts: the rows of each member; one and the same object where they share them.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        first = parts[0]
        self.is_shared = all(part is first for part in parts)
        self.sizes = [(part.num_rows, part.x.shape[1]) for part in parts]
        self.rows = first if self.is_shared else _together(parts)

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.sizes = [self.sizes[i] for i in members]
        if not self.is_shared:
            self.rows = self.rows.take(torch.tensor(members, dtype=torch.long))

    def of(self, member: int) -> Rows:
        """The rows of one member, as it would see them alone."""
        if self.is_shared:
            return self.rows
        num_rows, num_inputs = self.sizes[member]
        x, *others = (column[member, :num_rows] for column in self.rows)
        return Rows(x[:, :num_inputs], *others)

    def take(self, index: Sequence[Tensor]) -> Rows:
        """Rows of each member by position, (M, largest batch, …): weight zero fills up what is smaller."""
        if self.is_shared:
            return self.rows.take(torch.stack(list(index)))
        length = self.rows.x.shape[1]
        places = torch.nn.utils.rnn.pad_sequence(list(index), batch_first=True, padding_value=length - 1)
        start = length * torch.arange(len(index)).unsqueeze(1)
        return Rows(*(column.flatten(0, 1) for column in self.rows)).take(places + start)


def _together(parts: Sequence[Rows]) -> Rows:
    length = max(part.num_rows for part in parts) + 1
    width = max(part.x.shape[1] for part in parts)
    x = torch.stack(
        [_lengthened(torch.nn.functional.pad(part.x, (0, width - part.x.shape[1])), length) for part in parts]
    )
    y, offset = (torch.stack([_lengthened(part[k], length) for part in parts]) for k in (1, 3))
    weight = torch.stack([torch.nn.functional.pad(part.weight, (0, length - part.num_rows)) for part in parts])
    return Rows(x, y, weight, offset)


def _lengthened(column: Tensor, length: int) -> Tensor:
    """A column whose first row is repeated at its end, which is one that has a finite loss."""
    return torch.cat([column, column[:1].expand(length - len(column), *column.shape[1:])])
