"""What a trial does while it trains: reports its validation NLL, and ends where others are better."""

import math
from functools import lru_cache
from pathlib import Path

import lightning

from mlefw.callback.stored_state import Content
from mlefw.distributed import ranks
from mlefw.errors import UsageError
from mlefw.sweep.search.rungs import goes_on, rungs
from mlefw.sweep.search.study import JOURNAL, WAITING, SharedStudy
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

_REPORTS = 50
"""Number of reports over a whole training to the median pruner."""


class WatchTrial(lightning.Callback):
    """Reports the least validation NLL after some epochs, and stops the training of a trial that is not to go on.

    With `halving` a trial that stops waits at its rung: it can be resumed.

    Args:
        root: the directory of the search.
        number: of the trial.
        pruner: `halving` or `median`.
        max_epochs: of the whole training.
    """

    def __init__(self, root: str, number: int, pruner: str, max_epochs: int) -> None:
        self.root, self.number, self.pruner = Path(root), number, pruner
        every = max(1, -(-max_epochs // _REPORTS))
        self.due = rungs(max_epochs) if pruner == "halving" else list(range(every, max_epochs, every))
        self.best, self.passed = math.inf, 0
        self.reached: list[int] = []

    def state_dict(self) -> Content:
        """The least NLL so far, and the last epoch after which it was reported."""
        return {"best": self.best, "passed": self.passed}

    def load_state_dict(self, state_dict: Content) -> None:
        """Take up what `state_dict` has stored."""
        self.best, self.passed = state_dict["best"], state_dict["passed"]

    def on_validation_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Report the NLL, where that is due; of several processes of a run the first one does.

        Of trials that train together all have reported before it is decided which of them go on.
        """
        assert isinstance(module, LikelihoodModule)
        is_judged = not trainer.sanity_checking and module.epochs_judged and "validation" in module.figures
        if ranks.rank() > 0 or not is_judged:
            return
        value = float(module.figures["validation"]["nll_nats"])
        self.best = min(self.best, math.inf if math.isnan(value) else value)
        done = trainer.current_epoch + 1
        reached = [epochs for epochs in self.due if self.passed < epochs <= done]
        if not reached or done >= (trainer.max_epochs or done + 1):
            return
        self.reached, self.passed = reached, reached[-1]
        study = self._study()
        with study.deciding():
            for epochs in reached:
                study.report(self.number, epochs, self.best)

    def on_train_epoch_end(self, trainer: TrainerView, module: lightning.LightningModule) -> None:
        """Compare the NLL that was just reported with those of other trials."""
        if not self.reached:
            return
        study = self._study()
        with study.deciding():
            if not self._goes_on(study, self.reached[-1]):
                study.note(self.number, **{WAITING: True})
                trainer.should_stop = True
        self.reached = []

    def _study(self) -> SharedStudy:
        if not (self.root / JOURNAL).is_file():
            raise UsageError(f"callback.search: there is no search in {self.root}")
        return _opened(self.root)

    def _goes_on(self, study: SharedStudy, epochs: int) -> bool:
        if self.pruner == "median":
            return not study.is_below_median(self.number)
        others = [one.values[epochs] for one in study.trials() if one.number != self.number and epochs in one.values]
        return goes_on(self.best, others)


@lru_cache(maxsize=1)
def _opened(root: Path) -> SharedStudy:
    """The study in a directory, which trials that train together read in one place."""
    return SharedStudy(root)
