"""Repairs of earlier systems' rows before a stricter schema can hold them.

Frozen like the versions that use it: a change here changes history.
"""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

from memoryd.database.types import UtcDateTime
from memoryd.domain.content import content_hash, hashes_of, normalise
from memoryd.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger("memoryd.migrate")

BATCH = 5_000
DEFAULT_IMPORTANCE = 0.5
SEMANTIC_HASH_LENGTH = 16
LARGEST_INTEGER = 2**31 - 1

# The columns that data steps use; each step uses those of its revision.
memories = sa.table(
    "memories",
    sa.column("tenant", sa.String),
    sa.column("session_id", sa.String),
    sa.column("id", sa.String),
    sa.column("content_type", sa.String),
    sa.column("content", sa.Text),
    sa.column("metadata", sa.JSON),
    sa.column("importance", sa.Float),
    sa.column("access_count", sa.Integer),
    sa.column("last_accessed", UtcDateTime),
    sa.column("created_at", UtcDateTime),
    sa.column("updated_at", UtcDateTime),
    sa.column("content_hash", sa.String),
    sa.column("semantic_hash", sa.String),
    sa.column("expires_at", UtcDateTime),
    sa.column("deleted_at", UtcDateTime),
    sa.column("revision", sa.BigInteger),
    sa.column("created_revision", sa.BigInteger),
    sa.column("change", sa.String),
)
INITIAL_INDEXES = {
    "ix_memory_session_type_importance": ["session_id", "content_type", "importance"],
    "ix_memory_last_accessed": ["last_accessed"],
    "ix_memory_created_at": ["created_at"],
}
ACTIVE_INDEXES = {
    "ix_memory_active_session": ["session_id", "content_type", "importance"],
    "ix_memory_active_expires_at": ["expires_at"],
}
TIMES = ("created_at", "updated_at", "last_accessed", "expires_at", "deleted_at")
# As DateTime writes times to SQLite, which compares them as text.
SECONDS_PATTERN = "{0}{0}{0}{0}-{0}{0}-{0}{0} {0}{0}:{0}{0}:{0}{0}".format("[0-9]")
TIME_PATTERN = SECONDS_PATTERN + "." + 6 * "[0-9]"

Row = dict[str, Any]


def drop_keys_and_indexes() -> None:
    """Drop every unique key and index of `memories`, of any name and kind."""
    inspector = sa.inspect(op.get_bind())
    for index in inspector.get_indexes("memories"):
        if "duplicates_constraint" not in index:
            op.drop_index(str(index["name"]), table_name="memories")
    keys = [str(key["name"]) for key in inspector.get_unique_constraints("memories")]
    if keys:
        with op.batch_alter_table("memories") as table:
            for name in keys:
                table.drop_constraint(name, type_="unique")


def create_initial_indexes() -> None:
    """Create the indexes of the first schema, which the second also has."""
    for name, columns in INITIAL_INDEXES.items():
        op.create_index(name, "memories", columns)


def create_active_indexes() -> None:
    """Create the indexes of the second schema, which exclude deleted rows."""
    active = sa.text("deleted_at IS NULL")
    for name, columns in ACTIVE_INDEXES.items():
        op.create_index(name, "memories", columns, sqlite_where=active, postgresql_where=active)


def log_count(count: int, message: str) -> None:
    """Log how many rows a step repaired, if any."""
    if count:
        logger.warning(message, f"{count:,}")


def in_batches(
    connection: sa.Connection, doing: str, *columns: sa.ColumnElement[Any]
) -> Iterator[Sequence[sa.Row[Any]]]:
    """Read `id` and the given columns of all memories by keyset, and show progress."""
    total = connection.scalar(sa.select(sa.func.count()).select_from(memories)) or 0
    query = sa.select(memories.c.id, *columns).order_by(memories.c.id).limit(BATCH)
    page = query
    with progress(doing, total) as advance:
        while rows := connection.execute(page).all():
            yield rows
            advance(len(rows))
            page = query.where(memories.c.id > rows[-1].id)


