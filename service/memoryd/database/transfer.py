"""Export and import of a database as JSON Lines.

The first line names the format; every other is one row: `{"table": …, "row": {…}}`. Ids, times,
counts and revisions come along, so a copy on the other kind of database answers as the first did.
Importing is idempotent: what is there already is left as it is, so an import that was cut off is
begun again.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DBAPIError

from memoryd.database.dump import (
    BATCH,
    TABLES,
    count_rows,
    fault_of,
    read_rows,
    with_defaults,
    write_rows,
)
from memoryd.database.migrate import HEAD, REVISIONS
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.errors import MemorydError
from memoryd.domain.metadata import to_json
from memoryd.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from memoryd.database.dialect import Row
    from memoryd.database.engine import Database

FORMAT = "memoryd-export"
VERSION = 1

READ = REVISIONS[REVISIONS.index("012_add_row_security_since_006") :]
"""Schemas whose exports are read: what later ones have in addition has a default."""

SHOWN_CONFLICTS = 5

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors put before UTF-8."""


class SupportsWrite(Protocol):
    """A file that takes text."""

    def write(self, text: str, /) -> int: ...


class TransferError(MemorydError):
    """The file cannot be imported, with the line and why; or the export not be written."""


async def export_to(database: Database, out: SupportsWrite, *, with_deleted: bool) -> int:
    """Write all rows as of one moment; answer how many.

    Raises TransferError where they cannot be written, and what Database raises.
    """

    def write(entry: object) -> None:
        try:
            out.write(to_json(entry) + "\n")
        except OSError as error:  # else it would be taken for the database's
            raise TransferError(f"cannot write the export: {error.strerror}") from error

    def body(connection: Connection) -> int:
        total = count_rows(connection, with_deleted=with_deleted)
        write({"format": FORMAT, "version": VERSION, "schema": HEAD})
        with progress("exporting", total) as advance:
            for name, row in read_rows(connection, with_deleted=with_deleted):
                write({"table": name, "row": row})
                advance(1)
        return total

    return await database.snapshot(body, tenants=EVERY_TENANT)


async def import_from(database: Database, lines: Iterable[bytes], *, total: int) -> tuple[int, int]:
    """Insert the rows of an export of `total` lines; answer how many are new, how many were there.

    Raises TransferError, and what Database raises. What was imported before an error stays.
    """
    new = seen = 0
    conflicts: list[str] = []
    refusals: tuple[type[Exception], ...] = (DBAPIError, *database.dialect.driver_errors)
    with progress("importing", total) as advance:
        for last, name, rows in _batches(lines):
            body = functools.partial(
                write_rows, dialect=database.dialect, table=TABLES[name], rows=rows
            )
            try:
                inserted, refused = await database.write(body, tenants=EVERY_TENANT)
            except refusals as error:
                kind = type(getattr(error, "orig", None) or error).__name__
                raise TransferError(
                    f"lines up to {last}: the database refuses these rows of {name} ({kind});"
                    " is a line before them missing, or was one changed?"
                ) from error
            new += inserted
            seen += len(rows)
            conflicts += [_name(name, row) for row in refused]
            advance(len(rows))
    if conflicts:
        shown = "; ".join(conflicts[:SHOWN_CONFLICTS])
        raise TransferError(
            f"{len(conflicts):,} rows stand against others with the same content or revision and"
            f" were left out: {shown}; import into a database that has not served these sessions"
        )
    return new, seen - new


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[int, str, list[Row]]]:
    """Rows in batches of one table each, with the number of the last one's line."""
    numbered = enumerate(lines, 1)
    _check_head(next(numbered, (1, b""))[1].removeprefix(BYTE_ORDER_MARK))
    entries = (_entry(number, line) for number, line in numbered if line.strip())
    for name, group in itertools.groupby(entries, lambda entry: entry[1]):
        while batch := list(itertools.islice(group, BATCH)):
            yield batch[-1][0], name, [row for _, _, row in batch]


def _check_head(line: bytes) -> None:
    head = _parse(1, line)
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise TransferError("line 1: this is no export that this release reads")
    if head.get("schema") not in READ:
        raise TransferError(
            f"line 1: exported with the schema {head.get('schema')}, and this release reads"
            f" {READ[0]} to {HEAD}; migrate the database, and export it with this release"
        )


def _entry(number: int, line: bytes) -> tuple[int, str, Row]:
    entry = _parse(number, line)
    name, row = entry.get("table"), entry.get("row")
    if not isinstance(name, str) or name not in TABLES or not isinstance(row, dict):
        raise TransferError(f"line {number}: no row of a table that this release moves")
    row = with_defaults(TABLES[name], row)
    if fault := fault_of(TABLES[name], row):
        raise TransferError(f"line {number}: {fault}")
    return number, name, row


def _parse(number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise TransferError(f"line {number}: no JSON object in UTF-8; is the file complete?")
    return entry


def _name(table: str, row: Row) -> str:
    return "/".join([table, *(str(row[c.name]) for c in TABLES[table].primary_key)])
