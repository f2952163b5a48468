"""What a unit of work reads before it decides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, func, select

from memoryd.database.keyed import fetch_keyed
from memoryd.database.tables import memories, memory_history, store_receipts, store_requests
from memoryd.memories import rows
from memoryd.memories.rows import COLUMNS
from memoryd.sessions.accounts import size_of_memory
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from memoryd.database.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Lookup:
    """A select that is joined with keys of these columns."""

    columns: tuple[Column[Any], ...]
    select: Select[Any]


def fetch(
    connection: Connection,
    dialect: Dialect,
    lookup: Lookup,
    keys: Iterable[tuple[Any, ...]],
    **parameters: Any,
) -> Sequence[Sequence[Any]]:
    """Read the rows of keys; none if there are none."""
    return fetch_keyed(connection, dialect, lookup.select, lookup.columns, keys, **parameters)


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a unit of work reads, each in one statement however many keys there are."""

    by_id: Lookup
    by_content: Lookup
    by_key: Lookup
    versions: Lookup
    requests: Lookup
    """Answers that earlier releases have kept."""
    receipts: Lookup
    made: Lookup
    """Ids of memories by the revision that made them."""
    kept_counts: Lookup
    overdue_counts: Lookup
    """Of the rows that are kept, those that have expired."""
    least_important: Lookup
    sizes: Lookup


@cache
def lookups_of(dialect: Dialect) -> Lookups:
    """The statements for a database."""
    memory_session = (memories.c.tenant, memories.c.session_id)
    content_key = (*memory_session, memories.c.content_type, memories.c.content_hash)
    request_key = (
        store_requests.c.tenant,
        store_requests.c.session_id,
        store_requests.c.request_id,
    )
    id_key = (*memory_session, memories.c.id)
    key_key = (*memory_session, memories.c.key)
    receipt_key = tuple(store_receipts.c[name] for name in (*SHARD_KEY, "request_id"))
    made_key = (*memory_session, memories.c.created_revision)
    h = memory_history.c
    version_key = (h.tenant, h.session_id, h.revision)
    how_many = Column("how_many", Integer)

    def counts(condition: ColumnElement[bool]) -> Lookup:
        in_session = dialect.keys(*memory_session)
        count = (
            select(func.count())
            .select_from(memories)
            .where(
                *(c == in_session.c[c.name] for c in memory_session),
                *dialect.routing(memories),
                condition,
            )
            .correlate(in_session.source)
            .scalar_subquery()
        )
        counted = select(*(in_session.c[c.name] for c in memory_session), count)
        return Lookup(memory_session, counted.select_from(in_session.source))

    crowded = dialect.look_up(memory_session, COLUMNS, rows.live(), carried=[how_many]).subquery()
    score = rows.effective_importance(dialect, crowded.c)
    ranked = select(
        crowded,
        func.row_number()
        .over(
            partition_by=(crowded.c.tenant, crowded.c.session_id),
            order_by=(score, rows.decayed_importance(dialect, crowded.c), crowded.c.revision),
        )
        .label("place"),
    ).subquery()
    r, receipt = store_requests.c, store_receipts.c
    return Lookups(
        by_id=Lookup(id_key, dialect.look_up(id_key, COLUMNS)),
        by_content=Lookup(
            content_key, dialect.look_up(content_key, COLUMNS, memories.c.deleted_at.is_(None))
        ),
        by_key=Lookup(key_key, dialect.look_up(key_key, COLUMNS, memories.c.deleted_at.is_(None))),
        versions=Lookup(
            version_key,
            dialect.look_up(version_key, (*version_key, h.id, h.state), h.state.is_not(None)),
        ),
        requests=Lookup(
            request_key,
            dialect.look_up(
                request_key,
                (*request_key, r.memory_id, r.fingerprint, r.answer, r.created_at),
            ),
        ),
        receipts=Lookup(
            receipt_key,
            dialect.look_up(
                receipt_key,
                (
                    *(*receipt_key, receipt.fingerprint, receipt.revision, receipt.expires_at),
                    *(receipt.memory_id, receipt.answer, receipt.created_at),
                ),
            ),
        ),
        made=Lookup(made_key, dialect.look_up(made_key, (*made_key, memories.c.id))),
        kept_counts=counts(memories.c.deleted_at.is_(None)),
        overdue_counts=counts(rows.overdue()),
        least_important=Lookup(
            (*memory_session, how_many),
            select(*(ranked.c[c.name] for c in COLUMNS)).where(ranked.c.place <= ranked.c.how_many),
        ),
        sizes=Lookup(
            id_key, dialect.look_up(id_key, (*id_key, size_of_memory(dialect).label("size")))
        ),
    )
