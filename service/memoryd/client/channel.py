"""The channel to the service, how it repeats calls, and how all clients make calls over it."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import MethodOptions

from memoryd.client import arguments as args
from memoryd.client.connection import (
    TARGET_VARIABLE,
    ClosedOnExit,
    Security,
    connect,
    target_from,
)
from memoryd.client.credentials import AUTHORIZATION, Tokens, Tries
from memoryd.client.errors import DeadlineExceeded, MemorydError, error_from
from memoryd.client.resumption import Resumption
from memoryd.v1 import (
    access_pb2,
    conversation_pb2,
    document_pb2,
    memory_pb2,
    session_pb2,
    tool_config_pb2,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from memoryd.client.answering import Answer
    from memoryd.client.credentials import TokenProvider
    from memoryd.client.tls import TLS

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, retries included, unless the client or the call gives another time."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The service's default limit; a larger request fails here, before it is sent."""

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""More than the largest answer: a page of 1,000 memories, each with 16,384 characters of up to four
bytes and 16 KiB of JSON, which take up to 90 KiB as a Struct."""

FIRST_PAUSE_SECONDS = 0.2
"""Before a call is repeated for the first time."""

_UNCONNECTED = (grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Stub = TypeVar("_Stub")
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer", bound="Answer[Any]")


def open_channel(
    target: str | None = None,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Mapping[str, str | int] | None = None,
    tls: TLS | bool | None = None,
    api_key: str | None = None,
    token_provider: TokenProvider | None = None,
    allow_plaintext_credentials: bool = False,
) -> grpc.aio.Channel:
    """Open a channel for clients to share, as `Client` does. Needs a running event loop.

        async with open_channel("localhost:50051") as channel:
            memory, tools = MemoryClient(channel=channel), ToolConfigClient(channel=channel)

    Stubs of your own over it show the API key too, but no token of a `token_provider`.
    """
    target = target_from(target)
    if target is None:
        raise ValueError(f"target: give HOST:PORT, or set {TARGET_VARIABLE}")
    return connect(
        target,
        _all_options(options),
        Security(credentials, tls, api_key, token_provider, allow_plaintext_credentials),
    )


def _all_options(given: Mapping[str, str | int] | None) -> dict[str, str | int]:
    # Without one gRPC chooses a loop for the channel by itself, and calls fail much later.
    asyncio.get_running_loop()
    return _channel_options() | args.channel_options("options", given)


_SAFE_TO_REPEAT = {
    "StoreMemory",  # its request_id makes the service repeat the first answer
    "BatchStoreMemories",  # as StoreMemory, for each item
    "MergeSessions",  # as StoreMemory
    *("PutDocument", "BatchWriteDocuments"),  # likewise
    *("AppendMessages", "RewriteMessages", "PopMessages"),  # likewise
    *("GetDocument", "BatchGetDocuments", "SearchDocuments"),  # which refresh a ttl at the most
    "RetrieveMemories",  # an access counted twice moves an importance by 0.02 at most
}
"""Methods to retry besides those that the protos declare free of side effects. Updates, deletions
and the like are not retried: the first try may have succeeded, so the caller has to look first."""


def _repeated_methods() -> Iterator[dict[str, str]]:
    files = (
        access_pb2.DESCRIPTOR,
        memory_pb2.DESCRIPTOR,
        session_pb2.DESCRIPTOR,
        document_pb2.DESCRIPTOR,
        conversation_pb2.DESCRIPTOR,
        tool_config_pb2.DESCRIPTOR,
    )
    for file in files:
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


class Client(ClosedOnExit, ABC, Generic[_Stub]):
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
        tls: TLS | bool | None = None,
        api_key: str | None = None,
        token_provider: TokenProvider | None = None,
        allow_plaintext_credentials: bool = False,
    ) -> None:
        """Prepare the client. Needs a running event loop; the first call connects.

        `target`: `host:port`, or any name that gRPC resolves (`dns:///memoryd:50051`: all of its
        addresses are used); without it that of the variable MEMORYD_TARGET. Or `channel`: one from
        `open_channel`, which the caller closes and which has the arguments that follow.
        `tls`: True, or a TLS that names files; without it the channel is plaintext.
        `api_key`: shown with every call; without it that of the variable MEMORYD_API_KEY.
        `token_provider`: an async function that gives a token to show instead, and when it expires:
        an aware datetime, seconds since 1970, or None. It is asked again at 80 % of the token's
        life, and once more where the service refuses the token as expired.
        `allow_plaintext_credentials`: show them to another machine without TLS.
        `credentials`: gRPC's own, in place of `tls`.
        `options`: gRPC channel arguments, which override this module's.
        `timeout`: seconds a call may take, retries included, where the call gives no other; None:
        no limit. Streams last as long as they are read.
        `metadata`: sent with every call.
        """
        if channel is not None and not isinstance(channel, grpc.aio.Channel):
            raise TypeError(f"channel: expected one from open_channel, not {args.shown(channel)}")
        self._metadata = args.headers("metadata", metadata)
        is_in_metadata = any(name == AUTHORIZATION for name, _ in self._metadata)
        security = Security(credentials, tls, api_key, token_provider, allow_plaintext_credentials)
        if channel is not None and target is None and not options and not security.is_given:
            self._channel, self._target = channel, "the service"
        elif channel is None and (found := target_from(target)) is not None:
            self._target = found
            self._channel = connect(
                found, _all_options(options), security, is_in_metadata=is_in_metadata
            )
        else:
            raise ValueError(
                f"target or channel: give a target (or set {TARGET_VARIABLE}), with credentials and"
                " options, or a channel alone"
            )
        self._credential = getattr(self._channel, "credential", None)
        if self._credential is not None and is_in_metadata:
            raise ValueError("metadata.authorization: the channel shows a credential; leave it out")
        # gRPC does not check: stubs over a closed channel may end the process.
        if self._channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            raise ValueError("channel: the channel is closed; open another")
        self._closes_channel = channel is None
        self._stub = self._stub_over(self._channel)
        self._timeout = args.seconds("timeout", timeout)

    @abstractmethod
    def _stub_over(self, channel: grpc.aio.Channel) -> _Stub:
        """Return the service's methods."""

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

    async def _answer(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, Any],
        request: _Request,
        kind: type[_Answer],
        timeout: float | None,
    ) -> _Answer:
        return kind.from_proto(await self._call(method, request, timeout))

    def _limit(self, timeout: float | None) -> float | None:
        """How many seconds a call may take; None: any."""
        return self._timeout if timeout is None else args.seconds("timeout", timeout)

    async def _call_within(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        limit: float | None,
    ) -> _Response:
        tries = self._tries(limit)
        while True:
            left = await tries.next()
            try:
                return await method(request, timeout=left, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                refusal = self._refusal(error)
                if not tries.may_repeat(refusal):
                    raise refusal from error

    def _refusal(self, error: grpc.aio.AioRpcError) -> MemorydError:
        """Say so where there was no connection: gRPC tells of the deadline alone."""
        refusal = error_from(error)
        is_late = isinstance(refusal, DeadlineExceeded) and not refusal.request_id
        if is_late and self._channel.get_state() in _UNCONNECTED:
            return DeadlineExceeded(
                refusal.code,
                f"no connection to {self._target} in time: nothing listens there, it cannot be"
                " reached, its TLS is not what this client has, or it speaks no gRPC",
            )
        return refusal

    def _tries(self, limit: float | None) -> Tries:
        return Tries(self._credential, limit)

    def _pages(
        self,
        method: Any,
        request: Any,
        items_of: Callable[[Any], Iterable[_Item]],
        timeout: float | None,
    ) -> AsyncGenerator[_Item, None]:
        """Iterate over the items of all pages; `timeout` applies to each page."""
        return self._items(method, request, items_of, args.seconds("timeout", timeout))

    async def _items(
        self,
        method: Any,
        request: Any,
        items_of: Callable[[Any], Iterable[_Item]],
        timeout: float | None,
    ) -> AsyncGenerator[_Item, None]:
        while True:
            page = await self._call(method, request, timeout)
            for item in items_of(page):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, Any],
        request: _Request,
        kind: type[_Answer],
        timeout: float | None,
    ) -> AsyncGenerator[_Answer, None]:
        return self._answers(method, request, kind, args.seconds("timeout", timeout))

    async def _answers(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, Any],
        request: _Request,
        kind: type[_Answer],
        timeout: float | None,
    ) -> AsyncGenerator[_Answer, None]:
        async with aclosing(self._responses(method, request, timeout)) as responses:
            async for response in responses:
                yield kind.from_proto(response)

    def _watch(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Any, Any],
        request: Any,
        kind: type[_Answer],
        timeout: float | None,
    ) -> AsyncGenerator[_Answer, None]:
        return self._changes(method, request, kind, args.seconds("timeout", timeout))

    async def _changes(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Any, Any],
        request: Any,
        kind: type[_Answer],
        timeout: float | None,
    ) -> AsyncGenerator[_Answer, None]:
        renews = isinstance(self._credential, Tokens)
        resumption = Resumption(request, timeout, renews=renews)
        while True:
            responses = self._responses(method, request, resumption.left(), resumption.opened)
            try:
                async with aclosing(responses):
                    async for response in responses:
                        resumption.read(response)
                        yield kind.from_proto(response)
            except MemorydError as error:
                await resumption.after(error)
            else:
                return

    async def _responses(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        opened: Callable[[], None] | None = None,
    ) -> AsyncGenerator[_Response, None]:
        """`opened` is called once the service has taken the call."""
        tries = self._tries(timeout)
        has_begun = False
        while True:
            left = await tries.next()
            call = method(request, timeout=left, metadata=self._metadata)
            try:
                if opened is not None:
                    await call.initial_metadata()
                    if not call.done():
                        opened()
                async for response in call:
                    has_begun = True
                    yield response
            except grpc.aio.AioRpcError as error:
                refusal = self._refusal(error)
                if has_begun or not tries.may_repeat(refusal):
                    raise refusal from error
            else:
                return
            finally:
                call.cancel()
