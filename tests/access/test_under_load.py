"""Credentials that change while calls and streams are under way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.access.guarded import end_of, outcome

from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

WHO = pb.WhoAmIRequest()
WATCHES = 64
CALLERS = 16


@pytest.fixture
async def replicas(guard):
    """Two servers on one database."""
    return [await guard(), await guard()]


async def test_all_streams_of_a_revoked_key_end_on_every_replica_and_no_other(replicas, eventually):
    one, two = replicas
    made, other = await one.key("acme"), await one.key("acme")

    async def are_known() -> bool:
        known = [await outcome(two.with_key(k.key).access("WhoAmI", WHO)) for k in (made, other)]
        return known == [None, None]

    await eventually(are_known)

    def watch(server, key, number: int):
        request = memory_pb2.WatchMemoriesRequest(session_id=f"chat-{number % 8}")
        return server.with_key(key.key).memory("WatchMemories", request)

    watches = [watch(replicas[n % 2], made, n) for n in range(WATCHES)]
    others = [watch(server, other, 0) for server in replicas]
    await asyncio.gather(*(call.initial_metadata() for call in (*watches, *others)))
    await one.admin.access(
        "RevokeApiKey", pb.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
    )
    ends = await asyncio.gather(*(asyncio.wait_for(end_of(call), 30) for call in watches))
    assert {end and end.reason for end in ends} == {"CREDENTIAL_REVOKED"}
    assert all(end.metadata == {"last_revision": "0"} for end in ends)
    store = memory_pb2.StoreMemoryRequest(session_id="chat-0", content="a fact")
    await one.with_key(other.key).memory("StoreMemory", store)
    for call in others:
        assert (await call.read()).revision == 1
        call.cancel()


async def test_a_key_is_rotated_without_one_call_that_fails(replicas, clock, eventually):
    one, two = replicas
    old = await one.key("acme")
    current, failed, calls = [old.key], [], 0
    is_over = asyncio.Event()

    async def opens(key: str) -> bool:
        found = [await outcome(server.with_key(key).access("WhoAmI", WHO)) for server in replicas]
        return found == [None, None]

    async def call(number: int) -> None:
        nonlocal calls
        while not is_over.is_set():
            caller = replicas[number % 2].with_key(current[-1])
            store = memory_pb2.StoreMemoryRequest(session_id="chat", content=f"fact {number}")
            found = await outcome(caller.memory("StoreMemory", store))
            calls += 1
            if found is not None:
                failed.append(found)

    await eventually(lambda: opens(old.key))
    working = [asyncio.create_task(call(number)) for number in range(CALLERS)]

    async def more_calls(count: int = 2 * CALLERS) -> None:
        wanted = calls + count

        async def are_done() -> bool:
            return calls >= wanted

        await eventually(are_done)

    for _ in range(3):
        await more_calls()
        rotation = pb.RotateApiKeyRequest(
            tenant="acme", key_id=current[-1][4:16], overlap=Duration(seconds=3600)
        )
        new = (await one.admin.access("RotateApiKey", rotation)).key
        await eventually(lambda new=new: opens(new))
        current.append(new)
        await more_calls()
        clock.move(timedelta(seconds=3600))
        found = await outcome(two.with_key(current[-2]).access("WhoAmI", WHO))
        assert found is not None
        assert found.reason == "CREDENTIAL_EXPIRED"
    await more_calls()
    is_over.set()
    await asyncio.gather(*working)
    assert not failed


async def test_no_known_key_is_refused_while_keys_are_read(replicas, tables):
    """Also where reads overlap, and where the database was put back to an earlier state."""
    one, _ = replicas
    made = await one.key("acme")
    caller, is_over, failed = one.with_key(made.key), asyncio.Event(), []

    async def call() -> None:
        while not is_over.is_set():
            if (found := await outcome(caller.access("WhoAmI", WHO))) is not None:
                failed.append(found)

    working = [asyncio.create_task(call()) for _ in range(CALLERS)]
    for _ in range(10):
        await asyncio.gather(*(one.key("other") for _ in range(4)))
        await tables.execute("UPDATE access_head SET revision = revision - 5")
        await one.key("other")  # its server reads keys again before it answers
    is_over.set()
    await asyncio.gather(*working)
    assert not failed
