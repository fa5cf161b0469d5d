"""Event files are those that TensorBoard reads."""

import itertools
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlefw.callback import event_records
from mlefw.callback.event_records import Records, Writer


@pytest.mark.parametrize("number", [0, 9, 99])
def test_what_is_written_is_read(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order in which they were begun, however many a process has written."""
    monkeypatch.setattr(event_records, "_numbers", itertools.count(number))
    for purge_step in (None, 6):
        writer = Writer(str(tmp_path), purge_step=purge_step)
        for step in range(4, 9):
            writer.add_scalar("x", step if purge_step is None else -step, step)
            writer.add_text("page", "t" * 300_000, step)
        writer.close()
    events = EventAccumulator(str(tmp_path), purge_orphaned_data=True).Reload()
    assert [(event.step, event.value) for event in events.Scalars("x")] == [
        *((4, 4.0), (5, 5.0)),
        *((step, -float(step)) for step in range(4, 9)),
    ]
    assert len(events.Tensors("page/text_summary")[0].tensor_proto.string_val[0]) == 300_000


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    records = Records(str(tmp_path))
    records.flush()
    records.path.unlink()
    with pytest.raises(FileNotFoundError):
        records.flush()
