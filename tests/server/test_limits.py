"""Limits against abuse: excess calls are refused at once, at no cost to other callers."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memoryd.domain.errors import ClientLimitReached, Overloaded
from memoryd.memories import group_commit
from memoryd.rpc import pipeline
from memoryd.rpc.limits import ConcurrencyLimiter, RetryDelays, client_of
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING


def store_request(number: int) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=f"fact {number}")


def watch_request(after: int = 0) -> pb.WatchMemoriesRequest:
    return pb.WatchMemoriesRequest(session_id="user-123", start_revision=after)


async def read_all(stream) -> list[int]:
    return [event.revision async for event in stream]


@pytest.mark.parametrize(
    ("variable", "reason"),
    [("MEMORYD_MAX_CALLS", "OVERLOADED"), ("MEMORYD_MAX_CALLS_PER_CLIENT", "CLIENT_LIMIT_REACHED")],
)
async def test_calls_over_the_limit_are_refused_with_a_retry_delay(
    serve, refusal, variable, reason
):
    running = await serve(**{variable: "2"})
    health = health_pb2_grpc.HealthStub(running.channel)

    async def store(number: int) -> str:
        try:
            await running.memory.StoreMemory(store_request(number))
        except grpc.aio.AioRpcError as error:
            refused = refusal(error)
            assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
            return refused.reason
        return "stored"

    async def ask() -> str:
        answer = await health.Check(health_pb2.HealthCheckRequest())
        return "serving" if answer.status == SERVING else "not serving"

    outcomes = Counter(await asyncio.gather(*map(store, range(100)), *(ask() for _ in range(100))))
    assert outcomes["stored"] >= 2
    assert outcomes["serving"] == 100
    assert outcomes[reason] == 100 - outcomes["stored"] > 0
    # However they ended, they no longer hold a place.
    listed = await running.memory.ListMemories(
        pb.ListMemoriesRequest(session_id="user-123", page_size=1000)
    )
    assert len(listed.memories) == outcomes["stored"]


async def test_calls_during_a_stop_are_done_or_refused_and_never_cancelled(
    serve, refusal, monkeypatch
):
    # Generous, so that a slow machine makes no difference.
    monkeypatch.setattr(pipeline, "QUIET_SECONDS", 2.0)
    monkeypatch.setattr(pipeline, "REFUSING_SECONDS", 30.0)
    running = await serve()

    stored = asyncio.Event()

    async def store_on(caller: int) -> None:
        for number in itertools.count(caller * 10_000):
            await running.memory.StoreMemory(store_request(number))
            stored.set()

    callers = [asyncio.create_task(store_on(caller)) for caller in range(32)]
    await stored.wait()
    await running.server.stop()
    for error in await asyncio.gather(*callers, return_exceptions=True):
        refused = refusal(error)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("MEMORYD_MAX_STREAMS", "OVERLOADED"),
        ("MEMORYD_MAX_STREAMS_PER_CLIENT", "CLIENT_LIMIT_REACHED"),
    ],
)
async def test_streams_over_the_limit_are_refused_until_others_end(
    serve, refusal, eventually, variable, reason
):
    running = await serve(**{variable: "2"})
    watches = [running.memory.WatchMemories(watch_request()) for _ in range(2)]
    for watch in watches:
        await watch.initial_metadata()
    for stream in (
        running.memory.WatchMemories(watch_request()),
        running.tools.WatchToolConfigs(tool_pb.WatchToolConfigsRequest()),
        running.memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refusal(refused.value).reason == reason
    await running.memory.StoreMemory(store_request(1))  # calls have their own places
    watches[0].cancel()

    async def has_room() -> bool:
        stream = running.memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123"))
        try:
            return [memory.content async for memory in stream] == ["fact 1"]
        except grpc.aio.AioRpcError:
            return False

    await eventually(has_room)
    assert (await watches[1].read()).memory.content == "fact 1"


def test_a_client_is_an_address_and_takes_no_other_clients_places():
    places = ConcurrencyLimiter("calls", limit=3, limit_per_client=2)
    one, other, third = map(client_of, ("ipv4:10.0.0.7:1", "ipv4:10.0.0.8:1", "ipv6:%5B::1%5D:1"))
    places.take(one)
    places.take(client_of("ipv4:10.0.0.7:2222"))
    with pytest.raises(ClientLimitReached):
        places.take(client_of("ipv4:10.0.0.7:3333"))
    places.take(third)
    with pytest.raises(Overloaded):
        places.take(other)
    places.give_back(third)
    places.take(other)
    places.give_back(other)
    places.give_back(one)
    places.take(one)
    places.take(client_of("unix:"))


@pytest.mark.parametrize(
    ("peers", "clients"),
    [
        (("ipv6:%5B2001:db8::7%5D:1", "ipv6:[2001:db8::ffff:0:0:8]:2"), 1),
        (("ipv6:%5B2001:db8::7%5D:1", "ipv6:%5B2001:db8:0:1::7%5D:1"), 2),
        (("ipv6:%5B::ffff:10.0.0.7%5D:1", "ipv4:10.0.0.7:2"), 1),
        (("ipv6:%5B::ffff:10.0.0.7%5D:1", "ipv6:%5B::ffff:10.0.0.8%5D:1"), 2),
        (("ipv6:%5Bfe80::1%25eth0%5D:1", "ipv6:%5Bfe80::2%25eth0%5D:1"), 1),
        (("ipv6:%5Bno address%5D:1", "ipv6:%5Bno address%5D:2"), 1),
    ],
)
def test_an_ipv6_client_is_a_network(peers, clients):
    assert len(set(map(client_of, peers))) == clients


async def test_writes_that_would_wait_too_long_are_refused_unread(serve, refusal, monkeypatch):
    monkeypatch.setattr(group_commit, "MAX_WAIT_SECONDS", 0.0)
    running = await serve(MEMORYD_WRITE_BATCH_LIMIT="2")
    # From here on the service knows how long two take.
    await running.memory.BatchStoreMemories(
        pb.BatchStoreMemoriesRequest(requests=[store_request(0), store_request(-1)])
    )
    delays = []
    refused_unread = 0

    async def store(number: int) -> str:
        nonlocal refused_unread
        # Every second one would be refused as invalid.
        request = store_request(number) if number % 2 else pb.StoreMemoryRequest()
        try:
            await running.memory.StoreMemory(request)
        except grpc.aio.AioRpcError as error:
            refused = refusal(error)
            if refused.reason == "OVERLOADED":
                refused_unread += not number % 2
                delays.append(refused.details["RetryInfo"].retry_delay.ToMilliseconds())
            return refused.reason
        return "stored"

    outcomes = Counter(await asyncio.gather(*map(store, range(1, 201))))
    assert set(outcomes) <= {"stored", "OVERLOADED", "INVALID_REQUEST"}
    assert refused_unread > 0
    assert min(delays) >= 500
    listed = await running.memory.ListMemories(
        pb.ListMemoriesRequest(session_id="user-123", page_size=1000)
    )
    assert len(listed.memories) == outcomes["stored"] + 2


def test_refused_callers_come_back_one_after_the_other():
    now = 1000.0
    returns = RetryDelays(clock=lambda: now)
    delays = [returns.give() for _ in range(1000)]
    assert delays[:3] == pytest.approx([0.5, 0.505, 0.51])
    assert delays == sorted(delays)
    crowd = [returns.give() for _ in range(5000)]
    assert all(5 <= delay <= 10 for delay in crowd[1000:])
    assert len(set(crowd)) > 4000
    now += 20
    assert returns.give() == pytest.approx(0.5)


async def test_an_idle_stream_is_ended_and_resumes_without_loss(serve, refusal):
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="0.3")
    for number in range(3):
        await running.memory.StoreMemory(store_request(number))
    watch = running.memory.WatchMemories(watch_request())
    assert [(await watch.read()).revision for _ in range(3)] == [1, 2, 3]
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await watch.read()
    idle = refusal(ended.value)
    assert (idle.code, idle.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
    last = int(idle.details["ErrorInfo"].metadata["last_revision"])
    await running.memory.StoreMemory(store_request(3))
    assert (await running.memory.WatchMemories(watch_request(last)).read()).revision == 4
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await read_all(running.tools.WatchToolConfigs(tool_pb.WatchToolConfigsRequest()))
    assert refusal(ended.value).reason == "STREAM_IDLE"


async def test_the_size_of_a_batch_is_a_setting(serve, refusal):
    running = await serve(MEMORYD_MAX_BATCH_SIZE="2")
    requests = [store_request(number) for number in range(3)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    (violation,) = refusal(refused.value).details["BadRequest"].field_violations
    assert violation.field == "requests"
    assert "at most 2, these are 3" in violation.description
    batch = pb.BatchStoreMemoriesRequest(requests=requests[:2])
    assert len((await running.memory.BatchStoreMemories(batch)).responses) == 2


async def test_an_old_connection_is_closed_without_failing_a_call(serve):
    # More than a store takes on a busy machine: what outlasts it is ended, as the watch is.
    running = await serve(MEMORYD_CONNECTION_AGE_SECONDS="1", MEMORYD_CONNECTION_GRACE_SECONDS="5")
    async with grpc.aio.insecure_channel(running.address) as channel:
        memory = MemoryServiceStub(channel)
        watching = asyncio.create_task(read_all(memory.WatchMemories(watch_request())))
        number = 0
        while not watching.done():
            await memory.StoreMemory(store_request(number % 10))
            number += 1
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
