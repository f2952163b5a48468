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
    from collections.abc import Callable, Iterator
    from typing import TextIO

MAX_LINE_CHARACTERS = 4_096
"""Of a line. The longest texts in it are cut first, and it says how long they were; of a traceback
the end is kept, which says most."""

MAX_TEXT_CHARACTERS = 2_000
"""Of a message or a field."""

TRACEBACK_CHARACTERS = 2_048
"""Of a JSON line, what is kept for a traceback if there is one."""

MAX_TRACEBACK_CHARACTERS = 16_000
"""Of a traceback whose lines are the log's own, in all."""

QUEUE_LIMIT = 100_000
"""Records that may wait for a slow reader of the log; beyond it they are dropped."""

# What ends a line, drives a terminal, or has one show text in another order than it is written in.
_UNSAFE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(rf"[\x00-\x1f{_UNSAFE}]")
_TRACEBACK_CONTROLS = re.compile(rf"[\x00-\x09\x0b-\x1f{_UNSAFE}]")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _escaped(text: str, most: int) -> str:
    """A text that is part of one line, and not too long for it."""
    if text.isascii() and text.isprintable():
        return _cut(text, most)
    # An escape takes several characters.
    cut = _CONTROLS.sub(_escape, text[: most + 1])
    return cut if len(cut) <= most else f"{cut[:most]}… ({len(text):,} characters)"


def _escape(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


def _as_json(value: object) -> str:
    """JSON that is one plain line, and that is read as the value."""
    return _CONTROLS.sub(lambda c: f"\\u{ord(c[0]):04x}", json.dumps(value, ensure_ascii=False))


def _fitted(make: Callable[[int], str], room: int) -> str:
    """The line that `make` makes of texts of at most so many characters, where it fits."""
    most = MAX_TEXT_CHARACTERS
    line = make(most)
    while len(line) > room and most > 1:
        most //= 2
        line = make(most)
    return line


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's own name
        """A traceback, each of its lines indented: none looks like a record of its own."""
        text = super().formatException(ei)[-MAX_TRACEBACK_CHARACTERS:]
        return f"  {text}".replace("\n", "\n  ")


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        traceback = ""
        if record.exc_info and record.exc_info[0]:
            traceback = self.formatException(record.exc_info)
        room = MAX_LINE_CHARACTERS - (TRACEBACK_CHARACTERS if traceback else 0)

        def make(most: int) -> str:
            entry: dict[str, object] = {
                "time": _time(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": _cut(record.getMessage(), most),
            }
            for key, value in _fields(record).items():
                plain = isinstance(value, (int, float)) or value is None
                entry[key] = value if plain else _cut(str(value), most)
            return _as_json(entry)

        line = _fitted(make, room)
        return self._with_traceback(line, traceback) if traceback else line

    @staticmethod
    def _with_traceback(line: str, traceback: str) -> str:
        head = f'{line[:-1]}, "exception": '
        room = MAX_LINE_CHARACTERS - len(head) - 1
        shown = _as_json(traceback)
        while len(shown) > room:
            traceback = traceback[max(1, (len(shown) - room) // 6) :]
            shown = _as_json(f"  … {traceback}")
        return f"{head}{shown}}}"


class TextFormatter(_Formatter):
    """`2026-01-02T03:04:05.678+00:00 info memoryd.access call method=… code=OK`."""

    def format(self, record: logging.LogRecord) -> str:
        def make(most: int) -> str:
            fields = "".join(
                f" {key}={_escaped(str(v), most)}" for key, v in _fields(record).items()
            )
            level, message = record.levelname.lower(), _escaped(record.getMessage(), most)
            return f"{_time(record)} {level} {record.name} {message}{fields}"

        line = _fitted(make, MAX_LINE_CHARACTERS)
        if record.exc_info and record.exc_info[0]:
            traceback = _TRACEBACK_CONTROLS.sub(_escape, self.formatException(record.exc_info))
            lines = (part[:MAX_LINE_CHARACTERS] for part in traceback.split("\n"))
            line = "\n".join((line, *lines))
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
