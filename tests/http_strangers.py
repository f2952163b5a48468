"""What strangers send over HTTP to harm a server: each attack goes on until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from tests.http_client import framed

HOST = b"host: localhost\r\n"
STORE = b"POST /memoryd.v1.MemoryService/StoreMemory HTTP/1.1\r\n" + HOST
WATCH = b"POST /memoryd.v1.MemoryService/WatchMemories HTTP/1.1\r\n" + HOST
LIST = b"POST /memoryd.v1.MemoryService/ListMemories HTTP/1.1\r\n" + HOST
JSON = b"content-type: application/json\r\n"
STREAM = b"content-type: application/connect+json\r\n"

LARGEST_BYTES = 4 * 2**20
PAUSE_SECONDS = 0.1

Attack = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def connected(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(head: bytes, body: bytes, *, length: int | None = None) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body


async def over_and_over(sent: bytes, address: str) -> None:
    """Send the same on one connection after the other, and read what comes."""
    while True:
        with contextlib.suppress(OSError):
            async with connected(address) as (reader, writer):
                writer.write(sent)
                await writer.drain()
                while await reader.read(65536):
                    pass


async def on_many(connections: int, hold: Callable[..., Awaitable[None]], address: str) -> None:
    async def again() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with connected(address) as (reader, writer):
                    await hold(reader, writer)
            await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(again())


async def until_closed(
    sent: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send, and read whatever comes until the server has enough."""
    writer.write(sent)
    await writer.drain()
    while await reader.read(65536):
        pass


async def drop_by_drop(
    sent: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send a byte from time to time."""
    del reader
    for byte in sent:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def without_reading(
    sent: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send as long as the server takes it."""
    del reader
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket's it has this
    while True:
        writer.write(sent)
        await writer.drain()


async def unread_then_held(
    sent: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask once, and never read what is answered."""
    del reader
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
    writer.write(sent)
    await writer.drain()
    await asyncio.sleep(3600)


FACT = json.dumps({"sessionId": "stranger", "content": "a fact"}).encode()
OWN = json.dumps({"sessionId": "stranger"}).encode()
SILENT = json.dumps({"sessionId": "silent"}).encode()
"""Of a session in which nothing happens: what is held is a stream, not what it brings."""
LARGE = json.dumps({"sessionId": "stranger", "content": "x" * (LARGEST_BYTES - 100)}).encode()
BOMB = gzip.compress(b" " * 64 * 2**20, 9)
PACKED = gzip.compress(LARGE, 9)
CHUNKS = b"1\r\n{\r\n" * 5_000

FLOODS: Mapping[str, Attack] = {
    "long heads": partial(over_and_over, b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 2**20),
    "many headers": partial(over_and_over, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000),
    "pipelined requests": partial(
        on_many, 20, partial(without_reading, request(STORE + JSON, FACT) * 100)
    ),
    "large bodies": partial(on_many, 20, partial(until_closed, request(STORE + JSON, LARGE))),
    "packed bodies that become large": partial(
        on_many,
        20,
        partial(until_closed, request(STORE + JSON + b"content-encoding: gzip\r\n", BOMB)),
    ),
    "packed bodies that become as large as they may": partial(
        on_many,
        100,
        partial(until_closed, request(STORE + JSON + b"content-encoding: gzip\r\n", PACKED)),
    ),
    "bodies of tiny chunks": partial(
        on_many,
        20,
        partial(without_reading, STORE + JSON + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS),
    ),
    "frames said to be large": partial(
        on_many,
        20,
        partial(until_closed, request(WATCH + STREAM, b"\0\xff\xff\xff\xff", length=2**31)),
    ),
    "no requests": partial(on_many, 20, partial(until_closed, b"\x16\x03\x01" + bytes(65536))),
}
"""They keep the server busy."""

HOLDS: Mapping[str, Attack] = {
    "idle connections": partial(on_many, 500, partial(until_closed, b"")),
    "slow heads": partial(on_many, 300, partial(drop_by_drop, STORE + b"a: b\r\n" * 1_000)),
    "slow bodies": partial(
        on_many, 300, partial(drop_by_drop, request(STORE + JSON, FACT * 100, length=LARGEST_BYTES))
    ),
    "unfinished bodies": partial(
        on_many, 64, partial(until_closed, request(STORE + JSON, LARGE, length=len(LARGE) + 1))
    ),
    "unfinished frames": partial(
        on_many,
        64,
        partial(until_closed, request(WATCH + STREAM, framed(LARGE)[:-1], length=len(LARGE) + 5)),
    ),
    "watches": partial(
        on_many, 500, partial(until_closed, request(WATCH + STREAM, framed(SILENT)))
    ),
    "unread answers": partial(
        on_many, 100, partial(unread_then_held, request(LIST + JSON, OWN) * 50)
    ),
}
"""They take places, and give none back by themselves."""
