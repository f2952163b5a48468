"""Sessions themselves: which there are, what they hold, and what callers have set for them."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, String, bindparam, select

from memoryd.database import statements
from memoryd.database.tables import sessions
from memoryd.domain.errors import SessionNotFound
from memoryd.domain.metadata import json_bytes
from memoryd.domain.records import Session
from memoryd.domain.sessions import SessionPage, SessionRecord, behind
from memoryd.sessions.records import COLUMNS, complete, is_counted, read_records
from memoryd.sessions.settings import change_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.database.engine import Database
    from memoryd.domain.quotas import Quotas
    from memoryd.domain.sessions import SessionEdit, SessionRange

CHUNK = 100
"""Sessions that one statement reads."""

MAX_PAGE_BYTES = 3 * 1024 * 1024
"""A page ends early rather than grow over what a gRPC client receives by default, 4 MiB."""

MAX_COUNTED = 100
"""Sessions of a page whose memories are counted, since their rows do not say how many there are:
the page ends with the last of these."""

LABELS_AT_ONCE = 1_000
"""Sessions whose labels one statement reads."""

MAX_LOOKED_AT = 10_000
"""Sessions whose labels one page looks at: it ends there, with those that it has found."""

_ROW_OVERHEAD_BYTES = 1024


class Listing(NamedTuple):
    """Which sessions of a tenant are wanted, in the order of their ids by code point."""

    tenant: str
    ranges: Sequence[SessionRange]
    """In their order; no id is in two of them."""
    labels: Mapping[str, str]
    """Each must be equal."""
    after: str
    """The id after which the page begins; empty for the first."""
    size: int


class SessionStore:
    """The sessions of all tenants. `timeout` is in seconds.

    Every method raises what Database raises.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        notify: Callable[[Iterable[Session]], None],
        *,
        quotas_of: Callable[[str], Quotas],
    ) -> None:
        """`notify` is called with the sessions that changed; `quotas_of` gives a tenant's."""
        self._database = database
        self._clock = clock
        self._notify = notify
        self._quotas_of = quotas_of

    async def get(self, session: Session, *, timeout: float | None) -> SessionRecord:
        """Raises SessionNotFound."""
        dialect, now = self._database.dialect, self._clock()
        found = await self._database.read(
            lambda connection: read_records(connection, dialect, [session], now),
            tenants=(session.tenant,),
            timeout=timeout,
        )
        if session not in found:
            raise SessionNotFound(session.session_id)
        return found[session]

    async def page(self, listing: Listing, *, timeout: float | None) -> SessionPage:
        """At most `size` sessions; fewer where more would cost too much to find."""
        read = _labelled_page if listing.labels else _page
        body = partial(read, dialect=self._database.dialect, listing=listing, now=self._clock())
        return await self._database.read(body, tenants=(listing.tenant,), timeout=timeout)

    async def update(self, edit: SessionEdit, *, timeout: float | None) -> SessionRecord:
        """Change what is set for a session.

        Raises SessionNotFound, EtagMismatch, and QuotaExceeded where it would be a new session.
        """
        dialect, now, session = self._database.dialect, self._clock(), edit.session

        def body(connection: Connection) -> SessionRecord:
            change_settings(connection, dialect, edit, now, self._quotas_of(session.tenant))
            return read_records(connection, dialect, [session], now)[session]

        record = await self._database.write(body, tenants=(session.tenant,), timeout=timeout)
        self._notify([session])
        return record


def _page(connection: Connection, dialect: Dialect, listing: Listing, now: datetime) -> SessionPage:
    wanted: list[Sequence[Any]] = []
    room, counted, is_last = MAX_PAGE_BYTES, 0, True
    # One more than asked for tells whether there is another page.
    for row in _rows(connection, _listed(dialect), listing, min(CHUNK, listing.size + 1), now):
        room -= _ROW_OVERHEAD_BYTES + json_bytes(row[-4] or {}) + json_bytes(row[-5] or {})
        counted += not is_counted(row)
        if wanted and (len(wanted) == listing.size or room < 0 or counted > MAX_COUNTED):
            is_last = False
            break
        wanted.append(row)
    records = complete(connection, dialect, wanted, now)
    return SessionPage(tuple(records.values()), None if is_last else wanted[-1][1])


def _labelled_page(
    connection: Connection, dialect: Dialect, listing: Listing, now: datetime
) -> SessionPage:
    """As `_page`: first the labels alone are read, then the sessions that have those wanted."""
    matching: list[Session] = []
    next_after, last = None, ""
    found = _rows(connection, _labels(dialect), listing, LABELS_AT_ONCE)
    for looked_at, (tenant, session_id, labels) in enumerate(found):
        if looked_at == MAX_LOOKED_AT:
            next_after = last
            break
        if listing.labels.items() <= labels.items():
            if len(matching) == min(listing.size, CHUNK):
                next_after = matching[-1].session_id
                break
            matching.append(Session(tenant, session_id))
        last = session_id
    records = read_records(connection, dialect, matching, now)
    in_order = (records[session] for session in matching if session in records)
    return SessionPage(
        tuple(r for r in in_order if listing.labels.items() <= r.settings.labels.items()),
        next_after,
    )


def _rows(
    connection: Connection,
    statement: Select[Any],
    listing: Listing,
    size: int,
    now: datetime | None = None,
) -> Iterator[Sequence[Any]]:
    """The rows of a listing one after the other, so many a statement."""
    position = listing.after
    for one in listing.ranges:
        if one.end <= position:
            continue
        while True:
            parameters = {
                "tenant": listing.tenant,
                # One bound alone: of two, SQLite searches by the first and reads up to the other.
                "first": max(one.first, behind(position)),
                "end": one.end,
                "size": size,
            }
            if now is not None:
                parameters["now"] = now
            chunk = statements.fetch(connection, statement, parameters)
            yield from chunk
            if len(chunk) < size:
                break
            position = chunk[-1][1]


@cache
def _listed(dialect: Dialect) -> Select[Any]:
    return _in_range(dialect, COLUMNS)


@cache
def _labels(dialect: Dialect) -> Select[Any]:
    s = sessions.c
    statement = _in_range(dialect, (s.tenant, s.session_id, s.labels))
    return statement.where(s.labels.is_not(None))


def _in_range(dialect: Dialect, columns: tuple[Any, ...]) -> Select[Any]:
    session_id = dialect.by_code_point(sessions.c.session_id)
    return (
        select(*columns)
        .where(
            sessions.c.tenant == bindparam("tenant", type_=String),
            session_id >= bindparam("first", type_=String),
            session_id < bindparam("end", type_=String),
        )
        .order_by(session_id)
        .limit(bindparam("size", type_=Integer))
    )
