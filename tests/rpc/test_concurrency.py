"""Sixty-four concurrent callers, through one server and through two on one database."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

CALLERS = 64
SESSION = "crowd"
LIMIT = 10
TIMEOUT_SECONDS = 20.0


@pytest.fixture(params=[1, 2], ids=["one server", "two servers"])
async def stubs(request: pytest.FixtureRequest, serve) -> list[MemoryServiceStub]:
    """One stub per caller, alternating between the servers."""
    servers = [await serve(MEMORY_MAX_ENTRIES=str(LIMIT)) for _ in range(request.param)]
    return [servers[caller % len(servers)].memory for caller in range(CALLERS)]


def store(content: str, session_id: str = SESSION, **fields: object) -> pb.StoreMemoryRequest:
    fields = {"never_expires": True, **fields}
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


async def remember(stub: MemoryServiceStub, content: str) -> pb.Memory:
    return (await stub.StoreMemory(store(content))).memory


async def get(stub: MemoryServiceStub, memory_id: str) -> pb.Memory:
    return await stub.GetMemory(pb.GetMemoryRequest(session_id=SESSION, memory_id=memory_id))


async def live(stub: MemoryServiceStub, session_id: str = SESSION) -> list[pb.Memory]:
    request = pb.ListMemoriesRequest(session_id=session_id, page_size=1000)
    return list((await stub.ListMemories(request)).memories)


async def outcomes(calls: Iterable[Awaitable[pb.Memory]]) -> tuple[list[pb.Memory], Counter[str]]:
    """The answers, and the count of each error code."""
    answers: list[pb.Memory] = []
    codes: Counter[str] = Counter()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, grpc.aio.AioRpcError):
            codes[outcome.code().name] += 1
        else:
            assert isinstance(outcome, pb.Memory), outcome
            answers.append(outcome)
    return answers, codes


# One of many wins


async def test_one_of_many_updates_with_one_etag_wins(stubs):
    stored = await remember(stubs[0], "prefers e-mail")

    async def update(caller: int, stub: MemoryServiceStub) -> pb.Memory:
        memory = pb.Memory(
            session_id=SESSION,
            memory_id=stored.memory_id,
            etag=stored.etag,
            importance=caller / CALLERS,
        )
        return await stub.UpdateMemory(pb.UpdateMemoryRequest(memory=memory))

    answers, codes = await outcomes(update(*each) for each in enumerate(stubs))
    assert codes == {"ABORTED": CALLERS - 1}
    assert [await get(stubs[-1], stored.memory_id)] == answers
    assert answers[0].revision == stored.revision + 1


async def test_one_of_many_deletions_and_one_of_many_restorations_wins(stubs):
    stored = await remember(stubs[0], "prefers e-mail")
    named = {"session_id": SESSION, "memory_id": stored.memory_id}
    deleted, codes = await outcomes(
        stub.DeleteMemory(pb.DeleteMemoryRequest(**named)) for stub in stubs
    )
    assert len(deleted) == 1
    assert codes == {"NOT_FOUND": CALLERS - 1}
    restored, codes = await outcomes(
        stub.UndeleteMemory(pb.UndeleteMemoryRequest(**named)) for stub in stubs
    )
    assert len(restored) == 1
    assert codes == {"ALREADY_EXISTS": CALLERS - 1}
    assert [m.revision for m in (stored, *deleted, *restored)] == [1, 2, 3]


async def test_one_of_many_updates_to_one_content_wins(stubs):
    stored = [await remember(stubs[0], f"fact {number}") for number in range(LIMIT)]

    async def update(caller: int, stub: MemoryServiceStub) -> pb.Memory:
        memory = pb.Memory(
            session_id=SESSION,
            memory_id=stored[caller % LIMIT].memory_id,
            content="the same" + "!" * (caller % 3),
        )
        return await stub.UpdateMemory(pb.UpdateMemoryRequest(memory=memory))

    answers, codes = await outcomes(update(*each) for each in enumerate(stubs))
    winners = {answer.memory_id for answer in answers}
    assert len(winners) == 1
    assert codes == {"ALREADY_EXISTS": CALLERS - len(answers)}
    assert Counter(m.content_hash for m in await live(stubs[0])).most_common(1)[0][1] == 1


async def test_no_merge_is_lost(stubs):
    answers = await asyncio.gather(
        *(
            stub.StoreMemory(
                store("prefers e-mail", metadata={f"key {n}": n}, importance=n / CALLERS)
            )
            for n, stub in enumerate(stubs)
        )
    )
    assert sorted(answer.memory.revision for answer in answers) == list(range(1, CALLERS + 1))
    (merged,) = await live(stubs[0])
    assert dict(merged.metadata.items()) == {f"key {n}": n for n in range(CALLERS)}
    assert merged.importance == (CALLERS - 1) / CALLERS


async def test_one_request_sent_many_times_is_stored_once(stubs):
    request = store("prefers e-mail", request_id=str(uuid.uuid4()))
    answers = await asyncio.gather(*(stub.StoreMemory(request) for stub in stubs))
    assert all(answer == answers[0] for answer in answers)
    (stored,) = await live(stubs[0])
    assert stored.revision == 1


# Accesses


async def test_each_of_many_accesses_counts_once(stubs):
    stored = await remember(stubs[0], "prefers e-mail")
    request = pb.RetrieveMemoriesRequest(session_id=SESSION)
    await asyncio.gather(*(stub.RetrieveMemories(request) for stub in stubs))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            found = await get(stubs[0], stored.memory_id)
            if found.access_count >= CALLERS:
                break
            await asyncio.sleep(0.05)
    assert found.access_count == CALLERS
    assert (found.revision, found.etag) == (stored.revision, stored.etag)


async def test_accesses_are_counted_in_full_when_the_servers_have_stopped(serve):
    servers = [await serve(), await serve()]
    stored = await remember(servers[0].memory, "prefers e-mail")
    request = pb.RetrieveMemoriesRequest(session_id=SESSION)
    for _ in range(2):  # some of them while others are being written
        await asyncio.gather(
            *(servers[n % 2].memory.RetrieveMemories(request) for n in range(CALLERS))
        )
        await asyncio.sleep(0.5)
    for server in servers:
        await server.server.stop()
    found = await get((await serve()).memory, stored.memory_id)
    assert found.access_count == 2 * CALLERS


# Capacity


async def test_changed_memories_can_be_evicted_like_others(stubs):
    stored = [await remember(stubs[0], f"fact {number}") for number in range(LIMIT)]

    async def update(caller: int, stub: MemoryServiceStub) -> pb.Memory:
        memory = pb.Memory(
            session_id=SESSION, memory_id=stored[caller % LIMIT].memory_id, metadata={"n": caller}
        )
        return await stub.UpdateMemory(pb.UpdateMemoryRequest(memory=memory))

    # While these are written, later writes gather and are written as one group.
    long = pb.BatchStoreMemoriesRequest(requests=[store(f"{n}", "elsewhere") for n in range(1000)])
    blocking = asyncio.gather(*(stub.BatchStoreMemories(long) for stub in stubs[:2]))
    await asyncio.sleep(0.05)
    updating = asyncio.create_task(outcomes(update(*each) for each in enumerate(stubs)))
    await asyncio.sleep(0.01)
    answer = await stubs[0].StoreMemory(store("more", importance=0.6))
    assert len(answer.evicted_memory_ids) == 1
    await blocking
    _, codes = await updating
    assert set(codes) <= {"NOT_FOUND"}  # of the other server, too late for the evicted memory
    assert len(await live(stubs[0])) == LIMIT


# Many sessions at once


async def test_batches_over_the_same_new_sessions_wait_for_each_other(stubs):
    names = [f"session-{number}" for number in range(12)]
    shuffled = random.Random(4711)  # noqa: S311  no secret

    def batch(caller: int) -> pb.BatchStoreMemoriesRequest:
        wanted = shuffled.sample(names, 6)
        return pb.BatchStoreMemoriesRequest(
            requests=[store(f"fact {caller % 8}", name) for name in wanted]
        )

    requests = [batch(caller) for caller in range(CALLERS)]
    answers = await asyncio.gather(
        *(stub.BatchStoreMemories(request) for stub, request in zip(stubs, requests, strict=True))
    )
    acknowledged: Counter[str] = Counter()
    for answer in answers:
        acknowledged.update(response.memory.session_id for response in answer.responses)
    for name in names:
        found = await live(stubs[0], name)
        assert len({m.content_hash for m in found}) == len(found)
        assert max(m.revision for m in found) == acknowledged[name]


# All at once


@dataclass
class Log:
    """What the callers' answers said."""

    acknowledged: dict[int, tuple[pb.MemoryChange.ValueType, str]] = field(default_factory=dict)
    """The change and the memory, by revision."""
    evicted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, change: pb.MemoryChange.ValueType, memory: pb.Memory) -> None:
        assert memory.revision not in self.acknowledged, "two answers with one revision"
        self.acknowledged[memory.revision] = (change, memory.memory_id)


