"""Writing a trained model to one file of another format, and comparing the file with the model before it is kept."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlefw.distribution.trials import GivenTrials
from mlefw.errors import StorageError, UsageError
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.export_schema import described
from mlefw.run.exported import Exported, lgamma, solve_triangular
from mlefw.run.new_data import check_folder, check_output
from mlefw.run.pooled import Pooled
from mlefw.run.predict import check_probabilities, figure_columns
from mlefw.schema.schema import Schema
from mlefw.system.atomic import Json, write_bytes, write_json
from mlefw.system.file_system import remove

Format = Literal["onnx", "torch_export"]
SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}
Arrays = dict[str, np.ndarray]
_CLOSE, _CLOSE_NARROW = 1e-6, 1e-4
"""Largest difference from the model, as a share of a value's size, of parameters in 64 and in 32 bit."""
_COMPARED = 512
"""Most rows on which a file is compared with the model."""
_WITHOUT = {
    torch.ops.aten.lgamma.default: lgamma,
    torch.ops.aten.linalg_solve_triangular.default: solve_triangular,
}
"""What ONNX has no function for, and what stands in for it."""


def export(
    trained: Trained, table: Table, path: Path, form: str = "onnx", quantiles: Sequence[float] = ()
) -> tuple[Path, Json]:
    """Write the model to `path`, and its description to `schema_path(path)`; the absolute path, and how they compare.

    Args:
        trained: the model.
        table: rows on which the file is compared with the model; of many the first 512.
        path: the file.
        form: `onnx` or `torch_export`.
        quantiles: probabilities of quantiles among the outputs.

    Raises:
        UsageError: the format is unknown, its packages are missing, the model or a quantile cannot be exported, or the
            file differs from the model. No file is left behind.
    """
    check_format(form)
    check_model(trained)
    check_probabilities(trained, 0.9, quantiles)
    table = table.take(np.arange(min(table.num_rows, _COMPARED)))
    rows = trained.rows(table, target_required=False)
    if not rows.num_rows:
        raise UsageError("there are no rows on which the exported file could be compared with the model")
    program, inputs = Exported(trained, quantiles), inputs_of(trained, table, rows)
    content, call = (_onnx if form == "onnx" else _torch_export)(program, inputs)
    found = call({name: value.numpy() for name, value in inputs.items()})
    expected = _expected(trained, rows, program, inputs, quantiles)
    checked = _compared(trained, found, expected)
    one = call({name: value[:1].numpy() for name, value in inputs.items()})
    _compared(trained, one, {name: value[:1] for name, value in expected.items()})
    about = {"format": form, **described(trained, {k: v.numpy() for k, v in inputs.items()}, found, checked)}
    write_json(schema_path(path), about)
    try:
        write_bytes(path, content)
    except StorageError:
        remove(schema_path(path))
        raise
    return path.absolute(), checked


def schema_path(path: Path) -> Path:
    """The file that describes an exported file: its name with `.json` behind it."""
    return path.with_name(f"{path.name}.json")


def check_place(path: Path, overwrite: bool) -> None:
    """Check that a file and its description can be written.

    Raises:
        UsageError: one of them exists and may not be replaced, or there is no such folder.
    """
    for one in (path, schema_path(path)):
        check_output(one, overwrite, "path")
    check_folder(path, "path")


def check_format(form: str) -> None:
    """Check that the format is known and that its packages are installed.

    Raises:
        UsageError: it is not, or they are not.
    """
    if form not in get_args(Format):
        raise UsageError(f"format={form}: expected {' or '.join(get_args(Format))}")
    if form == "onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"format=onnx needs the packages {', '.join(missing)}\n  expected: pip install 'mlefw[export]', or "
                "format=torch_export, which needs no more than torch"
            )


def check_model(trained: Trained) -> None:
    """Refuse what no file holds, before rows are read.

    Raises:
        UsageError: the model is a mixture of several, or a formula of the run has an offset.
    """
    if isinstance(trained, Pooled):
        raise UsageError("an ensemble, or a mixture of several runs, is not exported: expected a single run")
    design = trained.schema.design if isinstance(trained.schema, Schema) else None
    if design is not None and any(one.offsets for one in design.parameters):
        raise UsageError(
            "a formula with an offset is not exported: expected offset(…) as a column in training (data.offset)"
        )


def inputs_of(trained: Trained, table: Table, rows: Rows) -> dict[str, Tensor]:
    """The inputs of an exported file for some rows, by name: x, and offset, exposure and trials if the run has them."""
    schema = trained.schema
    # Rows keep tokens in the narrowest type that holds them.
    found = {"x": rows.x if schema.row_shape.num_tokens is None else rows.x.long()}
    if isinstance(schema, Schema):
        columns = {"offset": schema.offset, "exposure": schema.exposure, "trials": schema.trials}
        for name, column in columns.items():
            if column is not None:
                found[name] = torch.from_numpy(table.columns[column].astype(np.float64))
    elif getattr(schema, "offset", None) is not None:
        found["offset"] = rows.offset
    return {name: value.contiguous() for name, value in found.items()}


