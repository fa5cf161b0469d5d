"""Rows as Lightning sees them: chunks of batches for training, large blocks for evaluation."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import lightning
import torch
from torch import Tensor

from mlefw import ranks
from mlefw.batch.base import BatchRegime
from mlefw.rows import Batch, Chunk, Rows, gathered

_CHUNK_S = 0.05
"""Of work in a chunk: long beside what Lightning does between chunks, short beside a person's patience."""

_SHARED = 32
"""Batches in a chunk where processes have to agree on it without a word."""


class RowsModule(lightning.LightningDataModule):
    """Serves the splits. The order of an epoch depends on (seed, epoch) alone, so that a run can be resumed.

    Args:
        splits: coded rows by split name; "train" is there always.
        regime: which rows each step sees.
        seed: of the order of rows.
        chunk: how many batches one hand-over to Lightning holds (0: as many as take 50 ms); the results do not depend
            on it.
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
        self.standardize: Callable[[Tensor], Tensor] | None = None
        """What the model does to features first: done once here, where it is known, instead of in each step."""
        self._standardized: dict[str, Rows] = {}

    def train_dataloader(self) -> "Chunks":
        """Chunks of batches of the current epoch."""
        return Chunks(self)

    def val_dataloader(self) -> list["Blocks"]:
        """Blocks of rows, a loader for each watched split."""
        known = self.standardize is not None
        return [Blocks(self._shared(name), self.block, known) for name in self.watched]

    def _shared(self, name: str) -> Rows:
        """The part of a split that this process evaluates."""
        rows = self._ready(name)
        return rows if ranks.count() == 1 else rows.take(ranks.share(rows.num_rows))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, of each the rows of this process."""
        for chunk in self.chunks(epoch, lambda: 1):
            yield from chunk.batches()

    def chunks(self, epoch: int, length: Callable[[], int]) -> Iterator[Chunk]:
        """The batches of an epoch, as many in each chunk as `length` says when the chunk is begun."""
        rows, known = self._ready("train"), self.standardize is not None
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        done = self.start[1] if epoch == self.start[0] else 0
        steps = islice(self.regime.batches(rows.num_rows, epoch, generator), done, None)
        while taken := list(islice(steps, length())):
            if len(taken) == 1 and len(taken[0][0]) == rows.num_rows and taken[0][1] == 1.0:
                share = self._shared("train")
                yield Chunk(share, [(0, share.num_rows)], [1.0], known)
            else:
                # Every process draws the same batches, and computes its share of each.
                own = slice(ranks.number(), None, ranks.count())
                yield gathered(rows, [(index[own], scale) for index, scale in taken], known)

    def _ready(self, split: str) -> Rows:
        rows = self.splits[split]
        if self.standardize is None:
            return rows
        if split not in self._standardized:
            self._standardized[split] = rows._replace(x=self.standardize(rows.x))
        return self._standardized[split]


class Chunks:
    """An epoch's batches in chunks. It has no length: that of an epoch may change with the regime."""

    def __init__(self, module: RowsModule) -> None:
        self.module = module
        self.size = module.chunk or 1

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks of the trainer's current epoch."""
        trainer = self.module.trainer
        epoch, steps = (0, 0) if trainer is None else (trainer.current_epoch, trainer.global_step)
        limit = -1 if trainer is None else trainer.max_steps
        is_adaptive = not self.module.chunk
        if is_adaptive and trainer is not None and trainer.world_size > 1:
            self.size, is_adaptive = _SHARED, False

        def length() -> int:
            # A chunk ends where the training does, so that what is saved then is a place within the epoch.
            return min(self.size, limit - steps) if limit > steps else self.size

        begun = time.monotonic()
        for chunk in self.module.chunks(epoch, length):
            steps += len(chunk.spans)
            yield chunk
            if is_adaptive:
                # From one request to the next passes the time of one chunk of steps.
                seconds = (time.monotonic() - begun) / len(chunk.spans)
                self.size = max(1, min(2 * self.size, int(_CHUNK_S / max(seconds, 1e-6))))
            begun = time.monotonic()


class Blocks:
    """All rows of a split, in order, each once."""

    def __init__(self, rows: Rows, size: int, standardized: bool) -> None:
        self.rows, self.size, self.standardized = rows, size, standardized

    def __iter__(self) -> Iterator[Batch]:
        """Blocks of at most `size` rows; a process without a share has an empty one, and so evaluates, too."""
        parts = self.rows.blocks(self.size) if self.rows.num_rows else iter([self.rows])
        return (Batch(rows, 1.0, self.standardized) for rows in parts)

    def __len__(self) -> int:
        """Number of blocks."""
        return max(1, -(-self.rows.num_rows // self.size))
