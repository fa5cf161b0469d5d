"""The exact estimates of a run in its checkpoint: storing them, and evaluating them on new rows beside the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlefw.baseline.base import Solution
from mlefw.baseline.feature_map import LAST_LAYER, FeatureMap
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.baseline.ngram.ngram import Ngram
from mlefw.baseline.predictor import Estimate
from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.report.references import KEYS
from mlefw.rows.clustered import Units, UnitTally, cluster_error, cluster_sums
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.rows.shape import RowShape
from mlefw.rows.tokens import TokenRows
from mlefw.score.exact_model import ExactModel, evaluate_exact
from mlefw.score.yardstick import ExactEstimates
from mlefw.system.atomic import Json

ESTIMATES = "estimates"
"""The key of the exact estimates in a checkpoint."""
EXACT = "exact"
"""The key, in the checkpoint of an exact estimate, of the name of the estimate that is its model."""

FEATURES = "features"
"""The key, among the exact estimates of arrays, of the feature map of each one."""

COVARIANCE = "covariance"
"""The key, among the exact estimates of a table, of the covariance of the coefficients of each one."""

TABLE = "table"
"""The key of the arrays of a table of the next token."""


def stored(exact: ExactEstimates, objective: Objective, ridge_scale: float | None) -> Json:
    """The content to be stored: null model and estimates as tensors, and the name of the one that gaps refer to."""
    kept = {name: solution for name, solution in exact.solutions.items() if solution.may_exist}
    content: Json = {name: _stored(found, objective) for name, found in {"null": exact.null, **kept}.items()}
    content |= {} if exact.null_table is None else {"null": _table(exact.null_table)}
    linear = {name: one for name, one in kept.items() if isinstance(one, Solution)}
    maps = {name: one.problem.features.state() for name, one in linear.items() if one.problem.features is not None}
    content |= {FEATURES: maps} if maps else {}
    reference = exact.reference
    content |= {} if reference is None else {"reference": reference[0]}
    return content | ({"ridge_scale": float(ridge_scale)} if "ridge" in content and ridge_scale is not None else {})


def _stored(solution: Solution | NgramEstimate, objective: Objective) -> Json:
    if isinstance(solution, NgramEstimate):
        return _table(solution.ngram)
    return dict(Estimate.of(solution, objective)._asdict())


def _table(ngram: Ngram) -> Json:
    return {TABLE: {name: torch.from_numpy(array) for name, array in ngram.arrays().items()}}


class EstimateTally:
    """Adds up, over blocks of rows, the NLL of stored exact estimates and their distance from the model.

    Args:
        content: the stored estimates, as `stored` returned them.
        model: the objective without a recalibration, to whose head the estimates belong.
        final: the objective that is evaluated.
        path: the checkpoint, for messages.
        units: as for `UnitTally`, where standard errors are over units of several rows.

    Raises:
        UsageError: the stored estimates do not fit the model.
    """

    def __init__(
        self,
        content: Json,
        model: Objective,
        final: Objective,
        path: Path,
        units: Callable[[Tensor, Tensor], Units] | None = None,
    ) -> None:
        self.final, self.reference = final, content.get("reference")
        self.ridge_scale = content.get("ridge_scale")
        self.features = _feature_maps(content, model, path)
        self.models: dict[str, ExactModel] = {
            name: _restored(content[name], model, path, self.features.get(name)) for name in KEYS if name in content
        }
        if self.reference is not None and self.reference not in self.models:
            raise UsageError(f"{path}: its exact estimates name {self.reference!r} as a reference, and it is not there")
        self._means = {name: _WeightedMean() for name in self.models}
        self._gaps = {name: _WeightedMean(units) for name in ("null", self.reference) if name in self.models}

    @torch.no_grad()
    def add(self, rows: Rows, code: Tensor | None = None, nll: Tensor | None = None) -> None:
        """Add a block of rows.

        Args:
            rows: the rows.
            code: what tells their units apart, (n,), where units have several rows.
            nll: the NLL of each row under the objective that is evaluated, (n,), if known.
        """
        nll = (row_nll(self.final, rows) if nll is None else nll).double()
        weight, clustered = rows.row_weight, bool(rows.positions)
        for name, model in self.models.items():
            other = row_nll(model, rows)
            self._means[name].add(other, weight, clustered)
            if name in self._gaps:
                self._gaps[name].add(nll - other, weight, clustered, code)

    def figures(self) -> Json:
        """Finite figures, in nats per row: NLL of each estimate by its key in `summary.json`, and `distance`.

        `distance` has the mean NLL of the model minus that of an estimate, with the paired standard error.
        """
        content: Json = {}
        for name, mean in self._means.items():
            if abs(mean.value) < float("inf"):
                model = self.models[name]
                order = {"order": model.order} if isinstance(model, Ngram) and name != "null" else {}
                content[KEYS[name]] = {"nll_nats": mean.value, **order}
        for name in self.features.keys() & self._means.keys():
            content.setdefault(KEYS[name], {})["features"] = self.features[name].words
        if self.ridge_scale is not None and KEYS["ridge"] in content:
            content[KEYS["ridge"]]["scale"] = self.ridge_scale
        distance: Json = {} if self.reference is None else {"reference": self.reference}
        for name, gap in self._gaps.items():
            key = "null_gap" if name == "null" else "gap"
            values = {f"{key}_nats": gap.value, f"{key}_se": gap.error}
            distance |= {name: value for name, value in values.items() if abs(value) < float("inf")}
        return content | {"distance": distance}


def row_nll(model: ExactModel, rows: Rows) -> Tensor:
    """The NLL of each row, (n,); of windows of tokens some at a time, since they are gathered when they are read."""
    if isinstance(model, Objective) and not isinstance(rows, TokenRows):
        return rows.row_means(model.nll(rows))
    return evaluate_exact(model, rows).nll


class _WeightedMean:
    """A weighted mean over blocks of values, and its standard error; weights are frequencies.

    Of values that are means over the observations of a row, each row is one unit (see `distance.paired`). `units`: as
    for `UnitTally`, where units have several rows.
    """

    def __init__(self, units: Callable[[Tensor, Tensor], Units] | None = None) -> None:
        self._tally = None if units is None else UnitTally(units)
        self._near: float | None = None
        self._count = self._sum = self._square = 0.0
        self._units, self._clusters = 0, torch.zeros(3, dtype=torch.float64)

    def add(self, values: Tensor, weight: Tensor, clustered: bool = False, code: Tensor | None = None) -> None:
        """Add a block of values, (n,), with weights, (n,); `clustered` as for `distance.paired`, `code` of units."""
        count = float(weight.sum())
        if not count:
            return
        # Sums about the mean of the first block: about zero, a small variance would cancel.
        if self._near is None:
            self._near = float(weighted_sum(weight, values)) / count
        away = values - self._near
        self._count += count
        self._sum += float(weighted_sum(weight, away))
        self._square += float(weighted_sum(weight, away.square()))
        if self._tally is not None and code is not None:
            self._tally.add(weight * values, weight, code)
        elif clustered:
            self._units += int((weight > 0).sum())
            self._clusters += cluster_sums(torch.where(weight > 0, weight * away, 0.0), weight).cpu()

    @property
    def value(self) -> float:
        """The mean; NaN without rows."""
        return (self._near or 0.0) + self._sum / self._count if self._count else float("nan")

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN for a single row or unit."""
        if self._tally is not None and not self._tally.is_empty:
            return self._tally.result()[0].error
        if self._units:
            mean, units = self._sum / self._count, self._units
            return float(cluster_error(self._clusters, mean, units, self._count)) if units > 1 else float("nan")
        if not self._count > 1:
            return float("nan")
        variance = self._square / self._count - (self._sum / self._count) ** 2
        return (max(variance, 0.0) / (self._count - 1)) ** 0.5


