"""A long run of everything at once leaves nothing grown; and a clock that goes back."""

from __future__ import annotations

import asyncio
import random
import socket
from datetime import timedelta

import grpc

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import find_faults
from .harness import (
    TIMEOUT_SECONDS,
    ServerProcess,
    Writer,
    acknowledgements,
    open_channel,
    watch_memories,
)
from .history import History
from .load import Load, connected
from .resources import Resources, resources_of
from .scale import SCALE
from .stored import read_stored

MEGABYTE = 1024 * 1024

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The preface of an HTTP/2 connection: https://www.rfc-editor.org/rfc/rfc9113#section-3.4"""


async def half_close(address: str) -> None:
    """Open a connection, close its sending side, and leave."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    writer.write_eof()
    await reader.read(1024)
    writer.close()


async def cut(address: str) -> None:
    """Open a connection, and reset it."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    await writer.drain()
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # zero: discard unsent data
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def abandon(channel: grpc.aio.Channel, session_id: str, kind: int) -> None:
    """Open a stream, and cancel it at a random point."""
    if kind == 0:
        watch = MemoryServiceStub(channel).WatchMemories(
            pb.WatchMemoriesRequest(session_id=session_id)
        )
        await watch.initial_metadata()
        watch.cancel()
    elif kind == 1:
        watch = MemoryServiceStub(channel).WatchMemories(
            pb.WatchMemoriesRequest(session_id=session_id)
        )
        await asyncio.wait((asyncio.ensure_future(watch.read()),), timeout=0.05)
        watch.cancel()
    elif kind == 2:  # a request that never ends
        never = channel.stream_unary("/memoryd.v1.MemoryService/StoreMemory")()
        await asyncio.sleep(0)
        never.cancel()
    else:
        MemoryServiceStub(channel).ExportMemories(
            pb.ExportMemoriesRequest(session_id=session_id)
        ).cancel()


async def disturb(address: str, session_id: str, count: int) -> None:
    """Open streams and connections, and end none of them properly."""
    dice = random.Random(session_id)  # noqa: S311  no secret
    async with open_channel(address) as channel:
        for _ in range(count):
            kind = dice.randrange(6)
            if kind == 4:
                await half_close(address)
            elif kind == 5:
                await cut(address)
            else:
                await abandon(channel, session_id, kind)


async def one_round(address: str, database_url: str, number: int) -> tuple[History, list]:
    """Make all kinds of calls on new sessions, and erase them in the end."""
    history, sessions = History(), [f"round-{number}-{n}" for n in range(2)]
    async with connected(address, SCALE.writers) as channels:
        async with Load(history, channels, sessions) as load:
            disturbing = asyncio.create_task(disturb(address, sessions[0], SCALE.streams))
            await acknowledgements(history, SCALE.calls)
            await disturbing
        stored = await load.stored(database_url)
    faults = find_faults(history, stored.only(sessions))
    async with open_channel(address) as channel:
        for session_id in sessions:
            await MemoryServiceStub(channel).EraseSession(
                pb.EraseSessionRequest(session_id=session_id)
            )
    return history, faults


async def at_rest(pid: int, port: int) -> Resources:
    """The server's resources once all clients have left."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (found := resources_of(pid, port)).connections:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.05)
    return found


async def test_a_long_run_leaves_nothing_behind(
    command_line, database_url, database_kind, fault_report
):
    server = ServerProcess(command_line, database_url)
    address = await server.start()
    pid, port = server.process.pid, int(address.rpartition(":")[2])
    total, faults, found = History(), [], []
    for number in range(SCALE.rounds):
        history, broken = await one_round(address, database_url, number)
        total.add(history)
        faults += broken
        found.append(await at_rest(pid, port))
    await server.stop()
    warm, last = found[SCALE.rounds // 3], found[-1]
    grown = f"{warm.rss_bytes / MEGABYTE:.0f} to {last.rss_bytes / MEGABYTE:.0f} MB"
    fault_report(f"long run, {database_kind}, {grown}", SCALE.rounds * SCALE.streams, total, faults)
    assert not faults
    assert set(total.codes) <= {"NOT_FOUND"}
    assert last.rss_bytes <= warm.rss_bytes * 1.1 + 8 * MEGABYTE, found
    # One more thread or connection is not a leak; a leak is one per stream.
    assert last.descriptors <= warm.descriptors + 8, found
    assert last.threads <= warm.threads + 8, found
    assert last.queued_bytes == 0, found


async def test_a_clock_that_goes_back_changes_no_order(
    serve, clock, database_url, database_kind, fault_report
):
    history, stop = History(), asyncio.Event()
    running = await serve(MEMORY_MAX_ENTRIES="1000")
    sessions = ["user-0", "user-1"]
    watchers = [watch_memories(running.memory, history, name) for name in sessions]
    writers = [
        asyncio.create_task(Writer(f"caller {n}", running.memory, history, sessions).run(stop))
        for n in range(SCALE.writers)
    ]
    moves = [timedelta(hours=-1), timedelta(seconds=-1), timedelta(minutes=30), timedelta(days=-40)]
    for move in moves:
        await acknowledgements(history, 40)
        clock.move(move)
        await running.server.sweeper.run_once()
    await acknowledgements(history, 40)
    stop.set()
    await asyncio.gather(*writers)
    stored = await read_stored(database_url)
    for watcher in watchers:
        await watcher.until(stored.revisions[watcher.watch.session_id])
    faults = find_faults(history, stored)
    fault_report(f"clock moved, {database_kind}", len(moves), history, faults)
    assert not faults
    assert not history.refusals_besides({"NOT_FOUND"})
