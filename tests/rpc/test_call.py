"""Large requests are validated in a thread, for as long as their caller waits."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest

from memoryd.domain.principals import NO_ONE
from memoryd.domain.records import ContentPolicy
from memoryd.rpc.call import Call, offloaded
from memoryd.rpc.memories.requests import RequestParser
from memoryd.rpc.violations import Violations
from memoryd.tools.settings import MemorySettings
from memoryd.v1 import memory_pb2 as pb


async def test_validation_of_a_batch_ends_when_its_caller_leaves():
    threads: list[int] = []
    has_gone = threading.Event()
    loop = asyncio.get_running_loop()

    def clock() -> datetime:
        """Cancel the call while the first memory is validated."""
        threads.append(threading.get_ident())
        loop.call_soon_threadsafe(validation.cancel)
        assert has_gone.wait(60)
        return datetime(2026, 3, 1, tzinfo=UTC)

    parser = RequestParser(
        ContentPolicy.SANITIZE, clock, lambda _: MemorySettings(), max_batch=1000
    )
    call = Call("StoreMemory", "request", lambda: None, "ipv4:127.0.0.1", NO_ONE)
    batch = pb.BatchStoreMemoriesRequest(
        requests=[pb.StoreMemoryRequest(session_id="a", content=f"fact {n}") for n in range(1000)]
    )
    ended = asyncio.Event()

    def validate() -> None:
        try:
            parser.new_memories(batch, call, Violations())
        finally:
            loop.call_soon_threadsafe(ended.set)

    validation = asyncio.ensure_future(offloaded(nullcontext(), validate))
    with pytest.raises(asyncio.CancelledError):
        await validation
    has_gone.set()
    await ended.wait()
    assert len(threads) == 1
    assert threads != [threading.get_ident()]
