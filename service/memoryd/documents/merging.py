"""The documents of one session become another's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    select,
    union_all,
)

from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.tables import document_history, documents
from memoryd.documents import rows
from memoryd.domain.documents import DocumentName
from memoryd.domain.records import Change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, FromClause, Insert, Select, Subquery, Table

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session

_OF_SOURCE = and_(
    documents.c.tenant == bindparam("tenant"),
    documents.c.session_id == bindparam("source"),
    rows.live(),
)
_IS_VERSION = and_(
    *(document_history.c[name] == documents.c[name] for name in rows.NAME),
    # Said again, as not every planner infers it.
    document_history.c.tenant == bindparam("tenant"),
    document_history.c.session_id == bindparam("source"),
)
_MEETING = ("tenant", "session_id", "namespace", "key", "size", "expires_at")
"""What is read of the target's documents whose names the source has too."""
_SIZE = func.coalesce(func.sum(documents.c.size), 0)


class MovedDocuments(NamedTuple):
    """What became of the source's documents."""

    moved: int
    versions: int
    """Earlier ones that moved with them."""
    expired: int
    """Those of the target that made room."""
    added: int
    """How many more the target has."""
    added_bytes: int
    """Of bodies."""
    conflicts: tuple[DocumentName, ...]
    """Names that both have: the target's stays."""


class _There(NamedTuple):
    """The target's documents beside the source's."""

    source: FromClause
    meets: ColumnElement[bool]
    """Whether it is there by the name of the source's."""

    @property
    def unmet(self) -> ColumnElement[bool]:
        """Whether the source's has a name that the target does not have."""
        return ~select(self.source.c.key).where(self.meets).correlate(documents).exists()


@cache
def _there(dialect: Dialect) -> _There:
    def of_target(table: FromClause) -> ColumnElement[bool]:
        t = table.c
        return and_(t.tenant == bindparam("tenant"), t.session_id == bindparam("target"))

    source, condition = dialect.beside(documents, "there", _MEETING, of_target)
    names = (source.c[name] == documents.c[name] for name in ("namespace", "key"))
    return _There(source, and_(condition, *names))


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
    has_versions: bool,
    now: datetime,
) -> MovedDocuments:
    """Move documents to another session of the tenant, which is at this revision.

    What has expired there and makes room takes the next revisions, then each that moves takes one,
    after its earlier versions, which take some as well if the source has any. Both sessions are
    locked, and the source is erased after it.
    """
    parameters: dict[str, Any] = {
        "tenant": source.tenant,
        "source": source.session_id,
        "target": target.session_id,
        "now": now,
    }
    conflicts: list[DocumentName] = []
    gone: list[DocumentName] = []
    gone_bytes = 0
    for row in statements.fetch_built(connection, _meeting(dialect), parameters):
        name = DocumentName(row.namespace, row.key)
        if row.expires_at is not None and row.expires_at <= now:
            gone.append(name)
            gone_bytes += row.size
        else:
            conflicts.append(name)
    if gone:
        _expire(connection, dialect, target, gone, revision=revision, now=now)
    count, size = connection.execute(_counts().where(_there(dialect).unmet), parameters).one()
    versions = 0
    if count:
        parameters["revision"] = revision + len(gone)
        if has_versions:
            versions = connection.execute(_move_versions(dialect), parameters).rowcount
        connection.execute(_move(dialect), parameters)
    added_bytes = int(size) - gone_bytes
    added = count - len(gone)
    return MovedDocuments(count, versions, len(gone), added, added_bytes, tuple(conflicts))


def _expire(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    names: Sequence[DocumentName],
    *,
    revision: int,
    now: datetime,
) -> None:
    """Remove documents whose time has come, and have watchers told after this revision."""
    gone = [rows.key_of(session, name) for name in names]
    for table in (documents, document_history):
        dialect.delete_many(connection, table, rows.NAME, gone)
    told = [{**key, "revision": revision + place} for place, key in enumerate(gone, 1)]
    common = {"change": Change.EXPIRED.value, "recorded_at": now}
    dialect.insert_many(connection, document_history, columns_of(told), common)


@cache
def _counts() -> Select[Any]:
    return select(func.count(), _SIZE).select_from(documents).where(_OF_SOURCE)


@cache
def _meeting(dialect: Dialect) -> Select[Any]:
    """Documents of the target whose names the source has too."""
    there, meets = _there(dialect)
    return (
        select(*(there.c[name] for name in _MEETING))
        .select_from(documents.join(there, meets))
        .where(_OF_SOURCE)
        .order_by(there.c.namespace, there.c.key)
    )


@cache
def _move(dialect: Dialect) -> Insert:
    """Copy rows as they are, so that no body passes through here."""
    return _copy(dialect, documents, documents.c.change)


@cache
def _move_versions(dialect: Dialect) -> Insert:
    h = document_history.c
    return _copy(dialect, document_history, h.change, h.kind.is_not(None))


def _copy(
    dialect: Dialect, table: Table, change: ColumnElement[str], *conditions: ColumnElement[bool]
) -> Insert:
    """Copy what moves of a table. The first thing kept of a document makes it in the target."""
    place = _places(dialect)
    new: dict[str, Any] = {
        "session_id": cast(bindparam("target"), String),
        "revision": cast(bindparam("revision", type_=BigInteger) + place.c.place, BigInteger),
        "change": case(
            (place.c.age == 1, Change.CREATED.value),
            (change == Change.CREATED.value, Change.UPDATED.value),  # by a move to its name
            else_=change,
        ),
    }
    rows_moved = (
        select(*(new.get(column.name, column) for column in table.c))
        .select_from(table.join(place, table.c.revision == place.c.revision))
        .where(
            table.c.tenant == bindparam("tenant"),
            table.c.session_id == bindparam("source"),
            *conditions,
        )
    )
    return insert(table).from_select([column.name for column in table.c], rows_moved)


@cache
def _places(dialect: Dialect) -> Subquery:
    """The revisions of what moves, with their places: of each document the oldest version first."""
    d, h, unmet = documents.c, document_history.c, _there(dialect).unmet
    moved = select(d.namespace, d.key, d.revision).where(_OF_SOURCE, unmet)
    versions = (
        select(h.namespace, h.key, h.revision)
        .select_from(document_history.join(documents, _IS_VERSION))
        .where(_OF_SOURCE, unmet, h.kind.is_not(None))
    )
    every = union_all(moved, versions).subquery()
    name = (every.c.namespace, every.c.key)
    return select(
        every.c.revision,
        func.row_number().over(order_by=(*name, every.c.revision)).label("place"),
        func.row_number().over(partition_by=name, order_by=every.c.revision).label("age"),
    ).subquery()