@torch.no_grad()
def _expected(
    trained: Trained, rows: Rows, program: Exported, inputs: Mapping[str, Tensor], quantiles: Sequence[float]
) -> Arrays:
    """What `mlefw predict` gives for the rows, by the names of outputs; parameters by the model as it is."""
    found = {name: value.numpy() for name, value in program(**inputs).items()}
    if trained.schema.row_shape.positions:
        return found
    predicted = trained.objective.head(trained.objective.eta(rows.x, rows.offset))
    shown = predicted.given(rows.y[..., 1]) if isinstance(predicted, GivenTrials) else predicted
    columns = {name: np.asarray(column) for name, column in figure_columns(trained, shown, 0.9, quantiles).items()}
    for name in found:
        prefix = name.removesuffix("probs")
        if name in columns:
            found[name] = columns[name].astype(np.float64)
        elif name.endswith("probs"):
            target = next(t for t in trained.schema.targets if prefix in ("", f"{t.name}_") and t.labels)
            labels = target.labels or ()
            found[name] = np.stack([columns[f"{prefix}prob_{label}"] for label in labels], -1).astype(np.float64)
    return found


def _compared(trained: Trained, found: Arrays, expected: Arrays) -> Json:
    """How far outputs are from what is expected, as a share of the size of values.

    Raises:
        UsageError: one differs by more than is allowed.
    """
    narrow = any(p.dtype != torch.float64 for p in trained.objective.model.parameters())
    allowed, worst = _CLOSE_NARROW if narrow else _CLOSE, 0.0
    for name, value in expected.items():
        gap = _gap(found[name], value)
        if not gap <= allowed:
            raise UsageError(
                f"the exported file differs from the model: {name} by {gap:.2g} of its size, of which {allowed:g} are "
                "allowed: nothing was written"
            )
        worst = max(worst, gap)
    num_rows = len(next(iter(expected.values())))
    return {"rows": num_rows, "largest_relative_difference": worst, "allowed": allowed}


def _gap(found: np.ndarray, value: np.ndarray) -> float:
    """The largest difference as a share of a value's size, or of the usual size where that is larger."""
    if found.shape != value.shape or not np.array_equal(np.isfinite(found), np.isfinite(value)):
        return math.inf
    finite = np.isfinite(value)
    if not np.array_equal(found[~finite], value[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    size = np.maximum(np.abs(value[finite]), np.median(np.abs(value[finite])))
    return float((np.abs(found[finite] - value[finite]) / np.maximum(size, np.finfo(np.float64).tiny)).max())


def _program(program: Exported, inputs: Mapping[str, Tensor]) -> Any:
    """The recorded program, for any number of rows.

    Raises:
        UsageError: a step of the model depends on values, or is one that torch cannot record.
    """
    rows = torch.export.Dim("rows")
    # Two rows or more: torch takes a size of one for a constant.
    several = {name: torch.cat([value, value])[: max(2, len(value))] for name, value in inputs.items()}
    shapes = {name: {0: rows} for name in several}
    try:
        with quiet():
            return torch.export.export(program, (), several, dynamic_shapes=shapes)
    except Exception as error:
        raise _refused(program, error) from error


def _torch_export(program: Exported, inputs: Mapping[str, Tensor]) -> tuple[bytes, Callable[[Arrays], Arrays]]:
    content = io.BytesIO()
    with quiet():
        torch.export.save(_program(program, inputs), content)
        module = torch.export.load(io.BytesIO(content.getvalue())).module()

    def call(arrays: Arrays) -> Arrays:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(value) for name, value in arrays.items()})
        return {name: value.numpy() for name, value in found.items()}

    return content.getvalue(), call


def _onnx(program: Exported, inputs: Mapping[str, Tensor]) -> tuple[bytes, Callable[[Arrays], Arrays]]:
    onnxruntime = import_module("onnxruntime")
    with torch.no_grad():
        names = list(program(**inputs))
    recorded = _program(program, inputs)
    try:
        with quiet():
            recorded = recorded.run_decompositions(_WITHOUT)
            written: Any = torch.onnx.export(
                recorded, (), kwargs=dict(inputs), output_names=names, dynamo=True, optimize=True, verbose=False
            )
            _number_values(written.model.graph)
            content = written.model_proto.SerializeToString()
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _refused(program, error) from error

    def call(arrays: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, arrays), strict=True))

    return content, call


def _number_values(graph: Any) -> None:
    """Give the values between inputs and outputs numbers for names: torch names some as outputs are named (`mean`)."""
    outputs = set(map(id, graph.outputs))
    between = (value for node in graph for value in node.outputs if id(value) not in outputs)
    for number, value in enumerate(between):
        value.name = f"value {number}"


def _refused(program: Exported, error: Exception) -> UsageError:
    head, model = (type(part).__name__ for part in (program.heads[0], program.objective.model.model))
    # The last words of torch's exporter refer to a trace that nobody is shown.
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("(Refer to")]
    reason = lines[-1] if lines else type(error).__name__
    return UsageError(f"the model cannot be exported ({head} behind {model}): {reason.strip()[:300]}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and its libraries print and warn of about their own steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
