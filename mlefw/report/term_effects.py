"""What the terms of formulas add to eta, along the columns that they read, with 95 % bands: the numbers of pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance
from mlefw.baseline.random_effects import random_tables
from mlefw.distribution.reference import t_quantile
from mlefw.plot.terms import GroupPanel, TermLine, TermPanel
from mlefw.reading.formula import read_shift
from mlefw.reading.levels import BOOLEANS, written
from mlefw.reading.table import Table
from mlefw.schema.design import Design, ParameterTerms
from mlefw.schema.feature import Feature
from mlefw.schema.schema import Schema

MOST_LEVELS = 40
"""Most levels of a category in a panel."""
_MOST_LINES = 6
"""Most levels of a category for each of which there is a line along another column."""
_NUM_POINTS = 101


@dataclass(frozen=True)
class Term:
    """A term with the columns of the data that it reads, and positions of its design columns among all."""

    label: str
    variables: tuple[str, ...]
    positions: list[int]


@dataclass(frozen=True)
class _Column:
    """A column of the data: quantiles of a number in the training rows, or levels of a category with their names."""

    name: str
    values: np.ndarray
    levels: tuple[str, ...] = ()
    is_date: bool = False

    @property
    def typical(self) -> np.ndarray:
        """The median, or the reference level, (1,)."""
        middle = 0 if self.levels else len(self.values) // 2
        return self.values[middle : middle + 1]


def term_panels(
    solution: Solution, schema: Schema, errors: Covariance | None, trained: torch.Tensor | None = None
) -> dict[str, list[TermPanel]]:
    """For each parameter with a formula what its terms add to eta, less their mean over the training rows.

    Terms of one column, such as x and I(x ** 2), are added up in one panel; so are those of a number and a category
    with an interaction, with a line for each level. Other interactions have no panel, nor have effects of groups.

    Args:
        solution: the estimate.
        schema: the meaning of the columns.
        errors: the covariance of theta; None for panels without bands.
        trained: coefficients of a trained model to show beside it, as the network holds them, (eta_dim, num_features);
            NaN in a row that is no sum of terms.
    """
    design, head = schema.design, solution.problem.head
    if design is None or solution.parts or len(design.parameters) != head.eta_dim:
        return {}
    found = {}
    for k, one in enumerate(design.parameters):
        edf = _edf(solution, k)
        panels = []
        for terms in _connected(terms_of(design, one, len(schema.plain_names))):
            label = " + ".join(f"{t.label}, edf {edf[t.label]:.2f}" if t.label in edf else t.label for t in terms)
            panels.append(_panel(Effect(solution, schema, errors, trained, k, terms), label))
        found[head.eta_names[k]] = [panel for panel in panels if panel is not None]
    return found


def group_panels(solution: Solution, schema: Schema, errors: Covariance | None) -> dict[str, list[GroupPanel]]:
    """The effects of groups by parameter, a panel for each effect of a term; empty without any.

    Args:
        solution: the estimate.
        schema: the meaning of the columns.
        errors: the covariance of theta; None for effects without intervals.
    """
    if schema.design is None:
        return {}
    found: dict[str, list[GroupPanel]] = {}
    known = [term for one in schema.design.parameters for term in one.random]
    for term, line in zip(known, random_tables(solution, schema.names, errors), strict=False):
        half = float(t_quantile(0.975, None if errors is None else errors.df))
        for e, effect in enumerate(term.effects):
            part = line["effects"][e * term.num_groups : (e + 1) * term.num_groups]
            spread = np.array([half * one["std_error"] for one in part if "std_error" in one])
            title = term.label if effect == "(intercept)" else f"{term.label}: {effect}"
            estimates = np.array([one["estimate"] for one in part])
            is_known = len(spread) == len(part)
            panel = GroupPanel(title, term.levels, estimates, spread if is_known else None, line["sd"][effect])
            found.setdefault(line["parameter"], []).append(panel)
    return found


def _edf(solution: Solution, k: int) -> dict[str, float]:
    """Effective degrees of freedom of the smooth terms of a column of eta, with one of the straight line."""
    if solution.smoothing is None:
        return {}
    pairs = zip(solution.problem.blocks_of_terms, solution.smoothing.edf, strict=True)
    return {block.label: edf + 1 for block, edf in pairs if block.column == k and not block.effects}


def terms_of(design: Design, one: ParameterTerms, start: int) -> list[Term]:
    """The terms of a formula but for effects of groups; `start` is the position of the first column of all formulas."""
    position = {name: start + k for k, name in enumerate(design.names)}
    plain = () if one.state is None else one.state.terms
    found = [Term(term.label, term.variables, [position[one.names[k]] for k in term.columns]) for term in plain]
    for term in one.random:
        if term.basis != "group":
            columns = read_shift(term.variable, one.parameter).columns
            found.append(Term(term.label, columns, [position[name] for name in term.names]))
    return found


def _connected(terms: Sequence[Term]) -> list[list[Term]]:
    """Terms in groups, those that have a column of the data in common together."""
    groups: list[list[Term]] = []
    for term in terms:
        touching = [group for group in groups if any({*term.variables} & {*other.variables} for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([*(one for group in touching for one in group), term])
    return groups


class Effect:
    """The sum of some terms of a column of eta, less its mean, as a function of the columns of the data that it reads.

    Args:
        solution, schema, errors, trained: as for `term_panels`.
        k: the column of eta.
        terms: the terms.
    """

    def __init__(
        self,
        solution: Solution,
        schema: Schema,
        errors: Covariance | None,
        trained: torch.Tensor | None,
        k: int,
        terms: Sequence[Term],
    ) -> None:
        self.solution, self.schema, self.errors, self.k = solution, schema, errors, k
        self.trained = None if trained is None or bool(trained[k].isnan().any()) else trained[k].double().cpu()
        assert schema.design is not None
        self.columns = {feature.name: _column(schema.design, feature) for feature in schema.features}
        self.dates = tuple(name for name, column in self.columns.items() if column.is_date)
        self.read = [self.columns[name] for name in dict.fromkeys(name for term in terms for name in term.variables)]
        active = {j: at for at, j in enumerate(solution.problem.active.tolist())}
        self.at = [active[j] for term in terms for j in term.positions if j in active]

    def along(self, varying: Mapping[str, np.ndarray]) -> TermLine:
        """The effect at values (n,) of the columns that it reads."""
        problem = self.solution.problem
        size = len(next(iter(varying.values())))
        columns = {name: np.repeat(one.typical, size) for name, one in self.columns.items()} | dict(varying)
        columns |= {name: np.zeros(size) for name in (self.schema.offset,) if name}
        columns |= {name: np.ones(size) for name in (self.schema.exposure, self.schema.trials) if name}
        x = self.schema.rows(
            Table(columns, "the rows of a picture", dates=self.dates), log_link=True, target_required=False
        ).x
        index = problem.active[self.at]
        z = (x[:, index] - problem.mean[index]) / problem.scale[index]
        place = torch.tensor(self.at, dtype=torch.long) + self.k * (problem.num_active + 1)
        gain = float(problem.head.gain[self.k])
        value = (gain * (z @ self.solution.theta[place])).numpy()
        trained = None if self.trained is None else (gain * (z @ self.trained[index])).numpy()
        if self.errors is None:
            return TermLine(value, None, trained)
        variance = ((z @ self.errors.matrix[place][:, place]) * z).sum(1).clamp(min=0)
        half = float(t_quantile(0.975, self.errors.df)) * abs(gain) * variance.sqrt()
        return TermLine(value, half.numpy(), trained)


def _panel(effect: Effect, title: str) -> TermPanel | None:
    """The panel of an effect; None unless it is one of a number, of a category, or of one of each."""
    numeric = [column for column in effect.read if not column.levels]
    others = [column for column in effect.read if column.levels]
    if not effect.at or len(numeric) > 1 or len(others) > 1:
        return None
    if not numeric:
        levels = others[0].levels
        if len(levels) > MOST_LEVELS:
            return None
        line = effect.along({others[0].name: others[0].values})
        return TermPanel(title, others[0].name, np.arange(float(len(levels))), {"": line}, levels)
    known = numeric[0].values
    x = np.linspace(known[0], known[-1], _NUM_POINTS)
    if not others:
        line = effect.along({numeric[0].name: x})
        return TermPanel(title, numeric[0].name, x, {"": line}, rug=known, is_date=numeric[0].is_date)
    other = others[0]
    if len(other.levels) > _MOST_LINES:
        return None
    lines = {}
    for j, level in enumerate(other.levels):
        fixed = {other.name: np.repeat(other.values[j : j + 1], len(x))}
        lines[f"{other.name} {level}"] = effect.along({numeric[0].name: x, **fixed})
    return TermPanel(title, numeric[0].name, x, lines, rug=known, is_date=numeric[0].is_date)


def _column(design: Design, feature: Feature) -> _Column:
    if feature.kind == "category":
        texts = np.array(feature.levels, dtype=object)
        return _Column(feature.name, np.array([False, True]) if feature.levels == BOOLEANS else texts, feature.levels)
    if values := design.numbers.get(feature.name):
        return _Column(feature.name, np.array(values), tuple(map(written, values)))
    known = design.quantiles.get(feature.name, feature.means)
    return _Column(feature.name, np.array(known), is_date=feature.is_date)