def update_each(connection: sa.Connection, rows: Sequence[Row]) -> None:
    """Update memories by `id` with the other columns of the rows, which are the same in all."""
    if rows:
        names = [name for name in rows[0] if name != "id"]
        # A parameter must not have the name of a column that it sets.
        new = {name: sa.bindparam(f"new_{name}", type_=memories.c[name].type) for name in names}
        statement = sa.update(memories).where(memories.c.id == sa.bindparam("key")).values(new)
        connection.execute(
            statement,
            [{"key": row["id"], **{f"new_{name}": row[name] for name in names}} for row in rows],
        )


def delete_each(connection: sa.Connection, ids: Sequence[str]) -> None:
    if ids:
        statement = sa.delete(memories).where(memories.c.id == sa.bindparam("key"))
        connection.execute(statement, [{"key": memory_id} for memory_id in ids])


def repair_numbers(connection: sa.Connection) -> None:
    """Bring importance and access counts into the range that the constraints require."""
    importance, count = memories.c.importance, memories.c.access_count
    clamped = sa.case((importance < 0, 0.0), else_=1.0)
    repairs: tuple[tuple[sa.ColumnClause[Any], Any, Any, str], ...] = (
        (
            importance,
            sa.or_(importance < 0, importance > 1),
            clamped,
            "importance of %s memories was out of range: clamped to 0.0 to 1.0",
        ),
        (
            importance,
            importance.is_(None),
            DEFAULT_IMPORTANCE,
            f"importance of %s memories was missing: set to {DEFAULT_IMPORTANCE}",
        ),
        (
            count,
            sa.or_(count < 0, count.is_(None)),
            0,
            "access count of %s memories was negative or missing: set to 0",
        ),
    )
    for column, wrong, value, message in repairs:
        done = connection.execute(sa.update(memories).where(wrong).values({column.name: value}))
        log_count(done.rowcount, message)


def repair_times(connection: sa.Connection) -> None:
    """Rewrite every time in this service's format; earlier systems used several on SQLite."""
    if connection.dialect.name == "sqlite":
        _rewrite_times(connection)
    created, updated = memories.c.created_at, memories.c.updated_at
    now = sa.literal(datetime.now(UTC), UtcDateTime)
    for column, other in ((created, updated), (updated, created)):
        value = sa.func.coalesce(other, now)
        done = connection.execute(
            sa.update(memories).where(column.is_(None)).values({column.name: value})
        )
        log_count(done.rowcount, f"{column.name} of %s memories was missing: the nearest known")


def _rewrite_times(connection: sa.Connection) -> None:
    # Without a type, as stored.
    raw: dict[str, sa.ColumnClause[Any]] = {name: sa.column(name) for name in TIMES}
    for name, column in raw.items():
        connection.execute(
            sa.update(memories)
            .where(column.bool_op("GLOB")(SECONDS_PATTERN))
            .values({name: column.op("||")(".000000")})
        )
    strange = [
        sa.and_(column.is_not(None), sa.not_(column.bool_op("GLOB")(TIME_PATTERN)))
        for column in raw.values()
    ]
    rows = connection.execute(
        sa.select(memories.c.id, *raw.values()).select_from(memories).where(sa.or_(*strange))
    ).all()
    now = datetime.now(UTC)
    unreadable = 0
    repaired = []
    for row in rows:
        stored = row._asdict()
        times = {name: _read_time(stored[name]) for name in TIMES}
        unreadable += sum(times[name] is None and stored[name] is not None for name in TIMES)
        times["created_at"] = times["created_at"] or times["updated_at"] or now
        times["updated_at"] = times["updated_at"] or times["created_at"]
        if row.deleted_at is not None:  # it stays deleted even if its time cannot be read
            times["deleted_at"] = times["deleted_at"] or now
        repaired.append({"id": row.id, **times})
    update_each(connection, repaired)
    log_count(unreadable, "%s times were no times: replaced by the nearest known, or by none")


