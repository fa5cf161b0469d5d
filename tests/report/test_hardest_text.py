"""The passages that a report shows: three lines above each other, whatever the tokens are."""

import numpy as np
import torch
from torch.distributions import Categorical

from mlefw.report.hardest import Hardest
from mlefw.report.hardest_text import VIEW
from mlefw.rows.rows import Rows
from mlefw.schema.tokens import TokenSchema


def passage(
    schema: TokenSchema, tokens: list[int], likeliest: list[int], nll: list[float], weight: list[float]
) -> list[str]:
    """What is shown of one passage: its line of words, then those of tokens."""
    x, y = torch.tensor([tokens[:-1]]), torch.tensor([tokens[1:]])
    rows = Rows(x, y, torch.tensor([weight]).double(), torch.zeros(1, len(weight)).double())
    probs = torch.full((1, len(likeliest), schema.num_tokens), 0.1)
    probs[0, torch.arange(len(likeliest)), torch.tensor(likeliest)] = 0.9
    hard = Hardest(
        torch.tensor([17]), rows, torch.tensor([nll]), torch.tensor([2.5]), Categorical(probs), "test", 40, 0.3
    )
    shown = VIEW.show(hard, schema)
    assert isinstance(shown, str)
    head, body = shown.split("\n\n", 1)
    assert head.startswith("The 1 hardest of 40 test passages, which carry 30 % of the NLL")
    return body.split("\n")


def test_characters_stand_above_their_nll_and_what_was_forecast() -> None:
    schema = TokenSchema("chars", 6, tuple(map(ord, "\t\n ab漢\u0301")))
    code = {symbol: k for k, symbol in enumerate("\t\n ab漢\u0301")}
    tokens = [code[one] for one in "a漢b\n\u0301\tab"]
    likeliest = [code[one] for one in "b 漢\nab "]
    lines = passage(schema, tokens, likeliest, [0.99, 12.0, np.inf, 3.7, 1.0, 2.0, 9.99], [0, 1, 1, 1, 1, 0, 0])
    assert lines[0] == "1. passage 17: 2.5 nats per character over 4"
    # The wide character takes two columns; context that is not scored has dots, and nothing is shown behind the last.
    assert [line[:12] for line in lines[1:]] == ["  text      ", "  nats      ", "  forecast  "]
    assert [line[12:] for line in lines[1:]] == ["a漢b↵ ␦→", "·· +∞ 31", "·· ␣漢↵a"]


def test_bytes_are_ascii_or_two_digits() -> None:
    schema = TokenSchema("bytes", 4, (10, 97, 0xC3, 0xFF))
    lines = passage(schema, [1, 2, 3, 0, 1], [1, 1, 2, 0], [1.0, 2.0, 0.5, 4.0], [1, 1, 1, 1])
    assert lines[0].endswith("2.5 nats per byte over 4")
    assert [line[12:] for line in lines[1:]] == ["a C3 FF ↵  a", "· 1  2  0  4", "· a  a  C3 ↵"]


def test_ids_are_numbers_and_long_passages_are_broken() -> None:
    schema = TokenSchema("ids", 30, vocabulary=5000)
    tokens = list(range(1000, 1031))
    lines = passage(schema, tokens, [7] * 30, [11.5] * 30, [1.0] * 30)
    assert lines[0].endswith("2.5 nats per id over 30")
    parts = "\n".join(lines[1:]).split("\n\n")
    assert len(parts) == 2 and max(len(line) for line in lines) <= 92
    words = [[line[12:].split() for line in part.split("\n")] for part in parts]
    assert words[0][0] + words[1][0] == list(map(str, tokens))
    assert words[0][1] + words[1][1] == ["·"] + ["11"] * 30
    assert words[0][2] + words[1][2] == ["·"] + ["7"] * 30
