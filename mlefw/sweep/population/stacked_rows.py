"""The rows of a split for the members of a group: one block that they share, or a block of each of them, stacked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.rows.rows import Rows


class StackedRows:
    """Standardised rows of M members.

    Members that share their rows have columns (n, …). Members with rows of their own, as in an ensemble of folds, have
    columns (M, length, …), where the length is one more than the largest number of rows of a member: each block ends
    with at least one row of weight zero. A member with fewer inputs than another has inputs of zero in their place.

    Members with rows of their own have rows of a table.

    Args:
        parts: the rows of each member; the identical object where they share them.
        device: where they are to lie.
    """

    def __init__(self, parts: Sequence[Rows], device: torch.device | str = "cpu") -> None:
        first = parts[0]
        self.is_shared = all(part is first for part in parts)
        self.sizes = [(part.num_rows, part.x.shape[1]) for part in parts]
        self.rows = (first if self.is_shared else _stacked(parts)).to(device)

    @property
    def has_positions(self) -> bool:
        """Whether a row has several observations."""
        return self.is_shared and bool(self.rows.positions)

    @property
    def is_table(self) -> bool:
        """Whether the rows are those of a table."""
        x = self.rows.x
        return not self.is_shared or (x.ndim == 2 and x.is_floating_point() and not self.rows.positions)

    def keep(self, members: Sequence[int]) -> None:
        """Keep the members at these positions, and drop the others."""
        self.sizes = [self.sizes[i] for i in members]
        if not self.is_shared:
            self.rows = self.rows.take(torch.tensor(members, dtype=torch.long, device=self.rows.device))

    def of(self, member: int) -> Rows:
        """The rows of the member at a position, without what was added to make all blocks equal in shape."""
        if self.is_shared:
            return self.rows
        num_rows, num_inputs = self.sizes[member]
        x, *others = (column[member, :num_rows] for column in self.rows)
        return Rows(x[:, :num_inputs], *others)

    def take(self, index: Sequence[Tensor]) -> Rows:
        """A batch of each member by positions, (M, largest batch, …); a smaller one ends in rows of weight zero."""
        device = self.rows.device
        if self.is_shared:
            return self.rows.take(torch.stack(list(index)).to(device))
        length = self.rows.x.shape[1]
        places = torch.nn.utils.rnn.pad_sequence(list(index), batch_first=True, padding_value=length - 1).to(device)
        start = length * torch.arange(len(index), device=device).unsqueeze(1)
        return Rows(*(column.flatten(0, 1) for column in self.rows)).take(places + start)


def _stacked(parts: Sequence[Rows]) -> Rows:
    length = max(part.num_rows for part in parts) + 1
    width = max(part.x.shape[1] for part in parts)
    x = torch.stack(
        [_lengthened(torch.nn.functional.pad(part.x, (0, width - part.x.shape[1])), length) for part in parts]
    )
    y, offset = (torch.stack([_lengthened(part[k], length) for part in parts]) for k in (1, 3))
    weight = torch.stack([torch.nn.functional.pad(part.weight, (0, length - part.num_rows)) for part in parts])
    return Rows(x, y, weight, offset)


def _lengthened(column: Tensor, length: int) -> Tensor:
    """A column that is extended by copies of its first row: unlike zeros they are known to have a finite loss."""
    return torch.cat([column, column[:1].expand(length - len(column), *column.shape[1:])])
