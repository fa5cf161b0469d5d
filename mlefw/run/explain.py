"""Explains a trained model: nats that each feature carries, effects on its parameters, and sums of linear terms."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from mlefw.configuration.explanation import ExplanationSettings
from mlefw.errors import UsageError
from mlefw.objective.objective import evaluate
from mlefw.reading.levels import factorize
from mlefw.reading.table import Table
from mlefw.report.explanation import Effect, Explanation, Nats, Rise
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.feature_rows import FeatureRows
from mlefw.run.pooled import Pooled
from mlefw.run.predicted_quantities import quantities
from mlefw.run.term_shares import term_shares
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema
from mlefw.schema.support import check_support
from mlefw.score import accumulated, permutation
from mlefw.score.permutation import Others, importance
from mlefw.system.random_state import stream_seed
from mlefw.system.warning import warn

_MOST_LEVELS = 30
"""Most levels of a category whose effects are computed."""


def explain(
    trained: Trained,
    tables: Iterable[Table],
    settings: ExplanationSettings,
    report: Callable[[float], None] = lambda share: None,
) -> Explanation:
    """Explain a model on rows with their targets.

    Args:
        trained: the model.
        tables: the rows, in blocks; of more than `settings.max_rows` a random part is taken.
        settings: numbers of rows, repeats and bins, and the seed.
        report: is called with the share of the work that is done.

    Raises:
        UsageError: rows are not those of a table, there are fewer than two, or a target is not allowed.
    """
    check(trained)
    table, num_rows = _chosen(tables, settings)
    known = FeatureRows(trained, table)
    check_support(trained.objective.head, known.rows, table, trained.schema.target)
    nll, weight = _nll(trained, known.rows), known.rows.weight.double().numpy()
    if (weight > 0).sum() < 2:
        raise UsageError(f"{table.origin}: expected at least two rows with a positive weight")
    group = _groups(trained, table)
    nats, effects = list[Nats](), list[Effect]()
    others = Others(known.plain[0], weight)
    for number, name in enumerate(known.names):
        nats.append(_nats_of(known, name, others, nll, weight, group, settings))
        effects += _effects(known, name, weight, group, settings.bins)
        report((number + 1) / len(known.names))
    return Explanation(
        _name(trained),
        trained.schema.target,
        tuple(sorted(nats, key=lambda one: -one.marginal.nats)),
        tuple(effects),
        tuple(term_shares(known, nll, weight, group)),
        float(weight @ nll / weight.sum()),
        len(nll),
        num_rows,
        settings.repeats,
        None if group is None else str(trained.config.data.get("group")),
    )


def check(trained: Trained) -> None:
    """Refuse a model of arrays, images or text.

    Raises:
        UsageError: naming the run.
    """
    check_schema(trained.schema, f"run={trained.path}")


def check_schema(schema: RowSchema, setting: str) -> None:
    """Refuse rows that are arrays, images or text.

    Args:
        schema: what columns or arrays mean.
        setting: what asks for an explanation, for the message.

    Raises:
        UsageError: naming the setting.
    """
    if not isinstance(schema, Schema):
        raise UsageError(
            f"{setting}: explain exchanges the values of columns between rows, and the rows of this run are "
            "arrays, images or text: expected a run on a table"
        )


def _name(trained: Trained) -> str:
    """The directory of the run or ensemble, or those of several runs."""
    if isinstance(trained, Pooled) and not trained.path.is_dir():
        return ", ".join(map(_name, trained.members))
    return str(trained.path.parent.parent if trained.path.parent.name == "checkpoints" else trained.path)


def _chosen(tables: Iterable[Table], settings: ExplanationSettings) -> tuple[Table, int]:
    """At most `max_rows` rows drawn at random, in the order of the data, and the number of rows that there are."""
    random = np.random.default_rng(stream_seed(settings.seed, "rows to explain"))
    kept, rank, num_rows = list[Table](), np.empty(0), 0
    for table in tables:
        rank = np.concatenate([rank, random.random(table.num_rows)])
        kept, num_rows = [*kept, table], num_rows + table.num_rows
        if len(rank) > settings.max_rows:
            index = np.sort(np.argpartition(rank, settings.max_rows - 1)[: settings.max_rows])
            kept, rank = [_joined(kept).take(index)], rank[index]
    if not num_rows:
        raise UsageError("0 data rows: there is nothing to explain")
    return _joined(kept), num_rows


def _joined(tables: Sequence[Table]) -> Table:
    """Blocks of a table as one."""
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in first.columns}
    lacking = dict.fromkeys(name for table in tables for name in table.holes)
    none = [np.zeros(table.num_rows, dtype=bool) for table in tables]
    holes = {
        name: np.concatenate([table.holes.get(name, hole) for table, hole in zip(tables, none, strict=True)])
        for name in lacking
    }
    numbers = np.concatenate([table.row_numbers(np.arange(table.num_rows)) for table in tables])
    return replace(first, columns=columns, holes=holes, numbers=numbers)


def _groups(trained: Trained, table: Table) -> np.ndarray | None:
    """The group of each row by `data.group`, (n,); None where there is none, or the rows do not have it."""
    name = trained.config.data.get("group")
    if not name:
        return None
    if name not in table.columns or name in table.holes:
        warn(f"data.group={name} is not known of all rows: standard errors are those of independent rows")
        return None
    return factorize(table.columns[name])[1]


def _nll(trained: Trained, rows: Rows) -> np.ndarray:
    """NLL of each row, (n,) in nats, in float64."""
    return evaluate(trained.objective, rows).nll.double().numpy()


def _nats_of(
    known: FeatureRows,
    name: str,
    others: Others,
    nll: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray | None,
    settings: ExplanationSettings,
) -> Nats:
    """The marginal and the conditional importance of one feature; each feature has a random stream of its own."""
    random = np.random.default_rng(stream_seed(settings.seed, f"permutations of {name}"))
    order, explained = others.order(known.plain[1][name])

    def nll_with(donor: np.ndarray) -> np.ndarray:
        return _nll(known.trained, known.from_donors(name, donor))

    anyone = [permutation.marginal(weight, random) for _ in range(settings.repeats)]
    alike = [permutation.conditional(order, random) for _ in range(settings.repeats)]
    found = [importance(nll_with, nll, weight, donors, group) for donors in (anyone, alike)]
    shuffled, kept = (Rise(one.nats, one.se, one.se_permutations) for one in found)
    return Nats(name, shuffled, kept, explained)


def _effects(
    known: FeatureRows, name: str, weight: np.ndarray, group: np.ndarray | None, num_bins: int
) -> Iterator[Effect]:
    """The effects of a feature on each quantity that the model predicts; none of a category with very many levels."""
    if known.feature(name).kind == "category":
        values, names = known.levels(name)
        if not 1 < len(values) <= _MOST_LEVELS:
            return
        column = known.table.columns[name].astype(str)
        share = np.array([weight[column == str(value)].sum() for value in values.tolist()])
        each = [quantities(known.trained, known.with_values(name, np.full(len(weight), v))) for v in values]
        for quantity in each[0]:
            stacked = np.stack([one[quantity] for one in each])
            curve = accumulated.dependence(stacked, weight, share / share.sum(), group)
            yield Effect(name, quantity, curve.at, curve.effect, curve.se, tuple(names))
        return
    column = known.table.columns[name].astype(float)
    present = ~known.table.holes.get(name, np.zeros(len(column), dtype=bool)) & (weight > 0)
    edges = accumulated.edges_of(column[present], weight[present], num_bins)
    if len(edges) < 2:
        return
    where = accumulated.bin_of(np.where(present, column, edges[0]), edges)
    lower, upper = (quantities(known.trained, known.with_values(name, edges[where + k])) for k in (0, 1))
    dated = known.feature(name).is_date
    for quantity in lower:
        rise = (upper[quantity] - lower[quantity])[present]
        curve = accumulated.accumulated(rise, where[present], edges, weight[present])
        yield Effect(name, quantity, curve.at, curve.effect, curve.se, is_date=dated)
