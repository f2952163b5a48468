"""What every call goes through, once: request id, deadline, tenant, check, errors, log."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
import time
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import DecodeError

from memoryd.domain.errors import (
    MalformedMessage,
    MessageTooLarge,
    NoMessage,
    OutOfDescriptors,
    Overloaded,
    StreamIdle,
    StreamStalled,
    UnknownMethod,
)
from memoryd.rpc.call import Call, enter, offloaded
from memoryd.rpc.limits import Returns, Slots
from memoryd.rpc.receiving import RequestReader, slow_places
from memoryd.rpc.status import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from google.protobuf.message import Message

    from memoryd.rpc.limits import Limits
    from memoryd.rpc.receiving import Refuse
    from memoryd.rpc.status import Status

    Behaviour = Callable[..., Any]
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("memoryd.access")

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""Nothing that could be taken for another field of a log line."""
TRANSIT_SECONDS = 0.1
"""How much earlier than here a deadline may pass at the caller, who then cancels."""
QUIET_SECONDS = 0.05
"""Without a new call, after which a server that stops expects no more."""
REFUSING_SECONDS = 1.0
"""How long it goes on to refuse callers who do not let off."""
DETAILS_TRAILER = "grpc-status-details-bin"

UNKNOWN_METHOD = "UNKNOWN"
"""What the log has in place of a method that does not exist, whose name is a stranger's."""

HEALTH_CHECKS = 1_000
"""The most checks of health under way, half of them of one client."""
HEALTH_REQUEST_SECONDS = 1.0
"""How long the request of a check may take to arrive: it is tiny."""
REFLECTION_STREAMS = 50
"""The most streams of reflection under way, half of them of one client."""
REFLECTION_IDLE_SECONDS = 60.0
"""How long a stream of reflection may ask nothing before it is ended."""

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

WRITES = frozenset(
    f"/memoryd.v1.MemoryService/{name}"
    for name in (
        "StoreMemory",
        "BatchStoreMemories",
        "UpdateMemory",
        "DeleteMemory",
        "UndeleteMemory",
    )
)
"""The methods whose work waits for a commit."""


