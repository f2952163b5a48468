"""The lines of the audit as the database has them.

One chain for the database: whoever adds to it holds the lock on its end. Writing and dropping work
across tenants; of what reads, one function is about a single tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Select, delete, func, select, update

from memoryd.database.dialect import columns_of
from memoryd.database.tables import audit_events, audit_head
from memoryd.domain.audit import FIRST_HASH, Line, line_of
from memoryd.sessions.refs import session_ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Subquery

    from memoryd.database.dialect import Dialect
    from memoryd.domain.audit import Event

BATCH = 500
"""Lines that are read or dropped at once."""


class Head(NamedTuple):
    """The end of the chain, and where what is kept of it begins."""

    seq: int
    """Of the last line; 0: there is none."""
    hash: str
    dropped_seq: int
    """Of the last line that was dropped for its age."""
    dropped_hash: str


EMPTY = Head(0, FIRST_HASH, 0, FIRST_HASH)

_HEAD = select(*(audit_head.c[name] for name in Head._fields))
_LINES = select(*(audit_events.c[name] for name in Line._fields))


def read_head(connection: Connection) -> Head:
    found = connection.execute(_HEAD).one_or_none()
    return EMPTY if found is None else Head(*found)


def lock_head(connection: Connection, dialect: Dialect) -> Head:
    """Lock the end of the chain until the transaction ends."""
    locking = _HEAD.with_for_update()
    found = connection.execute(locking).one_or_none()
    if found is None:
        first = columns_of([{"id": 1, **EMPTY._asdict()}])
        dialect.insert_many(connection, audit_head, first, ignore_existing=True)
        found = connection.execute(locking).one()
    return Head(*found)


def append(
    connection: Connection,
    dialect: Dialect,
    head: Head,
    events: Iterable[Event],
    keys: Mapping[str, bytes],
) -> Head:
    """Add lines behind the head, which is locked; give the new head.

    `keys` has the key of each tenant whose sessions the events name.
    """
    rows = []
    for event in events:
        refs = [session_ref(keys[event.tenant], session_id) for session_id in event.sessions]
        line = line_of(event, refs, head.seq + 1, head.hash)
        head = head._replace(seq=line.seq, hash=line.hash)
        rows.append(line._asdict())
    dialect.insert_many(connection, audit_events, columns_of(rows))
    connection.execute(update(audit_head).values(seq=head.seq, hash=head.hash))
    return head


def has(connection: Connection, seq: int, line_hash: str) -> bool:
    """Whether the chain has a line at a place."""
    e = audit_events.c
    found = connection.execute(select(e.hash).where(e.seq == seq)).scalar_one_or_none()
    return found == line_hash


def drop_before(connection: Connection, dialect: Dialect, moment: datetime) -> int:
    """Drop the oldest lines that are from before a time; answer how many.

    At most BATCH, and none that a younger one comes before: what is kept is one chain.
    """
    # Most looks find nothing to do, and hold nobody up.
    if not any(line.time < moment for line in read_after(connection, -1, None)[:1]):
        return 0
    lock_head(connection, dialect)
    last: Line | None = None
    for line in read_after(connection, -1, None):
        if line.time >= moment:
            break
        last = line
    if last is None:
        return 0
    dropped = connection.execute(delete(audit_events).where(audit_events.c.seq <= last.seq))
    kept = update(audit_head).values(dropped_seq=last.seq, dropped_hash=last.hash)
    connection.execute(kept)
    return dropped.rowcount


def first_since(connection: Connection, moment: datetime) -> int | None:
    """Give the place of the first line from a time on; None: there is none.

    Servers whose clocks differ write lines that are not in the order of their times: up to BATCH
    of them are put right.
    """
    found: int | None = connection.execute(select(func.min(_since(moment).c.seq))).scalar_one()
    return found


def _since(moment: datetime) -> Subquery:
    e = audit_events.c
    first = select(e.seq).where(e.time >= moment).order_by(e.time).limit(BATCH)
    return first.subquery("first")


def read_of_tenant(
    connection: Connection, tenant: str, *, before: int | None, since: datetime | None, limit: int
) -> list[Line]:
    """Read lines of a tenant, the newest first, before a place and from a time on."""
    return _newest(connection, [audit_events.c.tenant == tenant], before, since, limit)


def read_of_all(
    connection: Connection, *, before: int | None, since: datetime | None, limit: int
) -> list[Line]:
    """Read lines of all tenants, as `read_of_tenant` those of one."""
    return _newest(connection, [], before, since, limit)


def read_after(connection: Connection, seq: int, tenant: str | None) -> list[Line]:
    """Read the first lines behind a place, in their order; of a tenant, or of all."""
    e = audit_events.c
    wanted = _LINES.where(e.seq > seq)
    if tenant is not None:
        wanted = wanted.where(e.tenant == tenant)
    return list(_lines(connection, wanted.order_by(e.seq).limit(BATCH)))


def read_all(connection: Connection) -> Iterator[Line]:
    """Give every line there is, in order. Run it in one snapshot."""
    found = read_after(connection, -1, None)
    while found:
        yield from found
        found = read_after(connection, found[-1].seq, None)


def _newest(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    before: int | None,
    since: datetime | None,
    limit: int,
) -> list[Line]:
    e = audit_events.c
    wanted = _LINES.where(*conditions)
    if before is not None:
        wanted = wanted.where(e.seq < before)
    if since is not None:
        # By its place, so that no line from before that time is read in vain.
        first = select(func.min(_since(since).c.seq)).scalar_subquery()
        wanted = wanted.where(e.seq >= first, e.time >= since)
    return list(_lines(connection, wanted.order_by(e.seq.desc()).limit(limit)))


def _lines(connection: Connection, wanted: Select[Any]) -> Iterator[Line]:
    return (Line(*row) for row in connection.execute(wanted))
