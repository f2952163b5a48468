"""What holds for every call: request ids, cancelling, deadlines, sizes, reflection, errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.locks import postgres, writes_blocked
from tests.scrapes import scrape

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

REFLECTIONS = tuple(f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha"))
RECEIVED_BYTES = 4 * 1024 * 1024

only_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])


def store_request(content: str = "prefers e-mail") -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=content)


def list_request() -> pb.ListMemoriesRequest:
    return pb.ListMemoriesRequest(session_id="user-123", page_size=1000)


async def contents(memory) -> list[str]:
    return [stored.content for stored in (await memory.ListMemories(list_request())).memories]


def padded(size: int) -> bytes:
    """A list request of this many bytes, padded with a field that this release does not know."""
    request = list_request().SerializeToString()
    # Number 1000, length-delimited, the length in four bytes.
    room = size - len(request) - 6
    length = bytes((room >> shift) & 0x7F | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
    return request + b"\xc2\x3e" + length + bytes(room)


# Request ids


async def test_each_call_gets_its_own_request_id(memory):
    seen = set()
    for _ in range(3):
        call = memory.ListMemories(list_request())
        await call
        seen.add(dict(await call.trailing_metadata())["x-request-id"])
    assert len(seen) == 3
    assert all(len(request_id) >= 16 for request_id in seen)


@pytest.mark.parametrize("given", ["7", "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b", "a/b:c=d+e@f.g_h~"])
async def test_a_request_id_from_the_caller_is_kept(memory, refusal, given):
    metadata = [("x-request-id", given)]
    call = memory.ListMemories(list_request(), metadata=metadata)
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == given
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.ListMemories(pb.ListMemoriesRequest(), metadata=metadata)
    assert refusal(refused.value).request_id == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "1 code=OK ms=0", '{"a":1}', "a;b", "<b>"])
async def test_a_request_id_that_could_forge_the_log_is_replaced(memory, given):
    call = memory.ListMemories(list_request(), metadata=[("x-request-id", given)])
    await call
    answered = dict(await call.trailing_metadata())["x-request-id"]
    assert answered
    assert given not in answered or not given


# Cancelling


async def test_cancelled_calls_leave_the_service_working(serve, eventually):
    running = await serve(MEMORY_MAX_ENTRIES="1000")
    memory, database = running.memory, running.server.database
    first = (await memory.StoreMemory(store_request("first"))).memory
    get_request = pb.GetMemoryRequest(session_id="user-123", memory_id=first.memory_id)
    for round_ in range(4):
        stores = {f"fact {round_}-{n}": None for n in range(64)}
        calls = {name: memory.StoreMemory(store_request(name)) for name in stores}
        gets = [memory.GetMemory(get_request) for _ in range(64)]
        tasks = [asyncio.ensure_future(_outcome(call)) for call in (*calls.values(), *gets)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for call in (*calls.values(), *gets):
            call.cancel()
        outcomes = await asyncio.gather(*tasks)
        assert set(outcomes) <= {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
        acknowledged = {
            name for name, code in zip(calls, outcomes, strict=False) if code is grpc.StatusCode.OK
        }
        assert acknowledged <= set(await contents(memory))

    async def works() -> bool:
        return database.connections_in_use == 0

    await eventually(works)
    await memory.StoreMemory(store_request("last"))
    assert "last" in await contents(memory)


async def _outcome(call) -> grpc.StatusCode:
    """The outcome of a call; a call cancelled by hand does not cancel the task that awaits it."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call
    return await call.code()


# Deadlines


async def test_a_deadline_ends_a_write_that_waits_for_a_lock(running, database_url, eventually):
    memory = running.memory
    await memory.StoreMemory(store_request("before"))
    async with writes_blocked(database_url):
        for call in (memory.StoreMemory(store_request("late"), timeout=0.3) for _ in range(8)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        # Reads succeed meanwhile.
        assert await contents(memory) == ["before"]

    async def works() -> bool:
        return running.server.database.connections_in_use == 0

    await eventually(works)
    await memory.StoreMemory(store_request("after"))
    assert set(await contents(memory)) >= {"before", "after"}


@only_postgresql
async def test_callers_that_have_gone_leave_no_queries_behind(serve, database_url, eventually):
    # Work that has started runs until it ends, or until these limits.
    running = await serve(
        MEMORYD_DATABASE_TIMEOUT_SECONDS="4",
        MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS="4",
        MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="3",
    )
    memory = running.memory
    stored = (await memory.StoreMemory(store_request("before"))).memory
    key = {"session_id": "user-123", "memory_id": stored.memory_id}
    async with postgres(database_url) as other, postgres(database_url) as observer:

        async def nothing_is_running() -> bool:
            count = await observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state <> 'idle' AND pid NOT IN (pg_backend_pid(), $1)",
                other.get_server_pid(),
            )
            return count == 0

        async with other.transaction():
            await other.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            calls = [
                call
                for _ in range(32)
                for call in (
                    memory.GetMemory(pb.GetMemoryRequest(**key), timeout=0.3),
                    memory.DeleteMemory(pb.DeleteMemoryRequest(**key), timeout=0.3),
                    memory.ListMemories(list_request(), timeout=0.3),
                )
            ]
            assert set(await asyncio.gather(*map(_outcome, calls))) == {
                grpc.StatusCode.DEADLINE_EXCEEDED
            }
            # Although the lock is still held.
            await eventually(nothing_is_running)
    assert await contents(memory) in (["before"], [])  # the first deletion had started


