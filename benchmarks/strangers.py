"""Measure what attacks cost a server and its callers.

python benchmarks/strangers.py [--kind postgresql] [--only frame unfinished …] [--seconds 10]

Each attack has its own server, and runs in its own process. Small calls are GetMemory every few
milliseconds on one connection: their latency is the event loop's lag plus a bare call. A second
caller stores now and then, since writes wait for more. `memoryd health` runs in the middle of the
attack and after it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import numpy as np
from harness import KINDS, database, memoryd

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

sys.path.append(str(Path(__file__).parents[1]))  # the attacks are shared with the tests
from tests import strangers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from harness import Server

PAUSE_SECONDS = 0.003
"""Between two calls of GetMemory."""
STORE_PAUSE_SECONDS = 0.05
"""Between two stores."""
CALL_SECONDS = 10.0
"""The deadline of a small call; a failed one counts with its time."""
SETTLING_SECONDS = 2.0
"""From the end of an attack to measuring the memory after it."""
FRAME_SECONDS = 2.5
"""Between two paths that are not UTF-8: a server may end itself after five in ten seconds."""
SESSION = "caller"

COLD_SESSIONS, COLD_MEMORIES, COLD_CHARACTERS = 17, 100, 16_000
ABSENT_BYTES = 70 * 10**6
"""Sessions in a database from which absent sessions are erased."""
BATCH_CHARACTERS = 1_000_000
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


# Attacks by gRPC calls


async def no_attack(_address: str) -> None:
    """For comparison."""
    await asyncio.sleep(3600)


async def _calling(
    address: str, method: str, requests: Iterator[object], callers: int, deadline: float
) -> None:
    """Make calls one after the other, from this many callers."""
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        call = getattr(MemoryServiceStub(channel), method)

        async def caller() -> None:
            for request in requests:
                with suppress(grpc.aio.AioRpcError):
                    await call(request, timeout=deadline)

        await asyncio.gather(*(caller() for _ in range(callers)))


async def date_phrases(address: str) -> None:
    """Different queries of 16 KB that look like dates but are not."""

    def queries() -> Iterator[pb.RetrieveMemoriesRequest]:
        number = 0
        while True:
            phrases = (f"{_letters(number + place)} days ago" for place in range(1_100))
            number += 1_100
            query = " ".join(phrases)[:16_384]
            yield pb.RetrieveMemoriesRequest(session_id=SESSION, query=query)

    await _calling(address, "RetrieveMemories", queries(), 12, 60)


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}")


async def cold_sessions(address: str) -> None:
    """Query more large sessions than are cached, round after round."""

    def queries() -> Iterator[pb.RetrieveMemoriesRequest]:
        while True:
            for number in range(COLD_SESSIONS):
                yield pb.RetrieveMemoriesRequest(session_id=f"cold-{number}", query="blue tea")

    await _calling(address, "RetrieveMemories", queries(), COLD_SESSIONS, 120)


async def validated_contents(address: str) -> None:
    """Store 4 MB of control characters in markup."""
    content = "\x01<\x01a" * 1_000_000
    request = pb.StoreMemoryRequest(session_id="attacker", content=content)
    await _calling(address, "StoreMemory", iter(lambda: request, None), 2, 60)


async def absent_erasures(address: str) -> None:
    """Erase sessions that do not exist."""
    requests = (pb.EraseSessionRequest(session_id=f"absent-{n}") for n in range(10**6))
    await _calling(address, "EraseSession", requests, 2, 60)


# Data that some attacks need


async def fill_cold(address: str) -> None:
    words = [_letters(number) for number in range(0, 40_000, 7)]
    for session in range(COLD_SESSIONS):
        contents = []
        for memory in range(COLD_MEMORIES):
            start = (session * 31 + memory * 17) % 3_000
            content = f"{session} {memory} " + " ".join(words[start : start + 2_300])
            contents.append(content[:COLD_CHARACTERS])
        await _store(address, f"cold-{session}", contents)


async def fill_absent(address: str) -> None:
    text = "x" * 15_900
    for session in range(ABSENT_BYTES // (2 * 100 * len(text)) + 1):
        contents = [f"{session} {memory} {text}" for memory in range(100)]
        await _store(address, f"filled-{session}", contents)


async def _store(address: str, session_id: str, contents: Sequence[str]) -> None:
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        stub = MemoryServiceStub(channel)
        step = max(1, BATCH_CHARACTERS // len(contents[0]))
        for place in range(0, len(contents), step):
            batch = pb.BatchStoreMemoriesRequest(
                requests=[
                    pb.StoreMemoryRequest(session_id=session_id, content=c, never_expires=True)
                    for c in contents[place : place + step]
                ]
            )
            await stub.BatchStoreMemories(batch, timeout=60)


@dataclass(frozen=True)
class Scene:
    """An attack and its server."""

    label: str
    attack: Callable[[str], Awaitable[None]]
    variables: dict[str, str] = field(default_factory=dict)
    fill: Callable[[str], Coroutine[None, None, None]] | None = None
    """Prepares the server; takes its address."""
    command: tuple[str, ...] = ()


LIMITED = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")

SCENES = {
    "none": Scene("0 no attack", no_attack),
    "frame": Scene(
        "1 path that is not UTF-8",
        partial(
            strangers.over_and_over,
            partial(strangers.send_frames, strangers.call_of(b"/\xff")),
            FRAME_SECONDS,
        ),
    ),
    "unfinished": Scene("2 unfinished messages", strangers.unfinished_messages),
    "headers": Scene("2 headers alone", strangers.headers_alone),
    "dates": Scene("3 date phrases", date_phrases),
    "cold": Scene("3 cold sessions", cold_sessions, fill=fill_cold),
    "contents": Scene("4 contents", validated_contents),
    "erase": Scene("5 absent erasures", absent_erasures, fill=fill_absent),
    "reflection": Scene(
        "6 idle reflection", strangers.idle_reflection, {"MEMORYD_MAX_CALLS": "20"}
    ),
    "descriptors": Scene(
        "7 idle connections",
        partial(strangers.idle_connections, greets=True),
        command=LIMITED,
    ),
    "silence": Scene("7 silent connections", strangers.idle_connections, command=LIMITED),
}


# What is measured


@dataclass
class Seen:
    """What callers and the operator saw during one attack."""

    before: int = 0
    peak: int = 0
    after: int = 0
    waits: list[float] = field(default_factory=list)
    """Latencies of GetMemory in seconds."""
    store_waits: list[float] = field(default_factory=list)
    failed: int = 0
    health: list[str] = field(default_factory=list)
    lives: str = ""


async def small_calls(address: str, seen: Seen) -> None:
    """Call GetMemory every few milliseconds and store now and then, until cancelled."""
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        stub = MemoryServiceStub(channel)
        store = pb.StoreMemoryRequest(session_id=SESSION, content="Prefers tea")
        stored = (await stub.StoreMemory(store, timeout=CALL_SECONDS)).memory
        get = pb.GetMemoryRequest(session_id=SESSION, memory_id=stored.memory_id)

        async def keep_on(
            call: Callable[..., Awaitable[object]],
            request: object,
            waits: list[float],
            pause_seconds: float,
        ) -> None:
            while True:
                start = time.perf_counter()
                try:
                    await call(request, timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError:
                    seen.failed += 1
                finally:
                    waits.append(time.perf_counter() - start)
                await asyncio.sleep(pause_seconds)

        await asyncio.gather(
            keep_on(stub.GetMemory, get, seen.waits, PAUSE_SECONDS),
            keep_on(stub.StoreMemory, store, seen.store_waits, STORE_PAUSE_SECONDS),
        )


async def ask_health(address: str) -> str:
    """Run `memoryd health`; return its exit code and duration."""
    environ = {**os.environ, "MEMORYD_PORT": address.rpartition(":")[2]}
    start = time.perf_counter()
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "memoryd", "health",
        cwd=tempfile.gettempdir(), env=environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return f"{await asking.wait()} in {time.perf_counter() - start:.1f} s"


async def still_serves(address: str) -> bool:
    try:
        await _store(address, SESSION, ["Still here"])
    except grpc.aio.AioRpcError:
        return False
    return True


async def measure(server: Server, scene: Scene, seconds: float) -> Seen:
    """Measure a server while an attack runs."""
    seen = Seen(before=resident(server))
    calling = asyncio.create_task(small_calls(server.address, seen))
    await asyncio.sleep(0.5)
    attacker = multiprocessing.get_context("spawn").Process(
        target=_attack, args=(scene, server.address, seconds)
    )
    attacker.start()
    await asyncio.sleep(seconds / 2)
    seen.health.append(await ask_health(server.address))
    await asyncio.to_thread(attacker.join)
    seen.peak = resident(server, "VmHWM")
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await asyncio.sleep(SETTLING_SECONDS)
    seen.after = resident(server)
    seen.health.append(await ask_health(server.address))
    seen.lives = "yes" if await still_serves(server.address) else "no"
    return seen


def resident(server: Server, name: str = "VmRSS") -> int:
    """Memory in use; 0 if the server has ended."""
    try:
        return server.process.rss_bytes(name)
    except (FileNotFoundError, IndexError):
        return 0


def _attack(scene: Scene, address: str, seconds: float) -> None:
    """Run an attack in its own process."""
    asyncio.run(strangers.launched(scene.attack, address, seconds))


HEADINGS = (
    *("attack", "RSS before", "peak", "after MB", "calls", "failed", "p50", "p99", "max ms"),
    "store max ms",
    *("health meanwhile", "health after", "serves"),
)
ROW = "{:<24}{:>10}{:>7}{:>10}{:>8}{:>8}{:>8}{:>9}{:>9}{:>14}{:>18}{:>16}{:>8}"


def row(scene: Scene, seen: Seen) -> str:
    megabytes = [f"{size / 1e6:.0f}" for size in (seen.before, seen.peak, seen.after)]
    waits = np.array(seen.waits or [float("nan")]) * 1e3
    slowest_store = max(seen.store_waits, default=float("nan")) * 1e3
    shown = (*np.percentile(waits, (50, 99)), waits.max(), slowest_store)
    latencies = [f"{wait:.1f}" for wait in shown]
    counts = (len(seen.waits), seen.failed)
    return ROW.format(scene.label, *megabytes, *counts, *latencies, *seen.health, seen.lives)


def run(kind: str, scene: Scene, seconds: float) -> Seen:
    """Measure an attack on a fresh server."""
    with ExitStack() as stack:
        kept_in = stack.enter_context(database(kind))
        if scene.fill is not None:
            with memoryd(kept_in, **scene.variables) as filled:
                asyncio.run(scene.fill(filled.address))
        server = stack.enter_context(memoryd(kept_in, command=scene.command, **scene.variables))
        return asyncio.run(measure(server, scene, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0])
    parser.add_argument("--only", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # only the server is limited
    print(given.kind)
    print(ROW.format(*HEADINGS), flush=True)
    for name in given.only:
        print(row(SCENES[name], run(given.kind, SCENES[name], given.seconds)), flush=True)


if __name__ == "__main__":
    main()
