"""A channel to the pipeline of this process, for what calls it in the name of a request's sender.

So the clients of `memoryd.client` call as they do over gRPC, and each call goes through the same
checks, with the credential of the request.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import grpc.aio

from memoryd.client.connection import ClosedOnExit
from memoryd.http.call import WaitingCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from memoryd.rpc.pipeline import Handler

_T = TypeVar("_T")


class InProcessChannel(ClosedOnExit, grpc.aio.Channel):
    """Makes calls with one request each. It holds nothing that has to be closed."""

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
        return self._method(_Method, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        return self._method(_StreamMethod, method, request_serializer, response_deserializer)

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        return _no_stream

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return _no_stream

    def _method(
        self,
        kind: type[_Method],
        method: str,
        encode: Callable[[Any], bytes] | None,
        decode: Callable[[bytes], Any] | None,
    ) -> _Method:
        if encode is None or decode is None:
            raise ValueError("a call in process needs the messages' own serializers")
        return kind(self._handlers[method.encode()], self._scope, encode, decode)

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
    # Nobody here has a use for one.
    raise RuntimeError("a channel in process sends one request with each call")


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

    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None) -> Any:
        del metadata  # a client has none here: the request's headers stand for it
        return self._answer(self._encode(request), timeout)

    async def _answer(self, request: bytes, timeout: float | None) -> Any:
        call = _UnaryCall(self._scope, request, timeout)
        return self._decode(await call.answer_of(self._handler))


class _StreamMethod(_Method):
    """One that answers with a stream."""

    def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Any = None
    ) -> _StreamCall:
        del metadata  # as above
        call = _StreamCall(self._scope, self._encode(request), timeout)
        call.begin(self._handler, self._decode)
        return call


class _Call(WaitingCaller):
    """What a handler knows of its call: see `WireCall`."""

    def __init__(self, scope: Mapping[str, Any], request: bytes, timeout: float | None) -> None:
        super().__init__(scope, timeout)
        self._request: bytes | None = request
        self._failure: tuple[grpc.StatusCode, str] | None = None

    def error(self) -> grpc.aio.AioRpcError:
        """How it has ended, where that is no success."""
        code, details = self._failure or (grpc.StatusCode.UNKNOWN, "")
        trailing = grpc.aio.Metadata(*self._trailing)
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)

    def note_late(self) -> None:
        self._failure = grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"

    def code(self) -> grpc.StatusCode | None:
        return None if self._failure is None else self._failure[0]

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = (), /
    ) -> None:
        self._failure = self._failure or (code, details)
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise grpc.aio.AbortError("the call is aborted")

    async def read(self) -> Any:
        request, self._request = self._request, None
        return grpc.aio.EOF if request is None else request

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        del metadata


class _UnaryCall(_Call):
    """One whose answer is one message."""

    async def answer_of(self, handler: Handler) -> bytes:
        """Raises AioRpcError."""
        # A call has a task of its own, which knows it as the current one.
        task = asyncio.get_running_loop().create_task(_served(handler, self))
        try:
            async with asyncio.timeout_at(self._deadline):
                return await task
        except TimeoutError:
            self.note_late()
        except grpc.aio.AbortError:
            pass
        raise self.error()

    async def write(self, message: bytes, /) -> None:
        del message  # a handler of one message each way returns it
        _no_stream()


class _StreamCall(_Call):
    """One whose answers are read as they come. Until one is read, the handler makes no further."""

    _task: asyncio.Task[None]
    _decode: Callable[[bytes], Any]

    def begin(self, handler: Handler, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode
        self._begun = asyncio.Event()
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._task = asyncio.get_running_loop().create_task(self._serve(handler))

    async def _serve(self, handler: Handler) -> None:
        with suppress(grpc.aio.AbortError):  # which says itself how the call has ended
            await handler.serve(self)

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        del metadata
        self._begun.set()

    async def write(self, message: bytes, /) -> None:
        await self._answers.put(message)

    # What a client uses

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._first_of(self._begun.wait())
        return grpc.aio.Metadata()

    def done(self) -> bool:
        return self._task.done()

    def cancel(self) -> bool:
        return self._task.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Raises AioRpcError."""
        while not (self._task.done() and self._answers.empty()):
            answer = await self._first_of(self._answers.get())
            if answer is not None:
                yield self._decode(answer)
        if self._failure is not None:
            raise self.error()
        if not self._task.cancelled():
            self._task.result()

    async def _first_of(self, awaited: Coroutine[Any, Any, _T]) -> _T | None:
        """What it gives, unless the call ends before; None: it has ended."""
        waiting = asyncio.get_running_loop().create_task(awaited)
        try:
            done, _ = await asyncio.wait(
                (waiting, self._task),
                timeout=self.time_remaining(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            if not waiting.done():
                waiting.cancel()
        if not done:
            self.note_late()
            self.cancel()
        return waiting.result() if waiting in done else None


async def _served(handler: Handler, call: _UnaryCall) -> bytes:
    return await handler.serve(call) or b""
