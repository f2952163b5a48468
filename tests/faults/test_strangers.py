"""A server process survives attacks by strangers, and serves others meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import grpc
import pytest
from tests import http_client, http_strangers
from tests.conftest import DATABASES

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from ..frames import (  # noqa: TID252  test folders are no packages
    call_headers,
    connected,
    data,
    message,
    opened,
)
from ..strangers import (  # noqa: TID252  as above
    FLOODS,
    FORGED,
    HEALTH,
    HOLDS,
    STORE,
    UNDECODABLE_PATHS,
    UNKNOWN_PATHS,
    VALID,
    WRONG_FRAMES,
    Attack,
    call_of,
    forged,
    idle_connections,
    idle_health_watches,
    idle_reflection,
    idle_unknown_methods,
    launched,
    send_frames,
    store_call,
    underway,
    unfinished_messages,
)
from .harness import TIMEOUT_SECONDS, ServerProcess, open_channel
from .resources import peak_bytes, resources_of

MOST_BYTES = 160 * 2**20
"""What an attack may add to a server's memory: the 64 MiB that incoming messages may take in all,
and as much again for what the allocator and gRPC keep of it."""

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]

LIMITED_FILES = 256
IDLE_CONNECTIONS = 300
CALLS_MEANWHILE = 20
"""The number of small calls that must be answered during an attack."""


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test uses both: most attacks reach no database."""
    return str(getattr(request, "param", "sqlite"))


on_both = pytest.mark.parametrize("database_kind", DATABASES, indirect=True)


@dataclass
class Caller:
    """Makes small calls, one after the other."""

    answered: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """The codes of the calls that were refused."""