def _feature_maps(content: Json, model: Objective, path: Path) -> dict[str, FeatureMap]:
    """The stored feature map of each exact estimate of rows of arrays, by the name of the estimate."""
    shape, maps = getattr(model.model, "shape", None), content.get(FEATURES, {})
    if not maps:
        return {}
    if not isinstance(maps, dict) or not isinstance(shape, RowShape):
        raise UsageError(f"{path}: the features of its exact estimates are not described")
    try:
        return {name: FeatureMap.restore(state, shape) for name, state in maps.items() if name in KEYS}
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def restored(content: Json, name: str, model: Objective, path: Path) -> Objective:
    """The objective of a stored linear estimate of a table.

    Raises:
        UsageError: it does not fit the model.
    """
    return _estimate(content.get(name), model, path, None).as_objective(model).eval()


def _restored(content: Any, model: Objective, path: Path, features: FeatureMap | None) -> ExactModel:
    """The model of a stored estimate.

    Raises:
        UsageError: it does not fit the model.
    """
    table = content.get(TABLE) if isinstance(content, dict) else None
    if table is None:
        return _estimate(content, model, path, features).as_objective(model, features).eval()
    try:
        ngram = Ngram.from_arrays({name: value.numpy() for name, value in table.items()})
        ngram.check()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: the table of an exact estimate is damaged ({error!r})") from None
    if len(ngram.base) != model.head.eta_dim:
        raise UsageError(f"{path}: the table of an exact estimate is of {len(ngram.base)} tokens")
    return ngram


def _estimate(content: Any, model: Objective, path: Path, features: FeatureMap | None) -> Estimate:
    """A stored estimate, after checking the shape of each tensor against the model."""
    head = model.head
    shape = getattr(model.model, "shape", None)
    if features is not None and features.setting == LAST_LAYER:
        last = getattr(model.model.model, "last", None)
        if not isinstance(last, nn.Linear) or last.bias is None:
            raise UsageError(f"{path}: its exact estimates are of a last layer, and its model names none")
        width = last.in_features
    elif isinstance(shape, RowShape):
        # The null model of rows that are no rows of a table has no columns.
        width = 0 if features is None else features.num_columns
    else:
        width = len(model.model.mean)  # type: ignore[arg-type]
    columns = head.eta_dim + head.shared_dim
    shapes = {
        **{"weight": (head.eta_dim, width), "bias": (head.eta_dim,), "shared": (head.shared_dim,)},
        **{"mean": (width,), "scale": (width,), "center": (columns,), "gain": (columns,)},
        "floor": tuple(head.floor.shape),
    }
    for name, shape in shapes.items():
        value = content.get(name) if isinstance(content, dict) else None
        if not isinstance(value, Tensor) or tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
            raise UsageError(f"{path}: {name} of an exact estimate is no finite tensor of shape {shape}")
    return Estimate(**{name: content[name].double() for name in Estimate._fields})
