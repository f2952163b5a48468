"""Many waiting look-ups, one statement.

A statement takes all that is waiting, and the next one starts as soon as it has answered and no
more arrive, without a timer: a lone look-up does not wait, and a burst shares round trips.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from memoryd.database.fair_queue import FairQueue
from memoryd.database.tenancy import MAX_TENANTS
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection

    from memoryd.database.engine import Database

K = TypeVar("K", bound=tuple[str, ...])
T = TypeVar("T")

GROUP_LIMIT = 500
"""Keys of one statement."""

EMPTY_TURNS = 6
"""Turns in a row that bring nothing, after which waiting ends: gRPC hands over calls one by one,
not one each turn."""

MAX_TURNS = 64
"""So that a stream of arrivals without a gap does not delay the first."""


async def until_quiet(count: Callable[[], int]) -> None:
    """Let the event loop turn for as long as that raises the count.

    Work shared by all that waits costs each the less the more they are; one that waits alone is
    held up by a few turns, some microseconds each.
    """
    before = count()
    empty = 0
    for _ in range(MAX_TURNS):
        await asyncio.sleep(0)
        now = count()
        empty = 0 if now > before else empty + 1
        if empty == EMPTY_TURNS:
            return
        before = now


class BatchLoader(Generic[K, T]):
    """Looks things up by keys that begin with a tenant.

    What is found was true after the call was made. Tenants take turns.
    """

    def __init__(
        self, database: Database, read: Callable[[Connection, Collection[K]], Mapping[K, T]]
    ) -> None:
        """`read` finds those of some different keys that there are."""
        self._database = database
        self._read = read
        self._waiting: dict[K, list[asyncio.Future[T | None]]] = {}
        self._keys: FairQueue[K] = FairQueue()
        """Of those, so that no tenant has to wait for all that another looks up."""
        self._timeouts: list[float | None] = []
        self._under_way: asyncio.Task[None] | None = None

    async def get(self, key: K, *, timeout: float | None) -> T | None:
        """What there is at `key`; None where there is nothing. Raises what Database raises."""
        # One each: who is cancelled takes nothing from others.
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = []
            self._keys.add(key[0], key, 1)
        waiting.append(future)
        self._timeouts.append(timeout)
        if self._under_way is None:
            self._under_way = asyncio.create_task(
                self._work(), name="group read", context=spans.detached()
            )
        with self._database.traced_read():
            return await future

    async def _work(self) -> None:
        """Read until nothing is waiting."""
        try:
            while self._waiting:
                await until_quiet(lambda: len(self._timeouts))
                await self._read_next()
        finally:
            self._under_way = None

    async def _read_next(self) -> None:
        keys = self._keys.take(GROUP_LIMIT, most_tenants=MAX_TENANTS)
        group = {key: self._waiting.pop(key) for key in keys}
        # The most patient one's; the others are cancelled when their time is over.
        timeouts, self._timeouts = self._timeouts, self._timeouts if self._waiting else []
        limit = None if None in timeouts else max(filter(None, timeouts), default=0.0)
        try:
            found = await self._database.read(
                lambda c: self._read(c, group.keys()),
                tenants={key[0] for key in group},
                timeout=limit,
            )
        except Exception as error:  # noqa: BLE001  it is each caller's
            for futures in group.values():
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
            return
        for key, futures in group.items():
            for future in futures:
                if not future.done():
                    future.set_result(found.get(key))
