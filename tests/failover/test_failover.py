"""The leader of a PostgreSQL that Patroni keeps is killed, again and again, under load."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Sequence

import grpc
from tests.faults.callers import REPEATED_CODES
from tests.faults.harness import (
    PAUSE_SECONDS,
    TIMEOUT_SECONDS,
    ServerProcess,
    acknowledgements,
    open_channel,
)
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.scale import SCALE
from tests.faults.test_postgresql import SEEN

from memoryd.client import DeadlineExceeded, MemoryClient, ResourceExhausted, Unavailable
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .cluster import PASSWORD, Cluster, Member

BACK_SECONDS = 10.0
"""How long after Patroni has a leader every server writes again, at the latest."""

WAYS: Sequence[Callable[[Member], None]] = (Member.kill, Member.kill_postgresql, Member.freeze)
"""How a leader is lost, in turns; at the end one hands over."""

PROBED_SESSION = "probed"

OF_A_SESSION = 500
"""How many memories the client library keeps in each of its sessions; none is evicted."""

# As in production, where nothing waits for a minute.
LIMITS = {
    "PGPASSWORD": PASSWORD,
    "MEMORYD_DATABASE_TIMEOUT_SECONDS": "4",
    "MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS": "4",
    "MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS": "3",
}


def servers_of(cluster: Cluster, command_line) -> list[ServerProcess]:
    """One for each way to the leader."""
    ways = (
        {
            "database_url": cluster.url_of_primary(),
            "MEMORYD_DATABASE_READ_URL": cluster.url_of_standby,
        },
        {"database_url": cluster.url_of_all},
        {"database_url": cluster.url_of_pgbouncer, "MEMORYD_DATABASE_PGBOUNCER": "true"},
    )
    return [ServerProcess(command_line, **way, **LIMITS) for way in ways]


def migrated(command_line, url: str) -> None:
    done = command_line.run("migrate", MEMORYD_DATABASE_URL=url, PGPASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr


def session_of(number: int) -> str:
    """Where the client library keeps its memory of a number."""
    return f"library-{number // OF_A_SESSION}"


async def keep_storing(target: str, stop: asyncio.Event) -> int:
    """Store one memory after the other with the client library; give the number of them.

    It repeats by itself for some seconds; after that the caller does, with the same `request_id`.
    """
    async with MemoryClient(target) as client:
        for number in itertools.count():
            request_id = str(uuid.uuid4())
            while not stop.is_set():
                try:
                    await client.store(
                        session_of(number), f"memory {number}", request_id=request_id
                    )
                except (Unavailable, DeadlineExceeded, ResourceExhausted):
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    break
            else:
                return number
    raise AssertionError("it counts for ever")


async def written(address: str, content: str) -> float:
    """Store until a server answers; give the moment, of `time.monotonic`."""
    async with asyncio.timeout(TIMEOUT_SECONDS), open_channel(address) as channel:
        request = pb.StoreMemoryRequest(
            session_id=PROBED_SESSION, content=content, request_id=str(uuid.uuid4())
        )
        while True:
            try:
                await MemoryServiceStub(channel).StoreMemory(request, timeout=BACK_SECONDS)
            except grpc.aio.AioRpcError as error:
                assert error.code().name in REPEATED_CODES  # noqa: PT017
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return time.monotonic()


async def new_leader(cluster: Cluster, old: Member) -> float:
    """Wait until another member leads; give the moment."""
    await asyncio.to_thread(cluster.wait, lambda: cluster.leader() not in (None, old))
    return time.monotonic()


async def test_a_leader_that_is_lost_takes_nothing_with_it(cluster, command_line, fault_report):
    await asyncio.to_thread(cluster.prepare, lambda url: migrated(command_line, url))
    servers = servers_of(cluster, command_line)
    addresses = [await server.start() for server in servers]
    channels = [open_channel(address) for address in addresses]
    history, stop = History(), asyncio.Event()
    library = asyncio.create_task(keep_storing(f"ipv4:{','.join(addresses)}", stop))
    back = own = 0.0
    # Watches come from the server that knows all members itself.
    async with Load(history, [channels[1], *channels[::2]]) as load:
        ways = (*itertools.islice(itertools.cycle(WAYS), SCALE.failovers), Member.hand_over)
        for number, lose in enumerate(ways):
            await acknowledgements(history, 100)
            old = await asyncio.to_thread(cluster.leader)
            lost = time.monotonic()
            await asyncio.to_thread(lose, old)
            promoted = await new_leader(cluster, old)
            ends = await asyncio.gather(*(written(each, f"{number}") for each in addresses))
            own, back = max(own, promoted - lost), max(back, *(end - promoted for end in ends))
            if lose is Member.freeze:
                await asyncio.to_thread(old.thaw)
            elif lose is Member.kill:
                await asyncio.to_thread(old.start)
            await asyncio.to_thread(cluster.settle)
    stop.set()
    stored = await library
    async with MemoryClient(addresses[0]) as client:
        kept = [
            memory.content
            for session_id in dict.fromkeys(map(session_of, range(stored + 1)))
            async for memory in client.list(session_id)
        ]
    faults = await load.faults(cluster.url_of_primary())
    took = f"leader lost: {own:.0f} s, back in {back:.1f} s"
    fault_report(f"{took}, {cluster.reinitialized} reinitialized", len(ways), history, faults)
    assert not faults
    # The last one was given up.
    assert sorted({*kept} - {f"memory {stored}"}) == sorted(map("memory {}".format, range(stored)))
    assert len(kept) == len({*kept})
    assert back <= BACK_SECONDS
    # Nothing else: to what is deleted, and to who comes while what has waited is written.
    assert set(history.codes) <= {*SEEN, "RESOURCE_EXHAUSTED"}
    await asyncio.gather(*(channel.close() for channel in channels))
