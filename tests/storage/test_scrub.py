"""The scrubber on files in use, interrupted at any moment."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from memoryd.database import scrub

ERASED, *KEPT = ("@ERASEME@CANARY@", "bbbb-stay-bbbb--", "cccc-stay-cccc--")

SMALL_STEPS = f"""
import sys
sys.path.insert(0, {str(Path(scrub.__file__).parent)!r})
import scrub
scrub.SLICE_SECONDS = 0.001
scrub.RUN_PAGES = 5
scrub.LAST_PAGES = 4
scrub.main()
"""
"""The scrubber as on a file a thousand times as large: many slices and rounds."""

LOOK = """
import re, sys
print(sum(len(re.findall(b"ERAS|SEME|CANA|NARY", open(f, "rb").read())) for f in sys.argv[1:]))
"""


def connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=30)
    for pragma in ("journal_mode = WAL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def pieces_in(file: Path) -> int:
    """The number of pieces of erased content in the files.

    A separate process searches: closing the files here would release SQLite's locks on them.
    """
    files = [found for end in ("", "-wal", "-shm") if (found := Path(f"{file}{end}")).exists()]
    command = [sys.executable, "-c", LOOK, *map(str, files)]
    return int(subprocess.check_output(command))  # noqa: S603  our own command


class Rows:
    """Random work on rows of random size, so that pages are split, merged and reused."""

    def __init__(self, connection: sqlite3.Connection, seed: int, marks: list[str]) -> None:
        self._connection = connection
        self._dice = random.Random(seed)  # noqa: S311  repeatable
        self._marks = marks

    def _text(self, mark: str) -> str:
        size = int(20 * 450 ** self._dice.random())
        return (mark * (size // 16 + 1))[:size]

    def change(self) -> None:
        mark, number = self._dice.choice(self._marks), self._dice.randrange(300)
        key, text = (mark, number), self._text(mark)
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        match self._dice.randrange(10):
            case 0 | 1 | 2 | 3:
                execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (*key, text))
            case 4 | 5 | 6:
                execute("UPDATE rows SET content = ?3 WHERE mark = ?1 AND n = ?2", (*key, text))
            case 7 | 8:
                execute("DELETE FROM rows WHERE mark = ? AND n = ?", key)
            case _:
                execute("DELETE FROM rows WHERE mark = ? AND n BETWEEN ?2 AND ?2 + 9", key)
        execute("COMMIT")

    def read(self) -> None:
        execute = self._connection.execute
        execute("SELECT sum(length(content)) FROM rows WHERE mark = ?", self._marks[:1]).fetchone()


@contextmanager
def in_thread(file: Path, seed: int, step: str) -> Iterator[None]:
    """Write or read in a thread until the end of the block."""
    stop, faults = threading.Event(), []

    def work() -> None:
        try:
            with closing(connect(file)) as connection:
                rows = Rows(connection, seed, KEPT)
                rows.read()  # old pages of its own
                while not stop.wait(0.002):
                    getattr(rows, step)()
        except Exception as error:  # noqa: BLE001  raised below
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert not faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "memoryd.db"
    with closing(connect(file)) as connection:
        connection.execute("CREATE TABLE rows (mark, n, content, PRIMARY KEY (mark, n))")
        connection.execute("CREATE INDEX by_content ON rows (mark, content)")
    return file


def start(file: Path, *, patience: str = "30") -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-c", SMALL_STEPS, str(file), patience],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def outcome(scrubber: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The scrubber's exit code and standard error."""
    with scrubber:
        message = scrubber.stderr.read()
        return scrubber.wait(), message


@pytest.mark.parametrize("seed", range(6))
def test_nothing_erased_is_left_despite_readers_writers_and_crashes(file, seed):
    dice = random.Random(seed)  # noqa: S311  repeatable
    with closing(connect(file)) as connection:
        rows = Rows(connection, seed, [ERASED, *KEPT])
        for _ in range(800):
            rows.change()
        with in_thread(file, seed, "change"), in_thread(file, seed + 100, "read"):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM rows WHERE mark = ?", (ERASED,))
            connection.execute(f"PRAGMA user_version = {scrub.raised(0)}")
            connection.execute("COMMIT")
            assert pieces_in(file)
            for _ in range(seed % 3):
                with start(file) as victim:  # ends with its input, if not before
                    time.sleep(dice.uniform(0, 0.2))
                    if dice.random() < 0.5:
                        victim.kill()
            assert outcome(start(file)) == (0, b"")
            assert pieces_in(file) == 0
        assert pieces_in(file) == 0  # and connections with pages in memory do not restore any
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert pieces_in(file) == 0
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_erasure_that_comes_meanwhile_keeps_its_mark(file):
    with closing(connect(file)) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM rows").fetchone()
        with closing(connect(file)) as other:
            other.execute("INSERT INTO rows VALUES ('a', 1, 'a')")  # the reader lags
            scrubber = start(file)
            time.sleep(0.5)
            other.execute(f"PRAGMA user_version = {scrub.raised(1)}")
        connection.execute("COMMIT")
        assert outcome(scrubber) == (0, b"")
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert outcome(start(file)) == (0, b"")
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)


def test_a_reader_of_an_old_state_makes_it_time_out(file):
    with closing(connect(file)) as connection, closing(connect(file)) as other:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM rows").fetchone()
        other.execute("INSERT INTO rows VALUES ('a', 1, 'a')")
        message = b"another process reads an old state of the database\n"
        assert outcome(start(file, patience="0.2")) == (1, message)
        assert other.execute("PRAGMA user_version").fetchone() == (1,)


def test_marks_wrap_around_without_reaching_zero():
    assert scrub.raised(scrub.MARK_LIMIT - 2) == scrub.MARK_LIMIT - 1
    assert scrub.raised(scrub.MARK_LIMIT - 1) == 1
    assert scrub.is_owed(1)
    assert not scrub.is_owed(0)
