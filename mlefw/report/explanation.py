"""The explanation of a model: what is known of each feature, as tables, pictures and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from mlefw.report.page import Page, Picture, Row, Section, Table
from mlefw.system.atomic import Json
from mlefw.system.number_format import number, percent

_DEPENDENT = 0.1
"""Share of the variance of a feature that the others explain, from which on it is said to depend on them."""

EXPLAIN_FILE = "explain.json"
"""The file with all figures of an explanation."""

_NATS = (
    "The rise of the NLL when rows exchange the values of a feature, ± its standard error over these rows. Marginal: "
    "among all rows. Conditional: among ten rows for which the other features predict nearly the same value of it, so "
    "that it is what the feature says beyond the others. A nat is a factor of e in the likelihood: 0.01 nats per row "
    "are one such factor for every hundred rows."
)
_EFFECTS = (
    "How the prediction moves with a feature: accumulated local effects of numbers, partial dependence on levels of "
    "categories, less their mean over the rows. Bands: ± 1.96 standard errors over the rows that are averaged; they "
    "say nothing of the error of the model."
)
_BARS = "Bars: marginal, points: conditional, with 95 % intervals over rows."
_CURVES = "Marks at the lower edge are ends of bins with equal numbers of rows; all panels have one scale."
_TERMS = (
    "The model is a sum over these terms, so that what each adds is exact: the sum of its coefficients times (value − "
    "mean). Nats: the rise of the NLL when a term is held at its mean in every row, without a new fit."
)


class Rise(NamedTuple):
    """A rise of the NLL in nats per row, with its standard errors over rows and over permutations."""

    nats: float
    se: float
    se_permutations: float


@dataclass(frozen=True)
class Nats:
    """What permutations of a feature cost; `explained` is the share of its variance that the others explain."""

    feature: str
    marginal: Rise
    conditional: Rise
    explained: float


@dataclass(frozen=True)
class Effect:
    """The effect of a feature on a quantity at values or levels `at`, (k,), with standard errors."""

    feature: str
    quantity: str
    at: np.ndarray
    effect: np.ndarray
    se: np.ndarray
    levels: tuple[str, ...] = ()
    is_date: bool = False


@dataclass(frozen=True)
class TermShare:
    """What a term adds to a column of eta: standard deviation and range over the rows; nats without the term."""

    term: str
    eta: str
    sd: float
    lowest: float
    highest: float
    nats: float
    se: float


@dataclass(frozen=True)
class Explanation:
    """The explanation of a model on rows.

    Attributes:
        run: the model.
        target: what it predicts.
        features: nats of each feature, the largest marginal ones first.
        effects: effects of features on quantities of the prediction.
        terms: parts of eta where it is a sum over terms; empty where it is not.
        nll_nats: mean NLL of the rows as they are.
        num_rows: number of rows that were explained.
        num_known: number of rows that there were.
        repeats: number of permutations of each kind.
        group: column of the groups over which standard errors are taken; None for independent rows.
    """

    run: str
    target: str
    features: tuple[Nats, ...]
    effects: tuple[Effect, ...]
    terms: tuple[TermShare, ...]
    nll_nats: float
    num_rows: int
    num_known: int
    repeats: int
    group: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Columns by name of the tables `nats`, `effects` and, of a sum over terms, `terms`."""
        nats: dict[str, list[Any]] = {"feature": [one.feature for one in self.features]}
        for kind in ("marginal", "conditional"):
            for part in Rise._fields:
                nats[f"{kind}_{part}"] = [getattr(getattr(one, kind), part) for one in self.features]
        nats["explained_by_others"] = [one.explained for one in self.features]
        effects: dict[str, list[Any]] = {key: [] for key in ("feature", "quantity", "value", "level", "effect", "se")}
        for one in self.effects:
            for k in range(len(one.at)):
                level = one.levels[k] if one.levels else ""
                cells = (one.feature, one.quantity, float(one.at[k]), level, float(one.effect[k]), float(one.se[k]))
                for key, cell in zip(effects, cells, strict=True):
                    effects[key].append(cell)
        found = {"nats": nats, "effects": effects}
        if self.terms:
            found["terms"] = {name: [getattr(one, name) for one in self.terms] for name in TermShare.__annotations__}
        return found

    def content(self) -> Json:
        """All figures in plain containers; one that is not defined is None."""
        facts = ("run", "target", "nll_nats", "num_rows", "num_known", "repeats", "group")
        tables = {
            name: [dict(zip(table, map(_plain, line), strict=True)) for line in zip(*table.values(), strict=True)]
            for name, table in self.tables().items()
        }
        return {**{name: getattr(self, name) for name in facts}, "settings": dict(self.settings), **tables}

    def sentence(self) -> str:
        """The conclusion in words."""
        if not self.features:
            return "The model has no features."
        first = self.features[0]
        text = (
            f"{first.feature} carries most: where rows exchange its values, the NLL of {self.target} is "
            f"{_with_error(first.marginal)} nats per row higher"
        )
        kept = max(self.features, key=lambda one: one.conditional.nats)
        if first.explained >= _DEPENDENT or kept is not first:
            text += f", and {_with_error(first.conditional)} where only rows do that are alike otherwise"
        text += "."
        if kept is not first:
            text += f" Beyond what the others say, {kept.feature} carries most: {_with_error(kept.conditional)}."
        weak = sum(one.marginal.nats <= 1.96 * one.marginal.se for one in self.features)
        if weak:
            text += f" {weak} of {len(self.features)} features carry nothing that can be told from zero."
        return text

    def pictures(self) -> dict[str, Picture]:
        """The pictures by name: `nats`, and effects on each quantity."""
        # Imported here, because a prediction, which imports this module, needs no pictures.
        from mlefw.plot.explanation import nats_of_features
        from mlefw.plot.style import png
        from mlefw.plot.terms import TermLine, TermPanel, term_effects

        def panel(one: Effect) -> TermPanel:
            line = TermLine(one.effect, 1.96 * one.se)
            rug: np.ndarray = np.zeros(0) if one.levels else one.at
            return TermPanel(one.feature, one.feature, one.at, {"": line}, one.levels, rug, one.is_date)

        figures = {"nats": (nats_of_features(self.features, self.target), _BARS)} if self.features else {}
        order = {one.feature: place for place, one in enumerate(self.features)}
        for k, quantity in enumerate(dict.fromkeys(one.quantity for one in self.effects)):
            own = sorted((e for e in self.effects if e.quantity == quantity), key=lambda e: order[e.feature])
            band = "95 % bands over rows"
            words = f"{quantity} of {self.target}"
            figure = term_effects([panel(one) for one in own], words, words, band, "Effects on the", "these rows")
            figures[f"effects_{k}"] = (figure, _CURVES)
        return {
            name: Picture(png(figure), figure.get_suptitle().replace("\n", " ").replace(r"\$", "$"), caption)
            for name, (figure, caption) in figures.items()
        }

    def page(self, pictures: Mapping[str, Picture]) -> str:
        """The page as HTML."""
        footer = f"mlefw {version('mlefw')}. Nats are of the NLL of {self.target}, in its own units."
        about, sections = self._about(), self._sections(pictures, "nats.csv", "terms.csv")
        return Page(f"What {self.run} predicts from", self.sentence(), about, sections, (), footer).html()

    def sections_of_report(self, pictures: Mapping[str, Picture], rows: str) -> list[Section]:
        """The sections of the report of a run, the first of which begins with the conclusion in words.

        Args:
            pictures: some of `pictures()`, or none.
            rows: which rows were explained, such as `test`.
        """
        first = Section(
            f"What the forecasts rest on: {rows} rows", note=f"{self.sentence()} These are {self._about()}."
        )
        return [first, *self._sections(pictures, EXPLAIN_FILE, EXPLAIN_FILE)]

    def _sections(self, pictures: Mapping[str, Picture], nats_file: str, terms_file: str) -> list[Section]:
        """Tables and pictures; of a table that is too long the rest is in the file that it names."""
        bars = [picture for name, picture in pictures.items() if name == "nats"]
        curves = [picture for name, picture in pictures.items() if name != "nats"]
        sections = [Section("Nats of each feature", [self._nats(nats_file)], bars, note=_NATS)] if self.features else []
        sections += [Section("Effects", pictures=curves, note=_EFFECTS)] if curves else []
        sections += [Section("Terms of the sum", [self._sums(terms_file)], note=_TERMS)] if self.terms else []
        return sections

    def _about(self) -> str:
        some = "" if self.num_rows == self.num_known else f", drawn at random from {self.num_known:,}"
        units = f"groups of {self.group}" if self.group else "rows"
        return (
            f"{self.num_rows:,} rows{some}, with an NLL of {number(self.nll_nats)} nats per row; {self.repeats} "
            f"permutations of each kind; standard errors over {units}"
        )

    def _nats(self, file: str) -> Table:
        header = ["feature", "marginal, nats", "± rows", "± draws", "conditional", "± rows", "± draws", "by others"]
        rows = [
            Row(
                one.feature,
                [*map(number, one.marginal), *map(number, one.conditional), percent(one.explained)],
            )
            for one in self.features
        ]
        return Table(header, rows, file=file)

    def _sums(self, file: str) -> Table:
        header = ["term", "of", "sd", "lowest", "highest", "nats", "±"]
        rows = [
            Row(one.term, [one.eta, *map(number, (one.sd, one.lowest, one.highest, one.nats, one.se))])
            for one in self.terms
        ]
        return Table(header, rows, num_text=1, file=file)


def _with_error(rise: Rise) -> str:
    return f"{number(rise.nats)} ± {number(rise.se)}"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def lines(explanation: Explanation, most: int = 20) -> Sequence[str]:
    """What the terminal shows: a line for each of the first features, and the conclusion."""
    width = max([len(one.feature) for one in explanation.features[:most]] + [7])
    found = [f"  {'feature':<{width}}{'nats, marginal':>22}{'given the others':>22}{'by others':>12}"]
    for one in explanation.features[:most]:
        cells = (_with_error(one.marginal), _with_error(one.conditional))
        found.append(f"  {one.feature:<{width}}{cells[0]:>22}{cells[1]:>22}{percent(one.explained):>12}")
    if len(explanation.features) > most:
        found.append(f"  … and {len(explanation.features) - most} more in nats.csv")
    return [*found, explanation.sentence()]
