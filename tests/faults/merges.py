"""Callers that keep storing in sessions that are merged, and where what they stored is in the end.

Every content, and every name of a document, is used once, so that it tells what became of a write.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tests.conftest import Tables

from memoryd.v1 import document_pb2 as dpb
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub

from .harness import CALL_SECONDS, PAUSE_SECONDS, TIMEOUT_SECONDS, open_channel
from .promises import IN_DOUBT

PAUSE_BETWEEN_STORES = 0.02
"""A session may not have more than one merge takes."""

_REPEATED = IN_DOUBT - {"DEADLINE_EXCEEDED"}
"""Codes after which a call is repeated. No call may take as long as its deadline."""

_PLACES = (
    "SELECT 'memory ' || content AS name, session_id FROM memories WHERE deleted_at IS NULL"
    " UNION ALL SELECT 'document ' || key, session_id FROM documents"
)


class Caller:
    """A connection of its own, and calls that are repeated while they are in doubt."""

    def __init__(self, address: str) -> None:
        self._channel = open_channel(address)
        self.memory = MemoryServiceStub(self._channel)
        self.documents = DocumentServiceStub(self._channel)
        self.sessions = SessionServiceStub(self._channel)
        self.attempts = 0
        """Of the last call that was repeated."""

    async def close(self) -> None:
        await self._channel.close()

    async def attempt(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """The answer, or the code of the refusal; None where it is in doubt."""
        try:
            return await method(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            return None if code in _REPEATED else code

    async def answer(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """As `attempt`, again and again until it is not in doubt."""
        self.attempts = 1
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (answer := await self.attempt(method, request)) is None:
                self.attempts += 1
                await asyncio.sleep(PAUSE_SECONDS)
        return answer

    async def merge_if_there(self, source: str, target: str) -> bool:
        """Merge a session into another, unless it is in another already."""
        answer = await self.answer(self.sessions.MergeSessions, merge(source, target))
        assert answer == "NOT_FOUND" or not isinstance(answer, str), answer
        return not isinstance(answer, str)

    async def mark(self, session_id: str, names: Sequence[str]) -> None:
        """Store memories and documents of these names, each with an earlier version."""
        for importance in (0.2, 0.9):
            items = [
                pb.StoreMemoryRequest(
                    session_id=session_id, content=name, importance=importance, never_expires=True
                )
                for name in names
            ]
            await self.memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=items))
            puts = [dpb.PutDocumentRequest(document=_document(name)) for name in names]
            request = dpb.BatchWriteDocumentsRequest(
                session_id=session_id, writes=[dpb.DocumentWrite(put=put) for put in puts]
            )
            await self.documents.BatchWriteDocuments(request)

    async def lift_limit(self, session_id: str) -> None:
        """Have nothing evicted of a session, nor of what it becomes."""
        session = spb.Session(session_id=session_id, memory_limit=100_000)
        request = spb.UpdateSessionRequest(session=session, allow_missing=True)
        await self.sessions.UpdateSession(request)


class Fill:
    """What callers have stored while some sessions were filled."""

    def __init__(self, sessions: Sequence[str]) -> None:
        self.stored: set[str] = set()
        """What was acknowledged, by the names of `places`."""
        self.certain: set[str] = set()
        """What was acknowledged at once: it is stored no second time."""
        self._sessions = sessions

    async def run(self, who: str, caller: Caller, stop: asyncio.Event) -> None:
        dice = random.Random(who)  # noqa: S311  no secret
        for n in itertools.count():
            if stop.is_set():
                return
            session_id, name = dice.choice(self._sessions), f"{who} says {n}"
            request_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            if dice.random() < 0.5:
                kind, method = "memory", caller.memory.StoreMemory
                request: Any = pb.StoreMemoryRequest(
                    session_id=session_id, content=name, never_expires=True, request_id=request_id
                )
            else:
                kind, method = "document", caller.documents.PutDocument
                document = _document(name)
                document.session_id = session_id
                request = dpb.PutDocumentRequest(document=document, request_id=request_id)
            answer = await caller.answer(method, request)
            assert not isinstance(answer, str), answer
            self.stored.add(f"{kind} {name}")
            if caller.attempts == 1:
                self.certain.add(f"{kind} {name}")
            await asyncio.sleep(PAUSE_BETWEEN_STORES)


@asynccontextmanager
async def filling(addresses: Iterable[str], sessions: Sequence[str]) -> AsyncIterator[Fill]:
    """Have a caller for each address store memories and documents until the end of the block."""
    fill, stop = Fill(sessions), asyncio.Event()
    callers = [Caller(address) for address in addresses]
    async with asyncio.TaskGroup() as group:
        for n, caller in enumerate(callers):
            group.create_task(fill.run(f"caller {n}", caller, stop))
        yield fill
        stop.set()
    await asyncio.gather(*(caller.close() for caller in callers))


def both(names: Iterable[str]) -> set[str]:
    """The names that `places` has of what was marked."""
    return {f"{kind} {name}" for name in names for kind in ("memory", "document")}


async def places(tables: Tables) -> Mapping[str, list[str]]:
    """The sessions in which each memory and document is, at one moment."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, session_id in await tables.rows(_PLACES):
        found[name].append(session_id)
    return found


async def until_moved(tables: Tables, target: str, names: Iterable[str], count: int) -> None:
    """Wait until the memories of some of these names are in a session."""
    among = ", ".join(f"'{name}'" for name in names)
    moved = f"SELECT count(*) FROM memories WHERE session_id = '{target}' AND content IN ({among})"  # noqa: S608
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (await tables.rows(moved))[0][0] < count:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.002)


def merge(source: str, target: str) -> spb.MergeSessionsRequest:
    return spb.MergeSessionsRequest(
        source_session_id=source, target_session_id=target, request_id=str(uuid.uuid4())
    )


def _document(name: str) -> dpb.Document:
    return dpb.Document(key=name, text=name)
