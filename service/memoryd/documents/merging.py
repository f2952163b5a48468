"""The documents of one session become another's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, String, and_, bindparam, cast, func, insert, literal, select

from memoryd.database import statements
from memoryd.database.tables import document_history, documents
from memoryd.documents import rows
from memoryd.domain.documents import DocumentName
from memoryd.domain.records import Change

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Insert, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session

_there = documents.alias("there")
"""The target's."""

_OF_SOURCE = and_(
    documents.c.tenant == bindparam("tenant"),
    documents.c.session_id == bindparam("source"),
    rows.live(),
)
_MEETS = and_(
    _there.c.tenant == bindparam("tenant"),
    _there.c.session_id == bindparam("target"),
    _there.c.namespace == documents.c.namespace,
    _there.c.key == documents.c.key,
)
_UNMET = ~select(_there.c.key).where(_MEETS).correlate(documents).exists()
_SIZE = func.coalesce(func.sum(documents.c.size), 0)


class MovedDocuments(NamedTuple):
    """What became of the source's documents."""

    moved: int
    added: int
    """How many more the target has: those that had expired there made room."""
    added_bytes: int
    """Of bodies."""
    conflicts: tuple[DocumentName, ...]
    """Names that both have: the target's stays."""


def measure_documents(connection: Connection, source: Session, now: datetime) -> tuple[int, int]:
    """Count a session's documents, and the bytes of their bodies."""
    parameters = {"tenant": source.tenant, "source": source.session_id, "now": now}
    count, size = connection.execute(_counts(), parameters).one()
    return count, int(size)


def move_documents(
    connection: Connection,
    dialect: Dialect,
    source: Session,
    target: Session,
    *,
    revision: int,
    now: datetime,
) -> MovedDocuments:
    """Move documents to another session of the tenant, which is at this revision.

    Each takes the next revision. Both sessions are locked, and the source is erased after it.
    """
    parameters = {
        "tenant": source.tenant,
        "source": source.session_id,
        "target": target.session_id,
        "now": now,
    }
    conflicts: list[DocumentName] = []
    gone: list[dict[str, str]] = []
    gone_bytes = 0
    for row in statements.fetch_built(connection, _meeting(), parameters):
        name = DocumentName(row.namespace, row.key)
        if row.expires_at is not None and row.expires_at <= now:
            gone.append(rows.key_of(target, name))
            gone_bytes += row.size
        else:
            conflicts.append(name)
    if gone:
        for table in (documents, document_history):
            dialect.delete_many(connection, table, rows.NAME, gone)
    count, size = connection.execute(_counts().where(_UNMET), parameters).one()
    if count:
        connection.execute(_move(), {**parameters, "revision": revision})
    return MovedDocuments(count, count - len(gone), int(size) - gone_bytes, tuple(conflicts))


@cache
def _counts() -> Select[Any]:
    return select(func.count(), _SIZE).select_from(documents).where(_OF_SOURCE)


@cache
def _meeting() -> Select[Any]:
    """Documents of the target whose names the source has too."""
    names = ("tenant", "session_id", "namespace", "key", "size", "expires_at")
    return (
        select(*(_there.c[name] for name in names))
        .select_from(documents.join(_there, _MEETS))
        .where(_OF_SOURCE)
        .order_by(_there.c.namespace, _there.c.key)
    )


@cache
def _move() -> Insert:
    """Copy rows as they are, so that no body passes through here."""
    d = documents.c
    place = func.row_number().over(order_by=(d.namespace, d.key))
    new: dict[str, Any] = {
        "session_id": cast(bindparam("target"), String),
        "revision": cast(bindparam("revision", type_=BigInteger) + place, BigInteger),
        "change": literal(Change.CREATED.value),
    }
    columns: list[Any] = [new.get(column.name, column) for column in d]
    return insert(documents).from_select(
        [column.name for column in d], select(*columns).where(_OF_SOURCE, _UNMET)
    )
