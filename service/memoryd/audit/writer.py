"""Writes lines of the audit: those that wait share a transaction.

As for memories (`memories/group_commit.py`) there is no timer. Apart from those, so that a call
need not wait for others' writes to be recorded, nor they for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from memoryd.audit import chain
from memoryd.database.backoff import BackOff
from memoryd.database.batch_loader import until_quiet
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.errors import AuditUnavailable, MemorydError
from memoryd.sessions.refs import ensure_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.audit.chain import Head
    from memoryd.database.engine import Database
    from memoryd.domain.audit import Event

BATCH_LIMIT = 500
"""Lines of one transaction."""

QUEUE_LIMIT = 10_000
"""Lines that wait while they cannot be written; those beyond it are lost, which the log says."""

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
"""Before lines that could not be written are tried again."""

_log = logging.getLogger(__name__)

_Waiting = tuple["Event", "asyncio.Future[None] | None"]
"""A line, and who waits for it, if anyone does."""


class _Attempt(NamedTuple):
    """A transaction of which it is not known whether it was committed."""

    end: Head
    """Of the chain, if it was."""
    events: Sequence[Event]


class AuditWriter:
    """What writes lines in this process, in one transaction after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Waiting] = deque()
        self._writing: Sequence[_Waiting] = ()
        """What the transaction under way writes."""
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set where somebody waits for a line."""
        self._keys: dict[str, bytes] = {}
        self._closing = False
        self._attempts: list[_Attempt] = []
        self._done: dict[int, Event] = {}
        """Events of attempts that were committed after all, by `id`."""
        self._obstacle: str | None = None
        self._lost = 0
        """Lines that were lost since lines could last be written."""
        self._worker = asyncio.create_task(self._work(), name="audit")

    @property
    def oldest(self) -> datetime | None:
        """Of when the oldest line is that is not written; None: all are."""
        first = self._writing or self._waiting
        return first[0][0].time if first else None

    async def write(self, event: Event) -> None:
        """Return once the line is committed. Raises AuditUnavailable; then it may be all the same.

        Where lines cannot be written just now, it is tried at once all the same.
        """
        if self._closing or len(self._waiting) >= QUEUE_LIMIT:
            raise AuditUnavailable
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        self._arrived.set()
        self._urgent.set()
        await future

    def add(self, event: Event) -> None:
        """Have a line written soon. Where too many wait it is lost, and counted."""
        if len(self._waiting) >= QUEUE_LIMIT:
            self._lose(1)
            return
        self._waiting.append((event, None))
        self._arrived.set()

    async def close(self) -> None:
        """Write what is waiting, as far as that is possible, and take no more."""
        self._closing = True
        self._arrived.set()
        self._urgent.set()
        await self._worker

    async def _work(self) -> None:
        back_off = BackOff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await until_quiet(lambda: len(self._waiting))
            was_closing = self._closing
            self._urgent.clear()
            if await self._write_next():
                back_off.reset()
            elif was_closing:
                lost = self._lost + len(self._waiting)
                if lost:
                    _log.warning("the audit ends before it is written", extra={"lost_lines": lost})
                return
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(back_off.pause()):
                        await self._urgent.wait()

    async def _write_next(self) -> bool:
        """Write the first lines that wait; answer whether they are written."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))]
        batch = [item for item in batch if item[1] is None or not item[1].done()]
        if not batch:
            return True
        self._writing = batch
        try:
            await self._commit([event for event, _ in batch])
        except Exception as error:  # noqa: BLE001  whatever it is, nothing may be lost for it
            self._fail(batch, error)
            return False
        finally:
            self._writing = []
        self._note_success()
        for _, future in batch:
            if future is not None and not future.done():
                future.set_result(None)
        return True

    async def _commit(self, events: Sequence[Event]) -> None:
        tenants = {event.tenant for event in events if event.sessions}
        dialect = self._database.dialect

        def body(connection: Connection) -> dict[str, bytes]:
            head = chain.lock_head(connection, dialect)
            self._resolve_attempts(connection)
            missing = [event for event in events if id(event) not in self._done]
            if not missing:
                return {}
            keys = {
                tenant: self._keys.get(tenant) or ensure_key(connection, dialect, tenant)
                for tenant in tenants
            }
            end = chain.append(connection, dialect, head, missing, keys)
            self._attempts.append(_Attempt(end, missing))
            return keys

        self._keys |= await self._database.write_apart(body, tenants=EVERY_TENANT)
        self._attempts.clear()
        self._done.clear()

    def _resolve_attempts(self, connection: Connection) -> None:
        """Find out what was committed although its commit seemed to fail."""
        for attempt in self._attempts:
            if chain.has(connection, attempt.end.seq, attempt.end.hash):
                self._done |= {id(event): event for event in attempt.events}
        self._attempts.clear()

    def _fail(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Tell those who wait, and keep the other lines to try them again."""
        obstacle = type(error).__name__
        defect: Exception | None = error
        if isinstance(error, MemorydError):
            obstacle, defect = error.for_operator, None
        if obstacle != self._obstacle:
            self._obstacle = obstacle
            _log.warning("the audit cannot be written: %s", obstacle, exc_info=defect)
        kept: deque[_Waiting] = deque()
        for item in (*batch, *self._waiting):
            future = item[1]
            if future is None:
                kept.append(item)
            elif not future.done():
                future.set_exception(AuditUnavailable())
        excess = max(len(kept) - QUEUE_LIMIT, 0)
        for _ in range(excess):
            kept.pop()
        self._waiting = kept
        self._lose(excess)

    def _note_success(self) -> None:
        """Log for the operator the end of what kept lines from being written."""
        if self._obstacle is not None or self._lost:
            _log.warning("the audit is written again", extra={"lost_lines": self._lost})
            self._obstacle, self._lost = None, 0

    def _lose(self, count: int) -> None:
        if count and not self._lost:
            _log.warning("lines of the audit are lost: too many cannot be written")
        self._lost += count
