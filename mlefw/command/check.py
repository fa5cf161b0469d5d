"""mlefw check: compose and validate configuration and data; train nothing."""

from pathlib import Path

from mlefw.configuration.settings import Settings
from mlefw.run.held_out import is_cross_validation, is_ensemble
from mlefw.run.prepare import prepare, start
from mlefw.system.number_format import number


def run(config: Settings, run_dir: Path | None) -> str:
    """Prepare a training run without training; a sentence on its rows, features, parameters and null model.

    Of a cross-validation or an ensemble the first fold or member is prepared.

    Raises:
        UsageError: a mistake in settings or data.
    """
    if is_cross_validation(config.cv):
        config = config.replaced(cv={**config.cv, "fold": 0})
    if is_ensemble(config):
        config = config.replaced(ensemble={**config.ensemble, "member": 0})
    prepared = start(config, prepare(config, run_dir))
    rows = ", ".join(f"{split} {part.num_rows}" for split, part in prepared.data.splits.items())
    schema = prepared.data.schema
    return (
        f"Configuration and data are valid: rows {rows}; {schema.num_features} features, target {schema.target!r}; "
        f"{prepared.num_parameters} parameters; null model {number(prepared.estimand.null.objective)} "
        f"nats per {schema.row_shape.observation}."
    )
