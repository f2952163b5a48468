"""A worker of Citus that fails under load: what is acknowledged is kept once, others go on."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb

SESSIONS = [f"session-{number}" for number in range(32)]
KILLS = 10
PAUSE_SECONDS = 0.05
"""Between two stores to a session, so that none is evicted before the end."""
REFUSALS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SETTLED = 20
"""Stores to a session on a living worker while another one is away."""


class Writers:
    """One writer a session, each of which stores one content after the other, and notes it."""

    def __init__(self, memory):
        self._memory = memory
        self.acknowledged = Counter()
        self.refused = Counter()
        self._ended = False

    def end(self):
        self._ended = True

    async def write(self, session_id):
        """Store until `end`; one that is refused is tried again as the same request."""
        while not self._ended:
            number = self.acknowledged[session_id]
            request = pb.StoreMemoryRequest(
                session_id=session_id,
                content=f"fact {number}",
                request_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session_id} {number}")),
            )
            try:
                await self._memory.StoreMemory(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REFUSALS:
                    raise
                self.refused[session_id] += 1
            else:
                self.acknowledged[session_id] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def contents(memory, session_id):
    """Every content of a session, over all pages."""
    found, token = [], ""
    while True:
        request = pb.ListMemoriesRequest(session_id=session_id, page_size=1000, page_token=token)
        page = await memory.ListMemories(request)
        found += [each.content for each in page.memories]
        if not (token := page.next_page_token):
            return found


@pytest.mark.parametrize("kill", range(KILLS))
async def test_citus_loses_nothing_and_doubles_nothing(serve, worker, eventually, kill):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    writers = Writers(memory)
    tasks = [asyncio.create_task(writers.write(session_id)) for session_id in SESSIONS]

    async def all_write():
        return all(writers.acknowledged[s] > kill for s in SESSIONS)

    async def living_go_on():
        more = writers.acknowledged - before
        return bool(writers.refused) and max(more.values(), default=0) > SETTLED

    await eventually(all_write)
    worker.stop()
    before = writers.acknowledged.copy()
    await eventually(living_go_on)
    assert len(writers.refused) < len(SESSIONS)
    worker.start()
    before = writers.acknowledged.copy()

    async def all_write_again():
        return all(writers.acknowledged[s] > before[s] for s in SESSIONS)

    await eventually(all_write_again)
    writers.end()
    await asyncio.gather(*tasks)
    for session_id in SESSIONS:
        expected = [f"fact {n}" for n in range(writers.acknowledged[session_id])]
        assert sorted(await contents(memory, session_id)) == sorted(expected)
