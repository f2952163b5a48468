"""The channel to the service, how it repeats calls, and how both clients make calls over it."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import MethodOptions

from memoryd.client import arguments as args
from memoryd.client.errors import error_from
from memoryd.v1 import memory_pb2, tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping
    from types import TracebackType
    from typing import Self

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, retries included, unless the client or the call gives another time."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The service's default limit; a larger request fails here, before it is sent."""

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""More than the largest answer: a page of 1,000 memories, each with 16,384 characters of up to four
bytes and 16 KiB of JSON, which take up to 90 KiB as a Struct."""

FIRST_PAUSE_SECONDS = 0.2
"""Before a call is repeated for the first time."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Stub = TypeVar("_Stub")


def open_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Mapping[str, str | int] | None = None,
) -> grpc.aio.Channel:
    """Open a channel for both clients to share. Needs a running event loop.

        async with open_channel("localhost:50051") as channel:
            memory, tools = MemoryClient(channel=channel), ToolConfigClient(channel=channel)

    `credentials`: for TLS; without them the channel is plaintext. `options`: gRPC channel
    arguments, which override this module's.
    """
    # Without one gRPC chooses a loop for the channel by itself, and calls fail much later.
    asyncio.get_running_loop()
    args.text("target", target)
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"credentials: expected ChannelCredentials, not {args.shown(credentials)}")
    given = args.channel_options("options", options)
    arguments = list((_channel_options() | given).items())
    if credentials is None:
        return grpc.aio.insecure_channel(target, arguments)
    return grpc.aio.secure_channel(target, credentials, arguments)


_SAFE_TO_REPEAT = {
    "StoreMemory",  # its request_id makes the service repeat the first answer
    "BatchStoreMemories",  # as StoreMemory, for each item
    "RetrieveMemories",  # an access counted twice moves an importance by 0.02 at most
}
"""Methods to retry besides those that the protos declare free of side effects. Updates, deletions
and the like are not retried: the first try may have succeeded, so the caller has to look first."""


def _repeated_methods() -> Iterator[dict[str, str]]:
    for file in (memory_pb2.DESCRIPTOR, tool_config_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                level = method.GetOptions().idempotency_level
                if level == MethodOptions.NO_SIDE_EFFECTS or method.name in _SAFE_TO_REPEAT:
                    yield {"service": service.full_name, "method": method.name}


def _service_config() -> str:
    """The JSON that makes gRPC balance and retry by itself."""
    return json.dumps(
        {
            # Use every address of a name, not only the first.
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": list(_repeated_methods()),
                    # Four pauses, three seconds in all; a server restarts in less.
                    "retryPolicy": {
                        "maxAttempts": 5,
                        "initialBackoff": f"{FIRST_PAUSE_SECONDS}s",
                        "maxBackoff": "2s",
                        "backoffMultiplier": 2,
                        # A server that stops cancels calls that it has not begun. gRPC does not
                        # retry what the caller cancels.
                        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                    },
                }
            ],
            # Stop retrying against a server that keeps failing: from 500 failures on, where each
            # ten successes make up for one. With a lower limit a burst of calls during a restart
            # would not be retried.
            "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
        }
    )


def _channel_options() -> dict[str, str | int]:
    return {
        "grpc.service_config": _service_config(),
        # gRPC does not retry a request that exceeds this buffer, 256 KiB by default.
        "grpc.per_rpc_retry_buffer_size": 2 * MAX_REQUEST_BYTES,
        "grpc.max_send_message_length": MAX_REQUEST_BYTES,
        "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
        # Find a server that is back at once, not after up to two minutes, so that a retry finds it
        # too.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 500,
        # A watch that is silent for hours must notice a dead peer, and proxies must not drop it as
        # idle, which they usually do after four minutes or more. gRPC's guidance (A8) allows at
        # most a ping a minute; many servers count a ping without an open call as abuse; and by
        # default gRPC stops after two pings without data.
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.http2.max_pings_without_data": 0,
    }


class Client(ABC, Generic[_Stub]):
    """A client of one service: a channel, and how calls are made over it."""

    def __init__(
        self,
        target: str | None = None,
        *,
        channel: grpc.aio.Channel | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Mapping[str, str | int] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        """Prepare the client. Needs a running event loop; the first call connects.

        `target`: `host:port`, or any name that gRPC resolves (`dns:///memoryd:50051`: all of its
        addresses are used). Or `channel`: one from `open_channel`, which the caller closes.
        `credentials`: for TLS; without them the channel is plaintext.
        `options`: gRPC channel arguments, which override this module's.
        `timeout`: seconds a call may take, retries included, where the call gives no other; None:
        no limit. Streams last as long as they are read.
        `metadata`: sent with every call: {"authorization": "Bearer ..."}.
        """
        if channel is not None and not isinstance(channel, grpc.aio.Channel):
            raise TypeError(f"channel: expected one from open_channel, not {args.shown(channel)}")
        if target is not None and channel is None:
            self._channel = open_channel(target, credentials=credentials, options=options)
        elif channel is not None and target is None and not credentials and not options:
            self._channel = channel
        else:
            raise ValueError(
                "target or channel: give a target, with credentials and options, or a channel alone"
            )
        # gRPC does not check: stubs over a closed channel may end the process.
        if self._channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            raise ValueError("channel: the channel is closed; open another")
        self._closes_channel = channel is None
        self._stub = self._stub_over(self._channel)
        self._timeout = args.seconds("timeout", timeout)
        self._metadata = args.headers("metadata", metadata)

    @abstractmethod
    def _stub_over(self, channel: grpc.aio.Channel) -> _Stub:
        """Return the service's methods."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel unless it is shared; this cancels calls under way."""
        if self._closes_channel:
            await self._channel.close()

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> _Response:
        return await self._call_within(method, request, self._limit(timeout))

    def _limit(self, timeout: float | None) -> float | None:
        """How many seconds a call may take; None: any."""
        return self._timeout if timeout is None else args.seconds("timeout", timeout)

    async def _call_within(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        limit: float | None,
    ) -> _Response:
        try:
            return await method(request, timeout=limit, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error

    def _stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> AsyncGenerator[_Response, None]:
        return self._responses(method, request, args.seconds("timeout", timeout))

    async def _responses(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> AsyncGenerator[_Response, None]:
        call = method(request, timeout=timeout, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error
        finally:
            call.cancel()
