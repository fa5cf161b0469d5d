"""What the suites share: running the program as a user does, and small tables."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv
from warm import Started, Warm

from mlefw.system import shared_work, trust
from mlefw.system.warning import clear

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


SAMPLED = {
    "test_heads_and_metrics.py::test_a_calibrated_model_passes_and_a_distorted_one_fails": 3,
    "test_theorem.py::test_training_reaches_the_exact_estimate": 3,
    "test_resume.py::test_a_stopped_run_ends_as_the_uninterrupted_one": 3,
    "test_population.py::test_it_leaves_what_the_jobs_leave_alone": 3,
    "test_misfit.py::test_a_head_on_its_own_data_raises_no_alarm": 2,
    "test_misfit.py::test_a_gross_misfit_is_told_with_a_head_that_fits": 2,
    "test_what_is_shown.py::test_bounds_that_let_an_estimate_go": 3,
    "test_what_is_shown.py::test_counts_without_an_estimate": 2,
    "test_ranges.py::test_a_setting_of_a_file_is_held_to_its_range": 4,
    "test_every_member.py::test_member_composes_and_builds": 3,
    "test_without_values.py::test_a_head_is_trained_evaluated_and_asked": 8,
    "test_export.py::test_every_head_is_exported_or_refused": 9,
    "test_head_conformance.py::test_the_public_checks_where_a_head_starts": 2,
    "test_bad_inputs.py::test_bad_input": 3,
    "test_uncertain_runs.py::test_every_head": 2,
    "test_trained.py::test_invariances": 2,
    "test_process_setup.py::test_variables_that_are_meant_for_others": 2,
    "test_process_setup.py::test_streams_that_are_closed": 2,
    "test_prior_conformance.py::test_the_fixed_point_does_not_depend_on_the_optimizer": 2,
    "test_admission.py::test_ways_in_through_hydra": 2,
    "test_stored.py::test_a_run_in_full_batches_is_the_one_of_memory": 2,
    "test_comparisons_without_mle.py::test_an_mle_that_was_left_out_leaves_the_rest_as_the_result": 2,
    "test_left_out.py::test_what_fails_after_the_training_is_left_out_with_its_reason": 2,
    "test_what_is_shown.py::test_students_t_may_pass_through_too_many_rows": 2,
    "test_what_is_shown.py::test_perfect_fits_have_no_estimate_and_noise_gives_them_one": 2,
    "test_chunks.py::test_results_do_not_depend_on_the_chunk": 2,
    "test_chunks.py::test_a_limit_of_steps_is_met_within_an_epoch_and_the_run_goes_on_from_there": 2,
    "test_chunks.py::test_a_run_of_one_step_epochs_goes_on_from_anywhere_between_two_evaluations": 2,
    "test_chunks.py::test_the_windows_of_a_text_do_not_depend_on_the_chunk_or_on_recorded_steps": 2,
    "test_distances_over_epochs.py::test_a_linear_model_on_its_way_to_the_estimate": 2,
    "test_residual.py::test_it_starts_at_the_exact_estimate": 3,
    "test_text_sample.py::test_draws_follow_the_law_of_the_model": 2,
    "test_models_of_r.py::test_estimates_errors_and_likelihood": 2,
    "test_learnt_scales.py::test_a_kinked_density_under_a_prior": 2,
    "test_learnt_scales.py::test_the_search_over_the_scale_is_as_good_as_many_descents": 2,
    "test_thresholds.py::test_thresholds_are_those_of_statsmodels": 2,
    "test_exact_solvers.py::test_maximum_a_posteriori": 2,
    "test_dispersed_heads.py::test_likelihood_coefficients_and_errors": 2,
    "test_pooled.py::test_given_weights": 2,
    "test_one_number.py::test_every_place_has_the_same_number": 2,
    "test_trained.py::test_weight_two_is_the_row_twice": 2,
    "test_reach.py::test_rows_far_out_in_many_blocks_are_named_once": 2,
    "test_run_reports.py::test_every_head_has_its_pictures": 2,
    "test_evaluator.py::test_figures_are_those_of_the_metrics_whatever_the_parameters": 2,
    "test_plugin_errors.py::test_every_kind_of_plugin_at_every_moment": 2,
    "test_text_errors.py::test_heads": 3,
    "test_admission.py::test_ways_in_through_settings_and_files": 2,
    "test_evaluate.py::test_blocks_have_the_figures_of_the_whole": 2,
    "test_file_system.py::test_a_run_its_continuation_a_sweep_and_predictions_are_written": 2,
    "test_schedules.py::test_neither_chunks_nor_recording_change_a_result": 2,
    "test_path_setting.py::test_every_command_takes_any_path": 2,
    "test_lightning.py::test_a_callback_works": 2,
    "test_lightning.py::test_an_argument_works": 3,
}
"""Long tests over many cases, of which every second or third is always run; the others are slow tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of `SAMPLED` tests that are not always run as slow."""
    seen: dict[str, int] = {}
    for item in items:
        name = item.nodeid.rpartition("/")[2].partition("[")[0]
        if name in SAMPLED:
            seen[name] = seen.get(name, -1) + 1
            if seen[name] % SAMPLED[name]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test begins without the warnings, the plugins and the shared work that earlier ones in this process left."""
    clear()
    shared_work.clear()
    monkeypatch.delenv("MLEFW_PLUGINS", raising=False)
    monkeypatch.setattr(trust, "_in_process", {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Leave the environment as it was: what a command sets in this process is none of the next test's business, and
    with another environment every command of it would have to start from nothing.
    """
    before = dict(os.environ)
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _environment(**more: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {**known, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that has imported mlefw, for commands in forks of it."""
    process = Warm(_environment())
    yield process
    process.close()


@pytest.fixture
def mlefw(tmp_path: Path, warm: Warm) -> Run:
    """Runs `mlefw` in a temporary directory in a process of its own, and returns what it printed.

    With a variable that Python reads as it starts, such as `PYTHONHASHSEED="1"`, the process starts from nothing.
    """

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        environment = _environment(**env)
        if not any(name.startswith("PYTHON") for name in env):
            return warm.start(arguments, cwd, environment).wait()
        return subprocess.run(
            [sys.executable, "-m", "mlefw.cli", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV file of standard normal features and a target that depends on them through a known line."""

    def write(kind: str = "gaussian", num_rows: int = 120, name: str = "d.csv", **more: Any) -> Path:
        random = np.random.default_rng(0)
        x = random.normal(size=(num_rows, 3))
        eta = x @ [0.5, 0.0, -0.5]
        draw = {
            "gaussian": lambda: 100 + 10 * (eta + random.normal(size=num_rows)),
            "laplace": lambda: eta + random.laplace(size=num_rows),
            "bernoulli": lambda: (random.random(num_rows) < 1 / (1 + np.exp(-eta))).astype(int),
            "poisson": lambda: random.poisson(np.exp(eta)),
            "categorical": lambda: np.array(["low", "middle", "high"])[random.integers(0, 3, num_rows)],
        }
        columns = {f"x{j}": x[:, j] for j in range(3)} | {"y": draw[kind]()} | more
        csv.write_csv(pa.table({key: pa.array(value) for key, value in columns.items()}), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def started(tmp_path: Path, warm: Warm) -> Iterator[Callable[..., Started]]:
    """Begins `mlefw` in a temporary directory in a process of its own, which does not outlive the test."""
    begun = []

    def start(*arguments: str, **env: str) -> Started:
        begun.append(warm.start(arguments, tmp_path, _environment(**env)))
        return begun[-1]

    yield start
    for command in begun:
        command.kill()


def summary_of(run_dir: Path) -> dict[str, Any]:
    """The summary of a run."""
    content: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return content
