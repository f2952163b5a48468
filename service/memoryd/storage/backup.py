"""A copy of an SQLite database while it is used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


async def back_up(database_url: str, file: Path) -> int:
    """Copy an SQLite database to a new file, as of one moment; answer its size in bytes.

    Writers go on meanwhile. The file has its name only once it is complete, checked and on the
    disk; only its owner may read it. The schema may be any release's.

    Raises ValueError for another kind of database, FileExistsError where the file is there, and
    OSError where the copy cannot be made.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise ValueError("only an SQLite database is backed up this way; use pg_dump")
    source = url.database or ""
    if not await asyncio.to_thread(Path(source).is_file):  # to connect would make it
        raise FileNotFoundError(f"there is no database {source}")
    arguments, options = url.get_dialect()().create_connect_args(url)
    return await asyncio.to_thread(_copy, arguments, options, file)


def _copy(arguments: Sequence[Any], options: Mapping[str, Any], file: Path) -> int:
    if file.exists():
        raise _is_there(file)
    connect: Any = sqlite3.connect
    with NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.", suffix=".part") as unfinished:
        try:
            with (
                closing(connect(*arguments, **options)) as source,
                closing(sqlite3.connect(unfinished.name)) as copy,
            ):
                # In one step: it reads one state, whatever is written meanwhile. In several it
                # would begin anew after each write.
                source.backup(copy)
                # One file, that is read where nothing can be written too; a server changes it back.
                copy.execute("PRAGMA journal_mode = DELETE")
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"{file} could not be made: {error}") from error
        if found != "ok":
            raise OSError(f"{file} was not made, for the database is broken: {found}")
        os.fsync(unfinished.fileno())
        try:
            # Unlike a renaming, it never replaces.
            os.link(unfinished.name, file)
        except FileExistsError:
            raise _is_there(file) from None
        _sync(file.parent)
        return file.stat().st_size


def _is_there(file: Path) -> FileExistsError:
    return FileExistsError(f"{file} exists; name another file, or remove it")


def _sync(folder: Path) -> None:
    """Have a new name in a folder outlive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
