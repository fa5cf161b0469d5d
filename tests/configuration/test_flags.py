"""Flags: none is ignored, and what was meant is said."""

from pathlib import Path

import pytest

from mlefw.cli import COMMANDS, run
from mlefw.configuration import flags
from mlefw.errors import UsageError

SETTINGS = {
    "evaluate": "split",
    "explain": "split",
    "predict": "level",
    "export": "format",
    "compare": "measure",
    "anova": "table",
    "app": "port",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("form", ["joined", "apart", "behind"])
def test_a_setting_with_dashes_is_refused_and_spelt_right(
    command: str,
    dashes: str,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    setting = SETTINGS.get(command, "seed")
    words = [f"{dashes}{setting}=1"] if form != "apart" else [f"{dashes}{setting}", "1"]
    given = [command, "run_dir=r", *words] if form == "behind" else [command, *words]
    assert run(given) == 2
    assert f"Did you mean '{setting}=1'" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-x", "--unheard-of", "--config-name=x", "-cn", "--run", "--experimental-rerun", "-"])
def test_a_flag_that_would_have_no_effect_is_refused(
    command: str, flag: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([command, flag]) == 2
    assert f"unknown flag {flag}" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "predict", "compare", "app"])
def test_a_sweep_is_of_trainings(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, "-m"]) == 2
    assert "unknown flag -m" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "overrides", "expected"),
    [
        (["a=1", "-m", "b=2,3"], ["a=1", "b=2,3"], ["--multirun"]),
        (["--cfg=job", "-p", "head"], [], ["--cfg", "job", "--package", "head"]),
        (["--info", "defaults", "a=1"], ["a=1"], ["--info", "defaults"]),
        (["--info", "a=1"], ["a=1"], ["--info"]),
        (["-cd", ".", "--plugin", "p", "--plugin=q"], [], ["--config-dir", "."]),
    ],
)
def test_flags_and_overrides_are_told_apart(given: list[str], overrides: list[str], expected: list[str]) -> None:
    found, seen = flags.parse("train", given)
    assert found == overrides
    assert seen.arguments == expected
    assert seen.plugins == (["p", "q"] if "--plugin" in given else [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--config-dir"], "expected a value"),
        (["--plugin", "-m"], "expected a value"),
        (["-m=2"], "takes no value"),
        (["--resolve"], "--cfg job"),
        (["--config-dir=nowhere"], "no such directory"),
        (["--confg-dir", "x"], "'--config-dir'"),
    ],
)
def test_what_is_wrong_with_a_flag_is_said(given: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        flags.parse("train", given)


def test_what_follows_two_dashes_is_no_flag() -> None:
    overrides, given = flags.parse("compare", ["runs=a", "--", "-b", "--c"])
    assert overrides == ["runs=a", "-b", "--c"]
    assert not given.arguments
