"""Callers and watchers that run during a block."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

import grpc

from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import find_faults
from .documents import DocumentCaller, watch_documents
from .harness import (
    SESSIONS,
    TIMEOUT_SECONDS,
    Watcher,
    Writer,
    open_channel,
    watch_memories,
)
from .history import History
from .promises import Fault
from .stored import Stored, read_stored

DOCUMENT_CALLERS = 3
"""In addition to the callers that store memories."""

SESSIONS_WITH_DOCUMENTS = 2
"""The last ones. The others have memories alone, of which every revision is in the tables."""


class Load(AbstractAsyncContextManager):
    """Callers that store memories, one on each channel, others that keep documents, and watchers.

    At the end of the block callers finish their calls; watchers run until they have received every
    change.
    """

    def __init__(
        self,
        history: History,
        channels: Sequence[grpc.aio.Channel],
        sessions: Sequence[str] = SESSIONS,
        document_channels: Sequence[grpc.aio.Channel] | None = None,
    ) -> None:
        """`document_channels`: those of callers that keep documents, by default the same."""
        self.history = history
        self.watchers: list[Watcher] = []
        self._memory = [*map(MemoryServiceStub, channels)]
        self._documents = [*map(DocumentServiceStub, document_channels or channels)]
        self._sessions = sessions
        self._with_documents = sessions[-SESSIONS_WITH_DOCUMENTS:]
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.watchers = [
            *(watch_memories(self._memory[0], self.history, name) for name in self._sessions),
            *(
                watch_documents(self._documents[0], self.history, name)
                for name in self._with_documents
            ),
        ]
        callers: list[Writer | DocumentCaller] = [
            Writer(f"caller {n}", stub, self.history, self._sessions)
            for n, stub in enumerate(self._memory)
        ]
        places = zip(
            range(DOCUMENT_CALLERS),
            itertools.cycle(self._documents),
            itertools.cycle(self._with_documents),
            strict=False,
        )
        for n, stub, session_id in places:
            callers.append(DocumentCaller(f"keeper {n}", stub, self.history, session_id))
        self._callers = [asyncio.create_task(caller.run(self._stop)) for caller in callers]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:  # they may retry forever
            for caller in self._callers:
                caller.cancel()
            for watcher in self.watchers:
                watcher.stop()
        await asyncio.gather(*self._callers, return_exceptions=kind is not None)

    async def refusals(self, count: int) -> None:
        """Wait until this many more calls are in doubt, and some about documents among them."""
        history = self.history
        wanted = history.in_doubt + count
        documents = history.doubted["documents"] + DOCUMENT_CALLERS
        await until(
            lambda: history.in_doubt >= wanted and history.doubted["documents"] >= documents
        )

    def first_answer(self, moment: float) -> float:
        """Seconds from a moment, of `time.monotonic`, to the end of the first call answered."""
        ends = (c.ended for c in self.history.calls if c.answer is not None and c.ended is not None)
        return min(ended for ended in ends if ended > moment) - moment

    async def stored(self, database_url: str) -> Stored:
        """What is stored, once every watcher has received all of it; call it after the block."""
        stored = await read_stored(database_url)
        for watcher in self.watchers:
            await watcher.until(watcher.watch.newest_of(stored))
        return stored

    async def faults(self, database_url: str) -> list[Fault]:
        """The broken promises; call it after the block."""
        stored = await self.stored(database_url)
        return find_faults(self.history, stored.only(self._sessions))


@asynccontextmanager
async def connected(address: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Channels with a connection each, until the end of the block."""
    channels = [open_channel(address) for _ in range(count)]
    try:
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)
