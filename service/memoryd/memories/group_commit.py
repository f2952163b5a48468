"""Many waiting writes, one transaction.

A transaction takes all that is waiting, and the next one starts as soon as it has committed and
no more arrive: there is no timer, so a lone write does not wait, and a burst shares one commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from memoryd.database.batch_loader import until_quiet
from memoryd.database.fair_places import FairPlaces
from memoryd.database.fair_queue import QUANTUM, FairQueue
from memoryd.database.tables import schema
from memoryd.database.tenancy import MAX_TENANTS, NO_TENANT
from memoryd.domain.errors import DatabaseUnavailable, MemorydError, Overloaded, ShuttingDown
from memoryd.memories.known_sessions import KnownSessions
from memoryd.memories.ranker import Ranker
from memoryd.memories.unit_of_work import UnitOfWork
from memoryd.memories.writes import Store, is_large, sessions_of, tenant_of, weight_of
from memoryd.telemetry import spans
from memoryd.telemetry.instruments import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.domain.quotas import Quotas
    from memoryd.domain.records import Session, Stored
    from memoryd.memories.cache import SessionCache
    from memoryd.memories.writes import Outcome, Write
    from memoryd.telemetry.instruments import Instruments

ANALYSE_AFTER = (100, 1_000, 10_000)
"""After how many rows of a kind that it has inserted a process has the tables analysed.

