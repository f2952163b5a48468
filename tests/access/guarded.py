"""Callers with keys of their own, and how they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from memoryd.v1 import access_pb2 as pb
from memoryd.v1.access_pb2_grpc import AccessServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

EVERY_SCOPE = ("operator", "tenant:admin")


class Caller:
    """Stubs that show one key, or none."""

    def __init__(self, channel: grpc.aio.Channel, *credentials: str) -> None:
        self.channel = channel
        self.metadata = tuple(("authorization", f"Bearer {text}") for text in credentials)

    def call(self, stub: type, method: str, request: Any, **more: Any) -> Any:
        return getattr(stub(self.channel), method)(request, metadata=self.metadata, **more)

    def memory(self, method: str, request: Any, **more: Any) -> Any:
        return self.call(MemoryServiceStub, method, request, **more)

    def sessions(self, method: str, request: Any, **more: Any) -> Any:
        return self.call(SessionServiceStub, method, request, **more)

    def tools(self, method: str, request: Any, **more: Any) -> Any:
        return self.call(ToolConfigServiceStub, method, request, **more)

    def access(self, method: str, request: Any, **more: Any) -> Any:
        return self.call(AccessServiceStub, method, request, **more)


@dataclass
class Guarded:
    """A server that requires credentials."""

    channel: grpc.aio.Channel
    server: Any
    admin: Caller
    """An instance's admin, by the bootstrap key."""
    bootstrap_key: str
    made: list[str] = field(default_factory=list)

    async def key(
        self,
        tenant: str = "acme",
        scopes: Sequence[str] = EVERY_SCOPE,
        sessions: Sequence[str] = (),
        **more: Any,
    ) -> pb.CreateApiKeyResponse:
        request = pb.CreateApiKeyRequest(
            tenant=tenant, name="a key", scopes=scopes, sessions=sessions, **more
        )
        answer: pb.CreateApiKeyResponse = await self.admin.access("CreateApiKey", request)
        self.made.append(answer.key)
        return answer

    async def caller(self, tenant: str = "acme", **more: Any) -> Caller:
        return self.with_key((await self.key(tenant, **more)).key)

    def with_key(self, *credentials: str) -> Caller:
        return Caller(self.channel, *credentials)


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]


async def outcome(call: Any) -> Refusal | None:
    """Await a call, or the end of a stream; None where it is not refused."""
    try:
        if hasattr(call, "__await__"):
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def conversation(call: Any, request: Any) -> Refusal | None:
    """Send one request on a stream of them, as `outcome`.

    Only once the stream is there: gRPC's client loses the reason of one that ends as it writes.
    """
    try:
        await call.initial_metadata()
        if not call.done():
            await call.write(request)
            await call.done_writing()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return await end_of(call)


async def end_of(call: Any) -> Refusal | None:
    """Read a stream to its end; None where it is not refused."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    trailers = dict(error.trailing_metadata() or ())
    packed = trailers.get("grpc-status-details-bin", b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info)
    return Refusal(error.code(), info.reason, error.details() or "", dict(info.metadata))
