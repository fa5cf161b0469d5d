"""What TensorBoard's log holds of a run at its end: settings, final figures, the table of results, and pictures."""

from collections.abc import Sequence

from mlefw.configuration.settings import Settings
from mlefw.report.forecast import Forecast
from mlefw.report.page import Picture, Section
from mlefw.report.sentences import verdict
from mlefw.report.tables import code_block, markdown, run_table
from mlefw.run import exhibit, fitting
from mlefw.run.fitting import told
from mlefw.run.prepare import Prepared
from mlefw.system.atomic import Json


def finish_board(
    config: Settings,
    prepared: Prepared,
    fit: fitting.Fit,
    summary: Json,
    pictures: Sequence[exhibit.Exhibit],
    seen: Forecast | None,
) -> None:
    """Write settings, final figures, the table of results and pictures to TensorBoard's log, and to others."""
    results = {
        f"final/{split}_{name}": values[name]
        for split, values in summary["metrics"].items()
        for name in ("nll_nats", "nll_bits")
        if name in values
    }
    gaps = summary["distance"].get("gap_nats", {})
    results |= {f"final/{split}_gap_nats": value for split, value in gaps.items()}
    page = markdown(run_table(summary), verdict(summary))
    images = {name: picture.content for name, picture in pictures if isinstance(picture, Picture)}
    texts = {name: code_block(section.text) for name, section in pictures if isinstance(section, Section)}
    pages = {"result": page, **texts}
    fit.board.finish(fit.trainer, prepared.estimand.objective, told(config), results, pages, images, seen)
    fit.others.finish(fit.trainer, results, images)
