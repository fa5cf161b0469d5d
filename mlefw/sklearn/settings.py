"""Parameters of an estimator as settings of mlefw."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from mlefw.configuration.path_setting import quoted
from mlefw.errors import UsageError

SETTINGS = {
    "head": "head",
    "prior": "prior",
    "prior_scale": "prior.scale",
    "model": "model",
    "hidden": "model.hidden",
    "dropout": "model.dropout",
    "batch": "batch",
    "batch_size": "batch.size",
    "lr": "optimizer.lr",
    "max_epochs": "trainer.max_epochs",
    "validation_fraction": "data.validation_fraction",
    "missing": "data.missing",
}
"""The setting that each parameter stands for; a parameter that is None leaves it as it is."""

_ALWAYS = ("data.test_fraction=0", "trainer.precision=64")
"""Rows to test on are held out by the caller. In 64 bit a prediction does not depend on the rows beside it."""

_WITHOUT_DIRECTORY = ("baseline=none", "logger=none", "report=false", "plots=false")
"""What only a run directory would show; none of it changes a training."""

_PLAIN = re.compile(r"[A-Za-z_][\w.+-]*")
"""Text that Hydra takes as it stands."""

_SEEDS = 2**31


def overrides(parameters: Mapping[str, Any], settings: Any, random_state: Any, has_directory: bool) -> list[str]:
    """The settings of a fit as on the command line: what `settings` does not name is as the parameters say.

    Args:
        parameters: values of the parameters in `SETTINGS`, by their names.
        settings: further settings, a list of overrides or a dict.
        random_state: seed of training and of the split.
        has_directory: whether the run is kept in a directory.

    Raises:
        UsageError: `settings` or `missing` is of another form, or both name the same.
    """
    if parameters["missing"] not in ("error", "impute"):
        raise UsageError(
            f"missing={parameters['missing']!r}: expected 'error' or 'impute', since each row is predicted"
        )
    own = further(settings)
    named = {item.lstrip("+~").partition("=")[0] for item in own}
    if "data.missing" in named:
        raise UsageError("settings: data.missing is the parameter missing\n  expected: missing='error' or 'impute'")
    number = seed(random_state)
    defaults = [*_ALWAYS, f"seed={number}", f"data.seed={number}", *(() if has_directory else _WITHOUT_DIRECTORY)]
    defaults += [f"{SETTINGS[name]}={written(value)}" for name, value in parameters.items() if value is not None]
    return [*(item for item in defaults if item.partition("=")[0] not in named), *own]


@contextmanager
def naming_parameters(parameters: Mapping[str, Any]) -> Iterator[None]:
    """Add to an error about settings the parameters that stand for them, where these have other names."""
    try:
        yield
    except UsageError as error:
        text = str(error)
        meant = [
            f"\n  {name}={parameters[name]!r} stands for {setting}"
            for name, setting in SETTINGS.items()
            if name != setting and parameters[name] is not None and re.search(rf"\b{re.escape(setting)}(?!\w)", text)
        ]
        error.args = (text + "".join(meant),)
        raise


def further(settings: Any) -> list[str]:
    """The overrides of `settings=`: a list of texts such as `batch=full`, or a dict, whose dicts are sections.

    Raises:
        UsageError: it is neither.
    """
    if settings is None:
        return []
    if isinstance(settings, Mapping):
        return [item for key, value in settings.items() for item in _of_key(str(key), value)]
    if isinstance(settings, Sequence) and not isinstance(settings, str) and all(isinstance(s, str) for s in settings):
        return list(settings)
    raise UsageError(f"settings={settings!r}: expected a list of texts such as ['batch=full'], or a dict")


def _of_key(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [item for name, part in value.items() for item in _of_key(f"{key}.{name}", part)]
    # A formula is quoted where settings are read.
    is_text = isinstance(value, str) and (key == "formula" or ".terms." in key)
    return [f"{key}={value if is_text else written(value)}"]


def written(value: Any) -> str:
    """A value as the right side of an override."""
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else quoted(value)
    if isinstance(value, Sequence | np.ndarray):
        return f"[{','.join(written(item) for item in value)}]"
    return str(value)


def seed(random_state: Any) -> int:
    """A seed from the parameter `random_state`: a whole number is taken as it is.

    A generator of numpy draws one, and None draws one from the operating system: numpy's global generator stays as it
    is.

    Raises:
        ValueError: it is none of these.
    """
    if random_state is None:
        return int(np.random.default_rng().integers(_SEEDS))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(_SEEDS))
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        return int(random_state)
    return int(check_random_state(random_state).randint(_SEEDS))
