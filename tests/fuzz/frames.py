"""Fuzz the server with HTTP/2 frames: it stays alive and healthy, and its log is not forged.

python -m tests.fuzz.frames SECONDS [SEED[:ROUND]]

A round is several concurrent connections, each with a sequence of frames: valid and invalid calls
changed at random, and headers and frames made of hostile parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import hpack
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from ..faults.resources import resources_of  # noqa: TID252  test folders are no packages
from ..frames import (  # noqa: TID252  as above
    FRAME_BYTES,
    PREFACE,
    Flag,
    Kind,
    call_headers,
    connected,
    data,
    frame,
    header_block,
    message,
    opened,
    settings,
)
from ..strangers import (  # noqa: TID252  as above
    FORGED,
    UNDECODABLE_PATHS,
    UNKNOWN_PATHS,
    WRONG_FRAMES,
    call_of,
    forged,
)
from .messages import METHODS, VALID, path_of
from .rounds import fuzz

CONNECTIONS = 16
"""Connections per round."""
LINGER_SECONDS = 0.05
"""How long a connection waits for the server's reaction."""
TIMEOUT_SECONDS = 60.0
"""After this many seconds a server counts as hanging."""
ENDING_PAUSE_SECONDS = 3.0
"""Between two paths that are not UTF-8: a server may end itself after five in ten seconds."""
MOST_BYTES = 400 * 2**20
"""The most memory that a server may use."""
CHANGES = 4
"""The most bytes of a sequence."""

PIECES = (
    *(b"", b"\0", b"\xff", b"\n", b"\r\n", b"\x1b[2K", b" ", b":", b"/", b"x" * 300, b"x" * 9_000),
    *(b"\n" + FORGED, b"\r" + FORGED, "é\u2028\u202e".encode(), b"=", b",", b"-1", b"9" * 30),
)
NAMES = (
    *(b":path", b":method", b":scheme", b":authority", b":status", b":protocol", b"content-type"),
    *(b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"grpc-status", b"host"),
    *(
        b"x-request-id",
        b"x-bin",
        b"grpc-trace-bin",
        b"user-agent",
        b"content-length",
        b"connection",
    ),
    *(b"X-Upper", b"", b"x y", b"grpc-previous-rpc-attempts", b"grpc-tags-bin", b"lb-token"),
)
VALID_CALLS = [
    opened(1, call_headers(path_of(method).encode()))
    + data(1, message(request.SerializeToString()), ends=True)
    for method in METHODS
    for request in VALID[method.name]
]
SEEDS = (
    *VALID_CALLS,
    *WRONG_FRAMES.values(),
    *(call_of(path) for path in (*UNKNOWN_PATHS.values(), *UNDECODABLE_PATHS)),
)


def split(sent: bytes) -> list[bytes]:
    """Split bytes into frames by the lengths they claim; the last is the rest."""
    found = []
    while sent:
        size = 9 + int.from_bytes(sent[:3])
        found.append(sent[:size])
        sent = sent[size:]
    return found


def sequence(dice: random.Random) -> bytes:
    """Make what one connection sends after its greeting."""
    frames = [f for _ in range(dice.randint(1, 3)) for f in split(dice.choice(SEEDS))]
    if dice.random() < 0.4:
        frames.insert(dice.randrange(len(frames) + 1), made_headers(dice))
    for _ in range(dice.randrange(CHANGES + 1)):
        change(frames, dice)
    return b"".join(frames)[: 64 * FRAME_BYTES]


def made_headers(dice: random.Random) -> bytes:
    """Make HEADERS of a call with hostile ones among them."""
    headers = call_headers(path_of(dice.choice(METHODS)).encode())
    for _ in range(dice.randint(1, 4)):
        value = b"".join(dice.choices(PIECES, k=dice.randint(1, 3)))
        header = (dice.choice(NAMES) + dice.choice(PIECES) * (dice.random() < 0.1), value)
        headers.insert(dice.randrange(len(headers) + 1), header)
    return opened(dice.choice((1, 3, 5)), headers)


def made_frame(dice: random.Random) -> bytes:
    """Make a frame of any type with any flags, on any stream."""
    payload = dice.choice(
        (
            dice.randbytes(dice.randrange(40)),
            b"\0" * dice.randrange(20),
            header_block([(b"x", b"y")]),
        )
    )
    stream = dice.choice((0, 1, 1, 2, 3, 2**31 - 1, 2**32 - 1))
    return frame(
        dice.choice((*Kind, 10, 255)), dice.choice((0, 1, 4, 5, 8, 32, 255)), stream, payload
    )


