"""No figure that is computed after the training may cost the run: it is left out, and the reason is said."""

from pathlib import Path

import numpy as np
import pytest
from conftest import summary_of
from interrupted import train

from mlefw.run import archive, fitting

SMALL = ("logger=none", "model.hidden=[4]", "trainer.max_epochs=1", "seed=3")

FAILURES = (
    ValueError("math domain error"),
    np.linalg.LinAlgError("Matrix is not positive definite"),
    MemoryError(),
    ZeroDivisionError("float division by zero"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    KeyError("reason"),
)

MEMBERS = {
    "mlefw.metric.crps.Crps.update": ("metric Crps", ()),
    "mlefw.metric.pit.Pit.compute": ("metric Pit", ()),
    "mlefw.score.figures._exact": ("metric Temperature from all rows at once", ("data=iris", "head=categorical")),
    "mlefw.run.conclude.floored_share": ("the share of rows at the floor", ()),
    "mlefw.score.distances.head_refit_gap": ("the exact refit of the last layer", ()),
    "mlefw.score.distances._excess": ("the distance from the exact optimum", ("model=linear", "~model.hidden")),
    "mlefw.score.distances._gap": ("the gap on test", ()),
    "mlefw.score.distances._divergence": ("the divergence from the exact estimate", ()),
    "mlefw.score.recalibration.fit": ("the recalibration", ("calibrate=scale",)),
    "mlefw.run.conclude.keep_posterior": ("the uncertainty of the parameters", ("uncertainty=laplace",)),
    "mlefw.run.exact_checkpoint.stored": ("the exact estimates of the checkpoint", ()),
    "mlefw.run.exhibit.training_curves": ("pictures of the training", ()),
    "mlefw.run.exhibit.way_of_coefficients": ("the picture of the coefficients", ("model=linear",)),
    "mlefw.run.exhibit.predictive_shapes": ("pictures of the predictive distributions", ()),
    "mlefw.run.conclude.forecast": ("the predictive distributions of a sample", ()),
    "mlefw.callback.board.WriteBoard.finish": ("the last page of TensorBoard", ()),
    "mlefw.run.exhibit_explanation.explain": ("the explanation", ("explanation=true",)),
    "mlefw.run.exhibit.run_report": ("the report", ()),
}


@pytest.mark.parametrize(("number", "place"), list(enumerate(MEMBERS)), ids=list(MEMBERS))
def test_what_fails_after_the_training_is_left_out_with_its_reason(
    number: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    what, more = MEMBERS[place]
    failure = FAILURES[number % len(FAILURES)]

    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    trained = fitting.fit

    def fit(*arguments: object) -> fitting.Fit:
        # What fails before the training is another matter: it is found, and told, before anything is written.
        found = trained(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(place, fail)
        return found

    monkeypatch.setattr(fitting, "fit", fit)
    linear = "model=linear" in more
    settings = [item for item in (*SMALL, *more) if not item.startswith("~") and not (linear and "hidden" in item)]
    is_drawn = "picture" in what or what == "the predictive distributions of a sample"
    assert train(*settings, f"plots={str(is_drawn).lower()}", "run_dir=r") == 0
    summary = summary_of(tmp_path / "r")
    assert summary["status"] == "finished"
    assert all(np.isfinite(summary["metrics"][split]["nll_nats"]) for split in ("train", "validation", "test"))
    said = [text for text in summary["warnings"] if text.startswith(f"{what} left out: ")]
    assert len(said) == 1
    reason = said[0].removeprefix(f"{what} left out: ")
    assert reason == "there is not enough memory for it" or str(failure) in reason
    assert archive.read(tmp_path / "r" / "checkpoints" / "best.ckpt")["state_dict"]
    assert (tmp_path / "r" / "report.html").is_file() == (what != "the report")
    # What does not depend on it is there.
    others = {"baseline", "null", "metrics", "time", "versions", "distance"}
    assert others <= summary.keys()


def test_what_is_known_is_on_disk_before_the_rest_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def interrupted(*args: object, **kwargs: object) -> None:
        seen.append(summary_of(tmp_path / "r"))
        assert (tmp_path / "r" / "report.html").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr("mlefw.run.conclude.distances", interrupted)
    assert train(*SMALL, "plots=false", "run_dir=r") != 0
    assert seen[0]["status"] == "failed"
    assert np.isfinite(seen[0]["metrics"]["test"]["nll_nats"])
    left = summary_of(tmp_path / "r")
    assert left["status"] == "failed"
    assert left["metrics"] == seen[0]["metrics"]


@pytest.mark.parametrize("hidden", ["[600]", "[300,300]"])
def test_a_last_layer_wider_than_the_rows_costs_nothing(hidden: str, tmp_path: Path) -> None:
    epochs = 1 if hidden == "[600]" else 3
    settings = (f"model.hidden={hidden}", f"trainer.max_epochs={epochs}", "logger=none", "report=false", "plots=false")
    assert train(*settings, f"run_dir={tmp_path / 'r'}") == 0
    assert summary_of(tmp_path / "r")["distance"].get("head_refit_gap", 0.0) < 10
