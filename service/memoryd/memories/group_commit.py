"""Many waiting writes, one transaction.

A transaction takes all that is waiting, and the next one starts as soon as it has committed and
no more arrive: there is no timer, so a lone write does not wait, and a burst shares one commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from memoryd.database.batch_loader import until_quiet
from memoryd.database.tables import schema
from memoryd.domain.errors import DatabaseUnavailable, MemorydError, Overloaded, ShuttingDown
from memoryd.memories.known_sessions import KnownSessions
from memoryd.memories.unit_of_work import UnitOfWork
from memoryd.memories.writes import Store, sessions_of
from memoryd.sessions.count_cache import CountCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.domain.records import Session
    from memoryd.memories.cache import SessionCache
    from memoryd.memories.writes import Outcome, Write

ANALYSE_AFTER = (100, 1_000, 10_000)
"""After how many memories that it has inserted a process has the tables analysed. PostgreSQL's own
turn comes within a minute; until then a plan may read a whole session for each key, and stays."""

MAX_WAIT_SECONDS = 1.0
"""How long a caller's write may have to wait for its transaction, as far as that can be foreseen.
Where more come than can be written, those that are let in are then done well before their
deadlines; else all would wait until theirs had passed, and be written in vain."""

_MEMORY = 0.8
"""How much of what was measured before a transaction still counts after it."""

_log = logging.getLogger(__name__)

_Waiting = tuple["Write", asyncio.Future[Any]]


class GroupCommit:
    """What writes memories in this process, in one transaction after the other.

    A write that the domain refuses fails alone. If the database refuses a transaction, its writes
    are tried again one by one, so that only the one at fault fails. A caller that has gone before
    its write was begun leaves nothing behind.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        notify: Callable[[Iterable[Session]], None],
        cache: SessionCache,
        *,
        queue_limit: int,
        batch_limit: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._notify = notify
        self._cache = cache
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0
        self._coming = 0
        """Writes that are admitted and not submitted."""
        self._arrived = asyncio.Event()
        self._counts = CountCache()
        self._known = KnownSessions()
        self._closing = False
        self._seconds = 0.0
        """What the last large transactions took, the earlier ones counting less."""
        self._written = 0.0
        """How much was in them."""
        self._obstacle: str | None = None
        """Why the last transaction could not be written."""
        self._inserted = 0
        self._analysing: asyncio.Task[None] | None = None
        self._worker = asyncio.create_task(self._work(), name="group commit")

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Have a write come while its request is read, so that those of a bunch see each other.

        Raises Overloaded where a further write would have to wait for too long. What fits into the
        next transaction never does.
        """
        waiting = self._weight + self._coming
        if (
            waiting > self._batch_limit
            and self._written
            and waiting * self._seconds / self._written > MAX_WAIT_SECONDS
        ):
            raise Overloaded(f"{waiting:,} writes are waiting, more than is soon done; try again")
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def submit(self, write: Write) -> Outcome:
        """Return once the write is committed.

        Raises Overloaded, ShuttingDown, what Database raises, and what the domain has against it.
        """
        return await self.begin(write)

    def begin(self, write: Write) -> asyncio.Future[Outcome]:
        """Give a future that is done once the write is committed; cancelled, it may not be.

        Raises Overloaded and ShuttingDown; the rest of what `submit` raises is the future's.
        """
        if self._closing:
            raise ShuttingDown
        weight = _weight(write)
        if self._weight and self._weight + weight > self._queue_limit:
            raise Overloaded(f"{self._weight:,} writes are waiting, the limit; try again")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        self._weight += weight
        self._arrived.set()
        return future

    async def close(self) -> None:
        """Commit what is waiting, and take no more."""
        self._closing = True
        self._arrived.set()
        await self._worker
        if self._analysing is not None:
            await self._analysing

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await until_quiet(lambda: len(self._waiting))
            batch = self._next_batch()
            if batch:
                await self._commit(batch)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting:
            weight = _weight(self._waiting[0][0])
            if batch and size + weight > self._batch_limit:
                break
            write, future = self._waiting.popleft()
            self._weight -= weight
            if not future.done():  # else the caller has gone
                batch.append((write, future))
                size += weight
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        begun = time.perf_counter()
        try:
            outcomes = await self._transaction([write for write, _ in batch])
        except DatabaseUnavailable as error:
            self._note(error.cause)
            # What waits behind these would only wait for the same.
            for _, future in (*batch, *self._waiting):
                _settle(future, error)
        except MemorydError as error:
            for _, future in batch:
                _settle(future, error)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to one of the callers
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for item in batch:
                await self._commit([item])
        else:
            self._note(None)
            self._measure(sum(_weight(write) for write, _ in batch), time.perf_counter() - begun)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                _settle(future, outcome)

    def _measure(self, written: int, seconds: float) -> None:
        """Learn from a transaction how soon others are done."""
        if 2 * written > self._batch_limit:  # small ones say little of what large ones take
            self._seconds = self._seconds * _MEMORY + seconds
            self._written = self._written * _MEMORY + written

    def _note(self, obstacle: str | None) -> None:
        """Log for the operator what callers do not see: a full disk, a lock; and its end."""
        if obstacle == self._obstacle:
            return
        self._obstacle = obstacle
        if obstacle is None:
            _log.info("writing again")
        else:
            _log.warning("nothing can be written: %s", obstacle)

    async def _transaction(self, writes: Sequence[Write]) -> Sequence[Outcome | MemorydError]:
        def body(connection: Connection) -> tuple[list[Outcome | MemorydError], UnitOfWork]:
            plan = UnitOfWork(
                connection, self._database.dialect, self._clock(), self._counts, self._known
            )
            return plan.apply(writes), plan

        concerned = {s for write in writes for s in sessions_of(write)}
        watched = self._cache.watch(concerned)
        try:
            outcomes, plan = await self._database.write(body)
        except MemorydError:
            raise
        except Exception:
            # Such as the unique index's, where the database has gone back to an earlier state.
            if not self._known.forget(concerned):
                raise
            outcomes, plan = await self._database.write(body)
        plan.remember()
        for news in plan.news:
            self._cache.take_in(watched.get(news.session), news)
        self._notify(plan.changed)
        before, self._inserted = self._inserted, self._inserted + plan.inserted
        if any(before < count <= self._inserted for count in ANALYSE_AFTER):
            self._analysing = asyncio.create_task(self._analyse(), name="analyse")
        return outcomes

    async def _analyse(self) -> None:
        dialect, tables = self._database.dialect, list(schema.sorted_tables)
        with suppress(MemorydError):  # it only makes some reads faster
            await self._database.read(lambda connection: dialect.analyse(connection, tables))


def _weight(write: Write) -> int:
    return len(write.items) if isinstance(write, Store) else 1


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
