"""Many waiting look-ups, one statement.

A statement takes all that is waiting, and the next one starts as soon as it has answered, without a
timer: a lone look-up waits for nobody, and a burst shares its round trips.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection

    from memoryd.storage.database import Database

K = TypeVar("K")
T = TypeVar("T")

GROUP_LIMIT = 500
"""Keys of one statement."""


class GroupRead(Generic[K, T]):
    """Looks things up by key. What is found was true after the call was made."""

    def __init__(
        self, database: Database, read: Callable[[Connection, Collection[K]], Mapping[K, T]]
    ) -> None:
        """`read` finds those of some different keys that there are."""
        self._database = database
        self._read = read
        self._waiting: dict[K, list[asyncio.Future[T | None]]] = {}
        self._timeouts: list[float | None] = []
        self._under_way: asyncio.Task[None] | None = None
        self._starting = False

    async def get(self, key: K, *, timeout: float | None) -> T | None:
        """What there is at `key`; None where there is nothing. Raises what Database raises."""
        loop = asyncio.get_running_loop()
        # One each: who is cancelled takes nothing from others.
        future: asyncio.Future[T | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        self._timeouts.append(timeout)
        if not self._starting and self._under_way is None:
            # Whoever else asks in this turn of the loop comes along.
            self._starting = True
            loop.call_soon(self._start)
        return await future

    def _start(self) -> None:
        self._starting = False
        keys = list(self._waiting)[:GROUP_LIMIT]
        group = {key: self._waiting.pop(key) for key in keys}
        # The most patient one's; the others are cancelled when their time is over.
        timeouts, self._timeouts = self._timeouts, self._timeouts if self._waiting else []
        patience = None if None in timeouts else max(filter(None, timeouts), default=0.0)
        self._under_way = asyncio.create_task(self._settle(group, patience), name="group read")
        self._under_way.add_done_callback(self._ended)

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._under_way = None
        if self._waiting:
            self._start()

    async def _settle(
        self, group: Mapping[K, list[asyncio.Future[T | None]]], timeout: float | None
    ) -> None:
        try:
            found = await self._database.read(
                lambda c: self._read(c, group.keys()), timeout=timeout
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
