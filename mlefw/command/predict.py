"""mlefw predict: the predictive distributions of new rows, as a file."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet
from rich.progress import Progress

from mlefw.configuration.settings import PredictionSettings
from mlefw.data.base import Block
from mlefw.errors import UsageError
from mlefw.run import build, pooled, predict_positions, predict_tokens
from mlefw.run.exact_checkpoint import with_errors
from mlefw.run.new_data import adapted, check_folder, check_output, read_blocks
from mlefw.run.posterior import posterior_of
from mlefw.run.predict import check_probabilities, predictions
from mlefw.schema.reach import FarRows
from mlefw.schema.tokens import TokenSchema
from mlefw.system.atomic import write_atomically
from mlefw.system.inert_text import escaped, spreadsheet_cell
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own
from mlefw.system.random_state import isolated
from mlefw.system.terminal import console
from mlefw.system.warning import warn
from mlefw.uncertainty.base import Uncertain

_PIECE_ROWS = 256
"""Rows that are averaged over parameters between two updates of the progress bar."""


@isolated("prediction")
def run(config: PredictionSettings, plugins: tuple[str, ...] = ()) -> Path:
    """Write the predictions, a block of rows at a time; the absolute path of the file.

    Raises:
        UsageError: a mistake in settings, checkpoint or data.
    """
    if not config.run:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    output, level, quantiles = local_path(config.output, "output"), config.level, config.quantiles
    if output.suffix not in (".parquet", ".csv", ".npz"):
        raise UsageError(f"output={output}: expected a file that ends in .parquet or .csv")
    check_folder(output)
    check_output(output, config.overwrite)
    if not 0 < level < 1:
        raise UsageError(f"level={level}: expected a probability between 0 and 1, such as 0.9")
    loaded = pooled.load(config.run, plugins, config.weights)
    for path in pooled.paths_of(config.run):
        mark_own(path)
    trained = adapted(loaded, config.data.missing, config.data.unseen)
    check_probabilities(trained, level, quantiles)
    method = build.build_uncertainty(config.uncertainty)
    predict_positions.check_format(trained, output.suffix, output, method is not None)
    posterior, far = posterior_of(loaded, method), FarRows(trained.schema)
    if config.exact and method is not None:
        raise UsageError(f"exact=true predicts by the exact estimate: expected uncertainty=none, not {method.name}")
    trained, errors = with_errors(trained, config.exact)
    errors = None if method is not None else errors

    def write(file: Any) -> None:
        with progress(in_pieces(read_blocks(trained, config.data), posterior)) as blocks:
            if output.suffix == ".npz":
                arrays = predict_positions.arrays(trained, blocks, level, quantiles)
                np.savez(file, allow_pickle=False, **arrays)
                return
            if isinstance(trained.schema, TokenSchema):
                tables = predict_tokens.tables(trained, blocks)
            else:
                tables = (predictions(trained, *b[:2], level, quantiles, posterior, far, errors) for b in blocks)
            _write(file, output.suffix == ".csv", tables)

    write_atomically(output, write)
    far.warn()
    return output.absolute()


@contextmanager
def progress(blocks: Iterable[Block], what: str = "predicting") -> Iterator[Iterator[Block]]:
    """Show a progress bar on a terminal while the given blocks are consumed."""
    out = console(stderr=True)
    with Progress(console=out, transient=True, disable=not out.is_terminal) as shown_by:
        bar = shown_by.add_task(what, total=1.0)

        def shown() -> Iterator[Block]:
            for block in blocks:
                yield block
                shown_by.update(bar, completed=block.share)

        yield shown()


def in_pieces(blocks: Iterable[Block], uncertain: Uncertain | None) -> Iterator[Block]:
    """Blocks split into pieces where averaging over parameters is slow, so that the progress bar moves.

    Where the average takes long, a line on standard error says so first.
    """
    if uncertain is not None and uncertain.cost:
        console(stderr=True).print(f"mlefw: {uncertain.cost}")
    before = 0.0
    for block in blocks:
        starts = range(0, block.table.num_rows, _PIECE_ROWS) if uncertain is not None else range(1)
        for k, start in enumerate(starts if len(starts) > 1 else ()):
            index = np.arange(start, min(start + _PIECE_ROWS, block.table.num_rows))
            share = before + (block.share - before) * (k + 1) / len(starts)
            yield Block(block.table.take(index), block.row[index], share)
        if len(starts) <= 1:
            yield block
        before = block.share


def _write(file: Any, as_text: bool, tables: Iterable[pa.Table]) -> None:
    """Write tables to a CSV or Parquet file, with the columns of the first."""
    writer: Any = None
    num_rows = 0
    for table in tables:
        names = [escaped(name) for name in table.column_names]
        table = _as_inert_text(table) if as_text else table.rename_columns(names)
        if writer is None:
            schema = table.schema
            writer = csv.CSVWriter(file, schema) if as_text else parquet.ParquetWriter(file, schema)
        writer.write_table(_with_schema(table, schema))
        num_rows += table.num_rows
    if not num_rows:
        warn("0 data rows: the predictions are a header without rows")
    writer.close()


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of the first one; a column that it lacks, such as the NLL, is null.

    Raises:
        UsageError: identifiers are numbers in the first table and text in this one.
    """
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    try:
        return pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"identifiers (data.id) are numbers in the first rows and text further down: {str(error).splitlines()[0]}"
            "\n  write them all alike, for example with a letter in front"
        ) from None


def _as_inert_text(content: pa.Table) -> pa.Table:
    """The table with text that neither a spreadsheet takes for a formula nor a terminal for a control sequence."""
    for k, field in enumerate(content.schema):
        if pa.types.is_string(field.type):
            cells = [None if text is None else spreadsheet_cell(text) for text in content.column(k).to_pylist()]
            content = content.set_column(k, field.name, pa.array(cells, pa.string()))
    return content.rename_columns([spreadsheet_cell(name) for name in content.column_names])
