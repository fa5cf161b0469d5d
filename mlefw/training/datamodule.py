"""The data module: chunks of batches for training, large blocks of rows for evaluation."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from math import prod

import lightning
import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime
from mlefw.distributed import ranks
from mlefw.rows.batch import Batch, Chunk, gather_batches
from mlefw.rows.rows import Rows, padded_blocks
from mlefw.rows.stored import StoredRows
from mlefw.system import random_state
from mlefw.system.allocator import has_room
from mlefw.training.evaluation_schedule import EvaluationSchedule

_CHUNK_S = 0.05
"""Seconds that a chunk of steps takes: long beside Lightning's work between chunks, short for someone who stops it."""

_ROWS_PER_READ = 2**16
"""Consecutive rows that are read together from a split kept in files."""

_ROWS_PER_PASS = 2**18
"""The most rows of one backward pass where the training split is kept in files."""

_STANDARDIZED_ROWS = 2**16
"""Rows that are standardised at a time: on the way numbers take twice the memory that they are kept in."""

MAX_INPUTS = 2**27
"""Numbers that the model gets of all rows of a split, up to which they are computed once and kept (512 MB)."""

_FIXED_CHUNK = 32
"""Batches in a chunk where several processes train: they cannot follow the clock, on which they would differ."""


class RowsModule(lightning.LightningDataModule):
    """Serves the splits of a run to Lightning. The order of rows in an epoch depends on (seed, epoch) alone.

    So a resumed run sees the rows in the order of one that was never stopped.

    Args:
        splits: coded rows by split name; "train" is always present.
        regime: which rows each step sees.
        seed: seed of the order of rows.
        chunk: number of batches that Lightning gets at a time (0: as many as take 50 ms); results do not depend on it.
        block: number of rows of an evaluation block.
        every: epochs from one evaluation to the next; None for those of `EvaluationSchedule`.
        is_counted: whether a setting of Lightning counts chunks (`limit_train_batches` and the like); each of its
            epochs is then one of ours. Otherwise it is all epochs up to the next evaluation.
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
        self.num_per_epoch = splits["train"].num_per_epoch
        self.evaluation_schedule = EvaluationSchedule(
            regime, self.num_per_epoch, "validation" in splits, every, _row_cost(splits["train"])
        )
        self.is_counted = is_counted
        if isinstance(splits["train"], StoredRows):
            regime.group, regime.max_rows = _ROWS_PER_READ, min(regime.max_rows or _ROWS_PER_PASS, _ROWS_PER_PASS)
        self.watched: list[str] = [name for name in ("train", "validation") if name in splits]
        """The splits that are evaluated after each epoch, in the order of the evaluation loaders."""
        self.start = (0, 0)
        """The epoch in which a resumed run goes on, and the number of batches of that epoch that are done."""
        self.num_limited: int | None = None
        """The number of steps of an epoch, where a setting limits it."""
        self.is_repeated = False
        """Whether every epoch has the rows in the order of the first, so that a few batches can be fitted exactly."""
        self.standardize: Callable[[Tensor], Tensor] | None = None
        self.num_inputs = 0
        self._prepared_splits: dict[tuple[str, bool], Rows] = {}

    def standardize_once(self, standardize: Callable[[Tensor], Tensor], num_inputs: int) -> None:
        """Standardise all rows once, in place of each batch in each step.

        Args:
            standardize: the first layer of the model; maps features (n, num_features) to inputs (n, num_inputs).
            num_inputs: number of inputs of each row.
        """
        self.standardize, self.num_inputs = standardize, num_inputs

    def train_dataloader(self) -> "Chunks":
        """Chunks of batches of the current epoch."""
        return Chunks(self)

    def val_dataloader(self) -> list["Blocks"]:
        """Blocks of rows, a loader for each split of `watched`."""
        return [Blocks(self, name) for name in self.watched]

    def is_due(self, split: str) -> bool:
        """Whether the present evaluation includes a split: the training rows are evaluated less often than others.

        The evaluation before training includes every split.
        """
        trainer = self.trainer
        if trainer is None or trainer.sanity_checking or split != "train":
            return True
        return self.evaluation_schedule.has_train(trainer.current_epoch + 1)

    def own_share(self, name: str) -> Rows:
        """The rows of a split that this process evaluates: all of them, unless there are several processes."""
        rows = self._prepared(name)
        return rows if ranks.world_size() == 1 else rows.take(ranks.own_rows(rows.num_rows))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; of each batch the rows that this process computes."""
        for chunk in self.chunks(range(epoch, epoch + 1), lambda: 1):
            yield from chunk.batches()

    def chunks(self, epochs: range, length: Callable[[], int]) -> Iterator[Chunk]:
        """The batches of some epochs in chunks; `length` is asked for the number of batches as each chunk begins."""
        rows, known = self._prepared("train"), self.is_standardized("train")
        steps, epoch = self.steps(epochs), epochs.start
        own_rows = self.of_epoch(rows, epoch)
        while taken := _taken(steps, length(), rows.is_moving):
            ends = [k for k, (_, _, is_end) in enumerate(taken) if is_end]
            if all(self._is_all_rows(index) for index, _, _ in taken):
                share = self.own_share("train")
                spans, scales = [(0, share.num_rows)] * len(taken), [scale for _, scale, _ in taken]
                yield Chunk(share, spans, scales, known, ends)
            else:
                # Every process draws the same batches, and computes every k-th row of each.
                own = slice(ranks.rank(), None, ranks.world_size())
                chunk = gather_batches(own_rows, [(index[own], scale) for index, scale, _ in taken], known, ends)
                if isinstance(rows, StoredRows):
                    rows.release()
                yield chunk
            if rows.is_moving and ends:
                epoch += 1
                own_rows = self.of_epoch(rows, epoch)

    def of_epoch(self, rows: Rows, epoch: int) -> Rows:
        """The rows from which batches of an epoch are taken, of all training rows."""
        return rows.of_epoch(random_state.generator(self.seed, f"windows of epoch {self._drawn(epoch)}"))

    def _drawn(self, epoch: int) -> int:
        """The epoch whose random order an epoch has."""
        return 0 if self.is_repeated else epoch

    def steps(self, epochs: range) -> Iterator[tuple[Tensor, float, bool]]:
        """For each step of some epochs: positions of its rows, scale, and whether it ends an epoch but the last one.

        The end of the last epoch is left out, since Lightning counts that epoch itself.
        """
        num_rows = self.num_per_epoch
        for epoch in epochs:
            generator = random_state.generator(self.seed, f"order of rows in epoch {self._drawn(epoch)}")
            done = self.start[1] if epoch == self.start[0] else 0
            last = self.regime.num_batches(num_rows, epoch) - 1 if epoch != epochs[-1] else -1
            batches = enumerate(self.regime.batches(num_rows, epoch, generator))
            for number, (index, scale) in islice(batches, done, None):
                # A batch of all rows is put in their order: its sums are then rounded alike in any chunk.
                yield torch.arange(num_rows) if self._is_all_rows(index) else index, scale, number == last

    def epochs_from(self, epoch: int) -> range:
        """The epochs that Lightning takes for one, which begins with `epoch`: those up to the next evaluation."""
        end = epoch + 1 if self.is_counted else self.evaluation_schedule.following(epoch)
        most = None if self.trainer is None else self.trainer.max_epochs
        return range(epoch, end if most is None or most < 0 else min(end, max(most, epoch + 1)))

    def num_steps(self, epoch: int) -> int:
        """The number of steps that are left in `epochs_from(epoch)`."""
        done = self.start[1] if epoch == self.start[0] else 0
        total = sum(self.evaluation_schedule.num_steps(each + 1) for each in self.epochs_from(epoch)) - done
        return total if self.num_limited is None else min(total, self.num_limited)

    def _is_all_rows(self, index: Tensor) -> bool:
        """Whether a batch holds every training row exactly once."""
        return self.regime.without_replacement and len(index) == self.num_per_epoch

    def is_standardized(self, split: str) -> bool:
        """Whether the rows of a split are kept standardised: not if they are in files or take too much memory."""
        rows = self.splits[split]
        if self.standardize is None or isinstance(rows, StoredRows):
            return False
        return rows.num_rows * self.num_inputs <= max(rows.x.numel(), MAX_INPUTS)

    def _prepared(self, split: str) -> Rows:
        """The rows from which batches are taken: standardised where they may be, and on the device if it has room."""
        key = split, self.is_standardized(split)
        if key not in self._prepared_splits:
            rows = self.splits[split]
            if self.is_standardized(split) and self.standardize is not None:
                rows = rows._replace(x=torch.cat([self.standardize(x) for x in rows.x.split(_STANDARDIZED_ROWS)]))
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            self._prepared_splits[key] = rows.to(device) if has_room(device, rows.num_bytes) else rows
        return self._prepared_splits[key]


