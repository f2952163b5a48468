"""A raw HTTP/2 client: sends any frame in any order, and reads what the server sends back.

It acknowledges SETTINGS and PING by itself, and respects the server's flow control on request.
Headers are sent as literals, so they may contain any bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384
"""The longest payload that every server accepts."""
WINDOW_BYTES = 65_535
"""The initial window until the server's SETTINGS change it."""
STRANGER = ("127.0.0.2", 0) if sys.platform == "linux" else None
"""An address of this machine that other callers do not use, if it has one."""

Headers = Iterable[tuple[bytes, bytes]]


class Kind(enum.IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(enum.IntFlag):
    """Flags of frames."""

    NONE = 0
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 32


class Setting(enum.IntEnum):
    """Identifiers of SETTINGS."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Encode a frame; its length is that of the payload."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    payload = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs)
    return frame(Kind.SETTINGS, payload=payload)


def window_update(stream: int, size: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, stream=stream, payload=size.to_bytes(4))


def reset(stream: int, code: int = 8) -> bytes:
    """RST_STREAM, with CANCEL unless another code is given."""
    return frame(Kind.RST_STREAM, stream=stream, payload=code.to_bytes(4))


def header_block(headers: Headers) -> bytes:
    """Encode headers by HPACK, each as a literal without indexing."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(data: bytes) -> bytes:
    """Encode an HPACK string: the length as an integer with a 7-bit prefix, then the bytes."""
    if (rest := len(data) - 127) < 0:
        return bytes([len(data)]) + data
    length = b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


def call_headers(
    path: bytes | None, *more: tuple[bytes, bytes], **changed: bytes | None
) -> list[tuple[bytes, bytes]]:
    """Headers of a gRPC call; `changed` replaces usual ones (`content_type`), None removes one."""
    usual: dict[bytes, bytes | None] = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    names = {name.strip(b":").replace(b"-", b"_"): name for name in usual}
    usual |= {names[name.encode()]: value for name, value in changed.items()}
    return [*((name, value) for name, value in usual.items() if value is not None), *more]


def opened(stream: int, headers: Headers, flags: int = Flag.END_HEADERS) -> bytes:
    """HEADERS that open a stream without ending it."""
    return frame(Kind.HEADERS, flags, stream, header_block(headers))


def message(data: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message; its prefix may claim a wrong length."""
    return bytes([compressed]) + (len(data) if length is None else length).to_bytes(4) + data


def data(stream: int, payload: bytes, *, ends: bool = False) -> bytes:
    return frame(Kind.DATA, Flag.END_STREAM if ends else 0, stream, payload)


@dataclass
class Outcome:
    """What a server has sent on one stream so far."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    """The code of RST_STREAM."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def grpc_status(self) -> int | None:
        status = self.headers.get(b"grpc-status")
        return None if status is None else int(status)


class Connection:
    """The client side of a connection; `connected` makes one and reads in a task."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        self._reader, self._writer = reader, writer
        self._answers = answers
        self._decoder = hpack.Decoder()
        self._news = asyncio.Event()
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._allowed: defaultdict[int, int] = defaultdict(int)
        self.outcomes: defaultdict[int, Outcome] = defaultdict(Outcome)
        self.settings: dict[int, int] = {}
        self.goaway: int | None = None
        """The code of GOAWAY, once the server has sent it."""
        self.closed = asyncio.Event()

    async def send(self, *frames: bytes) -> None:
        """Send regardless of windows. Raises ConnectionError if the server has closed it."""
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def send_data(self, stream: int, payload: bytes, *, ends: bool = False) -> None:
        """Send as the windows allow, and wait for the rest."""
        rest = memoryview(payload)
        while rest or ends:
            while rest and self._room(stream) <= 0:
                if self.closed.is_set() or self.outcomes[stream].ended.is_set():
                    raise ConnectionResetError
                self._news.clear()
                await self._news.wait()
            size = min(len(rest), self._room(stream), FRAME_BYTES) if rest else 0
            is_last = ends and size == len(rest)
            for number in (0, stream):
                self._sent[number] += size
            await self.send(data(stream, bytes(rest[:size]), ends=is_last))
            rest = rest[size:]
            if is_last:
                return

    def _room(self, stream: int) -> int:
        initial = self.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW_BYTES)
        of_stream = initial + self._allowed[stream] - self._sent[stream]
        return min(of_stream, WINDOW_BYTES + self._allowed[0] - self._sent[0])

    async def outcome(self, stream: int) -> Outcome:
        """Wait until the server has ended a stream or the connection is closed."""
        waits = [asyncio.ensure_future(event.wait()) for event in self._ends_of(stream)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.outcomes[stream]

    def _ends_of(self, stream: int) -> tuple[asyncio.Event, asyncio.Event]:
        return self.outcomes[stream].ended, self.closed

    async def read(self) -> None:
        """Process frames until the connection is closed."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._take(head[3], head[4], int.from_bytes(head[5:9]), payload)
                self._news.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.closed.set()
            self._news.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        outcome = self.outcomes[stream]
        match kind:
            case Kind.SETTINGS if not flags & Flag.ACK:
                for place in range(0, len(payload), 6):
                    key = int.from_bytes(payload[place : place + 2])
                    self.settings[key] = int.from_bytes(payload[place + 2 : place + 6])
                self._answer(frame(Kind.SETTINGS, Flag.ACK))
            case Kind.PING if not flags & Flag.ACK:
                self._answer(frame(Kind.PING, Flag.ACK, 0, payload))
            case Kind.WINDOW_UPDATE:
                self._allowed[stream] += int.from_bytes(payload)
            case Kind.HEADERS:
                outcome.headers |= dict(self._decoder.decode(payload, raw=True))
            case Kind.DATA:
                outcome.data += payload
            case Kind.RST_STREAM:
                outcome.reset = int.from_bytes(payload)
                outcome.ended.set()
            case Kind.GOAWAY:
                self.goaway = int.from_bytes(payload[4:8])
        if kind in {Kind.HEADERS, Kind.DATA} and flags & Flag.END_STREAM:
            outcome.ended.set()

    def _answer(self, frames: bytes) -> None:
        if self._answers:
            self._writer.write(frames)


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a socket to HOST:PORT from the stranger's address."""
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), local_addr=STRANGER)


@contextlib.asynccontextmanager
async def connected(
    address: str, *first: tuple[int, int], greets: bool = True
) -> AsyncIterator[Connection]:
    """Open a connection; unless `greets` is false, send the preface and SETTINGS with `first`."""
    reader, writer = await dial(address)
    connection = Connection(reader, writer, answers=greets)
    reading = asyncio.create_task(connection.read())
    try:
        if greets:
            await connection.send(PREFACE, settings(*first))
        yield connection
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()
