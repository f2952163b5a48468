"""What the audit says: pages of it, what comes next, and whether it is one chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.audit import chain
from memoryd.database.tenancy import EVERY_TENANT, NO_TENANT, one_or_all
from memoryd.domain.audit import problem_of
from memoryd.sessions.refs import read_key, session_ref

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.domain.audit import Line

MAX_PROBLEMS = 100
"""That one verification names; a chain with more is not mended line by line."""


class Problem(NamedTuple):
    seq: int
    what: str


class Place(NamedTuple):
    """A line by its place and hash, as it was noted earlier."""

    seq: int
    hash: str


class Verdict(NamedTuple):
    """What a verification has found."""

    first_seq: int
    """Of the oldest line kept; 0: there is none."""
    last: Place
    """The end of the chain, to be noted elsewhere."""
    lines: int
    problems: Sequence[Problem]


class AuditLog:
    """The audit of one database, to read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        tenant: str | None,
        *,
        before: int | None,
        since: datetime | None,
        size: int,
        timeout: float | None = None,
    ) -> list[Line]:
        """Read lines, the newest first; of a tenant, or of all."""

        def body(connection: Connection) -> list[Line]:
            if tenant is None:
                return chain.read_of_all(connection, before=before, since=since, limit=size)
            return chain.read_of_tenant(connection, tenant, before=before, since=since, limit=size)

        tenants = one_or_all(tenant)
        return await self._database.read(body, tenants=tenants, timeout=timeout)

    async def after(self, seq: int, tenant: str | None) -> list[Line]:
        """Read the first lines behind a place, in their order; of a tenant, or of all."""
        return await self._database.read(
            lambda c: chain.read_after(c, seq, tenant), tenants=one_or_all(tenant)
        )

    async def refers_to(self, tenant: str, session_id: str) -> str | None:
        """How lines of a tenant refer to a session; None: none refers to any yet."""
        key = await self._database.read(lambda c: read_key(c, tenant), tenants=(tenant,))
        return None if key is None else session_ref(key, session_id)

    async def end(self) -> Place:
        """Where the chain ends now."""
        head = await self._database.read(chain.read_head, tenants=NO_TENANT)
        return Place(head.seq, head.hash)

    async def start_of(self, moment: datetime) -> int | None:
        """Give the place of the first line from a time on; None: there is none yet."""
        return await self._database.read(
            lambda c: chain.first_since(c, moment), tenants=EVERY_TENANT
        )

    async def verify(self, expected: Place | None = None) -> Verdict:
        """Look whether all lines are one chain, and whether it still has an expected one."""
        return await self._database.snapshot(lambda c: _verify(c, expected), tenants=EVERY_TENANT)

    async def drop(self, now: datetime, kept: timedelta) -> int:
        """Drop what was kept long enough; answer how many lines that were."""
        dialect, moment, total = self._database.dialect, now - kept, 0
        while True:
            count = await self._database.write_apart(
                lambda c: chain.drop_before(c, dialect, moment), tenants=EVERY_TENANT
            )
            total += count
            if count < chain.BATCH:
                return total


def _verify(connection: Connection, expected: Place | None) -> Verdict:
    head = chain.read_head(connection)
    seq, line_hash = head.dropped_seq, head.dropped_hash
    seen, first, problems = 0, 0, list[Problem]()
    was_seen = expected is None or expected == (seq, line_hash)
    for line in chain.read_all(connection):
        problem = problem_of(line, seq + 1, line_hash)
        if problem:
            problems.append(Problem(line.seq, problem))
            if len(problems) == MAX_PROBLEMS:
                break
        seq, line_hash, seen = line.seq, line.hash, seen + 1
        first = first or seq
        was_seen = was_seen or expected == (seq, line_hash)
    else:
        if (seq, line_hash) != (head.seq, head.hash):
            what = f"the chain should end with line {head.seq}, and ends here: its end was cut off"
            problems.append(Problem(seq, what))
        if expected is not None and not was_seen:
            problems.append(Problem(expected.seq, _missing(expected, head)))
    return Verdict(first, Place(seq, line_hash), seen, problems)


def _missing(expected: Place, head: chain.Head) -> str:
    if expected.seq < head.dropped_seq:
        return "the expected line was dropped for its age: expect a younger one"
    if expected.seq > head.seq:
        return f"the expected line is not there: the chain ends with line {head.seq}"
    return "the line has another hash than the expected one"
