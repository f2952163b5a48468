"""A server that is killed and restarted, and callers that keep calling meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sqlite3
import uuid
from collections.abc import AsyncIterable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from sqlalchemy.engine import make_url

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .conversation_faults import ConversationWatch
from .document_faults import DocumentWatch
from .history import Call, History, Kind, Watch

if TYPE_CHECKING:
    from tests.conftest import CommandLine, Process

CALL_SECONDS = 30.0
"""A call's deadline; generous, like the servers' limits, for a busy machine."""

TIMEOUT_SECONDS = 60.0
"""How long to wait for any condition."""

PAUSE_SECONDS = 0.05
"""The pause before a refused call is retried."""

MAX_ENTRIES = 1000
"""Live memories per session: more than a run stores, so that none is evicted."""

KEYED = 0.3
"""The share of stores that have a key."""

KEYS = 3
"""The number of keys in a session."""

TAGS = ["a", "ü", "🙂"]

KEPT = 8
"""The number of memories that a caller keeps before it deletes the oldest."""

ENDS_OF_STREAMS = ("UNAVAILABLE", "CANCELLED")
"""The codes with which a stopping server may end a watch; the watcher resumes."""

SESSIONS = [f"user-{number}" for number in range(4)]

VARIABLES = {
    "MEMORY_MAX_ENTRIES": str(MAX_ENTRIES),
    "MEMORYD_EMBEDDER": "none",
    "MEMORYD_LOG_LEVEL": "warning",
}

CHANNEL_OPTIONS = (
    # As in the client library: reconnect at once to a server that is back.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),  # record each attempt
    ("grpc.use_local_subchannel_pool", 1),  # each caller has its own connection
)


def is_whole(database_url: str) -> bool:
    """Whether SQLite finds its file intact; always true for PostgreSQL."""
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        return True
    with contextlib.closing(sqlite3.connect(url.database or "")) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def open_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)


class ServerProcess:
    """A `memoryd serve` process that keeps its address across restarts."""

    def __init__(
        self,
        command_line: CommandLine,
        database_url: str,
        *,
        open_files: int | None = None,
        **variables: str,
    ) -> None:
        self._command_line = command_line
        self._open_files = open_files
        self._variables = {**VARIABLES, "MEMORYD_DATABASE_URL": database_url, **variables}
        self._process: Process | None = None
        self.address = ""

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was not started"
        return self._process

    async def start(self) -> str:
        """Start it, wait until it serves, and return its address."""
        self._process = self._command_line.serve(open_files=self._open_files, **self._variables)
        self.address = await asyncio.to_thread(self._process.address)
        self._variables["MEMORYD_PORT"] = self.address.rpartition(":")[2]
        return self.address

    async def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        await asyncio.to_thread(self.process.kill)

    async def stop(self) -> None:
        """Send SIGTERM, and wait for its end."""
        assert await asyncio.to_thread(self.process.stop) == 0, self.process.log


async def acknowledgements(history: History, count: int) -> None:
    """Wait until this many more calls about memories are answered."""
    wanted = history.acknowledged + count
    await until(lambda: history.acknowledged >= wanted)


async def answers(history: History, kind: Kind, count: int) -> None:
    """Wait until this many more calls of another kind are answered."""
    wanted = history.answered[kind] + count
    await until(lambda: history.answered[kind] >= wanted)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.005)


class Watcher:
    """Follows a session until it is stopped, across the ends of its streams."""

    def __init__(
        self,
        watch: Watch | DocumentWatch | ConversationWatch,
        stream: Callable[[int], AsyncIterable[Any]],
    ) -> None:
        """`stream` gives the changes after a revision."""
        self.watch = watch
        self.resumed = 0
        self._stream = stream
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            try:
                async for event in self._stream(self.watch.last_revision):
                    self.watch.events.append(event)
                    self._news.set()
            except grpc.aio.AioRpcError as error:
                if error.code().name not in ENDS_OF_STREAMS:
                    raise
                self.resumed += 1
                await asyncio.sleep(PAUSE_SECONDS)

    def stop(self) -> None:
        self._reading.cancel()

    async def until(self, revision: int) -> None:
        """Wait for the event of a revision, and stop."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while self.watch.last_revision < revision and not self._reading.done():
                self._news.clear()
                await self._news.wait()
        self.stop()
        ended = (await asyncio.gather(self._reading, return_exceptions=True))[0]
        if not isinstance(ended, asyncio.CancelledError):
            raise ended


