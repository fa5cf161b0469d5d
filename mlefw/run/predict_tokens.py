"""The forecasts of the tokens of a text as a table with a line for each token."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from mlefw.data.base import Block
from mlefw.objective.objective import etas
from mlefw.reading.text_table import TextTable
from mlefw.rows.tokens import TokenRows
from mlefw.run.checkpoint import Trained
from mlefw.run.new_data import num_unseen
from mlefw.run.text_sample import probabilities, text_schema
from mlefw.schema.tokens import TokenSchema
from mlefw.system.warning import warn

_LINES = 2**16
"""Fewest lines of a table but the last."""


def tables(trained: Trained, blocks: Iterable[Block]) -> Iterator[pa.Table]:
    """Tables with the columns document, position, token, nll_nats, prob, top and entropy_nats, of bounded size.

    There is a line for each token that is scored, in the order of the text: for all but the first of each document,
    which none precedes, and those that training never saw (`data.unseen=ignore`). `document` is its file, below the
    folder that all files share; `position` counts the tokens of the document from 0; `prob` is the forecast probability
    of the token, `top` the likeliest token, and `entropy_nats` the entropy of the forecast. Tokens are characters,
    bytes as `0x0A`, or ids as numbers.

    Args:
        trained: a model of the next token.
        blocks: windows of the text.
    """
    held: list[pa.Table] = []
    for block in blocks:
        assert isinstance(block.table, TextTable)
        for table in _of_block(trained, block.table):
            held.append(table)
            if sum(one.num_rows for one in held) >= _LINES:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


@torch.no_grad()
def _of_block(trained: Trained, text: TextTable) -> Iterator[pa.Table]:
    objective, schema = trained.objective, text_schema(trained)
    rows = trained.rows(text, target_required=False, whole=False)
    assert isinstance(rows, TokenRows)
    if unseen := num_unseen(rows):
        warn(f"{text.corpus.origin}: {unseen} tokens that training never saw have no line")
    names = pa.array(_short_names([document.name for document in text.corpus.documents]), pa.string())
    labels, document, start = _labels(schema), text.document_of(), 0
    # Where the token behind the first one of each window is in its document.
    first = rows.windows.start.numpy() + 1 - text.corpus.spans[document, 0]
    for part, eta in etas(objective, rows):
        here = slice(start, start + part.num_rows)
        start = here.stop
        scored = part.weight > 0
        found = objective.head(eta[scored])
        y, probs = part.y[scored].long(), probabilities(found)
        row, column = (one.numpy() for one in scored.nonzero(as_tuple=True))
        yield pa.table(
            {
                "document": names.take(pa.array(document[here][row])),
                "position": pa.array(first[here][row] + column),
                "token": _tokens(labels, y),
                "nll_nats": pa.array(objective.head.nll(eta[scored], y).double().numpy()),
                "prob": pa.array(probs.gather(1, y.unsqueeze(1)).squeeze(1).double().numpy()),
                "top": _tokens(labels, probs.argmax(1)),
                "entropy_nats": pa.array(found.entropy().double().numpy()),
            }
        )


def _labels(schema: TokenSchema) -> pa.Array | None:
    """The text of each token; None for ids, which are their numbers."""
    return None if schema.tokens == "ids" else pa.array(schema.labels, pa.string())


def _tokens(labels: pa.Array | None, codes: Tensor) -> Any:
    found = pa.array(codes.numpy())
    return found if labels is None else labels.take(found)


def _short_names(names: Sequence[str]) -> list[str]:
    """Names of files below the folder that all of them share; other names as they are."""
    if not all(Path(name).is_absolute() for name in names):
        return list(names)
    folder = os.path.commonpath([str(Path(name).parent) for name in names])
    return [os.path.relpath(name, folder) for name in names]
