"""StreamStoreMemories, from outside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.locks import writes_blocked

from memoryd.domain.content import clean
from memoryd.memories import group_commit
from memoryd.rpc import pipeline, receiving
from memoryd.rpc.memories import requests, store_stream
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

TIMEOUT_SECONDS = 60
PATH = "/memoryd.v1.MemoryService/StreamStoreMemories"


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def facts(start: int, end: int) -> list[pb.StoreMemoryRequest]:
    """One each, of several sessions, so that none is full."""
    return [store(f"fact {n}", f"user-{n // 50}") for n in range(start, end)]


def message(*items: pb.StoreMemoryRequest) -> pb.StreamStoreMemoriesRequest:
    return pb.StreamStoreMemoriesRequest(requests=items)


def messages(items: Iterable[pb.StoreMemoryRequest], size: int) -> list[object]:
    items = list(items)
    return [message(*items[at : at + size]) for at in range(0, len(items), size)]


async def live(memory: MemoryServiceStub, session_id: str = "user-123") -> list[pb.Memory]:
    answer = await memory.ListMemories(
        pb.ListMemoriesRequest(session_id=session_id, page_size=1000)
    )
    return list(answer.memories)


async def contents(memory: MemoryServiceStub, session_id: str = "user-123") -> list[str]:
    return [stored.content for stored in await live(memory, session_id)]


async def read(stream: grpc.aio.StreamStreamCall) -> pb.StreamStoreMemoriesResponse:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        answer = await stream.read()
    assert answer is not grpc.aio.EOF
    return answer


async def ended(stream: grpc.aio.StreamStreamCall) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await condition():  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.02)


@pytest.fixture
def parsed(monkeypatch) -> list[pb.StoreMemoryRequest]:
    """Collect the items that servers have read."""
    items: list[pb.StoreMemoryRequest] = []
    parse = store_stream.parse_message

    def collect(request: pb.StreamStoreMemoriesRequest, *arguments: object) -> object:
        items.extend(request.requests)
        return parse(request, *arguments)

    monkeypatch.setattr("memoryd.rpc.memories.service.parse_message", collect)
    return items


def reason(status: status_pb2.Status) -> str:
    (info,) = (
        error_details_pb2.ErrorInfo.FromString(detail.value)
        for detail in status.details
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    )
    return info.reason.removeprefix("ERROR_REASON_")


async def test_answers_each_message_with_one_in_order_and_ends_once_half_closed(memory):
    stream = memory.StreamStoreMemories()
    sent = messages(facts(0, 320), 100)
    for each in sent:
        await stream.write(each)
    await stream.write(message())
    await stream.done_writing()
    for each in sent:
        results = (await read(stream)).results
        assert [r.response.memory.content for r in results] == [i.content for i in each.requests]
        assert {r.response.outcome for r in results} == {pb.STORE_OUTCOME_CREATED}
    assert await read(stream) == pb.StreamStoreMemoriesResponse()
    await ended(stream)
    for session in range(7):
        expected = [f"fact {n}" for n in range(session * 50, min(session * 50 + 50, 320))]
        assert await contents(memory, f"user-{session}") == expected


async def test_answers_as_a_call_would_and_what_is_answered_is_committed(memory):
    stream = memory.StreamStoreMemories()
    for number in range(3):
        item = store(f"fact {number}", importance=0.9, metadata={"n": number}, never_expires=True)
        await stream.write(message(item))
        (result,) = (await read(stream)).results
        key = {"session_id": "user-123", "memory_id": result.response.memory.memory_id}
        assert await memory.GetMemory(pb.GetMemoryRequest(**key)) == result.response.memory
        assert (await memory.StoreMemory(item)).memory.create_time == (
            result.response.memory.create_time
        )
    await stream.done_writing()
    await ended(stream)


async def test_a_stream_without_a_message_ends_at_once(memory):
    stream = memory.StreamStoreMemories()
    await stream.done_writing()
    await ended(stream)


BAD = {
    "session": store("a", session_id="../x"),
    "content": store("<br>"),
    "much": pb.StoreMemoryRequest(
        session_id="a b", content=" ", content_type=99, importance=2, request_id="again"
    ),
    "duration": store("a", ttl={"seconds": 2**62}),
    "time": store("a", expire_time={"seconds": 2**62}),
    "past": store("a", expire_time={"seconds": 1}),
    "raw size": store("x" * 131_073),
    "metadata": store("a", metadata={"a": "x" * 20_000}),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_item_fails_alone_with_the_status_of_a_call(memory, bad):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.StoreMemory(BAD[bad])
    trailers = dict(refused.value.trailing_metadata())
    expected = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (expected.code, expected.message) == (
        refused.value.code().value[0],
        refused.value.details(),
    )
    stream = memory.StreamStoreMemories()
    await stream.write(message(store("before"), BAD[bad], store("after")))
    await stream.write(message(store("later")))
    before, status, after = (await read(stream)).results
    assert status.status == expected
    assert [before.response.memory.content, after.response.memory.content] == ["before", "after"]
    assert len((await read(stream)).results) == 1
    await stream.done_writing()
    await ended(stream)
    assert await contents(memory) == ["before", "after", "later"]


async def test_what_the_store_refuses_fails_alone(memory):
    request_id = str(uuid.uuid4())
    await memory.StoreMemory(store("first", metadata={"a": "x" * 10_000}, request_id=request_id))
    stream = memory.StreamStoreMemories()
    await stream.write(
        message(
            store("second"),
            store("another", request_id=request_id),
            store("first", metadata={"b": "x" * 10_000}),
            store("third"),
        )
    )
    second, reused, grown, third = (await read(stream)).results
    assert reason(reused.status) == "REQUEST_ID_REUSED"
    assert reason(grown.status) == "INVALID_REQUEST"
    assert (second.response.memory.content, third.response.memory.content) == ("second", "third")
    assert await contents(memory) == ["first", "second", "third"]


async def test_a_defect_in_one_item_is_that_items_alone(memory, monkeypatch, caplog):
    def broken(text: str, *arguments: object) -> str:
        if text == "broken":
            raise RuntimeError("secret words")
        return clean(text, *arguments)

    monkeypatch.setattr(requests, "clean", broken)
    stream = memory.StreamStoreMemories(metadata=[("x-request-id", "stream-7")])
    await stream.write(message(store("before"), store("broken"), store("after")))
    before, defect, after = (await read(stream)).results
    assert (before.response.memory.content, after.response.memory.content) == ("before", "after")
    assert reason(defect.status) == "INTERNAL"
    assert defect.status.message == "internal error; quote request id stream-7"
    (record,) = (r for r in caplog.records if r.levelname == "ERROR")
    assert (record.request_id, record.method) == ("stream-7", PATH)


async def test_the_same_content_and_request_id_in_one_message(memory):
    request_id = str(uuid.uuid4())
    stream = memory.StreamStoreMemories()
    await stream.write(
        message(
            store("Likes tea", metadata={"a": 1}),
            store("likes  tea!", metadata={"b": 2}),
            store("likes milk", request_id=request_id),
            store("likes milk", request_id=request_id),
        )
    )
    first, merged, milk, again = ((r.response) for r in (await read(stream)).results)
    assert (first.outcome, merged.outcome) == (pb.STORE_OUTCOME_CREATED, pb.STORE_OUTCOME_MERGED)
    assert first.memory.memory_id == merged.memory.memory_id
    assert set(merged.memory.metadata) == {"a", "b"}
    assert milk == again
    assert await contents(memory) == ["Likes tea", "likes milk"]


async def test_streams_and_calls_that_race_for_one_content_leave_one_memory(memory):
    async def over_a_stream() -> list[pb.StoreMemoryResponse]:
        stream = memory.StreamStoreMemories()
        await stream.write(message(*[store("Order 4711 is late")] * 20))
        results = (await read(stream)).results
        await stream.done_writing()
        await ended(stream)
        return [result.response for result in results]

    calls = [memory.StoreMemory(store("Order 4711 is late")) for _ in range(20)]
    *streamed, called = await asyncio.gather(
        *(over_a_stream() for _ in range(4)), asyncio.gather(*calls)
    )
    answers = [answer for several in (*streamed, called) for answer in several]
    assert len({answer.memory.memory_id for answer in answers}) == 1
    assert [answer.outcome for answer in answers].count(pb.STORE_OUTCOME_CREATED) == 1
    assert len(await live(memory)) == 1


async def test_what_is_sent_again_over_another_stream_gets_the_first_answer(memory):
    items = [store(f"fact {n}", request_id=str(uuid.uuid4())) for n in range(30)]
    broken = memory.StreamStoreMemories()
    await broken.write(message(*items[:20]))
    first = await read(broken)
    await broken.write(message(*items[10:]))
    broken.cancel()
    stream = memory.StreamStoreMemories()
    await stream.write(message(*items))
    again = (await read(stream)).results
    assert list(again[:20]) == list(first.results)
    assert [result.response.outcome for result in again] == [pb.STORE_OUTCOME_CREATED] * 30
    assert await contents(memory) == [item.content for item in items]


async def test_no_more_than_a_thousand_are_unanswered(serve, database_url, parsed):
    running = await serve(MEMORYD_WRITE_BATCH_LIMIT="10000")
    memory = running.memory
    await asyncio.gather(*(memory.StoreMemory(item) for item in facts(0, 2400)[::50]))
    stream = memory.StreamStoreMemories()
    sent = messages(facts(0, 2400), 100)

    async def send() -> None:
        for each in sent:
            await stream.write(each)
        await stream.done_writing()

    async with writes_blocked(database_url):
        sending = asyncio.create_task(send())

        async def is_full() -> bool:
            return len(parsed) >= 1_000

        await eventually(is_full)
        # Whatever comes in the meantime, only one message beyond is taken from the transport.
        for number in range(20):
            await memory.ListMemories(pb.ListMemoriesRequest(session_id=f"user-{number}"))
        assert len(parsed) == 1_100
    for each in sent:
        results = (await read(stream)).results
        assert [r.response.memory.content for r in results] == [i.content for i in each.requests]
    await ended(stream)
    await sending
    assert len(parsed) == 2_400


async def test_a_writer_that_does_not_read_is_held_back_and_then_ended(serve):
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="0.5")
    stream = running.memory.StreamStoreMemories()
    sent = 0

    async def send() -> None:
        nonlocal sent
        big = "x" * 16_000
        while True:
            items = [store(f"{sent + n} {big}", f"user-{sent + n}") for n in range(100)]
            await stream.write(message(*items))
            sent += 100

    async def is_served() -> bool:
        return "stream of stores" in {task.get_name() for task in asyncio.all_tasks()}

    async def is_given_up() -> bool:
        return not await is_served()

    sending = asyncio.create_task(send())
    await eventually(is_served)
    await eventually(is_given_up)
    assert sent < 5_000
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert await contents(running.memory, "user-0")


async def test_a_message_of_more_than_a_hundred_ends_the_stream_after_the_answers(memory, refused):
    stream = memory.StreamStoreMemories()
    await stream.write(message(*facts(0, 100)))
    await stream.write(message(*facts(100, 201)))
    assert len((await read(stream)).results) == 100
    refusal = await refused(stream.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "at most 100, these are 101" in refusal.violations["requests"]
    assert await contents(memory, "user-2") == []


async def test_bytes_that_are_no_message_end_the_stream_after_the_answers(running, refused):
    stream = running.channel.stream_stream(PATH)()
    await stream.write(message(store("before")).SerializeToString())
    await stream.write(b"\xff")
    answer = pb.StreamStoreMemoriesResponse.FromString(await read(stream))
    assert answer.results[0].response.memory.content == "before"
    assert (await refused(stream.read())).reason == "MALFORMED_MESSAGE"


async def test_a_large_message_is_validated_while_others_go_on(running, monkeypatch):
    going_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def patient(text: str, *arguments: object) -> str:
        if text.startswith("fact 0"):
            asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(TIMEOUT_SECONDS)
        return clean(text, *arguments)

    monkeypatch.setattr(requests, "clean", patient)
    stream = running.memory.StreamStoreMemories()
    items = [store(f"fact {n} {'x' * 16_000}", f"user-{n}") for n in range(100)]
    await stream.write(message(*items))
    await running.memory.StoreMemory(store("meanwhile"))
    going_on.set()
    results = (await read(stream)).results
    assert [r.response.memory.content for r in results] == [item.content for item in items]


async def test_a_message_beyond_the_limit_ends_the_stream_after_the_answers(serve, refused):
    running = await serve(MEMORYD_MAX_MESSAGE_BYTES="131072")
    stream = running.memory.StreamStoreMemories()
    await stream.write(message(store("before")))
    await stream.write(message(*(store(f"{n} {'x' * 16_000}") for n in range(9))))
    assert len((await read(stream)).results) == 1
    assert (await refused(stream.read())).reason == "MESSAGE_TOO_LARGE"
    assert await contents(running.memory) == ["before"]


async def test_an_answer_that_grows_too_large_says_so_and_all_is_stored(memory):
    metadata = {"list": [0] * 8_000}  # 16 KB of JSON, 88 KB on the wire
    for number in range(60):
        await memory.StoreMemory(store(f"fact {number}", f"user-{number}", metadata=metadata))
    stream = memory.StreamStoreMemories()
    await stream.write(message(*(store(f"fact {n}", f"user-{n}") for n in range(60))))
    answer = await read(stream)
    assert answer.truncated
    assert answer.ByteSize() <= 4_000_000
    assert answer.results[0].response.memory.content == "fact 0"
    last = answer.results[59].response
    assert (last.outcome, last.memory.content) == (pb.STORE_OUTCOME_MERGED, "")
    assert last.memory.memory_id == (await live(memory, "user-59"))[0].memory_id


async def test_items_are_refused_unread_where_writes_would_wait_too_long(serve, monkeypatch):
    monkeypatch.setattr(group_commit, "MAX_WAIT_SECONDS", 0.0)
    running = await serve(MEMORYD_WRITE_BATCH_LIMIT="2")
    # How long two take is known from here on.
    await running.memory.BatchStoreMemories(
        pb.BatchStoreMemoriesRequest(requests=[store("a"), store("b")])
    )
    stream = running.memory.StreamStoreMemories()
    # Every other one would be refused for what it is.
    mixed = [store(f"fact {n}") if n % 2 else store("") for n in range(400)]
    for each in messages(mixed, 50):
        await stream.write(each)
    results = [result for _ in range(8) for result in (await read(stream)).results]
    refused = [r.status for r in results if r.WhichOneof("result") == "status"]
    assert {reason(status) for status in refused} == {"OVERLOADED", "INVALID_REQUEST"}
    overloaded = [status for status in refused if reason(status) == "OVERLOADED"]
    delays = [
        error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToMilliseconds()
        for status in overloaded
        for detail in status.details
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    ]
    assert len(delays) == len(overloaded)
    assert min(delays) >= 500
    stored = {r.response.memory.content for r in results if r.WhichOneof("result") == "response"}
    assert set(await contents(running.memory)) <= stored | {"a", "b"}


async def test_items_over_the_queues_limit_fail_alone(serve, database_url):
    running = await serve(MEMORYD_WRITE_QUEUE_LIMIT="10")
    memory = running.memory
    await memory.StoreMemory(store("before"))
    stream = memory.StreamStoreMemories()
    async with writes_blocked(database_url):
        await stream.write(message(*(store(f"fact {n}") for n in range(50))))
        reading = asyncio.create_task(read(stream))
        await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123"))
    results = (await reading).results
    assert [r.WhichOneof("result") for r in results] == ["response"] * 10 + ["status"] * 40
    assert {reason(r.status) for r in results[10:]} == {"OVERLOADED"}
    assert await contents(memory) == ["before", *(f"fact {n}" for n in range(10))]


async def test_a_server_that_stops_answers_what_it_has_begun(serve, database_url, refused, parsed):
    running = await serve()
    memory = running.memory
    await memory.StoreMemory(store("before"))
    stream, idle = memory.StreamStoreMemories(), memory.StreamStoreMemories()
    await idle.write(message(store("of an idle stream")))
    await read(idle)
    async with writes_blocked(database_url):
        await stream.write(message(*(store(f"fact {n}") for n in range(20))))
        reading = asyncio.create_task(read(stream))

        async def has_come() -> bool:
            return len(parsed) == 21

        await eventually(has_come)
        stopping = asyncio.create_task(running.server.stop())
        refusal = await refused(idle.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert not reading.done()
    results = (await reading).results
    assert [r.response.memory.content for r in results] == [f"fact {n}" for n in range(20)]
    assert (await refused(stream.read())).reason == "SHUTTING_DOWN"
    await stopping


async def test_a_cancelled_stream_harms_nothing(serve, database_url):
    running = await serve()
    memory = running.memory
    await memory.StoreMemory(store("before"))
    async with writes_blocked(database_url):
        streams = [memory.StreamStoreMemories() for _ in range(20)]
        for number, stream in enumerate(streams):
            await stream.write(message(*(store(f"fact {number} {n}") for n in range(20))))
        other = memory.StreamStoreMemories()
        await other.write(message(store("of another")))
        for stream in streams:
            stream.cancel()
    assert (await read(other)).results[0].response.memory.content == "of another"
    await memory.StoreMemory(store("after"))
    assert {"of another", "after"} <= set(await contents(memory))

    async def whole() -> bool:
        return running.server.database.connections_in_use == 0

    await eventually(whole)


async def test_a_database_that_is_away_fails_each_item(serve, database_url):
    running = await serve(MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="0.3")
    memory = running.memory
    await memory.StoreMemory(store("before"))
    stream = memory.StreamStoreMemories()
    async with writes_blocked(database_url):
        await stream.write(message(store("meanwhile"), store("")))
        away, bad = (await read(stream)).results
        assert (away.status.code, reason(away.status)) == (14, "DATABASE_UNAVAILABLE")
        assert reason(bad.status) == "INVALID_REQUEST"
    await stream.write(message(store("after")))
    assert (await read(stream)).results[0].response.memory.content == "after"


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("MEMORYD_MAX_STREAMS", "OVERLOADED"),
        ("MEMORYD_MAX_STREAMS_PER_CLIENT", "CLIENT_LIMIT_REACHED"),
    ],
)
async def test_streams_over_the_limit_are_refused(serve, refused, variable, expected):
    running = await serve(**{variable: "1"})
    watch = running.memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    await watch.initial_metadata()
    refusal = await refused(running.memory.StreamStoreMemories().read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, expected)
    watch.cancel()

    async def has_room() -> bool:
        stream = running.memory.StreamStoreMemories()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.write(message(store()))
            await stream.done_writing()
            return await stream.read() is not grpc.aio.EOF
        return False

    await eventually(has_room)


async def test_an_idle_stream_is_ended_and_nothing_is_lost(serve, refused):
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="2")
    stream = running.memory.StreamStoreMemories()
    await stream.write(message(store("before")))
    assert len((await read(stream)).results) == 1
    refusal = await refused(stream.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
    assert await contents(running.memory) == ["before"]


async def test_of_too_many_that_wait_the_one_that_waits_longest_gives_way(
    serve, refused, monkeypatch
):
    monkeypatch.setattr(pipeline, "WAITING_STREAM_BYTES", 4 * (4 * 1024**2 + 65_536))
    assert receiving.places_in(pipeline.WAITING_STREAM_BYTES, 4 * 1024**2) == 4
    running = await serve()
    streams = []
    for number in range(3):  # two places are one client's
        stream = running.memory.StreamStoreMemories()
        await stream.write(message(store(f"fact {number}")))
        await read(stream)
        streams.append(stream)
    assert (await refused(streams[0].read())).reason == "STREAM_IDLE"
    for number, stream in enumerate(streams[1:], 1):
        await stream.write(message(store(f"another {number}")))
        assert len((await read(stream)).results) == 1
        await stream.done_writing()
        await ended(stream)


async def test_a_stream_is_one_line_of_the_log(memory, caplog):
    with caplog.at_level(logging.INFO, "memoryd.access"):
        stream = memory.StreamStoreMemories(metadata=[("x-request-id", "stream-7")])
        for number in range(3):
            await stream.write(message(store(f"fact {number}"), store("")))
            await read(stream)
        await stream.done_writing()
        await ended(stream)

        def lines() -> list[logging.LogRecord]:
            return [r for r in caplog.records if getattr(r, "request_id", "") == "stream-7"]

        async def is_written() -> bool:
            return bool(lines())

        await eventually(is_written)
    (line,) = lines()
    assert (line.method, line.code) == (PATH, "OK")