async def test_a_deadline_that_has_passed_is_refused_at_once(running):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.memory.ListMemories(list_request(), timeout=0)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


# Sizes


async def test_messages_of_up_to_four_mebibytes_are_received(running, refusal):
    call = running.channel.unary_unary(
        "/memoryd.v1.MemoryService/ListMemories",
        response_deserializer=pb.ListMemoriesResponse.FromString,
    )
    assert len(padded(RECEIVED_BYTES)) == RECEIVED_BYTES
    assert await call(padded(RECEIVED_BYTES)) == pb.ListMemoriesResponse()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(padded(RECEIVED_BYTES + 1))
    error = refusal(refused.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "4,194,305 bytes and may have 4,194,304" in error.message
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(padded(2 * RECEIVED_BYTES + 1))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # The connection still works.
    assert await call(padded(100)) == pb.ListMemoriesResponse()


async def test_the_largest_message_is_a_setting(serve):
    running = await serve(MEMORYD_MAX_MESSAGE_BYTES=str(128 * 1024))
    call = running.channel.unary_unary("/memoryd.v1.MemoryService/ListMemories")
    await call(padded(128 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(padded(128 * 1024 + 1))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


# Compression


@pytest.mark.parametrize("compression", grpc.Compression)
async def test_requests_may_be_compressed(memory, compression):
    stored = await memory.StoreMemory(store_request("likes tea " * 100), compression=compression)
    assert await contents(memory) == [stored.memory.content]


@pytest.mark.parametrize("compression", grpc.Compression)
async def test_streams_of_requests_may_be_compressed(memory, compression):
    call = memory.StreamStoreMemories(compression=compression)
    for number in range(3):
        request = store_request(f"{number} cups of tea " * 100)
        await call.write(pb.StreamStoreMemoriesRequest(requests=[request] * 2))
    await call.done_writing()
    answers = [answer async for answer in call]
    assert [len(answer.results) for answer in answers] == [2, 2, 2]
    assert len(await contents(memory)) == 3


# Reflection


@pytest.mark.parametrize("version", REFLECTIONS)
async def test_reflection_describes_every_service_and_its_messages(running, version):
    reflect = running.channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,  # of the same form in every version
    )
    ours = [
        *("AccessService", "ConversationService", "DocumentService", "MemoryService"),
        *("SessionService", "ToolConfigService"),
    ]
    every = [
        *(f"memoryd.v1.{name}" for name in ours),
        *("flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"),
        *REFLECTIONS,
    ]
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in every),
    ]
    listed, *files = [answer async for answer in reflect(iter(requests))]
    assert {service.name for service in listed.list_services_response.service} == {
        "grpc.health.v1.Health",
        *every,
    }
    described = [
        descriptor_pb2.FileDescriptorProto.FromString(
            answer.file_descriptor_response.file_descriptor_proto[0]
        )
        for answer in files
    ]
    assert [f"{file.package}.{file.service[0].name}" for file in described] == every
    # As they are written, with the rules that the stubs do not have.
    own = described[: len(ours)]
    assert all("buf/validate/validate.proto" in file.dependency for file in own)


@pytest.mark.parametrize("version", REFLECTIONS)
async def test_reflection_refuses_bytes_that_are_not_a_request(running, refusal, version):
    path = f"/{version}/ServerReflectionInfo"
    listing = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    stream = running.channel.stream_stream(path)(iter([listing, b"\xff"]))
    assert await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    found = refusal(refused.value)
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


# Unhandled exceptions


async def test_an_unhandled_exception_shows_its_caller_only_a_request_id(
    memory, monkeypatch, caplog, refusal, eventually
):
    def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("secret words of /some/path")

    await memory.StoreMemory(store_request())
    monkeypatch.setattr("memoryd.rpc.memories.service.encoded_response", broken)
    with caplog.at_level(logging.INFO):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="user-123"))
        found = refusal(refused.value)

        def records() -> list[logging.LogRecord]:
            return [r for r in caplog.records if getattr(r, "request_id", "") == found.request_id]

        async def both_are_written() -> bool:  # the caller gets its answer before the second
            return len(records()) > 1

        await eventually(both_are_written)
    assert found.code == grpc.StatusCode.INTERNAL
    assert found.reason == "INTERNAL"
    assert found.request_id
    assert found.request_id in found.message
    assert found.details["RequestInfo"].request_id == found.request_id
    assert found.details.keys() == {"ErrorInfo", "RequestInfo"}
    assert not found.details["ErrorInfo"].metadata
    trailers = dict(refused.value.trailing_metadata())
    assert b"secret words" not in trailers["grpc-status-details-bin"]
    assert "secret words" not in found.message

    logged, call = records()
    assert (logged.levelname, logged.exc_info[0]) == ("ERROR", RuntimeError)
    assert (call.code, call.method) == ("INTERNAL", "/memoryd.v1.MemoryService/RetrieveMemories")