class Caller:
    """Makes random calls, and keeps the answers."""

    def __init__(self, number: int, stub: MemoryServiceStub, ids: list[str], log: Log) -> None:
        self._random = random.Random(number)  # noqa: S311  no secret
        self._stub = stub
        self._ids = ids
        self._log = log

    async def run(self, calls: int) -> None:
        kinds = (self._store, self._store, self._store, self._batch, self._update)
        others = (self._delete, self._undelete, self._retrieve)
        for _ in range(calls):
            try:
                await self._random.choice((*kinds, *others))()
            except grpc.aio.AioRpcError as error:
                self._log.refused[error.code().name] += 1

    def _named(self) -> dict[str, str]:
        recent = self._ids[-2 * LIMIT :]
        memory_id = self._random.choice(recent) if recent else str(uuid.uuid4())
        return {"session_id": SESSION, "memory_id": memory_id}

    def _request(self) -> pb.StoreMemoryRequest:
        content = f"fact {self._random.randrange(2 * LIMIT)}" + "!" * self._random.randrange(2)
        return store(content, importance=self._random.random())

    def _stored(self, response: pb.StoreMemoryResponse) -> None:
        self._log.evicted.update(response.evicted_memory_ids)
        if response.outcome == pb.STORE_OUTCOME_CREATED:
            self._ids.append(response.memory.memory_id)
            self._log.add(pb.MEMORY_CHANGE_CREATED, response.memory)
        else:
            self._log.add(pb.MEMORY_CHANGE_UPDATED, response.memory)

    async def _store(self) -> None:
        self._stored(await self._stub.StoreMemory(self._request()))

    async def _batch(self) -> None:
        requests = [self._request() for _ in range(3)]
        request = pb.BatchStoreMemoriesRequest(requests=requests)
        for response in (await self._stub.BatchStoreMemories(request)).responses:
            self._stored(response)

    async def _update(self) -> None:
        memory = pb.Memory(**self._named(), importance=self._random.random())
        mask = FieldMask(paths=["importance"])
        if self._random.random() < 0.5:
            memory.content = f"fact {self._random.randrange(2 * LIMIT)}"
            mask.paths.append("content")
        request = pb.UpdateMemoryRequest(memory=memory, update_mask=mask)
        self._log.add(pb.MEMORY_CHANGE_UPDATED, await self._stub.UpdateMemory(request))

    async def _delete(self) -> None:
        request = pb.DeleteMemoryRequest(**self._named())
        self._log.add(pb.MEMORY_CHANGE_DELETED, await self._stub.DeleteMemory(request))

    async def _undelete(self) -> None:
        request = pb.UndeleteMemoryRequest(**self._named())
        self._log.add(pb.MEMORY_CHANGE_RESTORED, await self._stub.UndeleteMemory(request))

    async def _retrieve(self) -> None:
        request = pb.RetrieveMemoriesRequest(session_id=SESSION, limit=100)
        answer = await self._stub.RetrieveMemories(request)
        assert len(answer.results) <= LIMIT


