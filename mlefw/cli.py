"""The `mlefw` program: reads the command line, and calls the command. Modules are imported as commands need them."""

import gc
import os
import sys
from collections.abc import Sequence

from mlefw.configuration import flags
from mlefw.configuration.path_setting import without_secrets
from mlefw.configuration.settings import Node
from mlefw.configuration.yaml_folder import config_root, members
from mlefw.system.local_path import local_path
from mlefw.system.process_setup import set_up_process

COMMANDS = {
    "train": "fit a network, and say how far it is from the exact estimate (-m for a sweep)",
    "baseline": "only the exact estimate: a table of coefficients",
    "evaluate": "score a trained run on data: run=DIR [data.path=FILE]",
    "predict": "predictive distributions of new rows: run=DIR data.path=FILE output=FILE",
    "export": "a trained run as one file for other programs: run=DIR format=onnx quantiles=[0.05,0.95]",
    "explain": "which feature carries how many nats: run=DIR [data.path=FILE] output=FOLDER",
    "sample": "a text that a run on text draws: run=DIR prompt=TEXT length=500 [output=FILE]",
    "compare": "one ranked table over runs or a sweep: runs=DIR [report=FILE.html]",
    "anova": "tests of nested models: runs=[A,B]; of the terms of one: runs=A [table=FILE]",
    "check": "compose and validate configuration and data; train nothing",
    "app": "a page on this machine: SGD on the way to the exact estimate, with sliders [port=8000]",
}

EXAMPLES = """\
  mlefw train                                                     the diabetes data, a network, beside its linear MLE
  mlefw train head=poisson data=csv data.path=claims.csv data.target=n data.exposure=years
  mlefw train model=linear batch=full optimizer=lbfgs             training that reaches the exact MLE
  mlefw train resume=outputs/… trainer.max_epochs=800             go on with a run that was interrupted, or longer

flags: -m sweep (-m head=gaussian,laplace seed=0,1), --cfg job show all settings, --config-dir DIR, --plugin PACKAGE"""

GROUPS = (
    *("head", "prior", "loss", "batch", "inputs", "augment", "model", "data", "baseline", "optimizer", "scheduler"),
    *("average", "calibrate", "uncertainty", "cv", "ensemble", "experiment"),
)


def main() -> None:
    """Run the program on `sys.argv`, and exit with its exit code (see docs/getting-started.md)."""
    # Files that it writes are not writable by the group or by others.
    os.umask(os.umask(0) | 0o022)
    # Imports make no garbage, and collections would take a third of their time.
    gc.disable()
    set_up_process()
    code = run(sys.argv[1:])
    # The interpreter ends now: without this it would look through all objects once more.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line, such as `["train", "head=poisson"]`, and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_page())
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        from mlefw.configuration.check import nearest

        known = ", ".join(COMMANDS)
        print(f"mlefw: error: no command {command!r}.{nearest(command, COMMANDS)} Known: {known}", file=sys.stderr)
        return 2
    if "--help" in rest or "-h" in rest:
        print(help_page(command))
        return 0
    from mlefw.command.outermost import guarded, take_over_signals
    from mlefw.system.warning import clear

    # Warnings of another command that ran in this process.
    clear()
    take_over_signals()
    code = 0

    def task() -> None:
        nonlocal code
        code = _dispatch(command, rest)

    return guarded(task) or code


def _dispatch(command: str, arguments: Sequence[str]) -> int:
    """Read flags and settings, run the command, and return its exit code."""
    overrides, given = flags.parse(command, arguments)
    flags.admit_plugins(given.plugins)
    overrides = without_secrets(overrides)
    if command == "compare":
        from mlefw.command import compare

        return compare.main(overrides)
    if command == "anova":
        from mlefw.command import anova

        return anova.main(overrides, tuple(given.plugins))
    if command == "app":
        from mlefw.app import server

        return server.serve(overrides)
    from mlefw.configuration.groups import register_plugins
    from mlefw.configuration.read import hydra_section, read_settings, resolve
    from mlefw.errors import UsageError
    from mlefw.system import trust

    register_plugins()
    admitted = (*given.plugins, *trust.installed())
    config_dirs = given.config_dirs
    for item in overrides:
        if item.lstrip("+~").startswith("hydra.callbacks"):
            raise UsageError(f"{item}: Hydra's callbacks are not used; expected callback=, a group")
    if given.page:
        if given.names & {"--cfg", "--info"}:
            # Composed here first, since Hydra would report wrong settings by a traceback.
            hydra_section(command, overrides, config_dirs)
        return _hydra_page(command, [*overrides, *given.arguments])
    if "--multirun" in given.names:
        from mlefw.sweep import sweep

        return sweep.run(command, overrides, config_dirs, admitted)
    if command == "train" and any(item.startswith("resume=") for item in overrides):
        return _resume(overrides, config_dirs, admitted)
    config = read_settings(command, flags.with_defaults_of_many_runs(command, overrides), config_dirs, admitted)
    if config.get("resume"):
        raise UsageError(f"resume={config['resume']}: expected only on the command line of mlefw train")
    if command in flags.APPLIED:
        return _apply(command, resolve(config), admitted)
    return _run(command, config, resolve(config)["run_dir"])


