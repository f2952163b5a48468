"""Resources and latencies of a server, for one kind of work and one number of callers."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import asyncpg
import work
from connections import TIMEOUT_SECONDS
from conversation_work import fill_conversations
from document_work import fill_documents
from loop import accounted, drive
from texts import CONTENT_BYTES, METADATA, Texts
from work import ECHO_SERVICE, GROWING_ROOM, LARGE_SESSIONS, SERVICE, WORK, Requests

from memoryd.client import MemoryClient
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from connections import Connections
    from harness import Database, Server
    from loop import Sample
    from work import Work

WARM_UP_SECONDS = 0.15
CALLS_PER_SECOND = 6_000
"""More than a server can do; this many requests are prepared before a round."""
STREAMED_PER_SECOND = 12_000
"""The same of stores over a stream."""
STORED_AT_ONCE = 500
PAIRS = GROWING_ROOM * LARGE_SESSIONS
COMMITS = 100


@dataclass(frozen=True, slots=True)
class Target:
    """A server under measurement, and how to reach it."""

    name: str
    server: Server
    connections: Connections
    database: Database | None
    """None for the echo."""

    def calls(self, kind: Work) -> list[Callable[[bytes], Awaitable[bytes]]]:
        if self.database is None:
            return self.connections.calls(ECHO_SERVICE, kind.name)
        return self.connections.calls(kind.service, kind.method)


def prepare_requests(kind: Work, requests: Requests, seconds: float) -> list[bytes]:
    """Prepare the requests of one round, the same for every server; a batch counts its memories."""
    a_second = STREAMED_PER_SECOND if kind.streamed else CALLS_PER_SECOND
    count = int(a_second * (seconds + WARM_UP_SECONDS) / kind.memories**0.6)
    return list(itertools.islice(requests.of(kind.name), count))


async def measure(
    target: Target, kind: Work, sent: Sequence[bytes], *, callers: int, seconds: float
) -> Sample:
    """Measure one round of calls of the same kind."""
    warm = max(len(sent) // 8, callers)

    async def one_round(once: Callable[[int], Awaitable[float]]) -> Sample:
        await drive(once, callers=callers, seconds=WARM_UP_SECONDS, most=warm)
        return await accounted(
            target.server,
            lambda: drive(once, callers=callers, seconds=seconds, most=len(sent) - warm),
        )

    if target.database is None or not kind.streamed:
        return await one_round(plain(target.calls(kind), iter(sent)))
    stores = [pb.StoreMemoryRequest.FromString(request) for request in sent]
    async with MemoryClient(target.server.address, timeout=TIMEOUT_SECONDS) as memory:
        return await one_round(by_client(memory, iter(stores)))


def by_client(
    memory: MemoryClient, stores: Iterator[pb.StoreMemoryRequest]
) -> Callable[[int], Awaitable[float]]:
    """Store the next memory by memoryd's client, which sends it over a stream of many."""

    async def once(_caller: int) -> float:
        new = next(stores)
        start = time.perf_counter()
        await memory.store(
            new.session_id,
            new.content,
            content_type="fact",
            importance=new.importance,
            metadata=METADATA,
        )
        return time.perf_counter() - start

    return once


def plain(
    calls: Sequence[Callable[[bytes], Awaitable[bytes]]], requests: Iterator[bytes]
) -> Callable[[int], Awaitable[float]]:
    """Send the next request."""

    async def once(caller: int) -> float:
        request = next(requests)
        call = calls[caller % len(calls)]
        start = time.perf_counter()
        await call(request)
        return time.perf_counter() - start

    return once


