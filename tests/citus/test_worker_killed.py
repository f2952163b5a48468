"""A worker of Citus that fails under load: what is acknowledged is kept once, others go on."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from functools import partial
from typing import NamedTuple

import grpc
import pytest
from tests.citus.calls import REFUSALS, call, patiently, put, spoken, stored
from tests.citus.conftest import SESSIONS

from memoryd.v1 import memory_pb2 as pb

KILLS = range(5)
PAUSE_SECONDS = 0.05
"""Between two writes to a session, so that none is evicted before the end."""
SETTLED = 20
"""Writes to a session on a living worker while another one is away."""


def request_id(session_id, number):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session_id} {number}"))


async def memories(running, session_id):
    """Every content of a session, over all pages."""
    found, token = [], ""
    while True:
        request = pb.ListMemoriesRequest(session_id=session_id, page_size=1000, page_token=token)
        page = await running.memory.ListMemories(request)
        found += [each.content for each in page.memories]
        if not (token := page.next_page_token):
            return found


async def documents(running, session_id):
    return [each.key for each in await call(running, "ExportDocuments", session_id)]


async def messages(running, session_id):
    answers = await call(running, "ExportMessages", session_id)
    return [message.parts[0].text for answer in answers for message in answer.messages]


class Kind(NamedTuple):
    """What is written, one after the other, and how it is found again."""

    service: str
    method: str
    made: object
    found: object


KINDS = {
    "memories": Kind(
        "memory",
        "StoreMemory",
        lambda s, n: stored(s, f"fact {n}", request_id=request_id(s, n)),
        memories,
    ),
    "documents": Kind("documents", "PutDocument", lambda s, n: put(s, f"fact {n}", "x"), documents),
    "messages": Kind(
        "conversations",
        "AppendMessages",
        lambda s, n: spoken(s, f"fact {n}", request_id(s, n)),
        messages,
    ),
}


class Writers:
    """One writer a session, each of which writes one thing after the other, and notes it."""

    def __init__(self, running, kind):
        self._write = getattr(getattr(running, kind.service), kind.method)
        self._made = kind.made
        self.acknowledged = Counter()
        self.refused = Counter()
        self._ended = False

    def end(self):
        self._ended = True

    async def write(self, session_id):
        """Write until `end`; what is refused is tried again as the same request."""
        while not self._ended:
            try:
                await self._write(self._made(session_id, self.acknowledged[session_id]), timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REFUSALS:
                    raise
                self.refused[session_id] += 1
            else:
                self.acknowledged[session_id] += 1
            await asyncio.sleep(PAUSE_SECONDS)


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("name", KINDS)
async def test_nothing_is_lost_or_doubled_and_others_go_on(serve, worker, eventually, name, kill):
    running, kind = await serve(MEMORY_MAX_ENTRIES="1000"), KINDS[name]
    writers = Writers(running, kind)
    tasks = [asyncio.create_task(writers.write(session_id)) for session_id in SESSIONS]

    async def all_write():
        return all(writers.acknowledged[s] > kill for s in SESSIONS)

    async def living_go_on():
        more = writers.acknowledged - before
        return bool(writers.refused) and max(more.values(), default=0) > SETTLED

    await eventually(all_write)
    await asyncio.to_thread(worker.stop)
    before = writers.acknowledged.copy()
    await eventually(living_go_on)
    assert len(writers.refused) < len(SESSIONS)
    await asyncio.to_thread(worker.start)
    before = writers.acknowledged.copy()

    async def all_write_again():
        return all(writers.acknowledged[s] > before[s] for s in SESSIONS)

    await eventually(all_write_again)
    writers.end()
    await asyncio.gather(*tasks)
    for session_id in SESSIONS:
        expected = [f"fact {n}" for n in range(writers.acknowledged[session_id])]
        found = await patiently(partial(kind.found, running, session_id))
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("kill", KILLS)
async def test_a_batch_over_workers_is_kept_as_a_whole(serve, worker, cluster, eventually, kill):
    """Every batch has a memory for a session of each worker."""
    running = await serve(MEMORY_MAX_ENTRIES="1000")
    pairs = [*zip(*await cluster.by_place(), strict=False)][:8]

    def batch(pair, number):
        return pb.BatchStoreMemoriesRequest(
            requests=[stored(s, f"fact {number}", request_id=request_id(s, number)) for s in pair]
        )

    both = Kind("memory", "BatchStoreMemories", batch, memories)
    writers = Writers(running, both)
    tasks = [asyncio.create_task(writers.write(pair)) for pair in pairs]

    async def all_write():
        return all(writers.acknowledged[pair] > kill for pair in pairs)

    async def are_refused():
        return all(writers.refused[pair] for pair in pairs)

    await eventually(all_write)
    await asyncio.to_thread(worker.stop)
    await eventually(are_refused)
    await asyncio.to_thread(worker.start)
    before = writers.acknowledged.copy()

    async def all_write_again():
        return all(writers.acknowledged[pair] > before[pair] for pair in pairs)

    await eventually(all_write_again)
    writers.end()
    await asyncio.gather(*tasks)
    for pair in pairs:
        expected = sorted(f"fact {n}" for n in range(writers.acknowledged[pair]))
        for session_id in pair:
            found = await patiently(partial(memories, running, session_id))
            assert sorted(found) == expected
