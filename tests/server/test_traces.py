"""Traces as a collector gets them, from servers as they are started."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from sqlalchemy import make_url
from tests import collector as collectors
from tests.collector import Collector
from tests.http_client import call

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

STORE = "memoryd.v1.MemoryService/StoreMemory"
RETRIEVE = "memoryd.v1.MemoryService/RetrieveMemories"
INTERNAL, SERVER, CLIENT = 1, 2, 3
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Whole:
    """An embedder of whole texts."""

    name, dimensions = "whole", 2

    def embed(self, texts):
        return np.ones((len(texts), 2), np.float32)


@pytest.fixture
def collector() -> Iterator[Collector]:
    found, server = collectors.start()
    yield found
    server.stop(None).wait()


@pytest.fixture
def variables(collector, database_url) -> dict[str, str]:
    """Of a server that traces every call."""
    return {
        "MEMORYD_DATABASE_URL": database_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "MEMORYD_LOG_FORMAT": "json",
    }


def http_of(server) -> str:
    return server.output.partition("memoryd http on http://")[2].splitlines()[0]


def store(content: str, **fields: object) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=content, **fields)


def connected(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)])


async def test_a_call_is_a_span_with_its_parts(
    command_line, collector, variables, database_kind, database_url
):
    embedder, place = f"{__name__}:Whole", str(Path(__file__).parents[2])
    server = command_line.serve(MEMORYD_EMBEDDER=embedder, PYTHONPATH=place, **variables)
    address = await asyncio.to_thread(server.address)
    async with connected(address) as channel:
        memory = MemoryServiceStub(channel)
        await memory.StoreMemory(store("prefers letters"))
        request = pb.RetrieveMemoriesRequest(session_id="user-123", query="letters")
        await memory.RetrieveMemories(request)
        stored = await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123"))
        assert await asyncio.to_thread(server.stop) == 0

    (whole,) = collector.named(STORE)
    assert (whole.kind, whole.parent_id, whole.is_error) == (SERVER, "", False)
    assert whole.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": STORE,
        "rpc.response.status_code": "OK",
    }
    assert whole.resource["service.name"] == "memoryd"
    parts = {part.name: part for part in collector.parts(whole)}
    waiting = parts["write queue"]
    (transaction,) = (part for name, part in parts.items() if name.startswith("transaction"))
    assert waiting.kind == INTERNAL
    assert transaction.kind == CLIENT
    about = {"db.system.name": database_kind, "memoryd.write_transaction.items": 1}
    if database_kind == "postgresql":
        about["db.namespace"] = make_url(database_url).database
    assert transaction.attributes == {**about, "db.operation.name": "transaction"}
    assert transaction.name == f"transaction {about.get('db.namespace', '')}".rstrip()
    assert whole.begun <= waiting.begun <= waiting.ended <= transaction.begun
    assert transaction.begun < transaction.ended <= whole.ended

    (whole,) = collector.named(RETRIEVE)
    (retrieval,) = [part for part in collector.parts(whole) if part.name == "retrieval"]
    names = {part.name.split()[0] for part in collector.parts(retrieval)}
    assert names == {"read", "embedding"}
    assert whole.begun <= retrieval.begun < retrieval.ended <= whole.ended
    (listing,) = collector.named("memoryd.v1.MemoryService/ListMemories")
    assert "read" in {part.name.split()[0] for part in collector.parts(listing)}
    assert len(stored.memories) == 1
    # What is done for all calls, such as the sweeper's work, belongs to none.
    ids = {span.span_id for span in collector.spans}
    assert all(span.parent_id in ids for span in collector.spans if span.kind != SERVER)


class TestOnOneDatabase:
    """What does not depend on it."""

    @pytest.fixture
    def database_kind(self):
        return "sqlite"

    async def test_a_trace_goes_on_from_its_caller(self, command_line, collector, variables):
        server = command_line.serve(OTEL_TRACES_SAMPLER="parentbased_always_off", **variables)
        address = await asyncio.to_thread(server.address)
        sampled, not_sampled = (f"00-{TRACE}-{PARENT}-{flag}" for flag in ("01", "00"))
        async with connected(address) as channel:
            memory = MemoryServiceStub(channel)
            await memory.StoreMemory(store("over gRPC"), metadata=(("traceparent", sampled),))
            await memory.StoreMemory(store("unseen"), metadata=(("traceparent", not_sampled),))
            await memory.StoreMemory(store("by chance"))
        fact = {"sessionId": "user-123", "content": "over HTTP"}
        await call(http_of(server), "StoreMemory", fact, traceparent=sampled)
        await call(http_of(server), "StoreMemory", fact, traceparent="nonsense")
        assert await asyncio.to_thread(server.stop) == 0
        found = collector.named(STORE)
        assert [(span.trace_id, span.parent_id) for span in found] == [(TRACE, PARENT)] * 2
        lines = [json.loads(line) for line in server.log.splitlines() if '"call"' in line]
        traced = [line.get("trace_id") for line in lines if line.get("method") == f"/{STORE}"]
        assert sorted(traced, key=str) == [TRACE, TRACE, None, None, None]

    async def test_an_error_is_one_of_the_server_or_of_the_caller(
        self, command_line, collector, variables
    ):
        server = command_line.serve(**variables)
        address = await asyncio.to_thread(server.address)
        async with connected(address) as channel:
            for work in (
                MemoryServiceStub(channel).StoreMemory(store("")),
                channel.unary_unary("/secret.Place/Hidden")(b""),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await work
        assert await asyncio.to_thread(server.stop) == 0
        (refused,), (unknown,) = collector.named(STORE), collector.named("_OTHER")
        assert not refused.is_error
        assert refused.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
        assert refused.attributes["memoryd.reason"] == "ERROR_REASON_INVALID_REQUEST"
        assert unknown.is_error
        assert unknown.attributes["error.type"] == "UNIMPLEMENTED"
        assert not any(span.events for span in collector.spans)
        assert not any(b"Hidden" in export for export in collector.raw)

    async def test_spans_go_over_http_where_the_variables_say_so(self, command_line, variables):
        collector, server = collectors.start_http()
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        process = command_line.serve(**variables)
        address = await asyncio.to_thread(process.address)
        async with connected(address) as channel:
            await MemoryServiceStub(channel).StoreMemory(store("a"))
        assert await asyncio.to_thread(process.stop) == 0
        server.shutdown()
        server.server_close()
        assert len(collector.named(STORE)) == 1

    async def test_the_variables_name_the_service(self, command_line, collector, variables):
        named = {"OTEL_SERVICE_NAME": "memory-of-shop", "OTEL_RESOURCE_ATTRIBUTES": "zone=b"}
        server = command_line.serve(**variables, **named)
        address = await asyncio.to_thread(server.address)
        async with connected(address) as channel:
            await MemoryServiceStub(channel).StoreMemory(store("a"))
            await collector.until(1)  # without waiting for the end
        resource = collector.spans[0].resource
        assert (resource["service.name"], resource["zone"]) == ("memory-of-shop", "b")

    async def test_a_collector_that_is_away_holds_up_nothing(self, command_line, variables):
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:c4n4ry@127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "MEMORYD_DRAIN_SECONDS": "0.2",
        }
        server = command_line.serve(**variables)
        address = await asyncio.to_thread(server.address)
        async with connected(address) as channel:
            for number in range(20):
                await MemoryServiceStub(channel).StoreMemory(store(f"{number}"))
        await asyncio.to_thread(server.wait_for, lambda: "traces are lost" in server.log)
        assert await asyncio.to_thread(server.stop) == 0
        assert server.log.count(STORE) == 20
        assert server.log.count("traces are lost") == 1
        assert "c4n4ry" not in server.log

    async def test_nothing_is_sent_where_the_exporter_is_none(
        self, command_line, collector, variables
    ):
        server = command_line.serve(**variables, OTEL_TRACES_EXPORTER="none")
        address = await asyncio.to_thread(server.address)
        async with connected(address) as channel:
            await MemoryServiceStub(channel).StoreMemory(store("a"))
        assert await asyncio.to_thread(server.stop) == 0
        assert collector.raw == []
        assert "trace_id" not in server.log


async def test_spans_are_printed_where_there_is_no_collector(command_line, eventually):
    server = command_line.serve(
        OTEL_TRACES_EXPORTER="console", OTEL_BSP_SCHEDULE_DELAY="100", MEMORYD_LOG_FORMAT="json"
    )
    server.address()
    await call(http_of(server), "StoreMemory", {"sessionId": "c4n4ry", "content": "c4n4ry"})

    async def is_printed() -> bool:
        lines = [json.loads(line) for line in server.log.rpartition("\n")[0].splitlines()]
        return STORE in [line.get("name") for line in lines]

    await eventually(is_printed)
    assert "c4n4ry" not in server.log + server.output


ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
WITHOUT = """
import asyncio, sys
from memoryd.telemetry.tracing import tracing_of
from memoryd.server import Server
import os
tracing = tracing_of(os.environ)
loaded = sorted(name for name in sys.modules if name.startswith(("opentelemetry", "prometheus")))
print(tracing is None, loaded)
"""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        {**ASKED, "OTEL_SDK_DISABLED": "true"},
        {**ASKED, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_loaded_unless_it_is_asked_for(environ, command_line):
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-c", WITHOUT],
        env=command_line.environ | environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "[]"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: otlp, console or none"),
        (
            {**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: grpc or http/protobuf",
        ),
    ],
)
def test_what_cannot_be_done_stops_the_start_with_a_message(command_line, environ, said):
    done = command_line.run("serve", MEMORYD_PORT="0", **environ)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_message_where_the_extra_is_missing_says_what_to_install(command_line):
    hidden = command_line.folder / "hidden"
    (hidden / "opentelemetry").mkdir(parents=True)
    (hidden / "opentelemetry" / "__init__.py").write_text("raise ImportError('not installed')")
    done = command_line.run("serve", MEMORYD_PORT="0", PYTHONPATH=str(hidden), **ASKED)
    assert done.returncode == 1
    assert "memoryd[telemetry]" in done.stderr
    assert "Traceback" not in done.stderr
