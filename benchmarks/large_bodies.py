"""What bodies of 1 MiB do to small calls: the same calls alone and beside them, in one run.

python benchmarks/large_bodies.py [--callers 64] [--seconds 10] [--rounds 3] [--bytes 1048576]

Small calls are made at a steady rate: GetMemory, or AppendMessages of two messages
(`--small append`). In turn they are so alone, beside callers that put JSON documents of `--bytes`
or get them, and beside callers that append messages of that size or list the newest one
(`--beside put get append list`); these are in a process of their own and call as fast as they are
answered. The ratio of the 99th percentiles is what counts. `--bytes 1024` shows what a server as
busy with small bodies does to the same calls. `refused` are calls with bodies, and beside it small
calls; `cores` is what the server keeps busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import uvloop
from connections import connected
from conversation_work import CONVERSATION, CONVERSATION_SERVICE, append_request
from document_work import DOCUMENT_SERVICE
from harness import KINDS, database, memoryd
from results import verdict
from texts import SEED, Texts
from work import BATCH, SERVICE, store_request

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2 import AppendMessagesRequest, ListMessagesRequest, Message
from memoryd.v1.document_pb2 import Document, GetDocumentRequest, PutDocumentRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from connections import Connections
    from google.protobuf.message import Message as AnyMessage
    from harness import Server

VARIABLES = {"MEMORYD_EMBEDDER": "none", "MEMORYD_LOG_LEVEL": "error"}
"""Memories that are embedded meanwhile would be heard in both halves."""
BESIDE = ("put", "get", "append", "list")
CALLS = {
    "put": (DOCUMENT_SERVICE, "PutDocument"),
    "get": (DOCUMENT_SERVICE, "GetDocument"),
    "append": (CONVERSATION_SERVICE, "AppendMessages"),
    "list": (CONVERSATION_SERVICE, "ListMessages"),
}
WRITES = {"get": "put", "list": "append"}
"""What makes that which is read."""
FRAMING_BYTES = 64
"""Room for what a message has besides its JSON."""
READ_RATE = 100.0
READ_SESSIONS = 16
WARM_UP_SECONDS = 1.0
MEBIBYTE = 2**20
PERCENT = 100
GOAL = 2.0
"""The 99th percentile beside large bodies, over that of the same calls alone."""
ROW = "{:12}{:8}{:>10}{:>8}{:>12}{:>8}{:>8}{:>8}{:>10}{:>9}{:>7}{:>7}"


def json_of(size: int) -> str:
    """JSON of so many bytes, with numbers, names and texts as agents keep them."""
    texts = Texts(SEED)
    items: list[str] = []
    length = len("[]")
    while True:
        item = json.dumps(
            {"step": len(items), "score": texts.importance(), "note": texts.content()}
        )
        if length + len(item) + 1 > size:
            break
        items.append(item)
        length += len(item) + 1
    body = f"[{','.join(items)}]"
    return body + " " * (size - len(body))


class SmallCalls:
    """Reads memories or appends messages at a steady rate, and keeps how long each took."""

    def __init__(self, connections: Connections, kind: str) -> None:
        self._connections = connections
        self._kind = kind
        self._requests: list[bytes] = []
        self._texts = Texts(SEED)
        self.refused = 0
        """How many small calls were, while too much was waiting to be written."""
        self._chance = random.Random(SEED)  # noqa: S311  repeatable, not secret

    async def fill(self) -> None:
        """Store the memories to read."""
        texts = self._texts
        (store, *_) = self._connections.calls(SERVICE, "BatchStoreMemories")
        for number in range(READ_SESSIONS):
            session = f"small-{number}"
            items = [store_request(texts, session) for _ in range(BATCH)]
            stored = pb.BatchStoreMemoriesResponse.FromString(
                await store(pb.BatchStoreMemoriesRequest(requests=items).SerializeToString())
            )
            self._requests += [
                pb.GetMemoryRequest(
                    session_id=session, memory_id=answer.memory.memory_id
                ).SerializeToString()
                for answer in stored.responses
            ]

    async def call(self, seconds: float) -> list[float]:
        """Call for so long, whether or not answers are late; give the milliseconds of each."""
        path = (SERVICE, "GetMemory") if self._kind == "get" else CALLS["append"]
        calls = self._connections.calls(*path)
        times: list[float] = []

        async def once(number: int) -> None:
            request = self._request(number)
            begun = time.perf_counter()
            try:
                await calls[number % len(calls)](request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self.refused += 1
            else:
                times.append((time.perf_counter() - begun) * 1e3)

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * READ_RATE)):
                await asyncio.sleep(max(0.0, start + number / READ_RATE - time.perf_counter()))
                group.create_task(once(number))
        return times

    def _request(self, number: int) -> bytes:
        if self._kind == "get":
            return self._chance.choice(self._requests)
        return append_request(self._texts, f"small-{number % READ_SESSIONS}").SerializeToString()


class Bodies:
    """Callers of large bodies in a process of their own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def stop(self) -> dict[str, float]:
        """End the callers; give what they count."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("the callers have no pipes")
        self._process.stdin.close()
        counted: dict[str, float] = json.loads(await self._process.stdout.readline())
        await self._process.wait()
        return counted


async def beside(server: Server, what: str, options: argparse.Namespace) -> Bodies:
    """Start callers of large bodies, and wait until they are at work."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--call", what, server.address),
        *("--callers", str(options.callers), "--bytes", str(options.bytes)),
        stdin=PIPE,
        stdout=PIPE,
    )
    if process.stdout is None or not await process.stdout.readline():
        raise SystemExit("the callers did not start")
    return Bodies(process)


