"""A call as the pipeline takes it, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from typing import TYPE_CHECKING, Any

import grpc

from memoryd.database.fair_places import FairPlaces
from memoryd.http.body import Body
from memoryd.http.request import client_of
from memoryd.http.wires import ConnectUnary, Failure
from memoryd.rpc.call import OFFLOAD_BYTES, VALIDATION_THREADS, offloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from memoryd.http.wires import Wire
    from memoryd.rpc.pipeline import Handler

END_SECONDS = 20.0
"""How long the end of a call may wait for a caller who does not read."""

_BINARY_SUFFIX = "-bin"

_converting = FairPlaces(VALIDATION_THREADS)
"""For what is large, to be made of JSON or compressed in a thread."""


class HttpCaller:
    """Who sends a request: see `Caller`."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope
        self._metadata = tuple(_metadata(scope["headers"]))

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._metadata

    def peer(self) -> str:
        host, port = self._scope.get("client") or ("unknown", 0)
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        tls = self._scope.get("state", {}).get("tls")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate is None:
            return {}
        return {
            "transport_security_type": [b"ssl"],
            "x509_pem_cert": [ssl.DER_cert_to_PEM_cert(certificate).encode()],
        }


class WaitingCaller(HttpCaller):
    """One who waits for an answer, and for how long."""

    def __init__(self, scope: Mapping[str, Any], timeout: float | None) -> None:
        """`timeout`: seconds; None: any time."""
        super().__init__(scope)
        self._deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0)

    def set_trailing_metadata(self, metadata: Any, /) -> None:
        self._trailing = tuple(metadata)


class HttpCall(WaitingCaller):
    """What a handler knows of its call: see `WireCall`."""

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        wire: Wire,
        *,
        timeout: float | None,
        most: int,
    ) -> None:
        """`timeout`: seconds the caller waits; `most`: bytes of a message."""
        super().__init__(scope, timeout)
        loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._wire = wire
        self._body = Body(scope, receive, self._note_gone, most)
        self._failure: Failure | None = None
        self._aborted: asyncio.Future[None] = loop.create_future()
        self._has_begun = False
        self._is_gone = False
        self._has_gap = False
        """Whether a message is missing that the caller would be told was sent."""
        self._task: asyncio.Task[Any] | None = None

    # What handlers use

    def code(self) -> grpc.StatusCode | None:
        return None if self._failure is None else self._failure.code

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = (), /
    ) -> None:
        self._trailing = tuple(trailing_metadata) or self._trailing
        self._failure = self._failure or Failure(code, details, self._trailing)
        if not self._aborted.done():
            self._aborted.set_result(None)
        raise grpc.aio.AbortError("the call is aborted")

    async def read(self) -> Any:
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((reading, self._aborted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
        if self._failure is not None:
            raise grpc.aio.AbortError("the call is aborted")
        try:
            message = reading.result()
        finally:
            del reading  # as with `_served`: an error that it ends with refers to this frame
        return grpc.aio.EOF if message is None else message

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        del metadata  # the pipeline has none
        await self._begin()

    async def write(self, message: bytes, /) -> None:
        """A message that is given up while it waits for room is on its way, as gRPC has it."""
        try:
            data = await self._converted(self._wire.encoded, message)
        except asyncio.CancelledError:
            self._has_gap = True
            raise
        await self._sent({"type": "http.response.body", "body": data, "more_body": True})
        await self._scope["state"]["drain"]()

    # The call itself

    async def serve(self, handler: Handler) -> None:
        """Serve it, and answer. What ends it is answered too, unless the caller has gone."""
        loop = asyncio.get_running_loop()
        task = self._task = loop.create_task(_served(handler, self))
        timer = None if self._deadline is None else loop.call_at(self._deadline, task.cancel)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:  # the server has stopped
            task.cancel()
            await asyncio.wait((task,))
        finally:
            if timer is not None:
                timer.cancel()
            self._body.close()
            self._task = None  # its context has this call
        answer = self._outcome(task)
        if self._is_gone:
            return
        if self._has_gap:
            await self._abandon()
            return
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._finish(answer)
        except (TimeoutError, asyncio.CancelledError):
            await self._abandon()

    async def _abandon(self) -> None:
        """Close the connection of a caller who does not read the end."""
        self._scope["state"]["abort"]()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _outcome(self, task: asyncio.Task[Any]) -> bytes | None:
        if task.cancelled():
            is_late = self.time_remaining() == 0.0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            message = "the deadline has passed" if is_late else "the server stops"
            self._failure = self._failure or Failure(code, message, self._trailing)
            return None
        answer: bytes | None = task.result()
        return answer

    async def _finish(self, answer: bytes | None) -> None:
        wire, failure = self._wire, self._failure
        if isinstance(wire, ConnectUnary):
            data = b"" if answer is None else await self._converted(wire.encoded, answer)
            status, headers, body = await self._converted(wire.whole, data, failure, self._trailing)
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._begin()
        if answer is not None and failure is None:
            await self.write(answer)
        end = wire.end(failure, self._trailing)
        await self._sent({"type": "http.response.body", "body": end})

    async def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._body.forget()  # the request
            status, headers = self._wire.head()
            await self._sent({"type": "http.response.start", "status": status, "headers": headers})

    async def _sent(self, event: Any) -> None:
        if self._is_gone:
            raise grpc.aio.InternalError("the caller has gone")
        await self._send(event)

    async def _read(self) -> bytes | None:
        self._body.forget()  # what was read before
        message = await self._wire.next_message(self._body)
        return None if message is None else await self._converted(self._wire.decoded, message)

    async def _converted(self, convert: Callable[..., Any], data: bytes, *more: Any) -> Any:
        if len(data) <= OFFLOAD_BYTES:
            return convert(data, *more)
        place = _converting.place(client_of(self._scope))
        return await offloaded(place, convert, data, *more)

    def _note_gone(self) -> None:
        self._is_gone = True
        if self._task is not None:
            self._task.cancel()


async def _served(handler: Handler, call: HttpCall) -> Any:
    """What it answers; None where it refuses.

    A task that ended with an error would refer to itself by way of what the error refers to, which
    keeps all that its call held until it is found to be garbage.
    """
    try:
        return await handler.serve(call)
    except grpc.aio.AbortError:
        return None


def _metadata(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str | bytes]]:
    """As gRPC has it; values in base64 that cannot be read are left out."""
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if not name.endswith(_BINARY_SUFFIX):
            yield name, value
            continue
        try:
            yield name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            continue
