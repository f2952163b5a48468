"""The vectors that an embedder made of contents, by memory."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, func, or_, select, tuple_

from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.tables import memories, memory_vectors
from memoryd.domain.records import Session
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.sessions.lock import lock_sessions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.memories.deletion import MemoryKey

KEY = tuple(memory_vectors.c[name] for name in PRIMARY_KEY)
_MEMORY_KEY = tuple(memories.c[name] for name in PRIMARY_KEY)


class Vector(NamedTuple):
    """A vector, and of which content it was made."""

    content_hash: str
    data: bytes
    """Floats of 16 bits, little-endian; those of its tokens behind them, if any, in 8 bits."""


class Unembedded(NamedTuple):
    """A memory without a vector of its content."""

    key: MemoryKey
    content: str
    content_hash: str


def read_vectors(
    connection: Connection, dialect: Dialect, embedder: str, wanted: Collection[MemoryKey]
) -> dict[MemoryKey, Vector]:
    """Read the vectors that an embedder made of some memories, as far as they are there."""
    if not wanted:
        return {}
    found = statements.fetch(
        connection,
        _wanted(dialect),
        {**dialect.bind(KEY, sorted(wanted)), "embedder": embedder},
    )
    return {
        (tenant, session_id, memory_id): Vector(content_hash, data)
        for tenant, session_id, memory_id, content_hash, data in found
    }


def write_vectors(
    connection: Connection, dialect: Dialect, embedder: str, made: Mapping[MemoryKey, Vector]
) -> int:
    """Keep vectors in the place of earlier ones; of those memories only that are still there.

    Answers how many there were.
    """
    # As all that deletes memories does first, so that none is gone by the time its vector comes.
    lock_sessions(connection, dialect, (Session(*key[:2]) for key in made))
    found = statements.fetch(connection, _present(dialect), dialect.bind(_MEMORY_KEY, sorted(made)))
    rows = [
        {
            **dict(zip(PRIMARY_KEY, key, strict=True)),
            "content_hash": made[key].content_hash,
            "vector": made[key].data,
        }
        for key in ((row[0], row[1], row[2]) for row in found)
    ]
    if rows:
        dialect.delete_many(connection, memory_vectors, PRIMARY_KEY, rows)
        common = {"embedder": embedder}
        dialect.insert_many(connection, memory_vectors, columns_of(rows), common)
    return len(rows)


def count_unembedded(connection: Connection, embedder: str) -> int:
    """How many live memories lack a vector by this embedder."""
    counted = select(func.count()).select_from(_UNEMBEDDED.order_by(None).subquery())
    return connection.execute(counted, {"embedder": embedder}).scalar_one()


def read_unembedded(
    connection: Connection, embedder: str, after: MemoryKey | None, limit: int
) -> Sequence[Unembedded]:
    """Read live memories that lack a vector by this embedder, in the order of their keys."""
    statement = _UNEMBEDDED.limit(limit)
    if after is not None:
        statement = statement.where(tuple_(*_MEMORY_KEY) > tuple_(*after))
    found = connection.execute(statement, {"embedder": embedder}).all()
    return [Unembedded((row[0], row[1], row[2]), row[3], row[4]) for row in found]


_UNEMBEDDED = (
    select(*_MEMORY_KEY, memories.c.content, memories.c.content_hash)
    .select_from(
        memories.outerjoin(
            memory_vectors,
            and_(*(vector == memory for vector, memory in zip(KEY, _MEMORY_KEY, strict=True))),
        )
    )
    .where(
        memories.c.deleted_at.is_(None),
        or_(
            memory_vectors.c.id.is_(None),
            memory_vectors.c.embedder != bindparam("embedder"),
            memory_vectors.c.content_hash != memories.c.content_hash,
        ),
    )
    .order_by(*_MEMORY_KEY)
)


@cache
def _wanted(dialect: Dialect) -> Select[Any]:
    v = memory_vectors.c
    columns = (*KEY, v.content_hash, v.vector)
    return dialect.look_up(KEY, columns, v.embedder == bindparam("embedder"))


@cache
def _present(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(_MEMORY_KEY, _MEMORY_KEY)