def _read_time(value: object) -> datetime | None:
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value.strip())
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def metadata_text() -> sa.ColumnElement[str]:
    """The stored metadata as text, which in SQLite need not be JSON."""
    return sa.cast(memories.c.metadata, sa.Text).label("metadata")


def read_metadata(text: str | None) -> Row:
    """Make an object of stored metadata: empty for null; other values go under the key `value`."""
    if text is None or not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=lambda _: None)  # JSON has no NaN
    except ValueError:
        value = text
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"value": value}


def is_object(text: str | None) -> bool:
    """Whether stored metadata is a JSON object, as the contract requires."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return isinstance(json.loads(text or "", parse_constant=refuse), dict)
    except ValueError:
        return False


def write_hashes(connection: sa.Connection) -> int:
    """Write the hashes of every memory's content; return how many were wrong."""
    stored = memories.c.content_hash, memories.c.semantic_hash
    wrong = 0
    for rows in in_batches(connection, "hashing contents", memories.c.content, *stored):
        missing = [row for row in rows if not _is_hashed(row)]
        wrong += sum(row.content_hash is not None for row in missing)
        update_each(
            connection, [{"id": row.id, **asdict(hashes_of(row.content))} for row in missing]
        )
    return wrong


def _is_hashed(row: sa.Row[Any]) -> bool:
    """Whether the content hash is right; it is cheap, and the other hash is then right too."""
    return (
        row.content_hash is not None
        and len(row.semantic_hash or "") == SEMANTIC_HASH_LENGTH
        and row.content_hash == content_hash(normalise(row.content))
    )


def merge_duplicates(connection: sa.Connection) -> None:
    """Merge memories that are not deleted and share session, type and content hash.

    By the contract's rule the first wording stays, the higher importance wins, metadata keys of the
    later are added or replaced, and the later expiry wins. An expired memory does not merge with a
    live one; it becomes deleted.
    """
    c = memories.c
    key = (c.session_id, c.content_type, c.content_hash)
    counted = (
        sa.select(
            *key,
            c.id,
            c.importance,
            metadata_text(),
            c.access_count,
            c.last_accessed,
            c.created_at,
            c.updated_at,
            c.expires_at,
            sa.func.count().over(partition_by=key).label("copies"),
        )
        .where(c.deleted_at.is_(None))
        .subquery()
    )
    rows = connection.execute(
        sa.select(counted)
        .where(counted.c.copies > 1)
        .order_by(*(counted.c[column.name] for column in key), counted.c.created_at, counted.c.id)
    ).all()
    now = datetime.now(UTC)
    survivors, retired, merged = [], [], []
    for _, group in itertools.groupby(rows, lambda row: row[:3]):
        copies = list(group)
        live = [row for row in copies if row.expires_at is None or row.expires_at > now]
        if live:
            retired += [
                {"id": row.id, "deleted_at": row.expires_at}
                for row in copies
                if row.expires_at is not None and row.expires_at <= now
            ]
            copies = live
        if len(copies) > 1:
            survivors.append(_merged(copies))
            merged += [row.id for row in copies[1:]]
    delete_each(connection, merged)
    update_each(connection, survivors)
    update_each(connection, retired)
    log_count(
        len(merged),
        "%s memories were duplicates once contents were normalised:"
        f" merged into {len(survivors):,} earlier ones",
    )
    log_count(len(retired), "%s expired memories were duplicates of live ones: now deleted")


def _merged(copies: Sequence[sa.Row[Any]]) -> Row:
    """The merged row of the first copy in order of creation."""
    metadata: Row = {}
    for row in copies:
        metadata |= read_metadata(row.metadata)
    expiries = [row.expires_at for row in copies]
    return {
        "id": copies[0].id,
        "importance": max(row.importance for row in copies),
        "metadata": metadata,
        "access_count": min(sum(row.access_count for row in copies), LARGEST_INTEGER),
        "last_accessed": max(
            (row.last_accessed for row in copies if row.last_accessed is not None), default=None
        ),
        "updated_at": max(row.updated_at for row in copies),
        "expires_at": None if None in expiries else max(expiries),
    }
