"""Callers and watchers that go on for as long as a block does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import Fault, History, judge, read_stored
from .harness import PATIENCE_SECONDS, Watcher, Writer

SESSIONS = tuple(f"user-{number}" for number in range(3))


class Load(AbstractAsyncContextManager):
    """Callers, each with a stub of its own, and a watcher of each session."""

    def __init__(self, history: History, stubs: Sequence[MemoryServiceStub]) -> None:
        self.history = history
        self._stubs = stubs
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._watchers = [Watcher(self._stubs[0], self.history, name) for name in SESSIONS]
        self._writers = [
            asyncio.create_task(Writer(f"caller {n}", stub, self.history, SESSIONS).run(self._stop))
            for n, stub in enumerate(self._stubs)
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:  # they may insist in vain
            for writer in self._writers:
                writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=kind is not None)

    async def refusals(self, count: int) -> None:
        """Wait until so many more calls were refused."""
        wanted = self.history.codes.total() + count
        await until(lambda: self.history.codes.total() >= wanted)

    def first_answer(self, moment: float) -> float:
        """Seconds from a moment, of `time.monotonic`, to the end of the first call answered."""
        ends = (c.ended for c in self.history.calls if c.answer is not None and c.ended is not None)
        return min(ended for ended in ends if ended > moment) - moment

    async def judged(self, database_url: str) -> list[Fault]:
        """What is wrong, once every watcher has been told of everything; after the block."""
        stored = await read_stored(database_url)
        for watcher in self._watchers:
            await watcher.until(stored.revisions.get(watcher.watch.session_id, 0))
        return judge(self.history, stored)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
