"""Runs with the real packages of MLflow, W&B and psutil, without a network: what is stored, resumed, and kept apart."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lightning_runs
from lightning_runs import Run, fit

from mlefw.command import train
from mlefw.run import resume
from mlefw.system import address
from mlefw.system.process_state import preserved

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lightning_runs.prepare(tmp_path, monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield


def longer(folder: Path) -> Run:
    """A run gone on with for two more epochs."""
    config = resume.settings(folder, ["trainer.max_epochs=4"], [], lightning_runs.PLUGINS)
    with preserved():
        return Run(folder, train.run(config, folder), "")


def stored(uri: str) -> tuple[MlflowClient, list[Any]]:
    """The client of a store of MLflow, and its runs of the experiment `mlefw`, the first one first."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mlefw")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def history(client: MlflowClient, run: Any, name: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]


def test_mlflow_has_the_figures_the_settings_and_the_pictures_and_goes_on(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", "logger=mlflow", "plots=true", "report=true")
    uri = f"sqlite:///{tmp_path}/run/mlflow/mlflow.db"
    client, (kept,) = stored(uri)
    expected = list(zip(map(int, run.column("step")), run.column("validation/nll_nats"), strict=True))
    assert history(client, kept, "validation/nll_nats") == expected
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED") and kept.data.params["batch.size"] == "12"
    final = run.summary["metrics"]["test"]["nll_nats"]
    assert kept.data.metrics["final/test_nll_nats"] == final
    pictures = [one.path for one in client.list_artifacts(kept.info.run_id, "plots")]
    assert {Path(one).stem for one in pictures} == {file.stem for file in (tmp_path / "run" / "plots").iterdir()}
    assert not (tmp_path / "mlruns").exists()
    again = longer(tmp_path / "run")
    client, (kept,) = stored(uri)
    whole = list(zip(map(int, again.column("step")), again.column("validation/nll_nats"), strict=True))
    assert history(client, kept, "validation/nll_nats") == whole and len(whole) == 5


def test_runs_share_a_store_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/all.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("a", "b"):
        fit(tmp_path / name, "logger=[mlflow,csv]")
    assert len(stored(uri)[1]) == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    given = f"logger.mlflow.tracking_uri={uri}"
    monkeypatch.setenv(address.VARIABLE, "{}")
    address.name([given])
    fit(tmp_path / "c", "logger=mlflow", given)
    assert len(stored(uri)[1]) == 3


def test_a_store_that_cannot_be_reached_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = fit(tmp_path / "run", "logger=mlflow")
    assert run.summary["status"] == "finished" and run.column("epoch") == [-1, 0, 1]
    with pytest.warns(UserWarning, match="MlflowRun: the log could not be written") as caught:
        fit(tmp_path / "again", "logger=mlflow")
    assert sum("could not be written" in str(one.message) for one in caught) == 1


def records(folder: Path) -> Iterator[Any]:
    """The records of a run that W&B has written offline: protocol buffers in a log of LevelDB's form.

    A file is a header of 7 bytes and blocks of 32 KiB. In a block stand pieces of records: four bytes of checksum, two
    of length, and one that says whether the piece is the whole (1), the first (2), a middle (3) or the last one (4).
    """
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        piece = content[place + 7 : place + 7 + length]
        whole, place = piece if kind in (1, 2) else whole + piece, place + 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def logged(folder: Path, name: str) -> list[float]:
    """The values of a figure in a run that W&B has written offline."""
    items = [item for one in records(folder) for item in one.history.item]
    return [json.loads(item.value_json) for item in items if name in (item.key, *item.nested_key)]


def test_wandb_has_the_figures_the_settings_and_the_pictures_and_goes_on(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", "logger=wandb", "plots=true", "report=true")
    (first,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert logged(first, "validation/nll_nats") == run.column("validation/nll_nats")
    assert logged(first, "final/test_nll_nats") == [run.summary["metrics"]["test"]["nll_nats"]]
    updates = [item for one in records(first) for item in one.config.update]
    assert "12" in [item.value_json for item in updates if "batch.size" in (item.key, *item.nested_key)]
    assert len(list((first / "files" / "media" / "images").rglob("*.png"))) == len(
        list((run.folder / "plots").iterdir())
    )
    number = (tmp_path / "run" / "wandb" / "run_id").read_text().strip()
    assert first.name.endswith(number)
    again = longer(tmp_path / "run")
    (second,) = set((tmp_path / "run" / "wandb").glob("offline-run-*")) - {first}
    assert second.name.endswith(number)
    assert logged(second, "validation/nll_nats") == again.column("validation/nll_nats")[3:]


def test_two_runs_of_one_process_are_two_runs_of_wandb(tmp_path: Path) -> None:
    folders = [fit(tmp_path / name, "logger=[wandb,csv]").folder for name in ("a", "b")]
    assert len({(folder / "wandb" / "run_id").read_text() for folder in folders}) == 2


def test_the_load_of_the_device_is_logged(tmp_path: Path) -> None:
    given = "+callback.load._target_=lightning.pytorch.callbacks.DeviceStatsMonitor"
    run = fit(tmp_path / "run", given, "logger=csv", "+trainer.log_every_n_steps=1")
    name = "DeviceStatsMonitor.on_train_batch_end/cpu_percent"
    assert len(run.column(name, "csv/version_0/metrics.csv")) == 6