async def test_an_unhandled_exception_in_a_stream_shows_only_a_request_id(
    memory, monkeypatch, refusal
):
    def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("secret words of /some/path")

    await memory.StoreMemory(store_request())
    monkeypatch.setattr("memoryd.rpc.memories.messages.memory_message", broken)
    stream = memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(stream))
    found = refusal(refused.value)
    assert found.code == grpc.StatusCode.INTERNAL
    assert found.message == f"internal error; quote request id {found.request_id}"
    assert found.details.keys() == {"ErrorInfo", "RequestInfo"}


async def test_an_unhandled_exception_in_one_write_fails_only_that_write(memory, monkeypatch):
    def broken(*_arguments: object, **_named: object) -> str:
        raise RuntimeError

    await memory.StoreMemory(store_request("before"))
    with monkeypatch.context() as patched:
        patched.setattr("memoryd.rpc.memories.requests.hashes_of", broken)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await memory.StoreMemory(store_request("meanwhile"))
        assert refused.value.code() == grpc.StatusCode.INTERNAL
    await memory.StoreMemory(store_request("after"))
    assert await contents(memory) == ["before", "after"]


# The log


async def test_a_call_is_logged_with_the_code_that_its_caller_sees(
    running, database_url, caplog, eventually
):
    memory = running.memory
    await memory.StoreMemory(store_request("before"))
    codes = {
        "ok": grpc.StatusCode.OK,
        "bad": grpc.StatusCode.INVALID_ARGUMENT,
        "absent": grpc.StatusCode.NOT_FOUND,
        "late": grpc.StatusCode.DEADLINE_EXCEEDED,
        "gone": grpc.StatusCode.CANCELLED,
        "unknown": grpc.StatusCode.UNIMPLEMENTED,
    }
    absent = pb.GetMemoryRequest(
        session_id="user-123", memory_id="0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
    )
    guess = running.channel.unary_unary("/memoryd.v1.MemoryService/Guess")

    def named(name: str) -> list[tuple[str, str]]:
        return [("x-request-id", name)]

    with caplog.at_level(logging.INFO, "memoryd.access"):
        async with writes_blocked(database_url):
            calls = {
                "ok": memory.ListMemories(list_request(), metadata=named("ok")),
                "bad": memory.ListMemories(pb.ListMemoriesRequest(), metadata=named("bad")),
                "absent": memory.GetMemory(absent, metadata=named("absent")),
                "late": memory.StoreMemory(store_request(), timeout=2, metadata=named("late")),
                "gone": memory.StoreMemory(store_request(), metadata=named("gone")),
                "unknown": guess(b"", metadata=named("unknown")),
            }
            for _ in range(5):  # by then it has started
                await running.tools.ListTools(tool_pb.ListToolsRequest())
            calls["gone"].cancel()
            outcomes = {name: await _outcome(call) for name, call in calls.items()}
        assert outcomes == codes

        def logged() -> dict[str, str]:
            records = [r for r in caplog.records if r.name == "memoryd.access"]
            return {r.request_id: r.code for r in records if r.request_id in codes}

        async def all_are_logged() -> bool:
            return len(logged()) == len(codes)

        await eventually(all_are_logged)
    assert logged() == {name: code.name for name, code in codes.items()}


@pytest.mark.parametrize("kind", ["core", "aio"])
async def test_an_answer_too_large_for_its_client_is_not_logged_as_an_error(command_line, kind):
    server = command_line.serve(MEMORYD_GRPC_SERVER=kind)
    address = await asyncio.to_thread(server.address)
    text = "x" * 16_000
    options = [("grpc.max_receive_message_length", 64 * 1024)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        memory = MemoryServiceStub(channel)
        for number in range(10):
            request = pb.StoreMemoryRequest(session_id="user-123", content=f"{number} {text}")
            await memory.StoreMemory(request)

        async def refused() -> None:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123"))
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

        for _ in range(20):
            await asyncio.gather(*(refused() for _ in range(20)))
        http = server.output.partition("memoryd http on http://")[2].splitlines()[0]
        found = await scrape(http)
    await asyncio.to_thread(server.stop)
    lines = [line for line in server.log.splitlines() if "ListMemories" in line]
    served = [line for line in lines if "code=OK" in line]
    assert len(served) == 400  # each once: the server has done its part
    assert "Traceback" not in server.log
    assert " error " not in server.log
    assert " warning " not in server.log
    listing = {"rpc_method": "memoryd.v1.MemoryService/ListMemories"}
    counted = "rpc_server_call_duration_seconds_count"
    assert found.value(counted, **listing, rpc_response_status_code="OK") == 400
    assert found.value(counted, **listing) == 400