async def watch(
    stub: MemoryServiceStub, events: list[pb.WatchMemoriesResponse], news: asyncio.Event
) -> None:
    async for event in stub.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION)):
        events.append(event)
        news.set()


async def observe(stubs: Sequence[MemoryServiceStub]) -> None:
    """Read the session repeatedly: it never has too many memories, nor duplicates."""
    while True:
        for stub in stubs[:2]:
            found = await live(stub)
            assert len(found) <= LIMIT
            assert len({m.content_hash for m in found}) == len(found)
            answer = await stub.RetrieveMemories(
                pb.RetrieveMemoriesRequest(session_id=SESSION, limit=100, peek=True)
            )
            assert len(answer.results) <= LIMIT


async def test_mixed_calls_leave_exactly_what_was_acknowledged(stubs):
    log, ids = Log(), []
    events: list[pb.WatchMemoriesResponse] = []
    news = asyncio.Event()
    watching = asyncio.create_task(watch(stubs[0], events, news))
    observing = asyncio.create_task(observe(stubs))
    callers = [Caller(number, stub, ids, log) for number, stub in enumerate(stubs)]
    await asyncio.gather(*(caller.run(8) for caller in callers))
    assert not observing.done(), observing.result()
    observing.cancel()

    request = pb.RetrieveMemoriesRequest(session_id=SESSION, peek=True)
    revision = (await stubs[0].RetrieveMemories(request)).revision
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not events or events[-1].revision < revision:
            news.clear()
            await news.wait()
    watching.cancel()

    # Without a gap, and each once.
    assert [event.revision for event in events] == list(range(1, revision + 1))
    reported = {event.revision: (event.change, event.memory.memory_id) for event in events}
    # Exactly the acknowledged changes happened, and evictions.
    for at, change in log.acknowledged.items():
        assert reported.pop(at) == change
    assert all(change == pb.MEMORY_CHANGE_DELETED for change, _ in reported.values())
    assert Counter(memory_id for _, memory_id in reported.values()) == log.evicted
    assert log.evicted  # else it was not crowded
    assert set(log.refused) <= {"NOT_FOUND", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED"}
    # The events of a watcher lead to the final state.
    known = {}
    for event in events:
        if event.change == pb.MEMORY_CHANGE_DELETED:
            del known[event.memory.memory_id]
        else:
            known[event.memory.memory_id] = event.memory.etag
    assert known == {m.memory_id: m.etag for m in await live(stubs[-1])}
