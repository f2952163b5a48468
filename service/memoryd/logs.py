"""Logging: one line a record, for people or as JSON, written by a thread of its own."""

from __future__ import annotations

import json
import logging
import queue
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

QUEUE_LIMIT = 100_000
"""Records that may wait for a slow reader of the log; beyond it they are dropped."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678+00:00 info memoryd.access call method=… code=OK`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        level = record.levelname.lower()
        line = f"{_time(record)} {level} {record.name} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _DroppingQueueHandler(QueueHandler):
    """Never waits, and leaves formatting to the thread that writes."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


@contextmanager
def logging_to(stream: TextIO = sys.stderr, *, level: str, as_json: bool) -> Iterator[None]:
    """Log to `stream` until the end of the block, without ever blocking the caller."""
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonFormatter() if as_json else TextFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LIMIT)
    handler = _DroppingQueueHandler(waiting)
    listener = QueueListener(waiting, writer)
    root, ours = logging.getLogger(), logging.getLogger("memoryd")
    before = root.level, ours.level
    root.addHandler(handler)
    ours.setLevel(level.upper())
    # Libraries tell of trouble only: their details would show contents.
    root.setLevel(max(ours.level, logging.WARNING))
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
