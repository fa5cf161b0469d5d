"""Figures, settings and pictures of a run in an MLflow store."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from mlefw.callback.event_files import errors_as_warning, is_usable
from mlefw.errors import UsageError
from mlefw.system import address
from mlefw.system.atomic import write_text
from mlefw.training.lightning_internals import rank_zero_experiment

_ID = "run_id"
"""File below the logger's folder with the identifier of MLflow's run, by which a resumed run finds it."""


class MlflowRun(MLFlowLogger):
    """Lightning's MLflow logger, which goes on with MLflow's run where a run is resumed.

    Where the store cannot be reached or written, there is one warning, and training goes on without it.

    Args:
        save_dir: folder of the run directory, for the run's identifier and, without a `tracking_uri`, the store.
        tracking_uri: address of a store or server, such as `sqlite:////home/me/mlflow.db` or `http://…`; None for a
            SQLite file `mlflow.db` in `save_dir`.
        experiment_name: the experiment that the run belongs to.
        run_name: name of the run; None for that of the run directory.
        tags: further tags of the run.

    Raises:
        UsageError: the user has not named the store on the command line or in the environment.
    """

    def __init__(
        self,
        save_dir: str,
        tracking_uri: str | None = None,
        experiment_name: str = "mlefw",
        run_name: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        self.check_settings({"tracking_uri": tracking_uri})
        # MLflow would report its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self.folder = Path(save_dir).absolute()
        artifacts = None if tracking_uri else (self.folder / "artifacts").as_uri()
        known = self.folder / _ID
        super().__init__(
            experiment_name,
            # MLflow draws names from Python's generator, whose seed would call all runs of a seed alike.
            run_name or self.folder.parent.name,
            address.whole(tracking_uri) if tracking_uri else f"sqlite:///{self.folder / 'mlflow.db'}",
            tags,
            None,
            artifact_location=artifacts,
            run_id=known.read_text(encoding="utf-8").strip() if known.is_file() else None,
        )

    @staticmethod
    def check_settings(node: Mapping[str, Any]) -> None:
        """Refuse a store that only a file names, which may be a stranger's.

        Raises:
            UsageError: saying how to name it.
        """
        uri = node.get("tracking_uri")
        if uri not in (None, os.environ.get("MLFLOW_TRACKING_URI")) and not address.is_named(address.public(str(uri))):
            raise UsageError(
                f"tracking_uri={uri} stands in a file, and may be a stranger's: it is not written unasked"
                "\n  expected: logger.mlflow.tracking_uri=… on the command line, or the variable MLFLOW_TRACKING_URI"
            )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client of the store, with an open run; None where the store cannot be reached."""
        if not self._initialized:
            self._attempt(self._open)
        return self._mlflow_client if self._initialized else None

    def _open(self) -> None:
        """Begin a run, or go on with the one that is known."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        is_known = self._run_id is not None
        client = MLFlowLogger.experiment.fget(self)  # type: ignore[attr-defined]
        if is_known:
            client.update_run(self._run_id, status="RUNNING")
        else:
            write_text(self.folder / _ID, f"{self._run_id}\n")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write figures by their names."""
        self._attempt(lambda: super(MlflowRun, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        """Write settings, as MLflow's parameters, which are texts."""
        self._attempt(lambda: super(MlflowRun, self).log_hyperparams(params))

    def log_image(self, key: str, images: list[bytes], step: int | None = None) -> None:
        """Store pictures, PNG files, as artifacts `plots/<key>.png`."""
        self._attempt(lambda: self._store(key, images))

    def finalize(self, status: str = "success") -> None:
        """Mark the run as finished or failed."""
        self._attempt(lambda: super(MlflowRun, self).finalize(status))

    def _store(self, key: str, images: list[bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for number, content in enumerate(images):
                file = Path(folder) / (key.replace("/", "_") + (f"_{number}" if number else "") + ".png")
                file.write_bytes(content)
                self.experiment.log_artifact(self.run_id, str(file), "plots")

    @rank_zero_only
    def _attempt(self, write: Callable[[], object]) -> None:
        """Write what the function writes, unless the store has been given up."""
        if not is_usable(self):
            return
        from mlflow.exceptions import MlflowException

        with errors_as_warning(self):
            try:
                write()
            except MlflowException as error:
                raise OSError(str(error).splitlines()[0]) from error
