"""A whole database as plain rows, out of one and into another of either kind."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    String,
    bindparam,
    func,
    select,
    tuple_,
    update,
)

from memoryd.database import statements, tag_rows
from memoryd.database.dialect import columns_of
from memoryd.database.tables import (
    DERIVED,
    UNMOVED,
    instance_tool_head,
    memories,
    schema,
    sessions,
    store_receipts,
    tenant_tool_heads,
    tool_config_head,
)
from memoryd.database.types import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Select, Table

    from memoryd.database.dialect import Dialect, Row

BATCH = 1000
"""Rows that are read or written at once."""

LARGE_BATCH = 16
"""The same of tables whose rows may have a megabyte."""

TABLES = {
    table.name: table
    for table in schema.sorted_tables
    if not table.info.get(DERIVED) and not table.info.get(UNMOVED)
}
"""Those that are moved, by name; those that others refer to first."""


def batch_of(table: Table) -> int:
    """How many rows of a table are read or written at once."""
    is_large = any(isinstance(c.type, LargeBinary) for c in table.c)
    return LARGE_BATCH if is_large else BATCH


_HEADS = (tool_config_head, tenant_tool_heads, instance_tool_head)
"""Tables of the last revisions that were given out."""


def count_rows(connection: Connection, *, with_deleted: bool) -> int:
    """Count what `read_rows` would give."""
    counts = (
        select(func.count()).select_from(_wanted(table, with_deleted=with_deleted).subquery())
        for table in TABLES.values()
    )
    return sum(connection.execute(statement).scalar_one() for statement in counts)


def read_rows(connection: Connection, *, with_deleted: bool) -> Iterator[tuple[str, Row]]:
    """Give every row with its table's name, in an order in which they can be written.

    Times are ISO 8601 in UTC, bytes in base64. Without `with_deleted`, no tombstones. Run it in
    one snapshot.
    """
    for table in TABLES.values():
        key = list(table.primary_key)
        after: tuple[Any, ...] | None = None
        size = batch_of(table)
        while True:
            statement = _wanted(table, with_deleted=with_deleted).order_by(*key).limit(size)
            if after is not None:
                statement = statement.where(tuple_(*key) > tuple_(*after))
            found = connection.execute(statement).mappings().all()
            for row in found:
                # SQLAlchemy's names are texts of its own kind.
                yield table.name, {str(name): _plain(value) for name, value in row.items()}
            if len(found) < size:
                break
            after = tuple(found[-1][c.name] for c in key)


def write_rows(
    connection: Connection, dialect: Dialect, table: Table, rows: Sequence[Row]
) -> tuple[int, list[Row]]:
    """Insert rows as `read_rows` gave them; leave those be whose key is there already.

    Answers how many are new, and those that could not be inserted since another row stands in their
    place: another memory with the same content, or with the same revision.
    """
    times = [c.name for c in table.c if isinstance(c.type, UtcDateTime)]
    binaries = [c.name for c in table.c if isinstance(c.type, LargeBinary)]
    typed = [
        row
        | {name: datetime.fromisoformat(row[name]) for name in times if row.get(name)}
        | {name: b64decode(row[name]) for name in binaries if row.get(name) is not None}
        for row in rows
    ]
    new = dialect.insert_many(connection, table, columns_of(typed), ignore_existing=True)
    if table is memories:
        tag_rows.make(connection, dialect, typed)
    if table is sessions:
        _raise_revisions(connection, typed)
    if table is memories:
        _forget_ranks(connection, typed)
    if table in _HEADS:
        _raise_heads(connection, table, typed)
    present = _present(connection, dialect, table, typed) if new < len(rows) else None
    key = [c.name for c in table.primary_key]
    refused = [
        row
        for row in rows
        if present is not None and tuple(row[name] for name in key) not in present
    ]
    return new, refused


def fault_of(table: Table, row: Row, *, is_older: bool = False) -> str | None:
    """What keeps a row, as JSON has it, from being one of a table; None where nothing does.

    One that `is_older` may lack what has a default.
    """
    names = {c.name for c in table.c if not is_older or not _has_default(c) or c.name in row}
    if unlike := sorted(names.symmetric_difference(row)):
        return f"{table.name}.{unlike[0]}: missing, or no column of this release"
    for name, value in row.items():
        column = table.c[name]
        if value is None and not column.nullable:
            return f"{table.name}.{name}: may not be null"
        if value is not None and not _suits(column, value):
            return f"{table.name}.{name}: no value of this column"
    return None


def _has_default(column: Column[Any]) -> bool:
    return column.nullable or column.server_default is not None


def _suits(column: Column[Any], value: Any) -> bool:
    type_ = column.type
    match type_:
        case UtcDateTime():
            suits = isinstance(value, str) and _is_moment(value)
        case String():
            suits = isinstance(value, str) and len(value) <= (type_.length or len(value))
        case LargeBinary():
            suits = isinstance(value, str) and _is_base64(value)
        case Integer():
            bits = 63 if isinstance(type_, BigInteger) else 31
            suits = type(value) is int and -(2**bits) <= value < 2**bits
        case Boolean():
            suits = isinstance(value, bool)
        case Float():
            suits = type(value) in (int, float)
        case _:
            suits = True  # JSON
    return suits


def _is_base64(text: str) -> bool:
    try:
        b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _wanted(table: Table, *, with_deleted: bool) -> Select[Any]:
    if with_deleted or table not in (memories, store_receipts):
        return select(table)
    m, r = memories.c, store_receipts.c
    if table is memories:
        return select(table).where(m.deleted_at.is_(None))
    # A receipt names the memory that is left out, as it does one that was purged.
    left_out = select(m.id).where(
        m.tenant == r.tenant,
        m.session_id == r.session_id,
        m.created_revision == r.revision,
        m.deleted_at.is_not(None),
    )
    memory_id = func.coalesce(r.memory_id, left_out.scalar_subquery())
    return select(*(memory_id.label(c.name) if c is r.memory_id else c for c in r))


def _present(
    connection: Connection, dialect: Dialect, table: Table, rows: Sequence[Row]
) -> set[tuple[Any, ...]]:
    key: tuple[Column[Any], ...] = tuple(table.primary_key)
    statement = dialect.look_up(key, key)
    wanted = [tuple(row[c.name] for c in key) for row in rows]
    return {
        tuple(row)
        for row in statements.fetch_built(connection, statement, dialect.bind(key, wanted))
    }


def _raise_revisions(connection: Connection, rows: Sequence[Row]) -> None:
    """Let no session that is there already give out a revision that came with the rows."""
    statement = (
        update(sessions)
        .where(
            sessions.c.tenant == bindparam("t"),
            sessions.c.session_id == bindparam("s"),
            sessions.c.revision < bindparam("r"),
        )
        .values(revision=bindparam("r"))
    )
    # Of one that is further already, the rows that come may be more than it has counted.
    uncounted = (
        update(sessions)
        .where(
            sessions.c.tenant == bindparam("t"),
            sessions.c.session_id == bindparam("s"),
            sessions.c.revision > bindparam("r"),
        )
        .values(counted_revision=None)
    )
    keys = [{"t": row["tenant"], "s": row["session_id"], "r": row["revision"]} for row in rows]
    connection.execute(statement, keys)
    connection.execute(uncounted, keys)


def _forget_ranks(connection: Connection, rows: Sequence[Row]) -> None:
    """Have sessions ranked again: rows that are not may stand below the mark of those that were."""
    s = sessions.c
    statement = (
        update(sessions)
        .where(
            s.tenant == bindparam("t"),
            s.session_id == bindparam("s"),
            s.ranked_revision.is_not(None),
        )
        .values(ranked_revision=None)
    )
    changed = {(row["tenant"], row["session_id"]) for row in rows}
    connection.execute(statement, [{"t": tenant, "s": name} for tenant, name in sorted(changed)])


def _raise_heads(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """The same for the revisions of the tools' configuration."""
    for row in rows:
        of_row = [c == row[c.name] for c in table.primary_key]
        for c in table.c:
            if not c.primary_key and c.name in row:
                higher = update(table).where(*of_row, c < row[c.name])
                connection.execute(higher.values({c.name: row[c.name]}))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value
