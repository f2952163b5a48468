"""Reads of a session's rows, from a standby wherever it shows no less than the primary does.

The primary is asked how far the session is, in one statement with all calls that wait. Where the
standby is as far, it gives the rows; else the primary does. So no read is older than what any
server had acknowledged before it began, just as without a standby, whatever the standby's lag and
whichever server the caller came from.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from memoryd.database.backoff import BackOff
from memoryd.database.batch_loader import BatchLoader
from memoryd.domain.errors import MemorydError
from memoryd.sessions.lock import Counters, read_counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.domain.records import Session

T = TypeVar("T")

STANDBY_TIMEOUT_SECONDS = 1.0
"""How long the standby may take, before the primary is asked; at most half the caller's time."""

FIRST_REST_SECONDS = 0.5
LONGEST_REST_SECONDS = 5.0
"""How long a standby that failed is left alone."""

_log = logging.getLogger(__name__)


class SessionReads:
    """Reads of one session each. Methods raise what the primary's Database raises."""

    def __init__(self, primary: Database, standby: Database | None) -> None:
        self._primary = primary
        self._standby = standby
        self._counters: BatchLoader[Session, Counters] = BatchLoader(
            primary, lambda c, wanted: read_counters(c, primary.dialect, wanted)
        )
        self._rest = BackOff(FIRST_REST_SECONDS, LONGEST_REST_SECONDS)
        self._rests_until = 0.0

    async def counters(self, session: Session, *, timeout: float | None) -> Counters | None:
        """How far the session is; None where there is none."""
        return await self._counters.get(session, timeout=timeout)

    async def read(
        self,
        session: Session,
        body: Callable[[Connection], T],
        *,
        timeout: float | None,
        counters: Counters | None = None,
    ) -> T:
        """Run `body` in autocommit where the session is at least as far as `counters`.

        Without them, as far as it is now.
        """
        now, tenants = asyncio.get_running_loop().time, (session.tenant,)
        if self._standby is None or now() < self._rests_until:
            return await self._primary.read(body, tenants=tenants, timeout=timeout)
        end = None if timeout is None else now() + timeout
        counters = counters or await self.counters(session, timeout=timeout)
        limit_seconds = (
            STANDBY_TIMEOUT_SECONDS
            if end is None
            else min(STANDBY_TIMEOUT_SECONDS, (end - now()) / 2)
        )
        if counters is not None:
            found = await self._from_standby(self._standby, session, counters, body, limit_seconds)
            if found is not None:
                return found[0]
        return await self._primary.read(
            body, tenants=tenants, timeout=None if end is None else end - now()
        )

    async def _from_standby(
        self,
        standby: Database,
        session: Session,
        wanted: Counters,
        body: Callable[[Connection], T],
        limit_seconds: float,
    ) -> tuple[T] | None:
        """What the body answers; None where the standby is behind, or does not answer."""

        def as_far(connection: Connection) -> tuple[T] | None:
            # First the counters: what a standby shows only ever grows newer.
            found = read_counters(connection, standby.dialect, [session]).get(session)
            is_behind = (
                found is None
                or found.revision < wanted.revision
                or found.access_revision < wanted.access_revision
            )
            return None if is_behind else (body(connection),)

        was_well = self._rest.is_fresh
        # While one call finds out whether it is back, the others do without it.
        pause = 0.0 if was_well else self._rest.pause()
        self._rests_until = asyncio.get_running_loop().time() + pause
        failures: tuple[type[Exception], ...]
        failures = (MemorydError, DBAPIError, *standby.dialect.driver_errors)
        try:
            found = await standby.read(as_far, tenants=(session.tenant,), timeout=limit_seconds)
        except failures as error:
            if self._rest.is_fresh:
                _log.warning("the primary alone is read, not the standby: %s", error)
                self._rests_until = asyncio.get_running_loop().time() + self._rest.pause()
            return None
        if not was_well:
            _log.info("the standby is read again")
        self._rest.reset()
        self._rests_until = 0.0
        return found
