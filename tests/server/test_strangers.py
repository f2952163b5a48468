"""Wrong frames, endless requests and silent streams harm no other caller."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memoryd.rpc import pipeline
from memoryd.v1 import memory_pb2 as pb

from ..frames import (  # noqa: TID252  test folders are no packages
    Connection,
    Setting,
    call_headers,
    connected,
    data,
    message,
    opened,
)
from ..strangers import (  # noqa: TID252  as above
    HEALTH,
    HEALTH_WATCH,
    REFLECTION,
    STORE,
    VALID,
    WRONG_FRAMES,
    WRONG_GREETINGS,
    idle_streams,
    launched,
    send_frames,
    send_greeting,
    store_call,
    underway,
)

TIMEOUT_SECONDS = 30.0
SERVING = health_pb2.HealthCheckResponse.SERVING
MOST_STREAMS = 1024
"""Per connection."""

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what strangers send here reaches no database."""
    return "sqlite"


async def check_health(channel: grpc.aio.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    return (await stub.Check(request, timeout=TIMEOUT_SECONDS)).status


async def assert_serves(running) -> None:
    """Fail unless existing and new connections are served."""
    async with grpc.aio.insecure_channel(
        running.address, [("grpc.use_local_subchannel_pool", 1)]
    ) as fresh:
        for channel in (running.channel, fresh):
            assert await check_health(channel) == SERVING
    request = pb.StoreMemoryRequest(session_id="user-123", content="Still here")
    stored = (await running.memory.StoreMemory(request, timeout=TIMEOUT_SECONDS)).memory
    get = pb.GetMemoryRequest(session_id="user-123", memory_id=stored.memory_id)
    assert await running.memory.GetMemory(get, timeout=TIMEOUT_SECONDS) == stored


async def ended(connection: Connection, stream: int) -> int | None:
    """The gRPC status with which the server ended a stream; None without one."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return (await connection.outcome(stream)).grpc_status


@pytest.mark.parametrize("name", WRONG_FRAMES)
async def test_wrong_frames_harm_no_other_caller(running, name):
    await assert_serves(running)
    for _ in range(3):
        await launched(partial(send_frames, WRONG_FRAMES[name]), running.address, TIMEOUT_SECONDS)
    await assert_serves(running)


@pytest.mark.parametrize("name", WRONG_GREETINGS)
async def test_wrong_greetings_harm_no_other_caller(running, name):
    await assert_serves(running)
    send = partial(send_greeting, WRONG_GREETINGS[name])
    await launched(send, running.address, TIMEOUT_SECONDS)
    await assert_serves(running)


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"", {INVALID_ARGUMENT}),
        (message(VALID)[:3], {INVALID_ARGUMENT, grpc.StatusCode.INTERNAL.value[0]}),
        (message(VALID, length=len(VALID) + 1), {INVALID_ARGUMENT, 13}),
        (message(b"\xff" * 9), {INVALID_ARGUMENT}),
    ],
    ids=["no message", "half a prefix", "half a message", "no request"],
)
async def test_a_call_without_a_complete_request_is_refused(running, body, codes):
    async with connected(running.address) as connection:
        await connection.send(store_call(1, body))
        assert await ended(connection, 1) in codes


async def test_a_connection_has_a_bounded_number_of_streams(running):
    async with connected(running.address) as connection:
        await connection.send(store_call(1, message(VALID)))
        assert await ended(connection, 1) == 0
        assert connection.settings[Setting.MAX_CONCURRENT_STREAMS] <= MOST_STREAMS


@pytest.mark.parametrize(
    "path",
    [STORE, b"/memoryd.v1.MemoryService/WatchMemories", HEALTH, HEALTH_WATCH, b"/no.such/Method"],
    ids=["a unary call", "a stream", "a health check", "a watch of health", "no method"],
)
@pytest.mark.parametrize(
    "body", [b"", message(VALID)[:3], message(VALID)[:-1]], ids=["nothing", "a prefix", "a part"]
)
async def test_an_unfinished_request_times_out(serve, path, body):
    running = await serve(MEMORYD_REQUEST_SECONDS="1")
    async with connected(running.address) as connection:
        await connection.send(opened(1, call_headers(path)), data(1, body))
        unimplemented = grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert await ended(connection, 1) in {DEADLINE_EXCEEDED, CANCELLED, unimplemented}
    await assert_serves(running)


async def test_a_request_that_is_slow_but_in_time_is_answered(serve):
    running = await serve(MEMORYD_REQUEST_SECONDS="30")
    async with connected(running.address) as connection:
        await connection.send(opened(1, call_headers(STORE)))
        for byte in message(VALID):
            await connection.send(data(1, bytes([byte])))
            await asyncio.sleep(0.01)
        await connection.send(data(1, b"", ends=True))
        assert await ended(connection, 1) == 0


async def test_an_unfinished_request_holds_a_place_until_it_ends(serve, refusal, eventually):
    running = await serve(MEMORYD_MAX_CALLS="2", MEMORYD_REQUEST_SECONDS="60")
    request = pb.StoreMemoryRequest(session_id="user-123", content="a fact")

    async def is_refused() -> bool:
        try:
            await running.memory.StoreMemory(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason == "OVERLOADED"
        return False

    async def is_stored() -> bool:
        return not await is_refused()

    async with connected(running.address) as connection:
        streams = itertools.count(1, 2)

        async def is_full() -> bool:
            # Retried, since a store in progress may hold the free place.
            unfinished = data(stream := next(streams), message(VALID)[:-1])
            await connection.send(opened(stream, call_headers(STORE)), unfinished)
            return await is_refused()

        await eventually(is_full)
        assert await check_health(running.channel) == SERVING
    await eventually(is_stored)


async def test_reflection_has_its_own_limit_of_streams(serve):
    running = await serve(MEMORYD_MAX_CALLS="2")
    async with connected(running.address) as connection:
        streams = range(1, 2 * 60, 2)
        for stream in streams:
            await connection.send(opened(stream, call_headers(REFLECTION)))
        refused = await first_ended(connection, 60 - 50)
        assert {connection.outcomes[stream].grpc_status for stream in refused} == {
            RESOURCE_EXHAUSTED
        }
        await assert_serves(running)


async def first_ended(connection: Connection, count: int) -> list[int]:
    """Wait until the server has ended at least this many streams, and return them."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            found = [n for n, outcome in connection.outcomes.items() if outcome.ended.is_set()]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def test_an_idle_reflection_stream_is_ended(serve, monkeypatch):
    monkeypatch.setattr(pipeline, "REFLECTION_IDLE_SECONDS", 0.2)
    running = await serve()
    async with connected(running.address) as connection:
        await connection.send(opened(1, call_headers(REFLECTION)))
        assert await ended(connection, 1) in {DEADLINE_EXCEEDED, UNAVAILABLE, CANCELLED}


async def test_watches_of_health_are_limited_and_leave_room_for_checks(serve):
    running = await serve(MEMORYD_MAX_CALLS="2", MEMORYD_MAX_STREAMS="2")
    request = health_pb2.HealthCheckRequest().SerializeToString()
    async with connected(running.address) as connection:
        for stream in (1, 3, 5):
            headers = opened(stream, call_headers(HEALTH_WATCH))
            await connection.send(headers, data(stream, message(request), ends=True))
        (refused,) = await first_ended(connection, 1)
        assert connection.outcomes[refused].grpc_status == RESOURCE_EXHAUSTED
        await assert_serves(running)


async def test_an_idle_watch_of_health_is_ended(serve):
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="0.2")
    async with grpc.aio.insecure_channel(running.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS
        )
        assert (await watch.read()).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch.read()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("path", [REFLECTION, HEALTH_WATCH, b"/no.such/Method"])
async def test_idle_streams_leave_health_its_places(serve, path):
    running = await serve(MEMORYD_MAX_CALLS="20", MEMORYD_MAX_CALLS_PER_CLIENT="20")
    request = b"" if path == HEALTH_WATCH else None
    attack = partial(idle_streams, path=path, streams=20, request=request)
    async with underway(attack, running.address, TIMEOUT_SECONDS):
        for _ in range(20):
            await assert_serves(running)
            await asyncio.sleep(0.05)
    await assert_serves(running)