async def measure_changed(
    target: Target,
    requests: Requests,
    *,
    callers: int,
    seconds: float,
    store_cpu: tuple[float, float],
) -> Sample:
    """Measure one round of queries, each after a store into its session, while sessions have room.

    Latencies are the queries' alone. Processor time is the pair's minus `store_cpu`, what a store
    alone uses of the server and the database.
    """
    kind = WORK["query_changed"]
    calls = target.calls(kind)
    questions, stores = requests.of(kind.name), requests.of("growing")
    if target.database is None:
        return await accounted(
            target.server,
            lambda: drive(plain(calls, questions), callers=callers, seconds=seconds, most=PAIRS),
        )
    storing = target.connections.calls(SERVICE, "StoreMemory")
    began = pb.PurgeMemoriesRequest(force=True)
    began.filter.created_after.GetCurrentTime()
    for _ in range(2 * LARGE_SESSIONS):
        await calls[0](next(questions))

    async def once(caller: int) -> float:
        await storing[caller % len(storing)](next(stores))
        request = next(questions)
        start = time.perf_counter()
        await calls[caller % len(calls)](request)
        return time.perf_counter() - start

    sample = await accounted(
        target.server, lambda: drive(once, callers=callers, seconds=seconds, most=PAIRS)
    )
    (purge, *_) = target.connections.calls(SERVICE, "PurgeMemories")
    for number in range(LARGE_SESSIONS):
        began.session_id = work.growing_session(number)
        await purge(began.SerializeToString())
    await await_vectors(target)
    return replace(
        sample,
        cpu=sample.cpu - store_cpu[0],
        database_cpu=sample.database_cpu - store_cpu[1],
    )


async def fill(target: Target, *, vectors: bool = True) -> list[tuple[str, str]]:
    """Store what is read: memories, documents, conversations, sessions.

    With `vectors`, wait for vectors. Returns session and memory of what may be read by id.
    """
    (store, *_) = target.connections.calls(SERVICE, "BatchStoreMemories")
    texts = Texts()
    ids: list[tuple[str, str]] = []
    for session_id, count in work.prepared_sessions():
        for start in range(0, count, STORED_AT_ONCE):
            size = min(STORED_AT_ONCE, count - start)
            request = pb.BatchStoreMemoriesRequest(
                requests=[work.store_request(texts, session_id) for _ in range(size)]
            )
            answer = pb.BatchStoreMemoriesResponse.FromString(
                await store(request.SerializeToString())
            )
            if count == work.SMALL:
                ids += [(session_id, stored.memory.memory_id) for stored in answer.responses]
    await fill_documents(target.connections)
    await fill_conversations(target.connections, texts)
    if vectors:
        await await_vectors(target)
    return ids


async def await_vectors(target: Target) -> None:
    """Query until every result uses a vector, in every session that is queried."""
    (retrieve, *_) = target.connections.calls(SERVICE, "RetrieveMemories")
    sessions = [work.large_session(n) for n in range(LARGE_SESSIONS)]
    sessions += [work.growing_session(n) for n in range(LARGE_SESSIONS)]
    texts = Texts()
    for session_id in sessions:
        request = work.question(session_id, texts.query())
        request.limit = 100
        while True:
            answer = pb.RetrieveMemoriesResponse.FromString(
                await retrieve(request.SerializeToString())
            )
            if all(result.breakdown.semantic for result in answer.results):
                break
            await asyncio.sleep(0.1)


async def commit_milliseconds(database: Database) -> float:
    """The median time of one commit of one row of 100 bytes, without the service."""
    content = "x" * CONTENT_BYTES
    waits = []
    if database.process is None:
        # The same durability as the service's, in a file next to the service's.
        with closing(
            sqlite3.connect(f"{database.plain_url}.commits", isolation_level=None)
        ) as file:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = FULL")
            file.execute("CREATE TABLE IF NOT EXISTS commits (content TEXT)")
            for _ in range(COMMITS):
                start = time.perf_counter()
                file.execute("INSERT INTO commits VALUES (?)", (content,))
                waits.append(time.perf_counter() - start)
    else:
        connection = await asyncpg.connect(database.plain_url)
        await connection.execute("CREATE TABLE IF NOT EXISTS commits (content TEXT)")
        insert = await connection.prepare("INSERT INTO commits VALUES ($1)")
        for _ in range(COMMITS):
            start = time.perf_counter()
            await insert.fetch(content)
            waits.append(time.perf_counter() - start)
        await connection.execute("DROP TABLE commits")
        await connection.close()
    return sorted(waits)[COMMITS // 2] * 1e3
