"""Logging: one line a record, for people or as JSON, written by a thread of its own."""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

MAX_TEXT_CHARACTERS = 2_000
"""Of a message or a field; what is longer is cut, and the line says how long it was."""

MAX_EXCEPTION_CHARACTERS = 16_000
"""Of a traceback; its end says most, so that is what is kept."""

QUEUE_LIMIT = 100_000
"""Records that may wait for a slow reader of the log; beyond it they are dropped."""

# What ends a line or drives a terminal, wherever the text comes from; JSON leaves the latter ones.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TRACEBACK_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _escaped(text: str) -> str:
    """A text that is part of one line, and not too long for it."""
    if len(text) > MAX_TEXT_CHARACTERS:
        text = f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text):,} characters)"
    return _CONTROLS.sub(_escape, text) if not text.isascii() or not text.isprintable() else text


def _escape(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's own name
        """A traceback, each of its lines indented: none looks like a record of its own."""
        text = super().formatException(ei)[-MAX_EXCEPTION_CHARACTERS:]
        return f"  {_TRACEBACK_CONTROLS.sub(_escape, text)}".replace("\n", "\n  ")


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _escaped(record.getMessage()),
        }
        for key, value in _fields(record).items():
            plain = isinstance(value, (int, float)) or value is None
            entry[key] = value if plain else _escaped(str(value))
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(_Formatter):
    """`2026-01-02T03:04:05.678+00:00 info memoryd.access call method=… code=OK`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_escaped(str(v))}" for key, v in _fields(record).items())
        level = record.levelname.lower()
        line = f"{_time(record)} {level} {record.name} {_escaped(record.getMessage())}{fields}"
        if record.exc_info and record.exc_info[0]:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


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
