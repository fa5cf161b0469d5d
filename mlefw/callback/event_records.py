"""Writes TensorBoard's event files without a thread for each of them."""

import itertools
import math
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import writer

from mlefw.system.own_folder import replace_links

_MAX_HELD = 2**18
"""Bytes that are held in memory before they are written."""

_FLUSH_S = 60.0
"""Seconds after which they are written in any case."""

_numbers = itertools.count()


class Records:
    """An event file. Events are held in memory until there are many, or a minute has passed, or `flush` is called.

    Where the file has been deleted, the next write raises an OSError.
    """

    def __init__(self, folder: str) -> None:
        replace_links(Path(folder)).mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names: those of one second by their number.
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        name = f"events.out.tfevents.{place}.{next(_numbers):06d}"
        self.folder, self.path = folder, Path(folder) / name
        self.held, self.flushed = bytearray(), -math.inf
        self._hold(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        """The folder of the file."""
        return self.folder

    def add_event(self, event: Event) -> None:
        """Add an event."""
        self._hold(event)
        if len(self.held) > _MAX_HELD or time.monotonic() - self.flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is held; the file is open only while it is written to."""
        with replace_links(self.path).open("xb" if self.flushed < 0 else "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(self.held)
        self.held.clear()
        self.flushed = time.monotonic()

    def _hold(self, event: Event) -> None:
        """Hold an event as a TFRecord: length, checksum of the length, content, checksum of the content."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self.held += length + _masked(length) + data + _masked(data)


class _File(writer.FileWriter):
    def __init__(self, folder: str, *_: Any) -> None:
        self.event_writer = Records(folder)


class Writer(writer.SummaryWriter):
    """torch's writer of summaries, into an event file of `Records`."""

    file_writer: Any
    all_writers: Any
    purge_step: int | None

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer = _File(self.log_dir)
            self.all_writers = {self.log_dir: self.file_writer}
            if self.purge_step is not None:
                self.file_writer.add_event(Event(step=self.purge_step, file_version="brain.Event:2"))
                start = SessionLog(status=SessionLog.START)
                self.file_writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        return self.file_writer

    def close(self) -> None:
        """Write what is held; what comes later goes into the same file."""
        self.flush()


def _masked(data: bytes) -> bytes:
    """The CRC-32C checksum, masked as the TFRecord format asks."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