def _taken(
    steps: Iterator[tuple[Tensor, float, bool]], count: int, ends_with_epoch: bool
) -> list[tuple[Tensor, float, bool]]:
    """The next `count` steps, fewer where there are no more, or an epoch ends that a chunk must not go beyond."""
    taken = []
    for step in islice(steps, count):
        taken.append(step)
        if ends_with_epoch and step[2]:
            break
    return taken


class Chunks:
    """The batches up to the next evaluation, in chunks; Lightning takes them for one epoch.

    The epochs that end within it are counted by `LikelihoodModule`. It has no length, since the number of batches of an
    epoch may change from one epoch to the next (`batch=growing`).
    """

    def __init__(self, module: RowsModule) -> None:
        self.module = module
        self.size = module.chunk or 1

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks of the trainer's current epoch, and of the epochs after it up to the next evaluation."""
        trainer = self.module.trainer
        epoch, steps = (0, 0) if trainer is None else (trainer.current_epoch, trainer.global_step)
        limit = -1 if trainer is None else trainer.max_steps
        is_adaptive = not self.module.chunk
        if is_adaptive and trainer is not None and trainer.world_size > 1:
            self.size, is_adaptive = _FIXED_CHUNK, False

        def length() -> int:
            # A chunk ends at `max_steps`, so that a checkpoint is written at that very step, within the epoch or not.
            return min(self.size, limit - steps) if limit > steps else self.size

        begun = time.monotonic()
        for chunk in self.module.chunks(self.module.epochs_from(epoch), length):
            steps += len(chunk.spans)
            yield chunk
            if is_adaptive:
                # The steps of a chunk are taken between two requests of this generator.
                seconds = (time.monotonic() - begun) / len(chunk.spans)
                self.size = max(1, min(2 * self.size, int(_CHUNK_S / max(seconds, 1e-6))))
            begun = time.monotonic()


class Blocks:
    """Blocks of all rows of a split, in order; no block in an evaluation that leaves the split out."""

    def __init__(self, module: RowsModule, split: str) -> None:
        self.module, self.split, self.size = module, split, module.block
        self.rows = module.own_share(split)

    def __iter__(self) -> Iterator[Batch]:
        """Blocks of at most `size` rows.

        Every process yields as many as the first, which has the most rows: it must take part when parameters are
        gathered, or sums added, over the processes. A process with fewer rows ends with an empty block.
        """
        if not self.module.is_due(self.split):
            return iter(())
        parts = padded_blocks(self.rows, self.size, len(self))
        return (Batch(rows, 1.0, self.module.is_standardized(self.split)) for rows in parts)

    def __len__(self) -> int:
        """Number of blocks."""
        most = -(-self.module.splits[self.split].num_rows // ranks.world_size())
        return max(1, -(-most // self.size))


def _row_cost(rows: Rows) -> int:
    """The number of pixels or positions of a row that is no row of a table, on which the work grows; else 1."""
    is_table = len(rows.input_shape) == 1 and not rows.positions
    return 1 if is_table else max(prod(rows.input_shape), prod(rows.positions))