async def compare(kind: str, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        kept_in = stack.enter_context(database(kind))
        server = stack.enter_context(memoryd(kept_in, **VARIABLES))
        connections = await stack.enter_async_context(connected(server.address))
        small = SmallCalls(connections, options.small)
        await small.fill()
        await small.call(WARM_UP_SECONDS)
        ratios: dict[str, list[float]] = {what: [] for what in options.beside}
        for _ in range(options.rounds):
            for what in options.beside:
                ratios[what].append(await one_round(kind, server, small, what, options))
        for what, found in ratios.items():
            middle = statistics.median(found)
            print(verdict(f"{kind}, beside {what}: p99 of {options.small} × alone", middle, GOAL))
        peak = server.process.rss_bytes("VmHWM") / MEBIBYTE
        print(f"{kind}: the server's peak is {peak:,.0f} MB", flush=True)


async def one_round(
    kind: str, server: Server, small: SmallCalls, what: str, options: argparse.Namespace
) -> float:
    """Call alone and beside bodies; print both, and give the ratio of their 99th percentiles."""
    small.refused = 0
    alone = await small.call(options.seconds)
    bodies = await beside(server, what, options)
    cpu = server.process.cpu_seconds()
    among = await small.call(options.seconds)
    cpu = server.process.cpu_seconds() - cpu
    counted = await bodies.stop()
    ratio = percentile(among, 99) / percentile(alone, 99)
    times = [
        found for each in (alone, among) for found in (percentile(each, 50), percentile(each, 99))
    ]
    print(
        ROW.format(
            kind, what, *(f"{found:.2f}" for found in times), f"{max(among):.1f}", f"{ratio:.2f}",
            f"{counted['rate']:.1f}", f"{int(counted['refused'])}", f"{small.refused}",
            f"{cpu / options.seconds:.2f}",
        ),
        flush=True,
    )  # fmt: skip
    return ratio


def percentile(times: Sequence[float], which: int) -> float:
    return statistics.quantiles(times, n=PERCENT)[which - 1]


async def call(what: str, address: str, options: argparse.Namespace) -> None:
    """Call with large bodies until standard input ends, then print the calls a second."""
    answered = refused = 0
    stopped = asyncio.Event()
    body = json_of(options.bytes - FRAMING_BYTES)

    async def caller(number: int, once: Callable[[bytes], Awaitable[bytes]]) -> None:
        nonlocal answered, refused
        sent = request_of(what, number, body).SerializeToString()
        while not stopped.is_set():
            try:
                await once(sent)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                refused += 1
                await asyncio.sleep(0.1)
            else:
                answered += 1

    async with connected(address) as connections:
        if what in WRITES:
            (write, *_) = connections.calls(*CALLS[WRITES[what]])
            for number in range(options.callers):
                await write(request_of(WRITES[what], number, body).SerializeToString())
        calls = connections.calls(*CALLS[what])
        async with asyncio.TaskGroup() as group:
            for number in range(options.callers):
                group.create_task(caller(number, calls[number % len(calls)]))
            await asyncio.sleep(WARM_UP_SECONDS)
            answered = refused = 0
            begun = time.perf_counter()
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            took = time.perf_counter() - begun
            counted = {"rate": answered / took, "refused": refused}
            stopped.set()
    print(json.dumps(counted), flush=True)


def request_of(what: str, number: int, body: str) -> AnyMessage:
    """A call of one caller, with a JSON body where it writes."""
    session = f"large-{number}"
    match what:
        case "put":
            return PutDocumentRequest(document=Document(session_id=session, key="body", json=body))
        case "get":
            return GetDocumentRequest(session_id=session, key="body")
        case "append":
            message = Message(raw_json=body, raw_format="body")
            return AppendMessagesRequest(
                session_id=session, conversation_id=CONVERSATION, messages=[message]
            )
        case _:
            return ListMessagesRequest(session_id=session, conversation_id=CONVERSATION, last=1)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--small", choices=("get", "append"), default="get")
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=BESIDE)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--bytes", type=int, default=MEBIBYTE, help="of each body")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call", nargs=2, metavar=("WHAT", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        what, address = options.call
        await call(what, address, options)
        return
    print(
        ROW.format(
            "", "beside", "alone p50", "p99", "beside p50", "p99", "most", "p99 ×",
            "bodies/s", "refused", "small", "cores",
        )
    )  # fmt: skip
    for kind in options.kinds:
        await compare(kind, options)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
