"""A channel to the pipeline of this process, for what calls it in the name of a request's sender.

So the clients of `memoryd.client` call as they do over gRPC, and each call goes through the same
checks, with the credential of the request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from memoryd.client.connection import ClosedOnExit
from memoryd.http.call import WaitingCaller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memoryd.rpc.pipeline import Handler


class InProcessChannel(ClosedOnExit, grpc.aio.Channel):
    """Makes calls with one message each way. It holds nothing that has to be closed."""

    def __init__(self, handlers: Mapping[bytes, Handler], scope: Mapping[str, Any]) -> None:
        """`scope`: of the request whose sender calls."""
        self._handlers = handlers
        self._scope = scope

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        if request_serializer is None or response_deserializer is None:
            raise ValueError("a call in process needs the messages' own serializers")
        return _Method(
            self._handlers[method.encode()], self._scope, request_serializer, response_deserializer
        )

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        return _no_stream

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        return _no_stream

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return _no_stream

    async def close(self, grace: float | None = None) -> None:
        del grace

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002, FBT001, FBT002  as gRPC has it
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        del last_observed_state
        await asyncio.get_running_loop().create_future()  # it has one

    async def channel_ready(self) -> None:
        return


def _no_stream(*_: Any, **__: Any) -> NoReturn:
    # A request is answered as a whole, so nobody here has a use for one.
    raise RuntimeError("a channel in process makes calls with one message each way")


class _Method:
    """One method, as its stub has it."""

    def __init__(
        self,
        handler: Handler,
        scope: Mapping[str, Any],
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
    ) -> None:
        self._handler = handler
        self._scope = scope
        self._encode = encode
        self._decode = decode

    async def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Any = None
    ) -> Any:
        del metadata  # a client has none here: the request's headers stand for it
        call = _Call(self._scope, self._encode(request), timeout)
        return self._decode(await call.answer_of(self._handler))


class _Call(WaitingCaller):
    """What a handler knows of its call: see `WireCall`."""

    def __init__(self, scope: Mapping[str, Any], request: bytes, timeout: float | None) -> None:
        super().__init__(scope, timeout)
        self._request: bytes | None = request
        self._failure: tuple[grpc.StatusCode, str] | None = None

    async def answer_of(self, handler: Handler) -> bytes:
        """Raises AioRpcError."""
        # A call has a task of its own, which knows it as the current one.
        task = asyncio.get_running_loop().create_task(_served(handler, self))
        try:
            async with asyncio.timeout_at(self._deadline):
                answer = await task
        except TimeoutError:
            self._failure = grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"
        except grpc.aio.AbortError:
            pass
        else:
            return answer
        code, details = self._failure or (grpc.StatusCode.UNKNOWN, "")
        trailing = grpc.aio.Metadata(*self._trailing)
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)

    def code(self) -> grpc.StatusCode | None:
        return None if self._failure is None else self._failure[0]

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = (), /
    ) -> None:
        self._failure = code, details
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise grpc.aio.AbortError("the call is aborted")

    async def read(self) -> Any:
        request, self._request = self._request, None
        return grpc.aio.EOF if request is None else request

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        del metadata

    async def write(self, message: bytes, /) -> None:
        del message  # a handler of one message each way returns it
        _no_stream()


async def _served(handler: Handler, call: _Call) -> bytes:
    return await handler.serve(call) or b""
