"""Callers and watchers that run during a block."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

import grpc

from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .appenders import Appender, watch_conversations
from .callers import Caller
from .checker import find_faults
from .documents import DocumentCaller, watch_documents
from .harness import (
    SESSIONS,
    Watcher,
    Writer,
    open_channel,
    until,
    watch_memories,
)
from .history import History
from .holders import Holder
from .promises import Fault
from .stored import Stored, read_stored

DOCUMENT_CALLERS = 3
"""In addition to the callers that store memories."""

HOLDERS = 2
"""Callers with conversations of their own."""

APPENDERS = 2
"""Callers that append to the same conversations."""

SESSIONS_WITH_DOCUMENTS = 2
"""The last ones, of which the last has conversations, too. The others have memories alone, of which
every revision is in the tables."""


class Load(AbstractAsyncContextManager):
    """Callers that store memories, one on each channel, keep documents and converse; and watchers.

    At the end of the block callers finish their calls; watchers run until they have received every
    change.
    """

    def __init__(
        self,
        history: History,
        channels: Sequence[grpc.aio.Channel],
        sessions: Sequence[str] = SESSIONS,
        other_channels: Sequence[grpc.aio.Channel] | None = None,
        *,
        appenders: int = APPENDERS,
    ) -> None:
        """`other_channels`: those of callers that do not store memories, by default the same."""
        self.history = history
        self.watchers: list[Watcher] = []
        self._memory = [*map(MemoryServiceStub, channels)]
        self._others = other_channels or channels
        self._appenders = appenders
        self._sessions = sessions
        self._with_documents = sessions[-SESSIONS_WITH_DOCUMENTS:]
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        memory, other = self._memory[0], self._others[0]
        documents, conversations = DocumentServiceStub(other), ConversationServiceStub(other)
        self.watchers = [
            *(watch_memories(memory, self.history, name) for name in self._sessions),
            *(watch_documents(documents, self.history, name) for name in self._with_documents),
            watch_conversations(conversations, self.history, self._sessions[-1]),
        ]
        callers: list[Writer | Caller] = [
            Writer(f"caller {n}", stub, self.history, self._sessions)
            for n, stub in enumerate(self._memory)
        ]
        sessions, channels = itertools.cycle(self._with_documents), itertools.cycle(self._others)
        for n in range(DOCUMENT_CALLERS):
            stub = DocumentServiceStub(next(channels))
            callers.append(DocumentCaller(f"keeper {n}", stub, self.history, next(sessions)))
        for kind, count in ((Holder, HOLDERS), (Appender, self._appenders)):
            for n in range(count):
                talking = ConversationServiceStub(next(channels))
                name = f"{kind.__name__.lower()}-{n}"
                callers.append(kind(name, talking, self.history, self._sessions[-1]))
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
        """Wait until this many more calls are in doubt, and some of each other kind."""
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
