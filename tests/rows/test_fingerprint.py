"""Rows have one fingerprint, and any other rows another."""

import torch

from mlefw.rows.fingerprint import fingerprint
from mlefw.rows.rows import Rows


def rows() -> Rows:
    x = torch.arange(12, dtype=torch.float64).reshape(6, 2)
    return Rows(x, torch.arange(6), torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64))


def test_the_same_rows_have_the_same_fingerprint_whatever_their_layout() -> None:
    one = rows()
    strided = one._replace(x=one.x.T.contiguous().T)
    assert not strided.x.is_contiguous()
    assert fingerprint(one) == fingerprint(rows()) == fingerprint(strided)


def test_any_change_is_seen() -> None:
    one = rows()
    bit = one.x.clone()
    bit[3, 1] = torch.nextafter(bit[3, 1], torch.tensor(99.0, dtype=torch.float64))
    others = [
        one._replace(x=bit),
        one._replace(x=one.x.reshape(6, 2).flip(1)),
        one._replace(y=one.y + 1),
        one._replace(y=one.y.double()),
        one._replace(weight=2 * one.weight),
        one._replace(offset=one.offset - 1),
        one.take(torch.tensor([1, 0, 2, 3, 4, 5])),
        one.take(slice(0, 5)),
    ]
    assert len({fingerprint(other) for other in [one, *others]}) == len(others) + 1
