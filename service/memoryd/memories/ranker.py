"""Ranks for eviction behind the stores: of sessions where many memories have none yet.

That is so once a session is half full, after many were brought in at once, and after the half-life
was changed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from memoryd.domain.errors import MemorydError
from memoryd.memories.eviction import Ranking
from memoryd.memories.session_changes import SessionWork
from memoryd.sessions.lock import lock_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.database.engine import Database
    from memoryd.domain.records import Session

PAUSE_SECONDS = 0.05
"""Between two transactions, for the writers that wait."""

_log = logging.getLogger(__name__)


class Ranker:
    """Ranks sessions one after the other, in small transactions."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._due: dict[Session, float] = {}
        """With the half-life of their ranks."""
        self._task: asyncio.Task[None] | None = None

    def rank(self, due: Mapping[Session, float]) -> None:
        """Rank all memories of sessions soon, for these half-lives."""
        self._due |= due
        if self._due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(), name="ranks")

    async def close(self) -> None:
        """Leave what is not ranked to the next store."""
        self._due = {}
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        while self._due:
            session, half_life_days = next(iter(self._due.items()))
            try:
                done = await self._rank_some(session, half_life_days)
            except MemorydError as error:
                _log.warning("memories not ranked: %s", error, extra={"tenant": session.tenant})
                done = True  # the next store to the session begins again
            if done:
                self._due.pop(session, None)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _rank_some(self, session: Session, half_life_days: float) -> bool:
        def body(connection: Connection) -> bool:
            dialect = self._database.dialect
            return rank_some(connection, dialect, session, half_life_days, self._clock())

        return await self._database.write_apart(body, tenants=(session.tenant,))


def rank_some(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    half_life_days: float,
    now: datetime,
) -> bool:
    """Rank the next memories of a session; whether that was all."""
    found = lock_sessions(connection, dialect, [session]).get(session)
    if found is None:
        return True  # erased
    ranking = Ranking(connection, dialect, now)
    work = SessionWork(session, found, now)
    ranking.open(work)
    ranking.begin(work, half_life_days)
    ranking.rank_next([work])
    ranking.save([work])
    return work.is_ranked
