"""The server over gRPC's core: an event that it cannot handle harms no other call."""

from __future__ import annotations

import asyncio
import gc
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from memoryd.rpc import core_server
from memoryd.rpc.core_server import MOST_FAULTS, CoreCall, CoreServer
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

TIMEOUT_SECONDS = 30.0
FAULTY = ("x-faulty", "yes")


@pytest.fixture
def database_kind() -> str:
    """These faults lie before the database."""
    return "sqlite"


@pytest.fixture
def faulty_calls(monkeypatch):
    """Have the server fail where a call with the header FAULTY begins."""
    begin = CoreCall.__init__

    def fail(self, loop, event):
        if FAULTY in {tuple(pair) for pair in event.invocation_metadata}:
            raise OSError("a fault")
        begin(self, loop, event)

    monkeypatch.setattr(CoreCall, "__init__", fail)


def store(content: str) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=content)


async def code_of(call) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.usefixtures("faulty_calls")
async def test_a_call_that_cannot_be_begun_is_ended_and_logged(serve, caplog):
    running = await serve(MEMORYD_GRPC_SERVER="core")
    calls = [
        running.memory.StoreMemory(
            store(f"fact {n}"), metadata=(FAULTY,) if n % 2 else (), timeout=TIMEOUT_SECONDS
        )
        for n in range(MOST_FAULTS - 2)
    ]
    codes = await asyncio.gather(*map(code_of, calls))
    assert set(codes[::2]) == {grpc.StatusCode.OK}
    assert set(codes[1::2]) == {grpc.StatusCode.INTERNAL}
    faults = [record for record in caplog.records if "gRPC's events" in record.message]
    assert len(faults) == len(calls) // 2
    assert all(record.levelno == logging.ERROR for record in faults)


@pytest.mark.usefixtures("faulty_calls")
async def test_where_calls_keep_failing_another_server_takes_the_place(serve, eventually, caplog):
    running = await serve(MEMORYD_GRPC_SERVER="core")
    await asyncio.gather(
        *(
            code_of(running.memory.StoreMemory(store("x"), metadata=(FAULTY,)))
            for _ in range(MOST_FAULTS)
        )
    )

    async def is_replaced() -> bool:
        return any("another listens in its place" in record.message for record in caplog.records)

    await eventually(is_replaced)
    answer = await running.memory.StoreMemory(
        store("prefers e-mail"), timeout=TIMEOUT_SECONDS, wait_for_ready=True
    )
    assert answer.memory.revision == 1


async def watch(memory: MemoryServiceStub) -> None:
    stream = memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    await stream.initial_metadata()
    stream.cancel()


async def export(memory: MemoryServiceStub) -> None:
    async for _ in memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123")):
        pass


async def store_by_stream(memory: MemoryServiceStub) -> None:
    stream = memory.StreamStoreMemories()
    await stream.write(pb.StreamStoreMemoriesRequest(requests=[store("prefers e-mail")]))
    await stream.done_writing()
    async for _ in stream:
        pass


CALLS: dict[str, Callable[[MemoryServiceStub], Awaitable[Any]]] = {
    "answered": lambda memory: memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123")),
    "written": lambda memory: memory.StoreMemory(store("prefers e-mail")),
    "invalid": lambda memory: memory.GetMemory(pb.GetMemoryRequest()),
    "not found": lambda memory: memory.GetMemory(
        pb.GetMemoryRequest(session_id="user-123", memory_id=str(uuid.uuid4()))
    ),
    "given up": lambda memory: memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id="user-123", query="e-mail"), timeout=0.001
    ),
    "a watch": watch,
    "an export": export,
    "a stream of stores": store_by_stream,
}


@pytest.mark.parametrize("kind", CALLS)
async def test_a_call_that_has_ended_takes_no_place_on_its_connection(serve, kind):
    """A garbage collection or another timer, which would free it too, may be long in coming."""
    # Where a caller gives up, the server may still be at work as the next call comes.
    most = "64" if kind == "given up" else "16"
    running = await serve(MEMORYD_GRPC_SERVER="core", MEMORYD_MAX_STREAMS_PER_CONNECTION=most)
    codes = Counter()
    gc.collect()
    gc.disable()
    try:
        for _ in range(150):
            codes[await code_of(CALLS[kind](running.memory))] += 1
            codes[await code_of(running.memory.StoreMemory(store("prefers e-mail")))] += 1
    finally:
        gc.enable()
    assert codes[grpc.StatusCode.OK] >= 150
    assert grpc.StatusCode.UNAVAILABLE not in codes


@pytest.mark.parametrize("found", ["1.84.0", "2.0.0"])
async def test_with_another_grpcio_its_own_server_serves(serve, monkeypatch, caplog, found):
    monkeypatch.setattr(core_server, "version", lambda _: found)
    running = await serve()
    answer = await running.memory.StoreMemory(store("prefers e-mail"))
    assert answer.memory.revision == 1
    assert any(found in record.message for record in caplog.records)


async def test_a_queue_that_is_no_longer_drained_is_noticed(serve, eventually, monkeypatch, caplog):
    monkeypatch.setattr(core_server, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(core_server, "LOOK_SECONDS", 0.05)
    running = await serve(MEMORYD_GRPC_SERVER="core")
    with monkeypatch.context() as broken:
        broken.setattr(CoreServer, "_drain", lambda _: None)
        call = running.memory.StoreMemory(store("prefers e-mail"))

        async def is_noticed() -> bool:
            return any("were not taken" in str(vars(record)) for record in caplog.records)

        await eventually(is_noticed)
    call.cancel()
    answer = await running.memory.StoreMemory(
        store("prefers e-mail"), timeout=TIMEOUT_SECONDS, wait_for_ready=True
    )
    assert answer.memory.revision == 1
