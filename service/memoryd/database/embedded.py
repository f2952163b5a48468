"""The files of an embedded database: where they are, who may read them, which server has them."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import URL

OWNER_ONLY = 0o600

TAKEOVER_SECONDS = 5.0
"""How long a server waits for one before it that is about to end, such as at a restart."""

_POLL_SECONDS = 0.1

_log = logging.getLogger(__name__)


class DatabaseInUse(OSError):
    """Another server has the file."""


def connect_name(url: URL) -> str:
    """What SQLite is to open: a path, or a `file:` URI."""
    arguments, _ = url.get_dialect()().create_connect_args(url)
    return str(arguments[0])


def file_of(url: URL) -> Path:
    """The database's file by its one name, whatever links lead to it."""
    name = connect_name(url)
    return Path(unquote(urlsplit(name).path) if name.startswith("file:") else name).resolve()


def create(url: URL) -> None:
    """Make the file, if it is not there, for its owner alone; SQLite's other files follow it.

    Whoever opens it reports an obstacle.
    """
    mode = parse_qs(urlsplit(connect_name(url)).query).get("mode", ["rwc"])
    if mode == ["rwc"]:
        with suppress(OSError):
            os.close(os.open(file_of(url), os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))


@asynccontextmanager
async def claimed(url: URL) -> AsyncIterator[None]:
    """Have the database's file for this server alone until the end of the block.

    The lock is the kernel's, on a file next to the database, so it ends with the process however
    that does. It is not on the database itself: to close that would take SQLite's own locks away.

    Raises DatabaseInUse where another server keeps it, and OSError where it cannot be made.
    """
    file = file_of(url)
    lock = file.with_name(f"{file.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, OWNER_ONLY)
    except OSError as error:
        raise OSError(
            f"cannot make {lock}: {error.strerror}; the folder of the database has to be there, and"
            " this user must be allowed to write in it"
        ) from error
    try:
        await _take(handle, file, lock)
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        _warn_of_readers(file)
        yield
    finally:
        os.close(handle)


async def _take(handle: int, file: Path, lock: Path) -> None:
    end = time.monotonic() + TAKEOVER_SECONDS
    is_told = False
    while not _try_lock(handle):
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        other = f"another memoryd (process {holder})" if holder.isdecimal() else "another memoryd"
        if time.monotonic() > end:
            raise DatabaseInUse(
                f"{other} serves {file}, as its lock on {lock} says: stop it first, give this one"
                " another file, or use PostgreSQL, which several servers share"
            )
        if not is_told:
            _log.warning(
                "%s serves %s; waiting for up to %.0f seconds for its end",
                other,
                file,
                TAKEOVER_SECONDS,
            )
            is_told = True
        await asyncio.sleep(_POLL_SECONDS)


def _try_lock(handle: int) -> bool:
    if sys.platform == "win32":
        return True  # there is no such lock
    import fcntl  # noqa: PLC0415  not everywhere

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _warn_of_readers(file: Path) -> None:
    """Tell of files that others may read. They are left as they are: it may be meant so."""
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        with suppress(OSError):
            path = file.with_name(name)
            mode = path.stat().st_mode & 0o777
            if mode & ~OWNER_ONLY & 0o066:
                _log.warning(
                    "%s can be read or written by others than its owner (mode %04o): unless that"
                    " is meant, run chmod 600 %s",
                    *(path, mode, path),
                )
