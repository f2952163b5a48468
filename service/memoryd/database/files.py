"""SQLite files that have to be there: what only reads makes none."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from memoryd.domain.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL

_REMEDY = (
    "name yours with MEMORYD_DATABASE_URL or --database-url; `memoryd migrate` and `memoryd serve`"
    " make one"
)


def open_existing(url: URL, **options: Any) -> sqlite3.Connection:
    """Connect to a database of this service's in a file that is there; it is not changed.

    Raises SchemaMismatch where there is no such file, or something else is in it, and sqlite3.Error
    where it cannot be opened or read.
    """
    (name,), given = url.get_dialect()().create_connect_args(url)
    if not given.get("uri"):
        name = Path(name).as_uri()
    if "mode=" not in name:  # SQLite opens it or fails: between a look and a use it may go
        name += ("&" if "?" in name else "?") + "mode=rw"
    file = unquote(urlsplit(name).path)
    try:
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect
        connection = connect(name, **{**given, **options, "uri": True})
    except sqlite3.OperationalError:
        if Path(file).exists():
            raise
        raise SchemaMismatch(f"there is no database {file}; {_REMEDY}") from None
    try:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
        is_ours = found.fetchone() is not None
    except BaseException:
        connection.close()
        raise
    if not is_ours:
        connection.close()
        raise SchemaMismatch(f"{file} has no tables of memoryd in it; {_REMEDY}")
    return connection
