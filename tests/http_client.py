"""A caller over HTTP/1.1 that reads an answer as it comes, and one of Connect and of gRPC-Web."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11

READ_BYTES = 65536
JSON = {"content-type": "application/json"}


@dataclass
class Exchange:
    """One request on a connection of its own, and its answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, event: Any) -> None:
        self.writer.write(self.connection.send(event) or b"")
        await self.writer.drain()

    async def begin(self) -> None:
        """Read until the head of the answer is there."""
        response = await self._event()
        assert isinstance(response, h11.Response), response
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}

    async def chunks(self) -> AsyncIterator[bytes]:
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            yield bytes(event.data)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        held = bytearray()
        async for chunk in self.chunks():
            held += chunk
            while len(held) >= 5:
                flags, length = struct.unpack(">BI", held[:5])
                if len(held) < 5 + length:
                    break
                yield flags, bytes(held[5 : 5 + length])
                del held[: 5 + length]
        assert not held

    async def _event(self) -> Any:
        while (event := self.connection.next_event()) is h11.NEED_DATA:
            self.connection.receive_data(await self.reader.read(READ_BYTES))
        return event


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def exchange(
    address: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Exchange]:
    """Send a request, and give its answer once that has begun. `body` None: the caller sends it."""
    host, _, port = address.rpartition(":")
    server_name = "memoryd.test" if tls else None
    reader, writer = await asyncio.open_connection(
        host.strip("[]"), int(port), ssl=tls, server_hostname=server_name
    )
    found = Exchange(reader, writer)
    length = {} if body is None else {"content-length": str(len(body))}
    given = {"host": address, **length, **(headers or {})}
    try:
        await found.send(h11.Request(method=method, target=target, headers=[*given.items()]))
        if body is not None:
            if body:
                await found.send(h11.Data(data=body))
            await found.send(h11.EndOfMessage())
            await found.begin()
        yield found
    finally:
        writer.close()


async def ask(address: str, target: str, body: bytes = b"", **named: Any) -> Reply:
    """Send a request and read all of its answer."""
    async with exchange(address, target, body, **named) as found:
        content = b"".join([chunk async for chunk in found.chunks()])
        return Reply(found.status, found.headers, content)


async def get(address: str, target: str, **named: Any) -> Reply:
    return await ask(address, target, method="GET", **named)


async def call(
    address: str,
    method: str,
    message: Any,
    *,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Reply:
    """A call with JSON, of MemoryService unless a path is given."""
    target = method if "/" in method else f"/memoryd.v1.MemoryService/{method}"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(address, target, json.dumps(message).encode(), headers=JSON | given, tls=tls)


def framed(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def details_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the details of an error of Connect say, by their types."""
    return {one["type"]: one["debug"] for one in found.get("details", ())}


def value_of(detail: Mapping[str, str]) -> bytes:
    return base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
