"""Zeros what deleted rows leave behind in an SQLite file, while others read and write it.

SQLite overwrites what it deletes (`secure_delete`), but when it spreads the rows of a b-tree page
over others, copies of them stay in the page's gap: the bytes between its cell pointers and its
cells, which mean nothing. This module zeros every gap in place, and what free pages hold. `VACUUM`
would do as well, but no one could write until it has rewritten the whole file.

It runs as a process of its own (`python scrub.py DATABASE PATIENCE`) and needs the standard library
alone. It has to: it opens the file past SQLite, and closing such a file takes away all locks that
its process has on it. It ends when its standard input does, so that it never outlives its server.

*The file is held still.* A connection that began to read when all of the write-ahead log was in
the file keeps every checkpoint from writing the file until it ends; what others commit goes to the
log. So bytes of the file that mean nothing can be changed without the writers' lock.

*Nothing is missed.* A writer may have read a page before its gap was zeroed, and commit it with
that gap, even under the number of a sibling. Every such page is in the log. Between two slices of
work the pages in the log are noted under the writers' lock; until then a second reader keeps the
log from being reset. The noted pages are scrubbed again, which takes less time, so fewer pages are
noted, until they are few enough to be scrubbed under the writers' lock itself. The commit that ends
this step begins the log from its start, and makes all others drop the pages they have in memory.

*A crash harms nothing.* Only bytes that mean nothing are written. Whether there is work to do is
kept in the file itself: `PRAGMA user_version` is odd from the erasure's own transaction on, and
each further erasure raises it. It becomes even only at the end, if it is still what it was at the
start.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK_LIMIT = 2**31
"""`user_version` is a signed number of 32 bits; marks begin again below it."""

SLICE_SECONDS = 0.25
"""How long the file is held still at a time: meanwhile the log can only grow."""

RUN_PAGES = 256
"""Neighbouring pages that are read at once."""

UNSYNCED_PAGES = 2_000
"""So many changed pages at most wait for the disk: behind more, others' commits would wait too."""

LAST_PAGES = 500
"""So many pages at most are done while writers wait; if there are more, they are done before."""

MOST_ROUNDS = 20
"""After so many the rest is done while writers wait, however many pages it has."""

MOST_PAGES = 2**25
"""In a larger file the first byte of an overflow page may look like that of a b-tree page."""

LOCK_POLL_SECONDS = 0.0005
"""Between two attempts to get the writers' lock. SQLite's own pauses grow to 100 ms, too long where
one transaction follows the other."""

READERS_WAIT_SECONDS = 0.05
"""How long writers wait at most, each time that readers have to be waited for."""

READERS_POLL_SECONDS = 0.002

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.02, 0.5
"""Pauses after a reader was waited for in vain, in which writers go on; each is twice the last.
Readers are waited for a quarter of the pause before it, since writers wait meanwhile."""

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_LENGTH_OF_HEADER = {_INTERIOR_INDEX: 12, _INTERIOR_TABLE: 12, _LEAF_INDEX: 8, _LEAF_TABLE: 8}
_PENDING_BYTE = 0x40000000  # the page with it belongs to locks
_LOG_HEADER, _FRAME_HEADER = 32, 24


class Hindered(Exception):
    """Another process keeps this one from going on."""


def raised(mark: int) -> int:
    """The mark after an erasure: odd, and never the same as before."""
    return (mark + 2 if is_owed(mark) else mark + 1) % MARK_LIMIT


def is_owed(mark: int) -> bool:
    """Whether erased contents may still stand in the file."""
    return mark % 2 == 1


class Log:
    """The write-ahead log, as a file of frames."""

    def __init__(self, path: str, page_size: int) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self._frame_size = _FRAME_HEADER + page_size

    def salt(self) -> bytes:
        """What changes whenever the log is begun from its start."""
        return os.pread(self._handle, 8, 16)

    def pages(self, count: int) -> set[int]:
        """The numbers of the pages in the first `count` frames."""
        salt = self.salt()
        numbers = set()
        for place in range(_LOG_HEADER, _LOG_HEADER + count * self._frame_size, self._frame_size):
            frame = os.pread(self._handle, 16, place)
            if frame[8:] != salt:
                raise Hindered("the write-ahead log was reset by another process")
            numbers.add(int.from_bytes(frame[:4], "big"))
        return numbers