def change(frames: list[bytes], dice: random.Random) -> None:
    """Change a sequence in one way."""
    if not frames:
        frames.append(made_frame(dice))
        return
    place = dice.randrange(len(frames))
    chosen = bytearray(frames[place])
    match dice.randrange(9):
        case 0:
            frames.insert(place, made_frame(dice))
        case 1:
            del frames[place]
        case 2:
            frames[place:place] = [frames[place]] * dice.choice((1, 2, 50))
        case 3:
            dice.shuffle(frames)
        case 4 if len(chosen) > 9:  # a byte of the payload
            chosen[dice.randrange(9, len(chosen))] = dice.randrange(256)
            frames[place] = bytes(chosen)
        case 5:  # a byte of the frame's head
            chosen[dice.randrange(min(9, len(chosen)))] = dice.choice((0, 1, 4, 8, 127, 255))
            frames[place] = bytes(chosen)
        case 6:
            frames[place] = frames[place][: max(1, dice.randrange(len(chosen)))]
        case 7 if len(chosen) > 9 and chosen[3] == Kind.HEADERS:
            frames[place : place + 1] = continued(bytes(chosen), dice)
        case _:
            payload = bytes(chosen[9:]) + dice.choice(PIECES)
            frames[place] = frame(chosen[3] if len(chosen) > 3 else 0, 0, 1, payload)


def continued(headers: bytes, dice: random.Random) -> list[bytes]:
    """Make HEADERS in several frames, perhaps without their end."""
    at = dice.randrange(9, len(headers))
    stream, flags = int.from_bytes(headers[5:9]), headers[4]
    last = flags & Flag.END_HEADERS if dice.random() < 0.8 else 0
    return [
        frame(Kind.HEADERS, flags & ~Flag.END_HEADERS, stream, headers[9:at]),
        *[frame(Kind.CONTINUATION, 0, stream)] * dice.choice((0, 0, 1, 100)),
        frame(Kind.CONTINUATION, last, stream, headers[at:]),
    ]


def may_end_server(sent: bytes) -> bool:
    """Whether the server may read a path that is not UTF-8 from these bytes.

    gRPC uses the headers before a fault in a block, so a block that cannot be decoded counts if it
    may contain such a path.
    """
    blocks = b""
    for each in split(sent):
        if len(each) <= 9 or each[3] not in {Kind.HEADERS, Kind.CONTINUATION}:
            continue
        blocks = each[9:] if each[3] == Kind.HEADERS else blocks + each[9:]
        try:
            headers = hpack.Decoder().decode(blocks, raw=True)
        except (hpack.HPACKError, ValueError, IndexError):
            if not blocks.isascii():
                return True
        else:
            if any(name == b":path" and not is_text(value) for name, value in headers):
                return True
    return False


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class Server:
    """A `memoryd serve` process, and the checks after each round."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._read = 0
        self._last_ending = 0.0
        environ = os.environ | {
            "MEMORYD_PORT": "0",
            "MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/memoryd.db",
            "MEMORYD_EMBEDDER": "none",
            "MEMORYD_LOG_LEVEL": "info",
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "memoryd", "serve"],
                cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("memoryd ready on ").strip()

    def check(self, dice: random.Random) -> None:
        """Fail if a round does harm."""
        asyncio.run(self._round([sequence(dice) for _ in range(CONNECTIONS)]))
        self._assert_lives()
        port = int(self.address.rpartition(":")[2])
        assert resources_of(self.process.pid, port).rss_bytes < MOST_BYTES
        with self._log.open(errors="replace") as log:
            log.seek(self._read)
            written = log.read()
            self._read = log.tell()
        assert not forged(written), forged(written)

    async def _round(self, sequences: Sequence[bytes]) -> None:
        await asyncio.gather(*(self._send(sent) for sent in sequences if self._admits(sent)))
        await self._assert_serves()

    def _admits(self, sent: bytes) -> bool:
        """Whether sending it does not end the server twice in a short time."""
        if not may_end_server(sent):
            return True
        if time.monotonic() - self._last_ending < ENDING_PAUSE_SECONDS:
            return False
        self._last_ending = time.monotonic()
        return True

    async def _send(self, sent: bytes) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with connected(self.address, greets=False) as connection:
                await connection.send(PREFACE, settings(), sent)
                async with asyncio.timeout(LINGER_SECONDS):
                    await connection.closed.wait()

    async def _assert_serves(self) -> None:
        """Fail unless it is healthy and stores in time, for a caller who retries."""
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            grpc.aio.insecure_channel(self.address, _RECONNECTING) as channel,
        ):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    health = health_pb2_grpc.HealthStub(channel)
                    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                    request = pb.StoreMemoryRequest(session_id="fuzz-own", content="Still here")
                    await MemoryServiceStub(channel).StoreMemory(request, timeout=5)
                    return
                self._assert_lives()
                await asyncio.sleep(0.05)

    def _assert_lives(self) -> None:
        code = self.process.poll()
        assert code is None, f"the server has ended with {code}:\n{self._log.read_text()[-10_000:]}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


_RECONNECTING = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def main() -> None:
    with serving() as server:
        fuzz("tests.fuzz.frames", server.check)


if __name__ == "__main__":
    main()
