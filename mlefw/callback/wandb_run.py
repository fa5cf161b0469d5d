"""Figures, settings and pictures of a run for Weights & Biases."""

import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from mlefw.callback.event_files import errors_as_warning, is_usable
from mlefw.system.atomic import write_text
from mlefw.training.lightning_internals import rank_zero_experiment

_ID = "run_id"
"""File in the folder `wandb` with the identifier of the run, by which a resumed run goes on with it."""


class WandbRun(WandbLogger):
    """Lightning's logger for Weights & Biases, which goes on with the same run where a run is resumed.

    Args:
        save_dir: the run directory: files are written below its folder `wandb`.
        offline: whether files are written alone; `wandb sync RUN_DIR/wandb/offline-run-*` uploads them later. False
            uploads at once, to the account that `wandb login` has set up.
        project: the project that the run belongs to.
        name: name of the run; None for one that is made up.
        group: group of runs; None for none.
        tags: tags of the run.
    """

    def __init__(
        self,
        save_dir: str,
        offline: bool = True,
        project: str = "mlefw",
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        self.folder = Path(save_dir).absolute()
        known = self.folder / "wandb" / _ID
        run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else None
        super().__init__(name, str(self.folder), run_id, offline=offline, project=project, group=group, tags=tags)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of the package `wandb`, which is begun when it is first asked for; None where it cannot be."""
        if self._experiment is None:
            self._attempt(self._open)
        return self._experiment

    def _open(self) -> None:
        import wandb

        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", mode="offline" if self._offline else "online")
        # A run of its own in this process, whatever other runs of the package there are.
        self._experiment = wandb.init(**self._wandb_init, settings=settings, reinit="create_new")
        self._experiment.define_metric("trainer/global_step")
        self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        write_text(self.folder / "wandb" / _ID, f"{self._experiment.id}\n")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write figures by their names."""
        self._attempt(lambda: super(WandbRun, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        """Write settings."""
        self._attempt(lambda: super(WandbRun, self).log_hyperparams(params))

    def log_image(self, key: str, images: list[bytes], step: int | None = None) -> None:  # type: ignore[override]
        """Write pictures, PNG files."""
        opened = [Image.open(io.BytesIO(content)) for content in images]
        self._attempt(lambda: super(WandbRun, self).log_image(key, opened, step))

    def finalize(self, status: str) -> None:
        """End a run that has failed; one that has trained goes on until `close`, with the final figures."""
        if status != "success" and self._experiment is not None:
            self._attempt(lambda: self.experiment.finish(exit_code=1))

    def close(self) -> None:
        """End the run: all of it is on disk, or uploaded."""
        if self._experiment is not None:
            self._attempt(lambda: self.experiment.finish())

    @rank_zero_only
    def _attempt(self, write: Any) -> None:
        """Write what the function writes, unless the log has been given up."""
        if is_usable(self):
            from wandb.errors import Error

            with errors_as_warning(self):
                try:
                    write()
                except Error as error:
                    raise OSError(str(error).splitlines()[0]) from error
