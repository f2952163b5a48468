"""Callers and watchers that run during a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import Fault, History, Stored, find_faults, read_stored
from .harness import SESSIONS, TIMEOUT_SECONDS, Watcher, Writer, open_channel


class Load(AbstractAsyncContextManager):
    """Callers, each with its own stub, and a watcher of each session.

    At the end of the block callers finish their calls; watchers run until they have received every
    change.
    """

    def __init__(
        self,
        history: History,
        stubs: Sequence[MemoryServiceStub],
        sessions: Sequence[str] = SESSIONS,
    ) -> None:
        self.history = history
        self.watchers: list[Watcher] = []
        self._stubs = stubs
        self._sessions = sessions
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.watchers = [Watcher(self._stubs[0], self.history, name) for name in self._sessions]
        self._writers = [
            asyncio.create_task(
                Writer(f"caller {n}", stub, self.history, self._sessions).run(self._stop)
            )
            for n, stub in enumerate(self._stubs)
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:  # they may retry forever
            for caller in self._writers:
                caller.cancel()
            for watcher in self.watchers:
                watcher.stop()
        await asyncio.gather(*self._writers, return_exceptions=kind is not None)

    async def refusals(self, count: int) -> None:
        """Wait until this many more calls are refused."""
        wanted = self.history.codes.total() + count
        await until(lambda: self.history.codes.total() >= wanted)

    def first_answer(self, moment: float) -> float:
        """Seconds from a moment, of `time.monotonic`, to the end of the first call answered."""
        ends = (c.ended for c in self.history.calls if c.answer is not None and c.ended is not None)
        return min(ended for ended in ends if ended > moment) - moment

    async def stored(self, database_url: str) -> Stored:
        """What is stored, once every watcher has received all of it; call it after the block."""
        stored = await read_stored(database_url)
        for watcher in self.watchers:
            await watcher.until(stored.revisions.get(watcher.watch.session_id, 0))
        return stored

    async def faults(self, database_url: str) -> list[Fault]:
        """The broken promises; call it after the block."""
        stored = await self.stored(database_url)
        return find_faults(self.history, stored.only(self._sessions))


@asynccontextmanager
async def connected(address: str, count: int) -> AsyncIterator[list[MemoryServiceStub]]:
    """Stubs with a connection each, until the end of the block."""
    channels = [open_channel(address) for _ in range(count)]
    try:
        yield [MemoryServiceStub(channel) for channel in channels]
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)