def watch_memories(stub: MemoryServiceStub, history: History, session_id: str) -> Watcher:
    """Follow the memories of a session."""

    def stream(last: int) -> AsyncIterable[pb.WatchMemoriesResponse]:
        request = pb.WatchMemoriesRequest(session_id=session_id, start_revision=last)
        return stub.WatchMemories(request)

    return Watcher(history.watch(session_id), stream)


class Writer:
    """Makes random calls, one after the other, until it is stopped; some memories have a key.

    Every content is unique. It repeats stores and deletions until they are answered. After an
    update in doubt it reads the memory.
    """

    def __init__(
        self, name: str, stub: MemoryServiceStub, history: History, sessions: Sequence[str]
    ) -> None:
        self.name = name
        self._stub = stub
        self._history = history
        self._sessions = sessions
        self._random = random.Random(name)  # noqa: S311  no secret
        self._numbers = itertools.count()
        self._kept: list[tuple[str, str]] = []
        """Session and id of memories that only this caller changes, though others may replace them;
        oldest first."""

    async def run(self, stop: asyncio.Event) -> None:
        kinds = (self._store, self._store, self._store, self._batch, self._update, self._delete)
        reads = (self._get, self._get, self._list, self._retrieve)
        while not stop.is_set():
            await self._random.choice((*kinds, *reads))()

    async def call(self, request: object) -> Call:
        """Make one attempt."""
        return await self._history.call(self.name, self._stub, request, CALL_SECONDS)

    async def retry(self, request: object) -> Call:
        """Repeat a call until it is answered or finally refused."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                call = await self.call(request)
                if not call.is_in_doubt:
                    return call
                await asyncio.sleep(PAUSE_SECONDS)

    def _content(self) -> str:
        return f"{self.name} says {next(self._numbers)}"

    def _item(self, session_id: str) -> pb.StoreMemoryRequest:
        # Callers share keys, and replace each other's memories.
        has_key = self._random.random() < KEYED
        return pb.StoreMemoryRequest(
            session_id=session_id,
            content=self._content(),
            key=f"key/{self._random.randrange(KEYS)}" if has_key else "",
            tags=self._random.sample(TAGS, self._random.randrange(len(TAGS) + 1)),
            never_expires=True,
            request_id=str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
        )

    def _session(self) -> str:
        return self._random.choice(self._sessions)

    async def _store(self) -> None:
        call = await self.retry(self._item(self._session()))
        if call.answer is not None:
            self._kept.append((call.session_id, call.answer.memory.memory_id))

    async def _batch(self) -> None:
        requests = [self._item(self._session()) for _ in range(3)]
        call = await self.retry(pb.BatchStoreMemoriesRequest(requests=requests))
        if call.answer is not None:
            memories = [response.memory for response in call.answer.responses]
            self._kept += [(memory.session_id, memory.memory_id) for memory in memories]

    async def _update(self) -> None:
        if self._kept:
            session_id, memory_id = self._random.choice(self._kept)
            changed = pb.Memory(session_id=session_id, memory_id=memory_id, content=self._content())
            call = await self.call(pb.UpdateMemoryRequest(memory=changed))
            if call.is_in_doubt:
                get = pb.GetMemoryRequest(session_id=session_id, memory_id=memory_id)
                await self.retry(get)

    async def _delete(self) -> None:
        while len(self._kept) > KEPT:
            session_id, memory_id = self._kept.pop(0)
            named = pb.DeleteMemoryRequest(session_id=session_id, memory_id=memory_id)
            await self.retry(named)

    async def _get(self) -> None:
        if self._kept:
            session_id, memory_id = self._random.choice(self._kept)
            await self.call(pb.GetMemoryRequest(session_id=session_id, memory_id=memory_id))

    async def _list(self) -> None:
        request = pb.ListMemoriesRequest(session_id=self._session(), page_size=MAX_ENTRIES)
        await self.call(request)

    async def _retrieve(self) -> None:
        await self.call(pb.RetrieveMemoriesRequest(session_id=self._session(), query="says"))