class Victim(ServerProcess):
    """A server process under attack."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def http_address(self) -> str:
        (line,) = re.findall(r"^memoryd http on http://(.*)$", self.process.output, re.MULTILINE)
        return line

    async def fill(self, session_id: str) -> None:
        """Give a session 1,000 memories, a megabyte in all."""
        async with open_channel(self.address) as channel:
            stub = MemoryServiceStub(channel)
            for first in range(0, 1000, 100):
                items = [
                    pb.StoreMemoryRequest(session_id=session_id, content=f"{n} " + "fact " * 200)
                    for n in range(first, first + 100)
                ]
                request = pb.BatchStoreMemoriesRequest(requests=items)
                await stub.BatchStoreMemories(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)

    def is_healthy(self) -> bool:
        """Run the health check of a container."""
        asked = self._command_line.run("health", MEMORYD_PORT=str(self.port))
        return asked.returncode == 0

    @contextlib.asynccontextmanager
    async def called(self) -> AsyncIterator[Caller]:
        """Run a caller of small calls during the block."""
        caller = Caller()
        async with open_channel(self.address) as channel:
            stub = MemoryServiceStub(channel)
            store = pb.StoreMemoryRequest(session_id="user-1", content="Prefers tea")
            # A busy machine may take longer to connect than one attempt of such a channel.
            stored = (
                await stub.StoreMemory(store, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
            ).memory
            get = pb.GetMemoryRequest(session_id="user-1", memory_id=stored.memory_id)

            async def keep_on() -> None:
                while True:
                    try:
                        await stub.GetMemory(get, timeout=TIMEOUT_SECONDS)
                    except grpc.aio.AioRpcError as error:
                        caller.codes[error.code().name] += 1
                    else:
                        caller.answered += 1
                    await asyncio.sleep(0.01)

            calling = asyncio.create_task(keep_on())
            try:
                yield caller
            finally:
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)

    async def assert_serves(self) -> None:
        """Fail unless a new caller finds the server healthy, stores and reads."""
        assert await asyncio.to_thread(self.is_healthy)
        async with self.called() as caller:
            await answers(caller, 1)

    async def comes_back(self) -> None:
        """Wait until the port answers."""

        async def is_back() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with self.called():
                    return True
            return False

        await eventually(is_back)


@pytest.fixture
async def start(command_line, database_url) -> AsyncIterator[Callable[..., Awaitable[Victim]]]:
    """Start a server; afterwards it must stop as it does without strangers."""
    started: list[Victim] = []

    async def start(open_files: int | None = None, **variables: str) -> Victim:
        victim = Victim(command_line, database_url, open_files=open_files, **variables)
        await victim.start()
        started.append(victim)
        return victim

    yield start
    for victim in started:
        if victim.process.is_running:
            await victim.stop()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)


async def answers(caller: Caller, count: int) -> None:
    """Wait until this many more small calls are answered."""
    wanted = caller.answered + count

    async def are_there() -> bool:
        return caller.answered >= wanted

    await eventually(are_there)


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_harm_no_other_caller(start, name):
    victim = await start()
    before = resources_of(victim.process.pid, victim.port).rss_bytes
    async with victim.called() as caller:
        await launched(FLOODS[name], victim.address, 5)
        await answers(caller, CALLS_MEANWHILE)
    assert not caller.codes
    assert peak_bytes(victim.process.pid) - before < MOST_BYTES
    await victim.assert_serves()


@pytest.mark.parametrize("name", HOLDS)
async def test_held_and_unfinished_requests_harm_no_other_caller(start, name):
    victim = await start(MEMORYD_REQUEST_SECONDS="1")
    before = resources_of(victim.process.pid, victim.port).rss_bytes
    async with victim.called() as caller:
        for _ in range(2):  # what the first took is free for the second
            async with underway(HOLDS[name], victim.address):
                await asyncio.sleep(2)
                assert await asyncio.to_thread(victim.is_healthy)
                await answers(caller, CALLS_MEANWHILE)
    assert not caller.codes
    assert peak_bytes(victim.process.pid) - before < MOST_BYTES
    await victim.assert_serves()


async def test_unfinished_requests_of_the_largest_size_take_bounded_memory(start):
    """Their claimed lengths do not let a server refuse them early."""
    victim = await start(MEMORYD_REQUEST_SECONDS="30")
    before = resources_of(victim.process.pid, victim.port).rss_bytes
    attack = partial(unfinished_messages, streams=64, size=4 * 2**20)
    async with victim.called() as caller, underway(attack, victim.address):
        await asyncio.sleep(3)
        await answers(caller, CALLS_MEANWHILE)
        assert await asyncio.to_thread(victim.is_healthy)
    assert not caller.codes
    assert peak_bytes(victim.process.pid) - before < MOST_BYTES
    await victim.assert_serves()


# Over HTTP


@pytest.mark.parametrize("name", [*http_strangers.FLOODS, *http_strangers.HOLDS])
async def test_strangers_over_http_harm_no_other_caller(start, name):
    victim = await start(MEMORYD_REQUEST_SECONDS="1")
    await victim.fill("stranger")
    before = resources_of(victim.process.pid, victim.port).rss_bytes
    attack = {**http_strangers.FLOODS, **http_strangers.HOLDS}[name]
    async with victim.called() as caller, underway(attack, victim.http_address):
        await asyncio.sleep(2)
        await answers(caller, CALLS_MEANWHILE)
        assert await asyncio.to_thread(victim.is_healthy)
        # Whoever comes by HTTP is served too.
        answer = await http_client.get(victim.http_address, "/readyz")
        assert answer.status == 200
        stored = {"sessionId": "ada", "content": "prefers e-mail"}
        assert (await http_client.call(victim.http_address, "StoreMemory", stored)).status == 200
    assert not caller.codes
    assert peak_bytes(victim.process.pid) - before < MOST_BYTES
    await victim.assert_serves()
    assert "unhandled" not in victim.process.log


@pytest.mark.parametrize(
    "attack",
    [idle_reflection, idle_health_watches, idle_unknown_methods],
    ids=["reflection", "watches of health", "no method"],
)
async def test_idle_streams_leave_a_container_healthy(start, attack):
    victim = await start(MEMORYD_MAX_CALLS="20")
    async with underway(attack, victim.address):
        await asyncio.sleep(1)
        assert await asyncio.to_thread(victim.is_healthy)
    await victim.assert_serves()


# Paths that are not text

OTHER_CALLS = {
    "a call without a request": WRONG_FRAMES["headers that end the stream"],
    "a store": store_call(1, message(VALID)),
    "no method": call_of(b"/no.such/Method"),
    "a health check": call_of(HEALTH),
}


AIO = {"MEMORYD_GRPC_SERVER": "aio"}
"""gRPC's own server for asyncio, which such a path ends."""


@pytest.mark.parametrize("path", UNDECODABLE_PATHS, ids=range(len(UNDECODABLE_PATHS)))
async def test_a_path_that_is_not_text_is_an_unknown_method(start, path):
    victim = await start(MEMORYD_GRPC_SERVER="core")
    async with connected(victim.address) as connection:
        await connection.send(opened(1, call_headers(path)) + data(1, message(b""), ends=True))
        assert (await connection.outcome(1)).grpc_status == UNIMPLEMENTED
        await connection.send(store_call(3, message(VALID)))
        assert (await connection.outcome(3)).grpc_status == 0
    assert "unhandled" not in victim.process.log


@pytest.mark.parametrize("path", UNDECODABLE_PATHS, ids=range(len(UNDECODABLE_PATHS)))
async def test_a_path_that_is_not_text_does_not_end_the_service(start, path):
    victim = await start(**AIO)
    await launched(partial(send_frames, call_of(path)), victim.address, TIMEOUT_SECONDS)
    await victim.comes_back()
    await victim.assert_serves()


@on_both
async def test_the_port_reopens_repeatedly_and_callers_continue(start):
    victim = await start(**AIO)
    async with victim.called() as caller:
        for path in UNDECODABLE_PATHS[:3]:
            await launched(partial(send_frames, call_of(path)), victim.address, TIMEOUT_SECONDS)
            await answers(caller, CALLS_MEANWHILE)
    # gRPC's server cancels running calls when it ends.
    assert caller.codes.keys() <= {"UNAVAILABLE", "CANCELLED"}
    await victim.assert_serves()


