"""The private names of Optuna that mlefw uses, all in one place, because a new version may change them.

`tests/extras/test_optuna_internals.py` fails with a sentence that names the one that has changed.
"""

from typing import Any


def trial_of(package: Any, study: Any, number: int) -> Any:
    """The trial of a study with this number, to be reported to, whichever process has asked for it.

    Args:
        package: the package `optuna`.
        study: a study of it.
        number: of the trial, from 0.
    """
    # Optuna hands a trial out only to who asks for it, and the journal knows it by another number than the study.
    return package.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def complete(trial: Any, name: str, distribution: Any) -> None:
    """Let the sampler propose a parameter of a trial, unless it has that parameter already."""
    # The public `suggest_float` and so on each make one kind of distribution.
    trial._suggest(name, distribution)
