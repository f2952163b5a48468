"""Many waiting look-ups, one statement.

A statement takes all that is waiting, and the next one starts as soon as it has answered and no
more arrive, without a timer: a lone look-up does not wait, and a burst shares round trips.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from memoryd.database.quiet import until_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection

    from memoryd.database.engine import Database

K = TypeVar("K")
T = TypeVar("T")

GROUP_LIMIT = 500
"""Keys of one statement."""


class BatchLoader(Generic[K, T]):
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

    async def get(self, key: K, *, timeout: float | None) -> T | None:
        """What there is at `key`; None where there is nothing. Raises what Database raises."""
        # One each: who is cancelled takes nothing from others.
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        self._timeouts.append(timeout)
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._work(), name="group read")
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
        keys = list(self._waiting)[:GROUP_LIMIT]
        group = {key: self._waiting.pop(key) for key in keys}
        # The most patient one's; the others are cancelled when their time is over.
        timeouts, self._timeouts = self._timeouts, self._timeouts if self._waiting else []
        limit = None if None in timeouts else max(filter(None, timeouts), default=0.0)
        try:
            found = await self._database.read(lambda c: self._read(c, group.keys()), timeout=limit)
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
