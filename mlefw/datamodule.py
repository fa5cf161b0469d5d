"""Rows as Lightning sees them: chunks of batches for training, large blocks for evaluation."""

from collections.abc import Iterator
from itertools import islice

import lightning
import torch

from mlefw import ranks
from mlefw.batch.base import BatchRegime
from mlefw.rows import Batch, Rows


class RowsModule(lightning.LightningDataModule):
    """Serves the splits. The order of an epoch depends on (seed, epoch) alone, so that a run can be resumed.

    Args:
        splits: coded rows by split name; "train" is there always.
        regime: which rows each step sees.
        seed: of the order of rows.
        chunk: how many batches one hand-over to Lightning holds; the results do not depend on it.
        block: rows of one evaluation block.
    """

    def __init__(
        self, splits: dict[str, Rows], regime: BatchRegime, seed: int, chunk: int = 1, block: int = 8192
    ) -> None:
        super().__init__()
        self.splits, self.regime, self.seed, self.chunk, self.block = splits, regime, seed, chunk, block
        self.watched: list[str] = [name for name in ("train", "validation") if name in splits]
        """The splits that are evaluated after each epoch, in the order of the evaluation loaders."""
        self.start = (0, 0)
        """The epoch in which a resumed run goes on, and how many of its batches are done."""

    def train_dataloader(self) -> "Chunks":
        """Chunks of batches of the current epoch."""
        return Chunks(self)

    def val_dataloader(self) -> list["Blocks"]:
        """Blocks of rows, a loader for each watched split."""
        return [Blocks(self._shared(name), self.block) for name in self.watched]

    def _shared(self, name: str) -> Rows:
        """The part of a split that this process evaluates."""
        rows = self.splits[name]
        return rows if ranks.count() == 1 else rows.take(ranks.share(rows.num_rows))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, of each the rows of this process."""
        rows = self.splits["train"]
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        done = self.start[1] if epoch == self.start[0] else 0
        for index, scale in islice(self.regime.batches(rows.num_rows, epoch, generator), done, None):
            if len(index) == rows.num_rows and scale == 1.0:
                yield Batch(self._shared("train"), scale)
            else:
                # Every process draws the same batches, and computes its share of each.
                yield Batch(rows.take(index[ranks.number() :: ranks.count()]), scale)


class Chunks:
    """An epoch's batches, `chunk` at a time. It has no length: that of an epoch may change with the regime."""

    def __init__(self, module: RowsModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[list[Batch]]:
        """Lists of batches of the trainer's current epoch."""
        epoch = self.module.trainer.current_epoch if self.module.trainer is not None else 0
        chunk: list[Batch] = []
        for batch in self.module.batches(epoch):
            chunk.append(batch)
            if len(chunk) == self.module.chunk:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


class Blocks:
    """All rows of a split, in order, each once."""

    def __init__(self, rows: Rows, size: int) -> None:
        self.rows, self.size = rows, size

    def __iter__(self) -> Iterator[Rows]:
        """Blocks of at most `size` rows; a process without a share has an empty one, and so evaluates, too."""
        return self.rows.blocks(self.size) if self.rows.num_rows else iter([self.rows])

    def __len__(self) -> int:
        """Number of blocks."""
        return max(1, -(-self.rows.num_rows // self.size))
