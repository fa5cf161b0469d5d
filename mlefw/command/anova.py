"""mlefw anova: tests of nested models, or of the terms of one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlefw.baseline import hypothesis_tests as tests
from mlefw.baseline.base import Solution
from mlefw.baseline.hypothesis_tests import CLASSICAL, Statistic
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.nested import embedding, nested_effects
from mlefw.configuration.path_setting import literal, several
from mlefw.configuration.settings import Node, Settings
from mlefw.errors import UsageError
from mlefw.report.anova import FIGURES, show
from mlefw.report.export import check_export, export
from mlefw.rows.fingerprint import fingerprint
from mlefw.run import archive, build, checkpoint
from mlefw.run.directory import checkpoint_of
from mlefw.run.estimate import estimates
from mlefw.schema.schema import Schema
from mlefw.system import trust
from mlefw.system.atomic import Json
from mlefw.system.local_path import local_path
from mlefw.system.shared_work import shared_within_block
from mlefw.system.terminal import console

_FREE = ("scale_floor", "start", "terms")
"""Settings of a head in which nested models may differ, besides parameters that are predicted or shared."""


@dataclass(frozen=True)
class Model:
    """The exact estimate of a run, found again on its training rows.

    Attributes:
        name: what the user called the run.
        config: its settings.
        solution: the MLE.
        formula: the terms that it uses, `age + bmi`; of formulas for several parameters `loc: age; scale: bmi`.
        target: name of the target.
    """

    name: str
    config: Settings
    solution: Solution
    formula: str
    target: str

    @property
    def kind(self) -> StandardErrors:
        """The kind of standard errors that the run asks for."""
        kind: StandardErrors = self.config.baseline["standard_errors"]
        return kind

    @property
    def num_parameters(self) -> int:
        """Number of free parameters."""
        return tests.num_parameters(self.solution)

    @property
    def has_effects(self) -> bool:
        """Whether it has smooth terms or effects of groups."""
        return bool(self.solution.problem.blocks_of_terms)


def main(arguments: Sequence[str], plugins: tuple[str, ...]) -> int:
    """Read the arguments of the command line, print the tests, and return the exit code."""
    tables = [literal(item.removeprefix("table=")) for item in arguments if item.startswith("table=")]
    rest = [item.removeprefix("runs=") for item in arguments if not item.startswith("table=")]
    table, out = tables[-1] if tables else "", console()
    show(run([name for item in rest for name in several(item)], table, (*plugins, *trust.installed())), out)
    if table:
        out.print(f"written: {table}", soft_wrap=True, markup=False)
    return 0


def run(runs: Sequence[str], table: str = "", plugins: tuple[str, ...] = ()) -> Json:
    """The tests of nested runs, each against the next smaller one; of one run those of its terms.

    Args:
        runs: directories of `mlefw baseline` or `mlefw train`, in any order.
        table: a new file for the tests; empty for none.
        plugins: packages from which parts of the runs may come.

    Raises:
        UsageError: there is no such run; its rows cannot be read again or have changed; or the models are not nested,
            with the reason.
    """
    path = local_path(table, "table") if table else None
    if path is not None:
        check_export(path, "table")
    if not runs:
        raise UsageError("runs= is missing: expected directories of mlefw baseline or mlefw train")
    with shared_within_block():
        content = _terms(runs[0]) if len(runs) == 1 else _compared([_model(name, plugins) for name in runs])
    if path is not None:
        export(frame(content), path)
    return content


def frame(content: Json) -> dict[str, list[Any]]:
    """The tests as columns by name, a row for each model or term."""
    if "terms" in content:
        names = ("parameter", "term", "statistic", "df", "df_resid", "p_value")
        return {name: [test.get(name) for test in content["terms"]] for name in names}
    by_model: dict[int, Json] = {test["model"]: test for test in content["tests"]}
    facts = ("run", "num_parameters", "log_likelihood", "aic")
    found: dict[str, list[Any]] = {name: [model.get(name) for model in content["models"]] for name in facts}
    place = range(1, len(content["models"]) + 1)
    found["df"] = [by_model.get(k, {}).get("df") for k in place]
    for name in FIGURES:
        each = [by_model.get(k, {}).get(name, {}) for k in place]
        found |= {name: [one.get("statistic") for one in each], f"{name}_p": [one.get("p_value") for one in each]}
    return found


def _terms(name: str) -> Json:
    """The joint tests of the terms of one run, from its `baseline.json`."""
    root = local_path(name, "runs")
    try:
        content: Json = json.loads((root / "baseline.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"runs={name} has no baseline.json that can be read: {error}") from None
    if not content.get("terms"):
        why = content.get("reason") or content.get("standard_errors") or "it is no estimate of columns of a table"
        raise UsageError(f"runs={name} has no tests of terms ({why})")
    kept = ("head", "target", "num_rows", "standard_errors", "terms")
    return {"run": name, **{key: content[key] for key in kept}}


def _model(name: str, plugins: tuple[str, ...]) -> Model:
    trained = checkpoint.load(name, plugins)
    config, path = trained.config, checkpoint_of(name)
    baseline = build.build_baseline(config.baseline)
    if baseline is None or not trained.schema.row_shape.is_table:
        raise UsageError(f"runs={name}: expected a run with an exact estimate of columns of a table")
    if config.choice("prior") != "none":
        raise UsageError(f"runs={name}: a MAP has no likelihood ratio, Wald or score test; expected prior=none")
    try:
        data = build.build_data(config)
    except UsageError as error:
        raise UsageError(f"runs={name}: its training rows cannot be read again: {error}") from error
    known = checkpoint.Card.of(path, archive.read(path)).fingerprint.get("train")
    if known != fingerprint(data.train):
        raise UsageError(f"runs={name}: the rows that its settings lead to are no longer those of its estimate")
    estimand = build.build_estimand(config, data)
    solution = estimates(baseline, estimand, data.train).mle
    if not isinstance(solution, Solution):
        raise UsageError(f"runs={name}: its exact estimate was left out")
    if (reason := tests.refusal(solution)) is not None:
        raise UsageError(f"runs={name}: {reason}")
    assert isinstance(data.schema, Schema)
    used = {*solution.problem.active.tolist()}
    formulas = []
    for parameter, terms in data.schema.terms.items():
        named = [term for term, columns in terms.items() if used & {*columns}]
        blocks = solution.problem.blocks_of_terms
        named += [block.label for block in blocks if parameter in ("", block.parameter) and block.label not in named]
        sum_of_terms = " + ".join(named) or "(intercept)"
        formulas.append(f"{parameter}: {sum_of_terms}" if parameter else sum_of_terms)
    return Model(name, config, solution, "; ".join(formulas), data.schema.target)


def _compared(models: Sequence[Model]) -> Json:
    """The models from the smallest to the largest, each tested against the one before it."""
    models = sorted(models, key=lambda model: model.num_parameters)
    largest = models[-1]
    content: Json = {
        "head": largest.config.choice("head"),
        "target": largest.target,
        "num_rows": largest.solution.problem.rows.num_rows,
        "standard_errors": largest.kind,
        "models": [_facts(model) for model in models],
        "tests": [],
    }
    for k, (small, large) in enumerate(pairwise(models), start=2):
        found = {"model": k, "against": k - 1, "df": tests.num_further(small.solution, large.solution)}
        content["tests"].append(found | _tests(small, large, largest))
    return content


def _facts(model: Model) -> Json:
    log_likelihood = tests.log_likelihood(model.solution)
    count = model.num_parameters
    aic = 2 * (count - log_likelihood)
    return {
        **{"run": model.name, "formula": model.formula, "num_parameters": count},
        **{"log_likelihood": log_likelihood, "aic": aic},
    }


def _tests(small: Model, large: Model, largest: Model) -> Json:
    """The statistics of one pair, by name, as far as they are defined."""
    pair, names = (small.solution, large.solution), f"runs=[{small.name},{large.name}]"
    if _settings_of(small.config.head) != _settings_of(large.config.head):
        heads = " and ".join(model.config.described("head") for model in (small, large))
        raise UsageError(f"{names} are not nested: heads differ ({heads}); mlefw compare ranks them by paired NLL")
    if small.has_effects or large.has_effects:
        return _marginal_test(small, large, names)
    within = embedding(small.solution.problem, large.solution.problem)
    if isinstance(within, str):
        raise UsageError(f"{names} are not nested: of {small.name}, {within}")
    if small.num_parameters == large.num_parameters:
        raise UsageError(f"{names} are one model: they have the same space of columns")
    if large.kind not in CLASSICAL:
        return _named({"wald": tests.wald(*pair, within, large.kind)})
    f = tests.f_test(*pair, largest.solution)
    wald = tests.wald(*pair, within, "observed" if f is not None and large.kind == "default" else large.kind)
    ratio, score = tests.likelihood_ratio(*pair), tests.score(*pair, within)
    return _named({"likelihood_ratio": ratio, "wald": wald, "score": score, "f": f})


def _marginal_test(small: Model, large: Model, names: str) -> Json:
    """The likelihood ratio test of a pair with smooth terms or effects of groups, by marginal likelihoods.

    `at_edge` says that the larger model has further scales, which are zero under the smaller one.
    """
    problems = small.solution.problem, large.solution.problem
    if (reason := nested_effects(*problems)) is not None:
        raise UsageError(f"{names} are not nested: of {small.name}, {reason}")
    if small.num_parameters == large.num_parameters:
        raise UsageError(f"{names} are one model: they have the same space of columns")
    if large.kind not in CLASSICAL:
        raise UsageError(
            f"{names} have smooth terms or effects of groups, which are tested by the likelihood ratio, and "
            f"baseline.standard_errors={large.kind} does not take the noise model for right: expected default"
        )
    scales = [sum(block.num_scales for block in problem.blocks_of_terms) for problem in problems]
    found = _named({"likelihood_ratio": tests.likelihood_ratio(small.solution, large.solution)})
    return found | ({"at_edge": True} if scales[1] > scales[0] else {})


def _settings_of(head: Node) -> Node:
    """The settings of a head in which nested models agree."""
    return {k: v for k, v in head.items() if k not in _FREE and v not in ("shared", "predicted")}


def _named(found: Mapping[str, Statistic | None]) -> Json:
    known = {name: test for name, test in found.items() if test is not None}
    return {name: {k: v for k, v in test._asdict().items() if v is not None} for name, test in known.items()}
