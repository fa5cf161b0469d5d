"""The explanation of a model at the end of its run: a file with all figures, and sections of the report."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from mlefw.configuration.explanation import ExplanationSettings
from mlefw.configuration.settings import Settings, TableSettings
from mlefw.report.explanation import EXPLAIN_FILE
from mlefw.report.page import Section
from mlefw.run import exhibit
from mlefw.run.checkpoint import Trained
from mlefw.run.explain import explain
from mlefw.run.new_data import read_blocks
from mlefw.system.atomic import write_json
from mlefw.system.attempt import attempt
from mlefw.system.random_state import isolated


def sections(config: Settings, run_dir: Path, trained: Trained, split: str) -> list[tuple[str, Section]]:
    """The sections of the report by name; `explain.json` and pictures are written. None where it is not asked for.

    Where the explanation fails, a warning says why, and there are no sections.

    Args:
        config: the settings of the run; `explanation` asks for an explanation, `plots` for its pictures.
        run_dir: its directory.
        trained: the model.
        split: the rows that are explained, which are read again, since coded rows do not have the columns of the data.
    """
    if not config.explanation:
        return []
    return attempt("the explanation", partial(_explained, config, run_dir, trained, split), [])


@isolated("explanation")
def _explained(config: Settings, run_dir: Path, trained: Trained, split: str) -> list[tuple[str, Section]]:
    settings = ExplanationSettings()
    blocks = read_blocks(trained, TableSettings(), split, prediction=False)
    found = explain(trained, (block.table for block in blocks), settings)
    found = replace(found, settings={**asdict(settings), "rows": split})
    write_json(run_dir / EXPLAIN_FILE, found.content())
    pictures = found.pictures() if config.plots else {}
    if pictures:
        exhibit.store(run_dir / "plots", [(f"explained_{name}", picture) for name, picture in pictures.items()])
    return [(one.title, one) for one in found.sections_of_report(pictures, split)]
