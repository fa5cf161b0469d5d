"""mlefw export: a trained run as one file for other programs."""

from mlefw.configuration.settings import ExportSettings
from mlefw.errors import UsageError
from mlefw.run import export, pooled
from mlefw.run.export import SUFFIXES
from mlefw.run.new_data import adapted, read_blocks
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own
from mlefw.system.random_state import isolated


@isolated("prediction")
def run(config: ExportSettings, plugins: tuple[str, ...] = ()) -> str:
    """Write the file and its description; what is to be printed.

    The file is compared with the model on rows of `data.path`, or else on training rows of the run.

    Raises:
        UsageError: a mistake in settings, checkpoint or data, or a model that cannot be exported.
    """
    if not config.run:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    export.check_format(config.format)
    trained = adapted(pooled.load(config.run, plugins), config.data.missing, config.data.unseen)
    export.check_model(trained)
    for path in pooled.paths_of(config.run):
        mark_own(path)
    given = local_path(config.path, "path") if config.path else trained.folder / f"model{SUFFIXES[config.format]}"
    export.check_place(given, config.overwrite)
    first = next(iter(read_blocks(trained, config.data, "train")))
    written, checked = export.export(trained, first.table, given, config.format, config.quantiles)
    gap = checked["largest_relative_difference"]
    return f"{written} ({checked['rows']} rows differ from mlefw predict by at most {gap:.1g} of a value)"
