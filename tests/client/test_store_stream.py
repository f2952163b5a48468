"""Stores that are under way at once: over one stream, as if each were a call of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import RequestInfo
from tests.locks import writes_blocked

from memoryd import client
from memoryd.client import MemoryClient, open_channel, store_stream
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TIMEOUT_SECONDS = 60
STREAM, CALL = "StreamStoreMemories", "StoreMemory"
SESSION = "user-123"


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., MemoryClient]]:
    """Make clients that are patient and closed in the end."""
    made: list[MemoryClient] = []

    def make(address: str, **named: Any) -> MemoryClient:
        made.append(MemoryClient(address, timeout=TIMEOUT_SECONDS, **named))
        return made[-1]

    yield make
    for memory in made:
        await memory.close()


@pytest.fixture
def calls(caplog) -> Callable[[], Counter[str]]:
    """Count the calls that have ended, by method, as the service logs them."""
    caplog.set_level(logging.INFO, "memoryd.access")

    def count() -> Counter[str]:
        methods = (getattr(record, "method", "") for record in caplog.records)
        return Counter(method.rpartition("/")[2] for method in methods if method)

    return count


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.02)


async def contents(memory: MemoryClient, session_id: str = SESSION) -> list[str]:
    return [stored.content async for stored in memory.list(session_id, page_size=1000)]


async def store_facts(memory: MemoryClient, count: int, name: str = "fact") -> list[Any]:
    return await asyncio.gather(*(memory.store(SESSION, f"{name} {n}") for n in range(count)))


async def test_stores_under_way_at_once_share_a_stream(serve, connect, calls):
    running = await serve(MEMORY_MAX_ENTRIES="1000")
    memory = connect(running.address)
    stored = await store_facts(memory, 250)
    assert [answer.memory.content for answer in stored] == [f"fact {n}" for n in range(250)]
    assert {answer.outcome for answer in stored} == {client.StoreOutcome.CREATED}
    for answer in stored[::50]:
        assert await memory.get(SESSION, answer.memory.memory_id) == answer.memory
    assert sorted(await contents(memory)) == sorted(f"fact {n}" for n in range(250))
    await memory.close()
    await eventually(lambda: calls()[STREAM] == 1)
    assert calls()[CALL] == 1  # the first, which was alone


async def test_stores_one_after_the_other_are_calls(running, connect, calls):
    memory = connect(running.address)
    for number in range(5):
        await memory.store(SESSION, f"fact {number}")
    await memory.close()
    await eventually(lambda: calls()[CALL] == 5)
    assert STREAM not in calls()


REQUEST_ID = "0197d3e2-7a44-4e2a-b2f0-3c1d5e6f7a8b"
REFUSED: tuple[dict[str, Any], ...] = (
    {"session_id": "../x", "content": "a", "importance": 7},
    {"session_id": SESSION, "content": "<br>"},
    {"session_id": SESSION, "content": "another", "request_id": REQUEST_ID},
)


async def test_a_refused_store_raises_what_a_call_raises_and_fails_alone(running, connect):
    memory = connect(running.address)
    await memory.store(SESSION, "first", request_id=REQUEST_ID)
    alone = []
    for sent in REFUSED:
        with pytest.raises(client.InvalidArgument) as raised:
            await memory.store(**sent)
        alone.append(raised.value)
    good, *together, after = await asyncio.gather(
        memory.store(SESSION, "good"),
        *(memory.store(**sent) for sent in REFUSED),
        memory.store(SESSION, "after"),
        return_exceptions=True,
    )
    assert (good.memory.content, after.memory.content) == ("good", "after")
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        assert (one.code, one.message, one.reason) == (other.code, other.message, other.reason)
        assert (one.violations, said_by(one)) == (other.violations, said_by(other))
        # A store within a stream has no call of its own, so no id of one.
        assert str(one) == f"{other} (request {one.request_id})"
        assert isinstance(other.__cause__, grpc.aio.AioRpcError)


def said_by(error: client.MemorydError) -> list[Any]:
    """The details of an error but the id of its call."""
    return [each for each in error.details if not isinstance(each, RequestInfo)]


async def test_each_store_has_a_deadline_of_its_own(running, connect, database_url):
    memory = connect(running.address)
    await memory.store(SESSION, "before")
    async with writes_blocked(database_url):
        patient = [asyncio.create_task(memory.store(SESSION, f"fact {n}")) for n in range(3)]
        hasty = [memory.store(SESSION, f"hasty {n}", timeout=0.3) for n in range(5)]
        for error in await asyncio.gather(*hasty, return_exceptions=True):
            assert type(error) is client.DeadlineExceeded
            assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "")
        assert not any(task.done() for task in patient)
    answers = await asyncio.gather(*patient)
    assert [answer.memory.content for answer in answers] == ["fact 0", "fact 1", "fact 2"]


async def test_a_cancelled_store_takes_nothing_from_others(running, connect, database_url):
    memory = connect(running.address)
    await memory.store(SESSION, "before")
    async with writes_blocked(database_url):
        stores = [asyncio.create_task(memory.store(SESSION, f"fact {n}")) for n in range(20)]
        await asyncio.sleep(0)
        stores[3].cancel()  # unsent
        await memory.get(SESSION, (await anext(memory.list(SESSION))).memory_id)
        stores[7].cancel()  # sent
    for number, answer in enumerate(await asyncio.gather(*stores, return_exceptions=True)):
        if number in {3, 7}:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer.memory.content == f"fact {number}"


async def test_a_large_store_is_a_call(running, connect, calls):
    memory = connect(running.address)
    large = {"list": [0] * 8_000}  # 88 KB on the wire
    await asyncio.gather(
        *(memory.store(f"user-{n}", "fact", metadata=large) for n in range(3)),
        *(memory.store(SESSION, f"fact {n}") for n in range(3)),
    )
    await memory.close()
    await eventually(lambda: calls()[STREAM] == 1)
    assert calls()[CALL] == 3


async def test_an_answer_is_whole_where_a_message_has_no_room_for_it(running, connect):
    memory = connect(running.address)
    large = {"list": [0] * 8_000}
    for number in range(60):
        await memory.store(f"user-{number}", "fact", metadata=large)
    merged = await asyncio.gather(*(memory.store(f"user-{n}", "fact") for n in range(60)))
    assert {answer.memory.content for answer in merged} == {"fact"}
    assert {len(answer.memory.metadata["list"]) for answer in merged} == {8_000}
    assert {answer.outcome for answer in merged} == {client.StoreOutcome.MERGED}
    assert {answer.memory.revision for answer in merged} == {2}


async def test_stores_go_on_where_a_server_is_restarted(serve, connect):
    first = await serve(MEMORY_MAX_ENTRIES="1000", MEMORYD_DRAIN_SECONDS="1")
    memory = connect(first.address)
    count, stopped = 0, asyncio.Event()

    async def store_on(caller: int) -> int:
        nonlocal count
        number = 0
        while not stopped.is_set() or number < 2:
            await memory.store(f"user-{caller}", f"fact {number}")
            number += 1
            count += 1
        return number

    callers = [asyncio.create_task(store_on(caller)) for caller in range(16)]
    await eventually(lambda: count > 64)
    await first.server.stop()
    await serve(MEMORYD_PORT=first.address.rpartition(":")[2], MEMORY_MAX_ENTRIES="1000")
    before = count
    await eventually(lambda: count > before + 64)
    stopped.set()
    for caller, stored in enumerate(await asyncio.gather(*callers)):
        assert sorted(await contents(memory, f"user-{caller}")) == sorted(
            f"fact {n}" for n in range(stored)
        )


async def test_a_server_that_is_killed_loses_and_doubles_nothing(
    command_line, database_url, connect, monkeypatch
):
    monkeypatch.setattr(store_stream, "REST_SECONDS", 0.0)
    variables = {"MEMORYD_DATABASE_URL": database_url, "MEMORY_MAX_ENTRIES": "1000"}
    server = command_line.serve(**variables)
    address = await asyncio.to_thread(server.address)
    memory = connect(address)
    count, stopped = 0, asyncio.Event()

    async def insist(caller: int, number: int) -> None:
        nonlocal count
        request_id = str(uuid.uuid4())
        while True:
            with contextlib.suppress(client.Unavailable, client.Cancelled):
                await memory.store(f"user-{caller}", f"fact {number}", request_id=request_id)
                count += 1
                return

    async def store_on(caller: int) -> int:
        number = 0
        while not stopped.is_set():
            await insist(caller, number)
            number += 1
        return number

    callers = [asyncio.create_task(store_on(caller)) for caller in range(16)]
    for _ in range(3):
        before = count
        await eventually(lambda: count > before + 50)  # noqa: B023  awaited at once
        await asyncio.to_thread(server.kill)
        server = command_line.serve("--port", address.rpartition(":")[2], **variables)
        await asyncio.to_thread(server.address)
    stopped.set()
    for caller, stored in enumerate(await asyncio.gather(*callers)):
        kept = [m async for m in memory.list(f"user-{caller}", page_size=1000)]
        assert [m.content for m in kept] == [f"fact {n}" for n in range(stored)]
        assert [m.revision for m in kept] == list(range(1, stored + 1))


async def test_where_there_is_no_room_for_a_stream_stores_are_calls(serve, connect, calls):
    running = await serve(MEMORYD_MAX_STREAMS="1")
    watch = running.memory.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION))
    await watch.initial_metadata()
    memory = connect(running.address)
    await store_facts(memory, 20)
    await store_facts(memory, 20, "another")
    assert len(await contents(memory)) == 40
    await memory.close()
    assert calls()[STREAM] == 1  # refused
    assert calls()[CALL] == 40
    watch.cancel()


async def test_an_idle_stream_is_closed_and_another_opened(running, connect, calls, monkeypatch):
    monkeypatch.setattr(store_stream, "IDLE_SECONDS", 0.1)
    memory = connect(running.address)
    for number in range(3):
        await store_facts(memory, 5, f"fact {number}")
        await eventually(lambda: calls()[STREAM] == number + 1)  # noqa: B023  awaited at once
        # An answer on the same connection: the stream's end has reached the client before it.
        assert len(await contents(memory)) == 5 * (number + 1)


async def test_a_stream_that_the_service_ends_is_opened_again(serve, connect, calls):
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="1")
    memory = connect(running.address)
    for number in range(3):
        await store_facts(memory, 5, f"fact {number}")
        await eventually(lambda: calls()[STREAM] == number + 1)  # noqa: B023  awaited at once
        # An answer on the same connection: the stream's end has reached the client before it.
        assert len(await contents(memory)) == 5 * (number + 1)


async def test_closing_gives_up_stores_under_way_but_on_a_shared_channel(
    running, connect, database_url
):
    own = connect(running.address)
    await own.store(SESSION, "before")
    async with open_channel(running.address) as channel:
        sharing = MemoryClient(channel=channel, timeout=TIMEOUT_SECONDS)
        async with writes_blocked(database_url):
            given_up = [asyncio.create_task(own.store(SESSION, f"own {n}")) for n in range(5)]
            kept = [asyncio.create_task(sharing.store(SESSION, f"kept {n}")) for n in range(5)]
            await running.memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION))
            await own.close()
            await sharing.close()
            for error in await asyncio.gather(*given_up, return_exceptions=True):
                assert isinstance(error, asyncio.CancelledError)
        answers = await asyncio.gather(*kept)
        assert [answer.memory.content for answer in answers] == [f"kept {n}" for n in range(5)]
        await asyncio.gather(*(sharing.store(SESSION, f"later {n}") for n in range(3)))
    with pytest.raises(grpc.aio.UsageError):
        await own.store(SESSION, "too late")


# A service that does what a sound one does not


class Scripted(grpc.GenericRpcHandler):
    """Stores nothing. A stream goes as `serve` has it; None: there is none."""

    def __init__(self, serve: Callable[[Any, Any], Awaitable[None]] | None) -> None:
        self._serve = serve
        self.streams = 0
        self.called: list[pb.StoreMemoryRequest] = []
        self.streamed: list[pb.StoreMemoryRequest] = []

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if not handler_call_details.method.endswith(STREAM):
            return grpc.unary_unary_rpc_method_handler(
                self._call,
                pb.StoreMemoryRequest.FromString,
                pb.StoreMemoryResponse.SerializeToString,
            )
        self.streams += 1
        if self._serve is None:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream,
            pb.StreamStoreMemoriesRequest.FromString,
            pb.StreamStoreMemoriesResponse.SerializeToString,
        )

    async def _call(
        self, request: pb.StoreMemoryRequest, context: object
    ) -> pb.StoreMemoryResponse:
        del context
        self.called.append(request)
        return pb.StoreMemoryResponse(memory={"content": f"called {request.content}"})

    async def _stream(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        await context.send_initial_metadata(())

        async def received() -> AsyncIterator[pb.StreamStoreMemoriesRequest]:
            async for message in requests:
                self.streamed.extend(message.requests)
                yield message

        await self._serve(received(), context)


@contextlib.asynccontextmanager
async def scripted(serve: Any) -> AsyncIterator[tuple[Scripted, MemoryClient]]:
    handler = Scripted(serve)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with MemoryClient(f"127.0.0.1:{port}", timeout=TIMEOUT_SECONDS) as memory:
        yield handler, memory
    await server.stop(None)


def answer(request: pb.StoreMemoryRequest) -> pb.StoreMemoryResult:
    memory = pb.Memory(content=f"streamed {request.content}")
    return pb.StoreMemoryResult(response=pb.StoreMemoryResponse(memory=memory))


async def test_a_service_without_the_stream_gets_calls_for_good():
    async with scripted(None) as (service, memory):
        for _ in range(3):
            stored = await store_facts(memory, 20)
            assert [a.memory.content for a in stored] == [f"called fact {n}" for n in range(20)]
    assert service.streams == 1
    assert len({request.request_id for request in service.called}) == 60


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.OK,
    ],
)
async def test_what_a_broken_stream_has_not_answered_is_the_same_request_again(code):
    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        first = await anext(messages)
        await context.write(
            pb.StreamStoreMemoriesResponse(results=[answer(item) for item in first.requests])
        )
        await anext(messages)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "broken")

    async with scripted(serve) as (service, memory):
        stored = await store_facts(memory, 150)
        answered = [a.memory.content for a in stored]
        assert answered[0] == "called fact 0"
        assert answered[1:101] == [f"streamed fact {n}" for n in range(1, 101)]
        assert answered[101:] == [f"called fact {n}" for n in range(101, 150)]
        resent = [request for request in service.called if request in service.streamed]
        # It has answered: the next is opened at once.
        again = await store_facts(memory, 10)
        answered = [a.memory.content for a in again]
        assert answered == ["called fact 0", *(f"streamed fact {n}" for n in range(1, 10))]
    assert service.streams == 2
    assert len(service.streamed) == 158
    assert {r.content for r in resent} == {f"fact {n}" for n in range(101, 150)}


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK])
async def test_after_a_stream_that_has_answered_nothing_stores_are_calls_for_a_while(code):
    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        await anext(messages)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "broken")

    async with scripted(serve) as (service, memory):
        for _ in range(2):
            stored = await store_facts(memory, 10)
            assert [a.memory.content for a in stored] == [f"called fact {n}" for n in range(10)]
    assert service.streams == 1


async def test_a_store_that_is_refused_as_unavailable_is_repeated_and_no_other():
    def refusal(code: grpc.StatusCode) -> pb.StoreMemoryResult:
        return pb.StoreMemoryResult(status=status_pb2.Status(code=code.value[0], message="no"))

    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        async for message in messages:
            results = [
                refusal(codes.pop(0)) if codes else answer(item) for item in message.requests
            ]
            await context.write(pb.StreamStoreMemoriesResponse(results=results))

    async with scripted(serve) as (service, memory):
        _, again, refused, stored = await asyncio.gather(
            *(memory.store(SESSION, f"fact {n}") for n in range(4)), return_exceptions=True
        )
    assert again.memory.content == "called fact 1"
    assert type(refused) is client.ResourceExhausted
    assert (refused.message, refused.code) == ("no", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert stored.memory.content == "streamed fact 3"
    assert service.called[1] == service.streamed[0]


async def test_answers_that_are_not_one_for_each_store_are_no_answers():
    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        message = await anext(messages)
        results = [answer(item) for item in message.requests[1:]]
        await context.write(pb.StreamStoreMemoriesResponse(results=results))
        await anext(messages, None)

    async with scripted(serve) as (_, memory):
        stored = await store_facts(memory, 20)
    assert [a.memory.content for a in stored] == [f"called fact {n}" for n in range(20)]


async def test_a_stream_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(store_stream, "SILENT_SECONDS", 0.2)

    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        del context
        async for _ in messages:
            pass

    async with scripted(serve) as (service, memory):
        others = asyncio.create_task(store_facts(memory, 5))
        await eventually(lambda: len(service.streamed) == 4)
        (late,) = await asyncio.gather(
            memory.store(SESSION, "late", timeout=0.4), return_exceptions=True
        )
        assert type(late) is client.DeadlineExceeded
        answers = await others
        assert [a.memory.content for a in answers] == [f"called fact {n}" for n in range(5)]
        again = await store_facts(memory, 5, "again")
        assert {a.memory.content.partition(" ")[0] for a in again} == {"called"}
    assert service.streams == 1


async def test_messages_hold_what_the_service_takes_and_what_gathers_goes_together():
    sizes: list[tuple[int, int]] = []
    held = asyncio.Event()

    async def serve(messages: Any, context: grpc.aio.ServicerContext) -> None:
        async for message in messages:
            sizes.append((len(message.requests), message.ByteSize()))
            await held.wait()
            results = [answer(item) for item in message.requests]
            await context.write(pb.StreamStoreMemoriesResponse(results=results))

    async with scripted(serve) as (_, memory):
        small = asyncio.gather(*(memory.store(SESSION, f"fact {n}") for n in range(251)))
        held.set()
        await small
        large = [memory.store(SESSION, f"{n} {'x' * 15_000}") for n in range(11)]
        await asyncio.gather(*large)
    assert [count for count, _ in sizes[:3]] == [100, 100, 50]
    assert [count for count, _ in sizes[3:]] == [4, 4, 3]
    assert all(size <= store_stream.MAX_MESSAGE_BYTES + 400 for _, size in sizes)
