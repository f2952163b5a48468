"""Why a database cannot be used, and what to change, as far as its driver and the files tell."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

_URL: Final = "the database's URL"

_POSTGRESQL: Final = {
    "28P01": f"correct the password in {_URL}, in PGPASSWORD or in the password file",
    "3D000": f"create the database, or correct its name in {_URL}",
    "3F000": "create the schema that search_path names, and grant the role USAGE and CREATE on it",
    "42501": (
        "grant the role the right: USAGE and CREATE on the schema for migrating, and for serving"
        " SELECT, INSERT, UPDATE and DELETE on its tables"
    ),
}
"""What to change, by the SQLSTATE of the refusal."""

_INVALID_AUTHORIZATION: Final = "28000"


def postgresql_obstacle(error: BaseException) -> str | None:
    """What to change after an error of PostgreSQL's driver; None where trying again may help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"name the file of the authority that signed the server's certificate: sslrootcert in"
            f" {_URL}"
        )
    words = str(error)
    if isinstance(error, ConnectionError) and "rejected SSL" in words:
        return f"turn TLS on at the server, or write sslmode=prefer in {_URL}"
    code = getattr(error, "sqlstate", None)
    if code != _INVALID_AUTHORIZATION:
        return _POSTGRESQL.get(code or "")
    if "pg_hba.conf" not in words:
        return f"create the role with LOGIN, or correct its name in {_URL}"
    over_tls = f", or write sslmode=require in {_URL}" if "no encryption" in words else ""
    return f"allow it in the server's pg_hba.conf{over_tls}"


def sqlite_obstacle(error: BaseException, database: str) -> str | None:
    """What to change after an error of SQLite; None where it cannot be known.

    `database`: the file, as the URL names it.
    """
    words = str(error)
    if words == "file is not a database":
        return "it is another kind of file, or damaged; name another one, or restore a backup"
    if not words.startswith(("unable to open", "attempt to write a readonly", "disk I/O error")):
        return None
    return path_obstacle(database)


def path_obstacle(database: str) -> str | None:
    """What is in the way to an SQLite file that need not be there; None: nothing that can be seen.

    `database`: as above.
    """
    file = Path(os.path.abspath(database))  # noqa: PTH100  `resolve` fails where it may not look
    return _in_the_way_to(file, database) or _missing_right(file)


def _in_the_way_to(file: Path, database: str) -> str | None:
    """Which folder on the way to a file is none, or may not be entered."""
    if os.path.isdir(file):  # noqa: PTH112  without raising where it may not look, as below
        return f"it is a folder; name a file in it, such as {file / 'memoryd.db'}"
    for folder in reversed(file.parents):
        if not os.path.lexists(folder):
            return f"the folder {folder} is missing; make it{_absolute(database)}"
        if not os.path.isdir(folder):  # noqa: PTH112
            return f"{folder} is no folder; name another path"
        if not _may(folder, os.X_OK):
            return f"the folder {folder} may not be entered; {_give('execute', folder)}"
    return None


def _absolute(database: str) -> str:
    """What a path without its first slash is likely to mean."""
    if database.startswith("/") or not os.path.isdir(Path("/", database).parent):  # noqa: PTH112
        return ""
    return f", or write sqlite+aiosqlite:////{database}: an absolute path takes four slashes"


def _missing_right(file: Path) -> str | None:
    """Which right to a file, or to the folder that it is in, is missing."""
    folder = file.parent
    for place in (folder, file):
        if os.path.exists(place) and os.statvfs(place).f_flag & os.ST_RDONLY:  # noqa: PTH110
            return f"{place} is on a file system that is mounted read-only; mount it for writing"
    if os.path.exists(file):  # noqa: PTH110
        for name, right in (("read", os.R_OK), ("write", os.W_OK)):
            if not _may(file, right):
                return f"the file may not be {_DONE[name]}; {_give(name, file)}"
    if not _may(folder, os.W_OK):
        return (
            f"the folder {folder} may not be written, where SQLite keeps files of its own beside"
            f" the database; {_give('write', folder)}"
        )
    return None


_DONE: Final = {"read": "read", "write": "written"}


def _may(place: Path, right: int) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(place, right, effective_ids=effective)


def _give(right: str, place: Path) -> str:
    who = f"user {os.geteuid()}" if hasattr(os, "geteuid") else "the service's user"
    return f"give {who} the {right} permission on {place}"