class Pages:
    """The database file past SQLite. It is changed only while it is held still."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDWR)
        header = os.pread(self._handle, 100, 0)
        (size,) = struct.unpack_from(">H", header, 16)
        self.size = 65_536 if size == 1 else size
        self.has_tail = header[20] > 0
        """Whether the end of each page belongs to an extension, such as of checksums."""
        self.is_auto_vacuum = any(header[52:56])
        self._zeros = bytes(self.size)
        self._unsynced = 0
        self._lock_page = _PENDING_BYTE // self.size + 1
        self._free = bytearray()
        self._trunks: dict[int, int] = {}

    @property
    def count(self) -> int:
        return os.fstat(self._handle).st_size // self.size

    def find_free(self) -> None:
        """Note which pages are free, as of now."""
        self._free = bytearray(self.count + 1)
        self._trunks = {}
        number = int.from_bytes(os.pread(self._handle, 4, 32), "big")
        while number and number not in self._trunks:
            trunk = os.pread(self._handle, self.size, (number - 1) * self.size)
            following, leaves = struct.unpack_from(">II", trunk)
            self._trunks[number] = 8 + 4 * leaves
            for leaf in struct.unpack_from(f">{leaves}I", trunk, 8):
                self._free[leaf] = 1
            number = following

    def scrub(self, first: int, count: int) -> None:
        """Zero what means nothing in pages that follow each other."""
        data = os.pread(self._handle, count * self.size, (first - 1) * self.size)
        for base in range(0, len(data) - self.size + 1, self.size):
            number = first + base // self.size
            begin, end = self._meaningless(data, base, number)
            if data[begin:end] != self._zeros[: end - begin]:
                place = (first - 1) * self.size + begin
                os.pwrite(self._handle, self._zeros[: end - begin], place)
                self._unsynced += 1
        if self._unsynced >= UNSYNCED_PAGES:
            self.sync()

    def _meaningless(self, data: bytes, base: int, number: int) -> tuple[int, int]:
        """Where in `data` the bytes of a page stand that mean nothing."""
        if number in (1, self._lock_page):  # the first has the schema, no contents
            return base, base
        if number < len(self._free) and self._free[number]:
            return base, base + self.size
        if number in self._trunks:
            return base + self._trunks[number], base + self.size
        length = _LENGTH_OF_HEADER.get(data[base])
        if length is None:  # an overflow page, which is full or has zeros at its end
            return base, base
        cells, start = struct.unpack_from(">HH", data, base + 3)
        begin, end = length + 2 * cells, start or 65_536
        return (base + begin, base + end) if begin <= end <= self.size else (base, base)

    def forget_free(self) -> None:
        """Take no page for free: they may be in use by now."""
        self._free = bytearray()
        self._trunks = {}

    def sync(self) -> None:
        """Have on the disk what was changed."""
        os.fsync(self._handle)
        self._unsynced = 0


class Scrubber:
    """Goes through one database."""

    def __init__(self, database: str, *, patience_seconds: float) -> None:
        """`patience_seconds` is how long another process may hinder this one at a time."""
        self._patience_seconds = patience_seconds
        self._database = database
        self._writer = self._connect()
        self._checkpointer = self._connect()
        self._still = self._connect()
        """Reads, so that the file is held still."""
        self._pin = self._connect()
        """Reads, so that the log is not reset."""
        (path,) = (
            row[2] for row in self._writer.execute("PRAGMA database_list") if row[1] == "main"
        )
        self._mode = self._writer.execute("PRAGMA journal_mode").fetchone()[0]
        self._pages = Pages(path)
        self._log = Log(f"{path}-wal", self._pages.size) if self._mode == "wal" else None

    def _connect(self) -> sqlite3.Connection:
        is_uri = self._database.startswith("file:")
        connection = sqlite3.connect(
            self._database, uri=is_uri, isolation_level=None, timeout=READERS_WAIT_SECONDS
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    def run(self) -> None:
        """Leave nothing in the files of what was erased before. Raises Hindered, sqlite3.Error."""
        mark = self._mark()
        if not is_owed(mark):
            return
        if self._log is not None and self._can_be_scrubbed():
            self._scrub(self._log)
        else:
            self._writer.execute(f"PRAGMA busy_timeout = {self._patience_seconds * 1000:.0f}")
            self._writer.execute("VACUUM")
        self._empty_log()
        with self._writing():
            if self._mark() == mark:  # otherwise an erasure has come since
                self._writer.execute(f"PRAGMA user_version = {(mark + 1) % MARK_LIMIT}")
                self._writer.execute("COMMIT")

    def _can_be_scrubbed(self) -> bool:
        pages = self._pages
        return not (pages.has_tail or pages.is_auto_vacuum or pages.count >= MOST_PAGES)

    def _scrub(self, log: Log) -> None:
        self._hold(log)
        last = self._pages.count
        every = ((n, min(RUN_PAGES, last + 1 - n)) for n in range(1, last + 1, RUN_PAGES))
        written = self._go_through(log, every)
        for _ in range(MOST_ROUNDS):
            if len(written) <= LAST_PAGES:
                break
            written = self._go_through(log, _runs(written))
        wait_seconds = 0.0
        while not self._finish(log, written, wait_seconds):
            written |= self._hold(log)
            wait_seconds = min(wait_seconds + READERS_POLL_SECONDS, READERS_WAIT_SECONDS)
        _end(self._still)

    def _go_through(self, log: Log, runs: Iterable[tuple[int, int]]) -> set[int]:
        """Scrub pages, slice by slice; answer which were written meanwhile."""
        written = set()
        self._pages.find_free()
        until = time.monotonic() + SLICE_SECONDS
        for first, count in runs:
            self._pages.scrub(first, count)
            if time.monotonic() > until:
                written |= self._hold(log)
                self._pages.find_free()
                until = time.monotonic() + SLICE_SECONDS
        return written | self._hold(log)

    def _hold(self, log: Log) -> set[int]:
        """Bring the file up to date, and hold it still; answer the pages written since it was."""
        self._pages.forget_free()
        self._pages.sync()  # here rather than in a checkpoint, for which writers wait
        _begin(self._pin)
        _end(self._still)
        for wait_seconds in self._attempts():
            with self._writing():
                _end(self._pin)
                _begin(self._pin)  # at the newest state, so that it hinders no checkpoint
                frames = self._move_log(wait_seconds)
                if frames is not None:
                    written = log.pages(frames)
                    _begin(self._still)
                    _end(self._pin)
                    return written
        raise AssertionError  # the attempts never end by themselves

    def _finish(self, log: Log, pages: set[int], wait_seconds: float) -> bool:
        """Scrub the last pages while writers wait; False if somebody came in between.

        `wait_seconds` is given to readers of the log, which cannot restart before they end.
        """
        with self._writing():
            frames = self._move_log(0.0)
            if frames is None:  # somebody has written since the file was held still
                return False
            for first, count in _runs(pages):
                self._pages.scrub(first, count)
            self._pages.sync()
            before = log.salt()
            time.sleep(wait_seconds)
            self._writer.execute(f"PRAGMA user_version = {self._mark()}")
            self._writer.execute("COMMIT")
        # Where somebody read from the log, it goes on with the frames that it had.
        return frames == 0 or log.salt() != before

    def _empty_log(self) -> None:
        for wait_seconds in self._attempts():
            self._checkpointer.execute(f"PRAGMA busy_timeout = {wait_seconds * 1000:.0f}")
            row = self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not row[0]:
                return

    def _move_log(self, wait_seconds: float) -> int | None:
        """Have all of the log in the file; answer its frames, or None where somebody hinders it.

        Only while the writers' lock is held: SQLite before 3.51.3 may take a log that a writer
        resets at that moment for the one before it, and write old pages over newer ones.
        """
        end = time.monotonic() + wait_seconds
        while True:
            busy, frames, moved = self._checkpointer.execute(
                "PRAGMA wal_checkpoint(PASSIVE)"
            ).fetchone()
            if not busy and moved == frames:
                return int(frames)
            if time.monotonic() >= end:
                return None
            time.sleep(READERS_POLL_SECONDS)

    def _mark(self) -> int:
        return int(self._writer.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writers' lock; what is not committed is undone."""
        end = time.monotonic() + self._patience_seconds
        self._writer.execute("PRAGMA busy_timeout = 0")
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _attempts(self) -> Iterator[float]:
        """Attempts at what a reader can hinder, until patience ends: how long to wait in each."""
        end = time.monotonic() + self._patience_seconds
        pause = FIRST_RETRY_SECONDS
        while True:
            yield min(pause / 4, READERS_WAIT_SECONDS)
            if time.monotonic() > end:
                raise Hindered("another process reads an old state of the database")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _end(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _runs(numbers: set[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring numbers together, as their first and how many there are."""
    first = count = 0
    for number in sorted(numbers):
        if number != first + count or count == RUN_PAGES:
            if count:
                yield first, count
            first, count = number, 0
        count += 1
    if count:
        yield first, count


def _end_with_server() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)  # at any point: nothing is left half done


def main() -> None:
    """Scrub the database that the command line names; on failure say why in one line."""
    threading.Thread(target=_end_with_server, daemon=True).start()
    database, patience = sys.argv[1:]
    try:
        Scrubber(database, patience_seconds=float(patience)).run()
        code = 0
    except (Hindered, sqlite3.Error, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        code = 1
    # Nothing is closed before: to close the last connection empties the log, and may take its time.
    os._exit(code)


if __name__ == "__main__":
    main()
