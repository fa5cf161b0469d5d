"""The commands that apply a trained run: evaluate, predict, explain, export, sample."""

from mlefw.command import evaluate, explain, export, predict, sample
from mlefw.configuration.explanation import ExplainSettings
from mlefw.configuration.settings import (
    EvaluationSettings,
    ExportSettings,
    Node,
    PredictionSettings,
    SampleSettings,
)
from mlefw.report import explanation
from mlefw.report.sentences import evaluation_lines


def lines(command: str, config: Node, plugins: tuple[str, ...]) -> list[str]:
    """Run one of the commands with its resolved settings; the lines to print.

    Raises:
        UsageError: as the command.
    """
    if command == "predict":
        return [f"written: {predict.run(PredictionSettings.of(config), plugins)}"]
    if command == "export":
        return [f"written: {export.run(ExportSettings.of(config), plugins)}"]
    if command == "explain":
        found, folder = explain.run(ExplainSettings.of(config), plugins)
        return [*explanation.lines(found), f"written: {folder}"]
    if command == "sample":
        return [sample.run(SampleSettings.of(config), plugins)]
    return evaluation_lines(evaluate.run(EvaluationSettings.of(config), plugins))
