"""mlefw explain: which feature of a trained model carries how many nats, as a page with pictures and tables."""

from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import Progress

from mlefw.configuration.explanation import ExplainSettings
from mlefw.errors import UsageError
from mlefw.report.explanation import EXPLAIN_FILE, Explanation
from mlefw.report.export import as_csv
from mlefw.run import explain, pooled
from mlefw.run.new_data import adapted, check_folder, check_output, read_blocks
from mlefw.system.atomic import write_bytes, write_json, write_text
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own
from mlefw.system.random_state import isolated
from mlefw.system.terminal import console


@isolated("explanation")
def run(config: ExplainSettings, plugins: tuple[str, ...] = ()) -> tuple[Explanation, Path]:
    """Explain a trained run on new rows, or on a split of its own, and write the folder; both.

    Raises:
        UsageError: a mistake in settings, checkpoint or data, or rows that are not those of a table.
    """
    if not config.run:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    folder = local_path(config.output, "output")
    check_folder(folder)
    check_output(folder, config.overwrite)
    if config.split is not None and config.data.path is not None:
        raise UsageError("split= is for the run's own data; all rows of data.path are explained")
    loaded = pooled.load(config.run, plugins, config.weights)
    for path in pooled.paths_of(config.run):
        mark_own(path)
    trained = adapted(loaded, config.data.missing, config.data.unseen)
    explain.check(trained)
    split = config.split or "test"
    if config.data.path is None:
        pooled.check_split(trained, split)
    out = console(stderr=True)
    with Progress(console=out, transient=True, disable=not out.is_terminal) as shown:
        bar = shown.add_task("explaining", total=1.0)
        blocks = read_blocks(trained, config.data, split, prediction=False)
        found = explain.explain(
            trained,
            (block.table for block in blocks),
            config.explain,
            lambda share: shown.update(bar, completed=share),
        )
    rows = config.data.path or split
    found = replace(found, settings={**asdict(config.explain), "rows": rows})
    write(found, folder)
    return found, folder.absolute()


def write(explanation: Explanation, folder: Path) -> None:
    """Write the page, its pictures, `explain.json`, and the tables as CSV."""
    folder.mkdir(mode=0o755, exist_ok=True)
    for name, table in explanation.tables().items():
        write_text(folder / f"{name}.csv", as_csv(table))
    write_json(folder / EXPLAIN_FILE, explanation.content())
    pictures = explanation.pictures()
    for name, picture in pictures.items():
        write_bytes(folder / f"{name}.png", picture.content)
    write_text(folder / "explain.html", explanation.page(pictures))