class CallPipeline(grpc.GenericRpcHandler):
    """All methods of a server, each wrapped once: a call then costs no set-up of its own.

    Stands in the place of a `grpc.aio.Server` where services add their methods, and is the only
    handler that the server itself is given. Interceptors would cost every call a chain of
    coroutines, and methods registered with gRPC's core a task that waits for each of them, which
    every call goes through.

    `check` is given every request of this service's own methods before their handler. `admit_write`
    raises Overloaded where a write would wait for too long; it is asked before the request is read,
    since to read and judge it may be a large part of the work.
    """

    def __init__(
        self, check: Callable[[Message], None], limits: Limits, admit_write: Callable[[], None]
    ) -> None:
        self._check = check
        self._limits = limits
        self._admit_write = admit_write
        self._returns = Returns()
        self._reader = RequestReader(
            seconds=limits.request_seconds, places=slow_places(limits.message_bytes)
        )
        self._calls = Slots("calls", limits.calls, limits.calls_per_client)
        self._streams = Slots("streams", limits.streams, limits.streams_per_client)
        # Places of their own, so that no load makes the service look dead.
        self._checks = Slots("health checks", HEALTH_CHECKS, HEALTH_CHECKS // 2)
        self._watches = Slots("watches of health", limits.streams, limits.streams_per_client)
        self._reflection = Slots(
            "streams of reflection", REFLECTION_STREAMS, REFLECTION_STREAMS // 2
        )
        self._questions = RequestReader(seconds=REFLECTION_IDLE_SECONDS, places=REFLECTION_STREAMS)
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._unknown = _unknown(
            _Method(UNKNOWN_METHOD, _unknown_method, None, None, limits, self._returns)
        )

    async def close(self) -> None:
        """Refuse new calls, and return when none has come for a moment, or has for too long.

        What is on its way when gRPC is stopped, gRPC cancels: that reads as the caller's doing.
        """
        self._calls.close()
        self._streams.close()
        now = time.monotonic()
        end = now + REFUSING_SECONDS
        while now < end:
            last = max(self._calls.last_asked, self._streams.last_asked)
            if now - last >= QUIET_SECONDS:
                return
            await asyncio.sleep(QUIET_SECONDS - (now - last))
            now = time.monotonic()

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Each comes a second time, by its name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's methods, by their names."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._wrapped[method] = self._wrap(method, handler)

    def handlers_of(self, service: str) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """A service's methods by their names, as they are wrapped."""
        prefix = f"/{service}/"
        return {
            method.removeprefix(prefix): handler
            for method, handler in self._wrapped.items()
            if method.startswith(prefix)
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Give what serves a method; for one that there is not, what says so."""
        return self._wrapped.get(handler_call_details.method, self._unknown)

    def _wrap(
        self, name: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        ours, limits = name.startswith("/memoryd."), self._limits
        check = self._check if ours else None
        admit = self._admit_write if name in WRITES else None
        behaviour: Any = (
            handler.unary_unary or handler.unary_stream or handler.stream_stream  # reflection's
        )
        method = _Method(name, behaviour, handler, check, limits, self._returns, admit=admit)
        if handler.unary_unary is not None:
            slots = self._calls if ours else self._checks
            return _unary(method, slots, self._reader, None if ours else HEALTH_REQUEST_SECONDS)
        if handler.unary_stream is not None:
            slots, requests = self._streams if ours else self._watches, self._reader
        else:
            slots, requests = self._reflection, self._questions
        return _streaming(
            method, slots, requests, limits, takes_stream=handler.stream_stream is not None
        )


class _Method:
    """One method, with what surrounds its handler."""

    def __init__(  # noqa: PLR0917  built in one place, one after the other
        self,
        name: str,
        behaviour: Behaviour,
        handler: grpc.RpcMethodHandler[Any, Any] | None,
        check: Callable[[Message], None] | None,
        limits: Limits,
        returns: Returns,
        *,
        admit: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.behaviour = behaviour
        self.encode = None if handler is None else _encoder(handler.response_serializer)
        decode = None if handler is None else handler.request_deserializer
        self._decode: Callable[[bytes], Any] = decode or bytes
        self._check = check
        self._max_bytes = limits.message_bytes
        self._returns = returns
        self._admit = admit

    def admit(self) -> None:
        """Raises Overloaded where the call would wait for too long."""
        if self._admit is not None:
            self._admit()

    async def request(self, data: bytes) -> Any:
        """Give the request that the bytes are.

        Raises MessageTooLarge, MalformedMessage, and what the check does.
        """
        if len(data) > self._max_bytes:
            raise MessageTooLarge(len(data), self._max_bytes)
        return await offloaded(len(data), self._judged, data)

    async def requests(
        self, reader: RequestReader, context: Context, client: str, refuse: Refuse
    ) -> AsyncIterator[Any]:
        """Give the requests of a stream, as they come."""
        with suppress(NoMessage):
            while True:
                yield await self.request(await reader.read(context, client, refuse))

    def status(self, error: Exception, call: Call) -> Status:
        """What goes over the wire in place of an answer."""
        if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
            error = OutOfDescriptors()
        if isinstance(error, Overloaded):
            error.retry_after = self._returns.give()
        return status_of(error, call.request_id)

    def _judged(self, data: bytes) -> Any:
        try:
            request = self._decode(data)
        except DecodeError:
            raise MalformedMessage(f"request of {self.name}") from None
        if self._check is not None:
            self._check(request)
        return request


def _encoder(encode: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Leave alone what a handler has encoded already."""
    if encode is None:
        return None
    return lambda answer: answer if type(answer) is bytes else encode(answer)


class _Serving:
    """One call: entered at its beginning, and at its end refused, if it failed, and logged."""

    __slots__ = ("_call", "_context", "_method", "_started")

    def __init__(self, method: _Method, context: Context) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> Self:
        self._started = time.perf_counter()
        context = self._context
        request_id = _request_id(context.invocation_metadata())
        self._call = Call(self._method.name, request_id, context.time_remaining)
        enter(self._call)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        code = grpc.StatusCode.OK
        try:
            if isinstance(error, grpc.aio.AbortError):
                code = self._context.code() or grpc.StatusCode.UNKNOWN
            elif isinstance(error, Exception):
                status = self._method.status(error, self._call)
                code = status.code
                await self._abort(status, error)
            elif error is not None:
                code = grpc.StatusCode.CANCELLED
        finally:
            _log(self._call, code, self._started)

    async def refuse(self, error: Exception) -> None:
        """End the call with an error while its handler waits for gRPC, which tells the handler."""
        await self._abort(self._method.status(error, self._call), error)

    async def _abort(self, status: Status, error: Exception) -> None:
        call = self._call
        if status.code is grpc.StatusCode.INTERNAL:
            log.error(
                "defect",
                exc_info=error,
                extra={"request_id": call.request_id, "method": call.method},
            )
        with _reaching_caller():
            await self._context.abort(
                status.code,
                status.message,
                ((DETAILS_TRAILER, status.details), (REQUEST_ID_HEADER, call.request_id)),
            )


def _unary(
    method: _Method, slots: Slots, reader: RequestReader, seconds: float | None
) -> grpc.RpcMethodHandler[Any, Any]:
    async def serve(_: object, context: Context) -> Any:
        async with _Serving(method, context) as serving:
            with slots.taken(context.peer()) as client:
                method.admit()
                data = await reader.read(context, client, serving.refuse, seconds=seconds)
                return await method.behaviour(await method.request(data), context)

    return grpc.stream_unary_rpc_method_handler(serve, None, method.encode)


def _streaming(
    method: _Method, slots: Slots, reader: RequestReader, limits: Limits, *, takes_stream: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    async def serve(_: object, context: Context) -> None:
        async with _Serving(method, context) as serving:
            with slots.taken(context.peer()) as client:
                if takes_stream:
                    request: Any = method.requests(reader, context, client, serving.refuse)
                else:
                    request = await method.request(
                        await reader.read(context, client, serving.refuse)
                    )
                async with aclosing(method.behaviour(request, context)) as answers:
                    await _send(answers, request, context, limits)

    return grpc.stream_stream_rpc_method_handler(serve, None, method.encode)


def _unknown(method: _Method) -> grpc.RpcMethodHandler[Any, Any]:
    async def serve(_: object, context: Context) -> bytes:
        async with _Serving(method, context):
            return bytes(await method.behaviour())  # unread

    return grpc.stream_unary_rpc_method_handler(serve, None, None)


async def _send(
    answers: AsyncIterator[Any], request: Any, context: Context, limits: Limits
) -> None:
    """Write each answer as the caller reads; nothing gathers for one that does not."""
    # At once: it tells the caller that the stream is there, and a first answer that is given up
    # while it waits would leave gRPC in doubt whether this was sent.
    with _reaching_caller():
        await context.send_initial_metadata(())
    last_revision = getattr(request, "start_revision", None)
    while True:
        try:
            async with asyncio.timeout(limits.stream_idle_seconds) as patience:
                answer = await anext(answers)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if patience.expired():
                raise StreamIdle(last_revision) from None
            raise
        if last_revision is not None:
            # Also if it is given up below: gRPC has it by then, and tells no end before it.
            last_revision = answer.revision
        try:
            with _reaching_caller():
                async with asyncio.timeout(limits.stream_stall_seconds):
                    await context.write(answer)
        except TimeoutError:
            raise StreamStalled(last_revision) from None


async def _unknown_method() -> bytes:
    raise UnknownMethod("this service has no such method; ask its reflection for those it has")


@contextmanager
def _reaching_caller() -> Iterator[None]:
    """Take what gRPC raises if the caller has gone for the cancellation that it is about to be."""
    try:
        yield
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _request_id(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The caller's own, if it is fit to print; else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str):
            if _REQUEST_ID.fullmatch(value):
                return value
            break
    return f"{random.getrandbits(128):032x}"  # to tell calls apart, not secret


def _log(call: Call, code: grpc.StatusCode, started: float) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    left = call.time_remaining()
    if code is grpc.StatusCode.CANCELLED and left is not None and left < TRANSIT_SECONDS:
        code = grpc.StatusCode.DEADLINE_EXCEEDED  # the handler is cancelled then, too
    log.info(
        "call",
        extra={
            "method": call.method,
            "code": code.name,
            "ms": round((time.perf_counter() - started) * 1000, 3),
            "request_id": call.request_id,
        },
    )