def _run(command: str, config: Node, given: str | None) -> int:
    """Run `train`, `baseline` or `check`: a cross-validation, an ensemble or a single run."""
    from mlefw.command.job import run_job
    from mlefw.run.directory import default_path
    from mlefw.run.held_out import is_cross_validation

    run_dir = local_path(given, "run_dir") if given else default_path()
    if command != "check" and is_cross_validation(config.get("cv") or {}):
        from mlefw.cv import validation

        return validation.run(command, config, run_dir)
    if command == "train" and config.get("ensemble"):
        from mlefw.ensemble import train

        if (settings := train.ensemble_settings(config, run_dir)) is not None:
            return train.run_and_report(settings, run_dir)
    return run_job(command, config, run_dir)


def _resume(overrides: Sequence[str], config_dirs: Sequence[str], plugins: Sequence[str]) -> int:
    """Run `mlefw train resume=DIR`, for a single run or an ensemble."""
    from mlefw.command.job import run_job
    from mlefw.configuration.path_setting import literal
    from mlefw.ensemble import train
    from mlefw.run import resume
    from mlefw.run.directory import run_of

    given = literal([item.partition("=")[2] for item in overrides if item.startswith("resume=")][-1])
    if (root := train.root_of(given)) is not None:
        return train.run_and_report(train.resumed_settings(root, overrides), root, is_resumed=True)
    run_dir = run_of(given)
    return run_job("train", resume.settings(run_dir, overrides, config_dirs, plugins).plain, run_dir)


def _apply(command: str, config: Node, plugins: tuple[str, ...]) -> int:
    """Run a command that applies a trained run, and print what it has to say."""
    from mlefw.command import applied
    from mlefw.command.outermost import finish_imports
    from mlefw.system.terminal import console

    finish_imports()
    out = console()
    for line in applied.lines(command, config, plugins):
        out.print(line, soft_wrap=True, markup=False, emoji=False)
    return 0


def _hydra_page(command: str, arguments: Sequence[str]) -> int:
    """Let Hydra print settings or information about itself (`flags.PAGES`)."""
    import hydra

    from mlefw.configuration.expansion import bounded
    from mlefw.configuration.resolvers import admitted_resolvers

    sys.argv = [f"mlefw {command}", *arguments]
    with admitted_resolvers(), bounded():
        hydra.main(version_base="1.3", config_path=str(config_root()), config_name=command)(lambda config: None)()
    return 0


def help_page(command: str | None = None) -> str:
    """The help of the program or of a command: commands, groups with their members, examples."""
    groups = "\n".join(f"  {group + '=':<13}{' | '.join(members(group))}" for group in GROUPS)
    commands = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    intro = (
        "mlefw: probabilistic deep learning in which every number can be trusted\n\n"
        f"usage: mlefw COMMAND [setting=value …]\n\ncommands\n{commands}"
    )
    if command is not None:
        intro = f"mlefw {command}: {COMMANDS[command]}\n\nusage: mlefw {command} [setting=value …]"
    if command in flags.APPLIED:
        lines = (config_root() / f"{command}.yaml").read_text(encoding="utf-8").split("hydra_logging: none\n", 1)[1]
        return f"{intro}\n\nsettings{lines.rstrip()}"
    if command == "compare":
        return (
            f"{intro}\n\nruns: run directories, or the directory of a sweep: runs=DIR, runs=[DIR,DIR], or DIR DIR\n"
            "report=FILE.html: the same as a page with pictures (overwrite=true replaces a file)\n"
            "measure=density|mass: only runs with this measure, if directories hold both\n"
            "split=test|out_of_fold|validation|train: rows to rank by (default: the first of these that all runs have)"
        )
    if command == "anova":
        return (
            f"{intro}\n\nruns: directories of mlefw baseline or mlefw train without a prior, each tested against the "
            "next smaller one\ntable=FILE.csv|.tex|.md|.parquet: the tests as a frame"
        )
    return f"{intro}\n\ngroups (choose one of each)\n{groups}\n\nexamples\n{EXAMPLES}"


if __name__ == "__main__":
    main()
