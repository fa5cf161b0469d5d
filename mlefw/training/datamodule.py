"""Rows as Lightning sees them: chunks of batches for training, large blocks for evaluation."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import lightning
import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime
from mlefw.distributed import ranks
from mlefw.rows.batch import Batch, Chunk, gather_batches
from mlefw.rows.rows import Rows
from mlefw.rows.stored import StoredRows
from mlefw.system import random_state
from mlefw.system.allocator import has_room
from mlefw.training.evaluation_schedule import Cadence

_CHUNK_S = 0.05
"""Of work in a chunk: long beside what Lightning does between chunks, short beside a person's patience."""

_GROUP = 2**16
"""Rows of a store that are read together."""

_SLICE = 2**18
"""Of them, the most in one backward pass."""

_BLOCK = 2**16
"""Rows whose features are standardised together."""

MOST_INPUTS = 2**27
"""Inputs of the model of all rows of a split that are kept, 512 megabytes; of more, each batch computes its own."""

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
        every: epochs from one evaluation to the next; by default as `Cadence` has it.
        is_counted: whether Lightning counts hand-overs, which are then those of one epoch.
    """

    def __init__(
        self,
        splits: dict[str, Rows],
        regime: BatchRegime,
        seed: int,
        chunk: int = 1,
        block: int = 8192,
        every: int | None = None,
        is_counted: bool = False,
    ) -> None:
        super().__init__()
        self.splits, self.regime, self.seed, self.chunk, self.block = splits, regime, seed, chunk, block
        self.cadence = Cadence(regime, splits["train"].num_rows, "validation" in splits, every)
        self.is_counted = is_counted
        if isinstance(splits["train"], StoredRows):
            regime.group, regime.max_rows = _GROUP, min(regime.max_rows or _SLICE, _SLICE)
        self.watched: list[str] = [name for name in ("train", "validation") if name in splits]
        """The splits that are evaluated after each epoch, in the order of the evaluation loaders."""
        self.start = (0, 0)
        """The epoch in which a resumed run goes on, and how many of its batches are done."""
        self.standardize: Callable[[Tensor], Tensor] | None = None
        self.num_inputs = 0
        self._taken_from: dict[tuple[str, bool], Rows] = {}

    def take_for(self, standardize: Callable[[Tensor], Tensor], num_inputs: int) -> None:
        """Do what the model does to features first, which makes `num_inputs` of them, once here, not in each step."""
        self.standardize, self.num_inputs = standardize, num_inputs

    def train_dataloader(self) -> "Chunks":
        """Chunks of batches of the current epoch."""
        return Chunks(self)

    def val_dataloader(self) -> list["Blocks"]:
        """Blocks of rows, a loader for each watched split."""
        return [Blocks(self, name) for name in self.watched]

    def is_watched_now(self, split: str) -> bool:
        """Whether the evaluation after the trainer's current epoch has this split: all have the one before training."""
        trainer = self.trainer
        if trainer is None or trainer.sanity_checking or split != "train":
            return True
        return self.cadence.has_train(trainer.current_epoch + 1)

    def shared(self, name: str) -> Rows:
        """The part of a split that this process evaluates."""
        rows = self._ready(name)
        return rows if ranks.world_size() == 1 else rows.take(ranks.own_rows(rows.num_rows))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, of each the rows of this process."""
        for chunk in self.chunks(range(epoch, epoch + 1), lambda: 1):
            yield from chunk.batches()

    def chunks(self, epochs: range, length: Callable[[], int]) -> Iterator[Chunk]:
        """The batches of some epochs, as many in each chunk as `length` says when the chunk is begun."""
        rows, known = self._ready("train"), self.is_standardized("train")
        steps = self.steps(epochs)
        while taken := list(islice(steps, length())):
            ends = [k for k, (_, _, is_end) in enumerate(taken) if is_end]
            if all(self._is_whole(index) for index, _, _ in taken):
                share = self.shared("train")
                spans, scales = [(0, share.num_rows)] * len(taken), [scale for _, scale, _ in taken]
                yield Chunk(share, spans, scales, known, ends)
            else:
                # Every process draws the same batches, and computes its share of each.
                own = slice(ranks.rank(), None, ranks.world_size())
                chunk = gather_batches(rows, [(index[own], scale) for index, scale, _ in taken], known, ends)
                if isinstance(rows, StoredRows):
                    rows.release()
                yield chunk

    def steps(self, epochs: range) -> Iterator[tuple[Tensor, float, bool]]:
        """Rows and scale of each step of some epochs, and whether it ends one of them other than the last."""
        num_rows = self.splits["train"].num_rows
        for epoch in epochs:
            generator = random_state.generator(self.seed, f"order of rows in epoch {epoch}")
            done = self.start[1] if epoch == self.start[0] else 0
            last = self.regime.num_batches(num_rows, epoch) - 1 if epoch != epochs[-1] else -1
            batches = enumerate(self.regime.batches(num_rows, epoch, generator))
            for number, (index, scale) in islice(batches, done, None):
                # In the order of the rows, alone in a chunk or among others: sums are then rounded alike.
                yield torch.arange(num_rows) if self._is_whole(index) else index, scale, number == last

    def _is_whole(self, index: Tensor) -> bool:
        return self.regime.without_replacement and len(index) == self.splits["train"].num_rows

    def is_standardized(self, split: str) -> bool:
        """Whether the rows of a split are kept as the model hands them on, or are too many for that."""
        rows = self.splits[split]
        has_memory = rows.num_rows * self.num_inputs <= max(rows.x.numel(), MOST_INPUTS)
        return self.standardize is not None and has_memory and not isinstance(rows, StoredRows)

    def _ready(self, split: str) -> Rows:
        """A split as batches are taken from it: standardised once, and on the device of the training if it has room."""
        key = split, self.is_standardized(split)
        if key not in self._taken_from:
            rows = self.splits[split]
            if self.is_standardized(split) and self.standardize is not None:
                # A block at a time: on the way numbers take twice the memory that they are kept in.
                rows = rows._replace(x=torch.cat([self.standardize(x) for x in rows.x.split(_BLOCK)]))
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            self._taken_from[key] = rows.to(device) if has_room(device, rows.num_bytes) else rows
        return self._taken_from[key]


class Chunks:
    """The batches up to the next evaluation, in chunks. It has no length: that of an epoch may change with the regime.

    To Lightning they are one epoch; the module counts those that end within it.
    """

    def __init__(self, module: RowsModule) -> None:
        self.module = module
        self.size = module.chunk or 1

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks of the trainer's current epoch and those that follow it without an evaluation."""
        trainer = self.module.trainer
        epoch, steps = (0, 0) if trainer is None else (trainer.current_epoch, trainer.global_step)
        end = epoch + 1 if self.module.is_counted else self.module.cadence.following(epoch)
        if trainer is not None and trainer.max_epochs is not None and trainer.max_epochs >= 0:
            end = min(end, max(trainer.max_epochs, epoch + 1))
        limit = -1 if trainer is None else trainer.max_steps
        is_adaptive = not self.module.chunk
        if is_adaptive and trainer is not None and trainer.world_size > 1:
            self.size, is_adaptive = _SHARED, False

        def length() -> int:
            # A chunk ends where the training does, so that what is saved then is a place within the epoch.
            return min(self.size, limit - steps) if limit > steps else self.size

        begun = time.monotonic()
        for chunk in self.module.chunks(range(epoch, end), length):
            steps += len(chunk.spans)
            yield chunk
            if is_adaptive:
                # From one request to the next passes the time of one chunk of steps.
                seconds = (time.monotonic() - begun) / len(chunk.spans)
                self.size = max(1, min(2 * self.size, int(_CHUNK_S / max(seconds, 1e-6))))
            begun = time.monotonic()


class Blocks:
    """All rows of a split, in order, each once; none in an evaluation that leaves the split out."""

    def __init__(self, module: RowsModule, split: str) -> None:
        self.module, self.split, self.size = module, split, module.block
        self.rows = module.shared(split)

    def __iter__(self) -> Iterator[Batch]:
        """Blocks of at most `size` rows; a process without a share has an empty one, and so evaluates, too."""
        if not self.module.is_watched_now(self.split):
            return iter(())
        parts = self.rows.blocks(self.size) if self.rows.num_rows else iter([self.rows])
        return (Batch(rows, 1.0, self.module.is_standardized(self.split)) for rows in parts)

    def __len__(self) -> int:
        """Number of blocks."""
        return max(1, -(-self.rows.num_rows // self.size))
