"""A channel of gRPC whose calls go over HTTP, as gRPC-Web."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any
from urllib.parse import unquote

import grpc
import h11
from tests.http_client import exchange, framed

TYPE = {"content-type": "application/grpc-web+proto"}
TRAILERS = 0x80

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class HttpCall:
    """A call under way, as `grpc.aio` has it, as far as tests use it."""

    def __init__(
        self, address: str, path: str, request: bytes, headers: dict[str, str], decode: Any
    ) -> None:
        self._decode = decode
        self._answers: asyncio.Queue[Any] = asyncio.Queue(1)  # what is not read is not received
        self._begun = asyncio.Event()
        self._code = grpc.StatusCode.UNKNOWN
        self._message = "the connection has ended"
        self._trailers: list[tuple[str, str | bytes]] = []
        self._task = asyncio.create_task(self._run(address, path, request, headers))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (answer := await self.read()) is not grpc.aio.EOF:
            yield answer

    async def read(self) -> Any:
        reading = asyncio.ensure_future(self._answers.get())
        await asyncio.wait((reading, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done() and self._answers.empty():
            reading.cancel()
            if self._task.cancelled():
                raise asyncio.CancelledError
            self._task.result()
            if self._code is not grpc.StatusCode.OK:
                raise self._error()
            return grpc.aio.EOF
        return await reading

    async def initial_metadata(self) -> None:
        await self._begun.wait()

    async def code(self) -> grpc.StatusCode:
        await asyncio.wait((self._task,))
        return self._code

    def cancel(self) -> bool:
        return self._task.cancel()

    async def _only(self) -> Any:
        try:
            answer = await self.read()
            end = await self.read()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        assert end is grpc.aio.EOF
        return answer

    def _error(self) -> grpc.aio.AioRpcError:
        trailers = grpc.aio.Metadata(*self._trailers)
        return grpc.aio.AioRpcError(self._code, grpc.aio.Metadata(), trailers, self._message)

    async def _run(self, address: str, path: str, request: bytes, headers: dict[str, str]) -> None:
        try:
            await self._exchange(address, path, request, headers)
        except h11.RemoteProtocolError:  # as gRPC has it
            self._code = grpc.StatusCode.UNAVAILABLE

    async def _exchange(
        self, address: str, path: str, request: bytes, headers: dict[str, str]
    ) -> None:
        async with exchange(address, path, framed(request), TYPE | headers) as found:
            self._begun.set()
            assert found.status == 200, found.status
            async for flags, data in found.frames():
                if flags & TRAILERS:
                    self._end(data.decode())
                else:
                    await self._answers.put(self._decode(data))

    def _end(self, text: str) -> None:
        for line in text.splitlines():
            name, _, value = line.partition(": ")
            if name == "grpc-status":
                self._code = _CODES[int(value)]
                self._message = ""
            elif name == "grpc-message":
                self._message = unquote(value)
            elif name.endswith("-bin"):
                padded = value + "=" * (-len(value) % 4)
                self._trailers.append((name, base64.b64decode(padded)))
            else:
                self._trailers.append((name, value))


class HttpChannel:
    """Streams of requests go over gRPC itself, since HTTP/1.1 is not made for them."""

    def __init__(self, address: str, grpc_channel: grpc.aio.Channel) -> None:
        self._address = address
        self._grpc = grpc_channel
        self.stream_stream = grpc_channel.stream_stream
        self.stream_unary = grpc_channel.stream_unary

    def unary_unary(
        self,
        path: str,
        request_serializer: Any = bytes,
        response_deserializer: Any = bytes,
        **_: Any,
    ) -> Callable[..., HttpCall]:
        def call(request: Any, timeout: float | None = None, metadata: Any = ()) -> HttpCall:
            headers = dict(metadata or ())
            if timeout is not None:
                headers["grpc-timeout"] = f"{max(int(timeout * 1000), 0)}m"
            message = request_serializer(request)
            return HttpCall(self._address, path, message, headers, response_deserializer)

        return call

    unary_stream = unary_unary

    async def close(self) -> None:
        await self._grpc.close()
