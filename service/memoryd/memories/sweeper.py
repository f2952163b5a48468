"""The sweeper: announces what expired, retires what is not used, and gives space back.

Readers never see what it has yet to sweep. Every step is a small transaction of its own, so a crash
in its middle harms nothing, and only one process sweeps at a time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from memoryd.conversations.removal import expired as expired_conversations
from memoryd.conversations.writes import ExpireConversation
from memoryd.database.tables import (
    conversation_history,
    conversation_requests,
    document_history,
    document_requests,
    memory_history,
    sessions,
    store_receipts,
    store_requests,
)
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.documents.removal import expired as expired_documents
from memoryd.documents.writes import ExpireDocument
from memoryd.domain.errors import MemorydError
from memoryd.domain.records import Change, Session
from memoryd.memories import deletion as removal
from memoryd.memories.unit_of_work import UnitOfWork
from memoryd.memories.writes import Expire, Retire
from memoryd.sessions import retention
from memoryd.sessions.counting import Portion, fill_counts
from memoryd.telemetry.instruments import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from memoryd.database.engine import Database
    from memoryd.sessions.usage import TenantUsage
    from memoryd.telemetry.instruments import Counter

BATCH = 500
"""Rows that one transaction takes."""

CONVERSATIONS_AT_ONCE = 50
"""Conversations that one transaction removes, with their messages."""

KEPT_FOR_RETRIES = timedelta(hours=48)
"""How long a `request_id` is remembered; the contract promises 24 hours."""

KEPT_HISTORY = timedelta(hours=24)
"""How long superseded versions and purges are kept for watches that resume."""

THOROUGH_SECONDS = 3600.0
"""Between two runs of all steps; what expires is looked for more often."""

REQUESTS = (store_receipts, store_requests, document_requests, conversation_requests)
"""Tables of request ids."""

HISTORIES = (
    retention.History(
        memory_history,
        is_gone=memory_history.c.change == Change.PURGED.value,
        horizon=sessions.c.horizon,
    ),
    retention.History(
        document_history,
        is_gone=document_history.c.kind.is_(None),
        horizon=sessions.c.document_horizon,
    ),
    retention.History(
        conversation_history,
        is_gone=conversation_history.c.change.is_not(None),
        horizon=sessions.c.conversation_horizon,
    ),
)

LOCK_KEY = 0x6D656D6F72796400
"""Of the lock between processes: `memoryd` in ASCII, and 0."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """How much each step took."""

    expired: int = 0
    expired_documents: int = 0
    expired_conversations: int = 0
    retired: int = 0
    purged: int = 0
    requests: int = 0
    history: int = 0
    recounted: int = 0
    """Tenants whose usage was counted."""
    counted: int = 0
    """Sessions whose rows did not say what they hold."""


class Sweeper:
    """Sweeps one database.

    `clock` asks for the time on a connection; `cleanup_days` reads on one those of tenants in
    general, and of each that has its own; `notify` is called with the sessions that changed.
    """

    def __init__(
        self,
        database: Database,
        notify: Callable[[Iterable[Session]], None],
        *,
        clock: Callable[[Connection], datetime],
        cleanup_days: Callable[[Connection], tuple[int, Mapping[str, int]]],
        retention: timedelta,
        usage: TenantUsage,
        swept: Counter = SILENT.swept,
    ) -> None:
        self._swept = swept
        self._usage = usage
        self._database = database
        self._notify = notify
        self._clock = clock
        self._cleanup_days = cleanup_days
        self._retention = retention

    async def run(self, interval_seconds: float) -> None:
        """Sweep again and again, until cancelled."""
        thorough_at = time.monotonic()
        while True:
            try:
                if time.monotonic() >= thorough_at:
                    await self.run_once()
                    thorough_at = time.monotonic() + THOROUGH_SECONDS
                else:
                    await self._expire_all()
                    await self._usage.recount_due()
                    await self._database.scrub()
            except MemorydError as error:
                _log.warning("not swept: %s", error)
            except Exception:  # noqa: BLE001  a sweep that fails is no reason to sweep no more
                _log.exception("unhandled exception while sweeping; the next sweep is tried")
            await asyncio.sleep(interval_seconds)

    async def run_once(self) -> Swept:
        """Take every step until nothing is left for it. Raises what Database raises.

        The last one is what an erasure that was cut short still owes.
        """
        swept = Swept(
            **await self._expire_all(),
            retired=await self._repeat("unused_memory", self._retire),
            purged=await self._repeat("purged_memory", self._purge),
            requests=await self._repeat_for("request", "table", self._drop_requests, REQUESTS),
            history=await self._repeat_for("history", "history", self._drop_history, HISTORIES),
            recounted=await self._usage.recount_due(),
            counted=await self._count_sessions(),
        )
        counts = dataclasses.asdict(swept)
        if any(counts.values()):
            _log.info("swept", extra=counts)
        await self._database.scrub()
        return swept

    async def _expire_all(self) -> dict[str, int]:
        """Take the steps that announce what has expired."""
        return {
            "expired": await self._repeat("expired_memory", self._expire),
            "expired_documents": await self._repeat("expired_document", self._expire_documents),
            "expired_conversations": await self._repeat(
                "expired_conversation", self._expire_conversations, CONVERSATIONS_AT_ONCE
            ),
        }

    async def _repeat(
        self,
        kind: str,
        step: Callable[[Connection, datetime], tuple[int, Iterable[Session]]],
        batch: int = BATCH,
    ) -> int:
        def body(connection: Connection) -> tuple[int, Iterable[Session]]:
            if not self._database.dialect.try_lock(connection, LOCK_KEY):
                return 0, ()  # another process is at it
            return step(connection, self._clock(connection))

        total = 0
        while True:
            count, changed = await self._database.write(body, tenants=EVERY_TENANT)
            self._notify(changed)
            self._swept.add(count, kind)
            total += count
            if count < batch:
                return total

    async def _count_sessions(self) -> int:
        """Count what sessions hold whose rows do not say it."""
        dialect, counted, after = self._database.dialect, 0, None

        def body(connection: Connection, after: Session | None) -> Portion:
            if not dialect.try_lock(connection, LOCK_KEY):
                return Portion(0, None)
            return fill_counts(connection, dialect, after, self._clock(connection))

        while True:
            portion = await self._database.write(
                functools.partial(body, after=after), tenants=EVERY_TENANT
            )
            counted += portion.counted
            if portion.last is None:
                return counted
            after = portion.last

    async def _repeat_for(
        self,
        kind: str,
        name: str,
        step: Callable[..., tuple[int, Iterable[Session]]],
        items: Iterable[object],
    ) -> int:
        """Repeat a step for each of some items, which it takes by this name."""
        return sum([await self._repeat(kind, partial(step, **{name: item})) for item in items])

    def _expire(self, connection: Connection, now: datetime) -> tuple[int, Iterable[Session]]:
        found = removal.expired(connection, now, BATCH)
        plan = UnitOfWork(connection, self._database.dialect, now)
        plan.apply([Expire(Session(tenant, session_id), i) for tenant, session_id, i in found])
        return len(found), plan.changed

    def _retire(self, connection: Connection, now: datetime) -> tuple[int, Iterable[Session]]:
        dialect = self._database.dialect
        general, special = self._cleanup_days(connection)
        since = now - timedelta(days=general)
        others = removal.tenants_but(dialect, special)
        found = [(key, since) for key in removal.unused(connection, since, now, BATCH, of=others)]
        # Together where they have the same: most of many tenants do.
        for days in sorted(set(special.values())):
            since = now - timedelta(days=days)
            tenants = [tenant for tenant, own in special.items() if own == days]
            of, room = removal.tenants_among(dialect, tenants), BATCH - len(found)
            some = removal.unused(connection, since, now, room, of=of)
            found += [(key, since) for key in some]
        plan = UnitOfWork(connection, dialect, now)
        plan.apply(
            [Retire(Session(t, session_id), i, since) for (t, session_id, i), since in found]
        )
        return len(found), plan.changed

    def _purge(self, connection: Connection, now: datetime) -> tuple[int, Iterable[Session]]:
        before = now - self._retention
        found = removal.deleted(connection, before, BATCH)
        purged = removal.purge(
            connection, self._database.dialect, found, now, deleted_before=before
        )
        return len(found), {Session(tenant, session_id) for tenant, session_id, _ in purged}

    def _expire_documents(
        self, connection: Connection, now: datetime
    ) -> tuple[int, Iterable[Session]]:
        found = expired_documents(connection, now, BATCH)
        plan = UnitOfWork(connection, self._database.dialect, now)
        plan.apply([ExpireDocument(session, name) for session, name in found])
        return len(found), plan.changed

    def _expire_conversations(
        self, connection: Connection, now: datetime
    ) -> tuple[int, Iterable[Session]]:
        found = expired_conversations(connection, now, CONVERSATIONS_AT_ONCE)
        plan = UnitOfWork(connection, self._database.dialect, now)
        plan.apply([ExpireConversation(named) for named in found])
        return len(found), plan.changed

    def _drop_requests(
        self, connection: Connection, now: datetime, *, table: Table
    ) -> tuple[int, Iterable[Session]]:
        before = now - KEPT_FOR_RETRIES
        dialect = self._database.dialect
        return retention.drop_requests(connection, dialect, table, before, BATCH), ()

    def _drop_history(
        self, connection: Connection, now: datetime, *, history: retention.History
    ) -> tuple[int, Iterable[Session]]:
        before = now - KEPT_HISTORY
        dialect = self._database.dialect
        return retention.drop_history(connection, dialect, history, before, BATCH), ()