@pytest.mark.parametrize("name", OTHER_CALLS)
async def test_a_path_that_is_not_text_among_other_calls_does_not_end_the_process(start, name):
    """Calls that gRPC still holds when its server ends outlive it."""
    # Log lines are the memory that would be overwritten.
    victim = await start(MEMORYD_LOG_LEVEL="info", **AIO)
    other, bad = OTHER_CALLS[name], call_of(UNDECODABLE_PATHS[0])
    for _ in range(3):
        await asyncio.gather(
            *(
                launched(partial(send_frames, sent), victim.address, TIMEOUT_SECONDS)
                for sent in (*[other] * 6, bad, *[other] * 6)
            )
        )
        await asyncio.sleep(1)
        assert victim.process.is_running
        await victim.comes_back()
    await victim.assert_serves()


async def test_a_server_that_cannot_recover_exits_so_that_it_is_restarted(start):
    victim = await start(**AIO)
    attack = partial(send_frames, call_of(UNDECODABLE_PATHS[0]))
    end = time.monotonic() + TIMEOUT_SECONDS
    while victim.process.is_running and time.monotonic() < end:
        with contextlib.suppress(OSError):  # refused while there is no server
            await launched(attack, victim.address, TIMEOUT_SECONDS)
    assert not victim.process.is_running
    assert await asyncio.to_thread(victim.process.wait) == 1


# File descriptors


@on_both
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "greeting"])
async def test_idle_connections_leave_descriptors_for_the_service(start, greets):
    victim = await start(open_files=LIMITED_FILES, MEMORYD_LOG_LEVEL="info")
    attack: Attack = partial(idle_connections, connections=IDLE_CONNECTIONS, greets=greets)
    async with open_channel(victim.address) as channel:
        stub = MemoryServiceStub(channel)
        await stub.RetrieveMemories(retrieval(0), timeout=TIMEOUT_SECONDS, wait_for_ready=True)
        async with victim.called() as caller, underway(attack, victim.address):
            await asyncio.sleep(2)
            # Concurrent, so that they need more database connections than are open.
            await asyncio.gather(
                *(stub.RetrieveMemories(retrieval(n), timeout=TIMEOUT_SECONDS) for n in range(100))
            )
            await answers(caller, CALLS_MEANWHILE)
            found = resources_of(victim.process.pid, victim.port)
            assert found.descriptors < LIMITED_FILES
        assert not caller.codes
    await victim.assert_serves()
    assert "code=INTERNAL" not in victim.process.log


@on_both
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "greeting"])
async def test_idle_connections_end_and_leave_room_for_a_health_check(start, greets):
    victim = await start(open_files=LIMITED_FILES)
    attack: Attack = partial(idle_connections, connections=IDLE_CONNECTIONS, greets=greets)
    async with underway(attack, victim.address, 2 * TIMEOUT_SECONDS):
        await asyncio.sleep(1)

        async def is_healthy() -> bool:
            return await asyncio.to_thread(victim.is_healthy)

        await eventually(is_healthy)

        async def are_gone() -> bool:
            return resources_of(victim.process.pid, victim.port).connections == 0

        await eventually(are_gone)
    await victim.assert_serves()


def retrieval(number: int) -> pb.RetrieveMemoriesRequest:
    return pb.RetrieveMemoriesRequest(session_id=f"user-{number}", query="tea")


# The log


HOSTILE = {
    **{f"the path: {name}": call_of(path) for name, path in UNKNOWN_PATHS.items()},
    **{name: sent for name, sent in WRONG_FRAMES.items() if FORGED in sent},
    "no text": call_of(b"/\xff\n" + FORGED),
    "a known path with more": call_of(STORE + b"\n" + FORGED),
}
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+\+00:00 (debug|info|warning|error) [\w.]+ .*")


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_stranger_forges_a_log_line(start, log_format):
    victim = await start(MEMORYD_LOG_LEVEL="info", MEMORYD_LOG_FORMAT=log_format)
    for sent in HOSTILE.values():
        await launched(partial(send_frames, sent), victim.address, TIMEOUT_SECONDS)
        await victim.comes_back()
    await victim.stop()
    log = victim.process.log
    assert not forged(log)
    own = [line for line in log.split("\n") if is_record(line, log_format)]
    unknown = [line for line in own if "UNKNOWN" in line]
    assert len(unknown) >= len(UNKNOWN_PATHS) - 1  # gRPC itself refuses a path with NUL
    assert "x" * 1_000 not in log


def is_record(line: str, log_format: str) -> bool:
    """Whether a line starts a record; a traceback takes more lines."""
    if log_format == "text":
        return TEXT_LINE.fullmatch(line) is not None
    try:
        return "time" in json.loads(line)
    except ValueError:
        return False
