"""A copy of an SQLite database while it is used."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from memoryd.database.files import open_existing
from memoryd.database.new_file import new_file

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

STEP_PAGES = 1000
"""Pages that are copied before a copy that was given up ends; some milliseconds."""

STEP_INSTRUCTIONS = 100_000
"""The same for SQLite's own instructions, of which checking the copy is made."""


SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite may put next to a database's file."""


class _GivenUp(Exception):
    """The caller no longer waits for the copy."""


async def back_up(database_url: str, file: Path) -> int:
    """Copy an SQLite database to a new file, as of one moment; answer its size in bytes.

    Writers go on meanwhile. The file has its name only once it is complete, checked and on the
    disk; only its owner may read it. The schema may be any release's. Where this is cancelled,
    nothing is left.

    Raises ValueError for another kind of database, SchemaMismatch where there is no database,
    FileExistsError where the file is there, and OSError where the copy cannot be made.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise ValueError("only an SQLite database is backed up this way; use pg_dump")
    given_up = threading.Event()
    copying = asyncio.create_task(asyncio.to_thread(_copy, url, file, given_up))
    try:
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        given_up.set()
        await asyncio.gather(copying, return_exceptions=True)
        raise


def _copy(url: URL, file: Path, given_up: threading.Event) -> int:
    def go_on(*_: int) -> None:
        if given_up.is_set():
            raise _GivenUp

    with new_file(file) as unfinished:
        try:
            with (
                closing(open_existing(url)) as source,
                closing(sqlite3.connect(unfinished.name)) as copy,
            ):
                # All steps read this transaction's state. Without it, each write by others would
                # have the copy start over.
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_master").fetchone()
                source.backup(copy, pages=STEP_PAGES, progress=go_on)
                copy.set_progress_handler(given_up.is_set, STEP_INSTRUCTIONS)
                # One file, that is read where nothing can be written too; a server changes it back.
                copy.execute("PRAGMA journal_mode = DELETE")
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"{file} could not be made: {error}") from error
        finally:
            for suffix in SIDE_FILES:  # on a full disk SQLite leaves them
                Path(f"{unfinished.name}{suffix}").unlink(missing_ok=True)
        if found != "ok":
            raise OSError(f"{file} was not made, for the database is broken: {found}")
    return file.stat().st_size
