"""Every method of a real server answers any request, or says what is wrong with it.

`HYPOTHESIS_PROFILE=long` runs `FUZZ_EXAMPLES` examples, with different calls each time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoryd.domain.content import clean
from memoryd.domain.records import ContentPolicy
from memoryd.rpc.memories import requests
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2
from memoryd.v1.error_reason_pb2 import ErrorReason

from .messages import (
    ALLOWED,
    MEMORY_IDS,
    METHODS,
    SESSION,
    VALID,
    filled,
    is_endless,
    path_of,
    wires,
)

TIMEOUT_SECONDS = 60.0
"""After this many seconds a call counts as hanging."""

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
PROFILE = settings(
    derandomize=not IS_LONG,
    database=None,
    deadline=None,
    max_examples=EXAMPLES if IS_LONG else 300,
    print_blob=IS_LONG,
    report_multiple_bugs=False,
    # One server serves all examples: the test is that it survives them.
    suppress_health_check=list(HealthCheck),
)

REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys())  # noqa: SIM118  of an enum's wrapper

CALLS = st.lists(
    st.sampled_from(METHODS).flatmap(lambda m: st.tuples(st.just(m), wires(m))),
    min_size=1,
    max_size=6,
)


class Attacker:
    """Sends bytes to methods, and checks what comes back."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._memory_ids: deque[str] = deque(maxlen=3)

    async def call(self, method: MethodDescriptor, data: bytes) -> grpc.StatusCode:
        """Fail unless the call is answered in time, or refused with a reason."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async for answer in self._answers(method, filled(data, self._memory_ids)):
                    self._read(method, answer)
        except grpc.aio.AioRpcError as error:
            refusal = error
        else:
            return grpc.StatusCode.OK
        assert refusal.code() in ALLOWED, (method.name, data, refusal)
        assert reason_of(refusal) in REASONS, (method.name, data, refusal)
        return refusal.code()

    async def _answers(self, method: MethodDescriptor, data: bytes) -> AsyncIterator[bytes]:
        path = path_of(method)
        if method.client_streaming:
            stream = self._channel.stream_stream(path)(iter([data]))
        elif method.server_streaming:
            stream = self._channel.unary_stream(path)(data)
        else:
            yield await self._channel.unary_unary(path)(data)
            return
        if is_endless(method):  # accepted or refused, the stream starts
            await stream.initial_metadata()
            if stream.done() and await stream.code() is not grpc.StatusCode.OK:
                await stream.read()  # which raises
            stream.cancel()
            return
        async for answer in stream:
            yield answer

    def _read(self, method: MethodDescriptor, data: bytes) -> None:
        answer = GetMessageClass(method.output_type).FromString(data)
        if isinstance(answer, pb.StoreMemoryResponse) and answer.memory.session_id == SESSION:
            self._memory_ids.append(answer.memory.memory_id)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), error
    return info.reason.removeprefix("ERROR_REASON_")


@pytest.fixture
async def attacker(running, caplog) -> AsyncIterator[Attacker]:
    """An attacker; afterwards the server must still work."""
    yield Attacker(running.channel)
    health = health_pb2_grpc.HealthStub(running.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = pb.StoreMemoryRequest(session_id="user-123", content="Still here")
    stored = (await running.memory.StoreMemory(request, timeout=TIMEOUT_SECONDS)).memory
    read = pb.GetMemoryRequest(session_id="user-123", memory_id=stored.memory_id)
    assert await running.memory.GetMemory(read, timeout=TIMEOUT_SECONDS) == stored
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_every_method_has_valid_requests_and_answers_them(attacker):
    assert VALID.keys() == {method.name for method in METHODS}
    for method in METHODS:
        for request in VALID[method.name]:
            code = await attacker.call(method, request.SerializeToString())
            assert code is grpc.StatusCode.OK, method.name


LARGEST = 4 * 2**20 - 200
"""The most bytes that leave room for the rest of a message of 4 MiB."""


def _named(name: str) -> MethodDescriptor:
    return next(method for method in METHODS if method.name == name)


def _struct_of_keys() -> pb.StoreMemoryRequest:
    request = pb.StoreMemoryRequest(session_id=SESSION, content="fact")
    for number in range(LARGEST // 20):
        request.metadata.fields[f"{number:x}"].bool_value = True
    return request


def _struct_of_nulls() -> pb.StoreMemoryRequest:
    request = pb.StoreMemoryRequest(session_id=SESSION, content="fact")
    request.metadata.get_or_create_list("a").extend([None] * (LARGEST // 4))
    return request


LARGE = {
    "metadata of many keys": ("StoreMemory", _struct_of_keys),
    "metadata of many nulls": ("StoreMemory", _struct_of_nulls),
    "markup that is never closed": (
        "StoreMemory",
        lambda: pb.StoreMemoryRequest(session_id=SESSION, content="<iframe" * (LARGEST // 7)),
    ),
    "a name of the largest size": (
        "GetMemory",
        lambda: pb.GetMemoryRequest(session_id="u" * LARGEST, memory_id="/" * 100),
    ),
    "a mask of many paths": (
        "UpdateMemory",
        lambda: pb.UpdateMemoryRequest(
            memory=pb.Memory(session_id=SESSION, memory_id=MEMORY_IDS[0], content="fact"),
            update_mask=FieldMask(paths=["content"] * (LARGEST // 9)),
        ),
    ),
    "a filter of many nulls": (
        "PurgeMemories",
        lambda: pb.PurgeMemoriesRequest(
            session_id=SESSION,
            filter=pb.MemoryFilter(metadata=_struct_of_nulls().metadata),
            force=True,
        ),
    ),
    "many warnings about a tool": (
        "UpdateToolConfig",
        lambda: tool_config_pb2.UpdateToolConfigRequest(
            tool_config=tool_config_pb2.ToolConfig(
                tool="?", warnings=[tool_config_pb2.ToolConfigWarning()] * (LARGEST // 2)
            )
        ),
    ),
    "many settings' provenance": (
        "ValidateToolConfig",
        lambda: tool_config_pb2.ValidateToolConfigRequest(
            tool_config=tool_config_pb2.ToolConfig(
                tool="?", provenance={f"{number:x}": 1 for number in range(LARGEST // 20)}
            )
        ),
    ),
    "paths of a tool": (
        "ResetToolConfig",
        lambda: tool_config_pb2.ResetToolConfigRequest(tool="rag", paths=["x"] * (LARGEST // 3)),
    ),
    "a service's name of the largest size": (
        "Check",
        lambda: health_pb2.HealthCheckRequest(service="é" * (LARGEST // 2)),
    ),
}


@pytest.mark.parametrize("name", LARGE)
async def test_the_largest_messages_are_validated_in_time(attacker, name):
    method, request = LARGE[name]
    code = await attacker.call(_named(method), request().SerializeToString())
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


async def test_a_message_too_large_after_decompression_is_refused(running):
    store = running.channel.unary_unary(path_of(_named("StoreMemory")))
    bomb = pb.StoreMemoryRequest(session_id=SESSION, content=" " * 5 * LARGEST)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await store(
            bomb.SerializeToString(), compression=grpc.Compression.Gzip, timeout=TIMEOUT_SECONDS
        )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(range(256)),
    ],
    ids=["HTTP/1.1", "TLS", "broken frames", "silence", "noise"],
)
async def test_connections_that_do_not_speak_grpc_harm_no_caller(running, attacker, data):
    host, _, port = running.address.rpartition(":")
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await writer.drain()
        writer.close()
    request = VALID["StoreMemory"][0].SerializeToString()
    assert await attacker.call(_named("StoreMemory"), request) is grpc.StatusCode.OK


@pytest.mark.parametrize("method", ["StoreMemory", "UpdateMemory", "FindSimilarMemories"])
async def test_other_calls_proceed_while_large_content_is_validated(running, monkeypatch, method):
    answered = threading.Event()

    def patient(text: str, policy: ContentPolicy) -> str:
        if len(text) > 100_000:
            assert answered.wait(TIMEOUT_SECONDS)
        return clean(text, policy)

    monkeypatch.setattr(requests, "clean", patient)
    content = "<b>" * 40_000 + "fact"
    request = {
        "StoreMemory": pb.StoreMemoryRequest(session_id=SESSION, content=content),
        "UpdateMemory": pb.UpdateMemoryRequest(
            memory=pb.Memory(session_id=SESSION, memory_id=MEMORY_IDS[0], content=content)
        ),
        "FindSimilarMemories": pb.FindSimilarMemoriesRequest(session_id=SESSION, content=content),
    }[method]
    slow = asyncio.ensure_future(getattr(running.memory, method)(request))
    await running.memory.ListMemories(
        pb.ListMemoriesRequest(session_id=SESSION), timeout=TIMEOUT_SECONDS / 2
    )
    assert not slow.done()
    answered.set()
    await asyncio.wait([slow])


@PROFILE
@given(data=st.binary(max_size=64))
async def test_any_bytes_are_answered_or_refused_with_a_reason_by_every_method(attacker, data):
    await asyncio.gather(*(attacker.call(method, data) for method in METHODS))


@PROFILE
@given(calls=CALLS)
async def test_any_request_is_answered_or_refused_with_a_reason(attacker, calls):
    for method, data in calls:
        await attacker.call(method, data)
