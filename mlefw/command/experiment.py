"""mlefw train experiment=NAME: an experiment instead of a training run, written to a run directory of its own."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.read import as_yaml
from mlefw.configuration.settings import Settings
from mlefw.experiment.base import Experiment
from mlefw.plot.style import png
from mlefw.report.findings import Findings
from mlefw.run.directory import claim
from mlefw.system.atomic import write_bytes, write_json, write_text
from mlefw.system.warning import collected


def run(config: Settings, run_dir: Path) -> Findings:
    """Run the experiment, and write `summary.json`, `config.yaml` and the pictures; what was found.

    Raises:
        UsageError: a mistake in the settings; nothing is written then.
        StorageError: a file could not be written.
    """
    experiment: Experiment = instantiate("experiment", config.experiment, prior=instantiate("prior", config.prior))
    run_dir = claim(run_dir)
    write_text(run_dir / "config.yaml", as_yaml(config.plain))
    start = time.monotonic()
    findings = experiment.run()
    if config.plots:
        (run_dir / "plots").mkdir(mode=0o755)
        for name, figure in findings.pictures.items():
            write_bytes(run_dir / "plots" / f"{name}.png", png(figure))
    summary = {
        "status": "finished",
        "experiment": config.choices["experiment"],
        "seed": config.seed,
        "title": findings.title,
        "values": _defined(findings.values),
        "tables": [table.plain() for table in findings.tables],
        "verdict": findings.verdict,
        "time": {"total_s": time.monotonic() - start},
        "versions": {name: version(name) for name in ("mlefw", "torch")},
        "warnings": collected(),
    }
    write_json(run_dir / "summary.json", summary)
    return findings


def show(findings: Findings, run_dir: Path, out: Console) -> None:
    """Print title, tables and verdict of an experiment, and where its pictures are."""
    out.print(Text(findings.title, style="bold"))
    for table in findings.tables:
        out.print()
        out.print(table.shown())
    out.print()
    out.print(Text(findings.verdict), soft_wrap=True)
    for name in findings.pictures:
        file = run_dir / "plots" / f"{name}.png"
        if file.is_file():
            out.print(f"picture: {file}", soft_wrap=True, markup=False)


def _defined(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}
