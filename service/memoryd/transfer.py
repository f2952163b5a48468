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
from typing import TYPE_CHECKING, Any, TextIO

from memoryd.errors import MemorydError
from memoryd.metadata import to_json
from memoryd.progress import progress
from memoryd.storage.migrate import HEAD
from memoryd.storage.transfer import BATCH, TABLES, count_rows, read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from memoryd.storage.database import Database
    from memoryd.storage.dialect import Row

FORMAT = "memoryd-export"
VERSION = 1

SHOWN_CONFLICTS = 5


class TransferError(MemorydError):
    """The file cannot be imported; the text says which line and why."""


async def export_to(database: Database, out: TextIO, *, with_deleted: bool) -> int:
    """Write all rows as of one moment; answer how many. Raises what Database raises."""

    def body(connection: Connection) -> int:
        total = count_rows(connection, with_deleted=with_deleted)
        out.write(to_json({"format": FORMAT, "version": VERSION, "schema": HEAD}) + "\n")
        with progress("exporting", total) as advance:
            for name, row in read_rows(connection, with_deleted=with_deleted):
                out.write(to_json({"table": name, "row": row}) + "\n")
                advance(1)
        out.flush()
        return total

    return await database.snapshot(body)


async def import_from(database: Database, lines: TextIO, *, total: int) -> tuple[int, int]:
    """Insert the rows of an export of `total` lines; answer how many are new, how many were there.

    Raises TransferError, and what Database raises. What was imported before an error stays.
    """
    new = seen = 0
    conflicts: list[str] = []
    with progress("importing", total) as advance:
        for name, rows in _batches(lines):
            inserted, refused = await database.write(
                functools.partial(
                    write_rows, dialect=database.dialect, table=TABLES[name], rows=rows
                )
            )
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


def _batches(lines: TextIO) -> Iterator[tuple[str, list[Row]]]:
    """Rows in batches of one table each."""
    numbered = enumerate(lines, 1)
    _check_head(next(numbered, (1, ""))[1])
    for name, group in itertools.groupby(
        (_entry(number, line) for number, line in numbered), lambda entry: entry[0]
    ):
        rows = (row for _, row in group)
        while batch := list(itertools.islice(rows, BATCH)):
            yield name, batch


def _check_head(line: str) -> None:
    head = _parse(1, line)
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise TransferError("line 1: this is no export that this release reads")
    if head.get("schema") != HEAD:
        raise TransferError(
            f"line 1: exported with the schema {head.get('schema')}, and this release has {HEAD};"
            " migrate the database, and export it with this release"
        )


def _entry(number: int, line: str) -> tuple[str, Row]:
    entry = _parse(number, line)
    name, row = entry.get("table"), entry.get("row")
    if name not in TABLES or not isinstance(row, dict) or set(row) != set(TABLES[name].c.keys()):
        raise TransferError(f"line {number}: no row of a table that this release has")
    return name, row


def _parse(number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise TransferError(f"line {number}: no JSON object; is the file complete?")
    return entry


def _name(table: str, row: Row) -> str:
    return "/".join([table, *(str(row[c.name]) for c in TABLES[table].primary_key)])