PostgreSQL's own turn comes within a minute; until then a plan may read a whole session for each
key, and stays. So it is with a table that was empty when another one had become large."""

MAX_WAIT_SECONDS = 1.0
"""How long a caller's write may have to wait for its transaction, as far as that can be foreseen.
Where more come than can be written, those that are let in are then done well before their
deadlines; else all would wait until theirs had passed, and be written in vain."""

LARGE_WRITES = 2
"""How many large writes are in a transaction, or next for one; others wait in a line of their own.
Many of them take seconds, in which small writes that come later would wait, or be refused."""

_MEMORY = 0.8
"""How much of what was measured before a transaction still counts after it."""

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    write: Write
    future: asyncio.Future[Any]
    traced: spans.Part | None
    """The call that it is a part of, if that is traced."""
    since: int
    """When it began to wait, if it is."""


class GroupCommit:
    """What writes memories and documents in this process, in one transaction after the other.

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
        quotas_of: Callable[[str], Quotas],
        turns: asyncio.Semaphore,
        instruments: Instruments = SILENT,
    ) -> None:
        """`quotas_of` gives those of a tenant; `turns` bounds the transactions of all of a kind."""
        self._turns = turns
        self._instruments = instruments
        self._quotas_of = quotas_of
        self._database = database
        self._clock = clock
        self._notify = notify
        self._cache = cache
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._large = FairPlaces(LARGE_WRITES)
        """For large writes, so that small ones do not wait for many of them."""
        self._coming: Counter[str] = Counter()
        """Writes that are admitted and not submitted, by tenant."""
        self._all_coming = 0
        self._arrived = asyncio.Event()
        self._known = KnownSessions()
        self._ranker = Ranker(database, clock)
        self._closing = False
        self._seconds = 0.0
        """What the last large transactions took, the earlier ones counting less."""
        self._written = 0.0
        """How much was in them."""
        self._obstacle: str | None = None
        """Why the last transaction could not be written."""
        self._inserted: Counter[str] = Counter()
        """By kind."""
        self._analysing: asyncio.Task[None] | None = None
        self._worker = asyncio.create_task(self._work(), name="group commit")

    @property
    def all_waiting(self) -> int:
        """How much waits for its transaction, by weight."""
        return self._waiting.weight + self._large.line.weight

    def waiting(self, tenant: str) -> int:
        """How many writes of a tenant wait for their transaction, by weight."""
        return self._waiting.weight_of(tenant) + self._large.line.weight_of(tenant)

    def check(self, tenant: str, *, others: int = 0) -> None:
        """Raise Overloaded where a further write of a tenant would have to wait for too long.

        What fits into the next transaction never does. `others`: how many are on their way to here
        besides those admitted.
        """
        coming = self._coming
        own = self._waiting.weight_of(tenant) + coming[tenant]
        # Until all of it is written, no other tenant gets further than a turn ahead of it.
        turns = (own + QUANTUM) * max(self._waiting.tenants + 1, len(coming) + 1)
        self._check_wait(min(self._waiting.weight + self._all_coming + others, turns))

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Have a write come while its request is read, so that those of a bunch see each other.

        Raises what `check` raises.
        """
        self.check(tenant)
        coming = self._coming
        coming[tenant] += 1
        self._all_coming += 1
        try:
            yield
        finally:
            self._all_coming -= 1
            coming[tenant] -= 1
            if not coming[tenant]:
                del coming[tenant]

    async def submit(self, write: Write) -> Outcome:
        """Return once the write is committed.

        Raises Overloaded, ShuttingDown, what Database raises, and what the domain has against it.
        """
        if not is_large(write):
            return await self.begin(write)
        weight, tenant = weight_of(write), tenant_of(write)
        self._check_room(self._large.line, tenant, weight)
        since = spans.now()
        async with self._large.place(tenant, weight):
            return await self.begin(write, since=since)

    def begin(self, write: Write, *, since: int = 0) -> asyncio.Future[Outcome]:
        """Give a future that is done once the write is committed; cancelled, it may not be.

        `since`: when it began to wait, if that was before.

        Raises Overloaded and ShuttingDown; the rest of what `submit` raises is the future's.
        """
        if self._closing:
            raise ShuttingDown
        weight, tenant = weight_of(write), tenant_of(write)
        self._check_room(self._waiting, tenant, weight)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        traced = spans.current()
        if traced is not None:
            since = since or spans.now()
        self._waiting.add(tenant, _Waiting(write, future, traced, since), weight)
        self._arrived.set()
        return future

    def _check_wait(self, waiting: int) -> None:
        """Raise Overloaded where so much, by weight, is more than is soon written."""
        if (
            waiting > self._batch_limit
            and self._written
            and waiting * self._seconds / self._written > MAX_WAIT_SECONDS
        ):
            raise Overloaded(f"{waiting:,} writes are waiting, more than is soon done; try again")

    def _check_room(self, waiting: FairQueue[Any], tenant: str, weight: int) -> None:
        """Raise Overloaded where too much waits for a further write."""
        if waiting.weight and waiting.weight + weight > self._queue_limit:
            # A tenant that has waiting less than its share is let in all the same.
            own, share = waiting.weight_of(tenant), self._queue_limit // (waiting.tenants + 1)
            if own + weight > share:
                raise Overloaded(f"{waiting.weight:,} writes are waiting, the limit; try again")

    async def close(self) -> None:
        """Commit what is waiting, and take no more."""
        self._closing = True
        self._arrived.set()
        await self._worker
        await self._ranker.close()
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
            async with self._turns:
                await until_quiet(lambda: len(self._waiting))
                batch = self._next_batch()
                if batch:
                    await self._commit(batch)

    def _next_batch(self) -> list[_Waiting]:
        taken = self._waiting.take(self._batch_limit, most_tenants=MAX_TENANTS)
        return [item for item in taken if not item.future.done()]  # else the caller has gone

    async def _commit(self, batch: list[_Waiting]) -> None:
        begun, begun_at = time.perf_counter(), spans.now()
        try:
            outcomes = await self._transaction([item.write for item in batch])
        except DatabaseUnavailable as error:
            self._note(error.cause)
            # What waits behind these would only wait for the same.
            for item in (*batch, *self._waiting):
                _settle(item.future, error)
            self._large.turn_away(error)
        except MemorydError as error:
            for item in batch:
                _settle(item.future, error)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to one of the callers
            if len(batch) == 1:
                _settle(batch[0].future, error)
                return
            for item in batch:
                await self._commit([item])
        else:
            self._note(None)
            written = sum(weight_of(item.write) for item in batch)
            self._measure(written, time.perf_counter() - begun)
            self._count(batch, outcomes)
            self._trace(batch, written, begun_at)
            for item, outcome in zip(batch, outcomes, strict=True):
                _settle(item.future, outcome)

    def _measure(self, written: int, seconds: float) -> None:
        """Learn from a transaction how soon others are done."""
        self._instruments.write_seconds.observe(seconds)
        self._instruments.write_items.observe(written)
        if 2 * written > self._batch_limit:  # small ones say little of what large ones take
            self._seconds = self._seconds * _MEMORY + seconds
            self._written = self._written * _MEMORY + written

    def _count(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome | MemorydError]) -> None:
        """Count the memories that were stored."""
        instruments = self._instruments
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(item.write, Store) and not isinstance(outcome, MemorydError):
                tenant = instruments.told_apart(tenant_of(item.write))
                for stored in cast("tuple[Stored, ...]", outcome):
                    if not stored.is_again:
                        instruments.stores.add(1, stored.outcome.value, tenant)

    def _trace(self, batch: Sequence[_Waiting], written: int, begun: int) -> None:
        """Note in each call that is traced how long it waited, and the transaction it shared."""
        ended = 0
        name, attributes = self._database.traced_transaction
        for item in batch:
            if item.traced is None:
                continue
            ended = ended or spans.now()
            about: spans.Attributes = {
                **attributes,
                "memoryd.write_transaction.items": written,
            }
            item.traced.note(spans.QUEUE, {}, begun=item.since, ended=begun)
            item.traced.note(name, about, begun=begun, ended=ended, is_database=True)

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
        unranked: dict[Session, float] = {}
        absent: set[Session] = set()

        def body(connection: Connection) -> tuple[list[Outcome | MemorydError], UnitOfWork]:
            plan = UnitOfWork(
                connection,
                self._database.dialect,
                self._clock(),
                self._known,
                quotas_of=self._quotas_of,
                on_unranked=unranked.update,
                absent=absent,
            )
            return plan.apply(writes), plan

        concerned = {s for write in writes for s in sessions_of(write)}
        tenants = {session.tenant for session in concerned}
        watched = self._cache.watch(concerned)
        try:
            outcomes, plan = await self._database.commit(body, tenants=tenants)
        except MemorydError:
            raise
        except Exception:
            # Such as the unique index's, where the database has gone back to an earlier state.
            if not self._known.forget(concerned):
                raise
            outcomes, plan = await self._database.commit(body, tenants=tenants)
        finally:
            if unranked:
                self._ranker.rank(unranked)
        plan.remember()
        for news in plan.news:
            self._cache.take_in(watched.get(news.session), news)
        self._notify(plan.changed)
        before, inserted = self._inserted.copy(), self._inserted
        inserted.update(plan.inserted)
        if any(before[kind] < n <= inserted[kind] for kind in inserted for n in ANALYSE_AFTER):
            self._analysing = asyncio.create_task(self._analyse(), name="analyse")
        return outcomes

    async def _analyse(self) -> None:
        dialect, tables = self._database.dialect, list(schema.sorted_tables)
        with suppress(MemorydError):  # it only makes some reads faster
            await self._database.read(
                lambda connection: dialect.analyse(connection, tables), tenants=NO_TENANT
            )


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
