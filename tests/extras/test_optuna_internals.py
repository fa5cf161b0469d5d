"""The private names of Optuna in `mlefw/sweep/search/optuna_internals.py` are there, and mean what they meant."""

import optuna
import pytest
from optuna.distributions import FloatDistribution

from mlefw.sweep.search.optuna_internals import complete, trial_of


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_a_trial_has_the_number_of_its_storage(study: optuna.Study) -> None:
    study.ask()
    assert hasattr(study.trials[0], "_trial_id"), "optuna.trial.FrozenTrial has no _trial_id any more"


def test_whoever_has_not_asked_for_a_trial_can_report_to_it(study: optuna.Study) -> None:
    asked = [study.ask(), study.ask()]
    trial_of(optuna, study, 1).report(0.5, 3)
    assert [trial.number for trial in asked] == [0, 1]
    assert [trial.intermediate_values for trial in study.trials] == [{}, {3: 0.5}]


def test_a_parameter_is_proposed_once(study: optuna.Study) -> None:
    study.ask()
    assert hasattr(optuna.trial.Trial, "_suggest"), "optuna.trial.Trial has no _suggest any more"
    trial = trial_of(optuna, study, 0)
    complete(trial, "x", FloatDistribution(0, 1))
    first = study.trials[0].params["x"]
    complete(trial_of(optuna, study, 0), "x", FloatDistribution(0, 1))
    assert study.trials[0].params == {"x": first}
    assert 0 <= first <= 1
    assert study.trials[0].distributions == {"x": FloatDistribution(0, 1)}
