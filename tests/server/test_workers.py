"""Several real processes that serve as one, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.http_client import get
from tests.roles import as_superuser
from tests.scrapes import scrape

from memoryd import workers
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub
from memoryd.workers import MOST_DEATHS, Workers, WorkersFailed, reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SERVING = health_pb2.HealthCheckResponse.SERVING
CONNECTIONS = 16
"""Enough that each of two workers gets some, except once in 30,000 runs."""


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextlib.asynccontextmanager
async def connections(address: str, count: int = CONNECTIONS) -> AsyncIterator[list]:
    """Channels to a server, each with its own connection."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
            for _ in range(count)
        ]


async def store(
    channel: grpc.aio.Channel, content: str, session_id: str = "user-123"
) -> pb.StoreMemoryResponse:
    request = pb.StoreMemoryRequest(session_id=session_id, content=content)
    return await MemoryServiceStub(channel).StoreMemory(request)


async def contents(address: str) -> list[str]:
    async with connections(address, 1) as (channel,):
        request = pb.ListMemoriesRequest(session_id="user-123", page_size=1000)
        answer = await MemoryServiceStub(channel).ListMemories(request)
        return [memory.content for memory in answer.memories]


@contextlib.asynccontextmanager
async def writes_blocked(url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(as_superuser(url).replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE sessions IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_one_port_and_one_ready_line_for_all(command_line, database_url):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    address = await asyncio.to_thread(server.address)
    assert server.output.count("memoryd ready on") == 1
    assert len(children(server.pid)) == 2
    async with connections(address) as channels:
        check = health_pb2.HealthCheckRequest()
        for answer in await asyncio.gather(*(HealthStub(c).Check(check) for c in channels)):
            assert answer.status == SERVING
        for number, channel in enumerate(channels):
            await store(channel, f"content {number}")
        # The other workers see a stored memory at once.
        get = pb.RetrieveMemoriesRequest(session_id="user-123", limit=100)
        for channel in channels:
            assert len((await MemoryServiceStub(channel).RetrieveMemories(get)).results) == len(
                channels
            )
    assert await asyncio.to_thread(server.stop) == 0
    assert server.log.count(" stopped") == 2


async def test_a_database_is_migrated_once_for_all(command_line, postgres_server):
    variables = {
        "MEMORYD_DATABASE_URL": postgres_server.create_database(),
        "MEMORYD_WORKERS": "2",
    }
    server = command_line.serve("--migrate", **variables)
    await asyncio.to_thread(server.address)
    assert server.log.count("upgraded to 001") == 1
    assert await asyncio.to_thread(server.stop) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_is_replaced(command_line, database_url, number, eventually):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    address = await asyncio.to_thread(server.address)
    before = children(server.pid)
    victim = min(before)
    os.kill(victim, number)

    async def replaced() -> bool:
        return server.log.count(" serving") == 3

    await eventually(replaced)
    now = children(server.pid)
    assert len(now) == 2
    assert now & before == before - {victim}
    async with connections(address) as channels:
        for place, channel in enumerate(channels):
            await store(channel, f"content {place}")
    assert await asyncio.to_thread(server.stop) == 0


async def test_workers_share_the_port_for_http(command_line, database_url):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    server.address()
    (line,) = re.findall("^memoryd http on http://(.*)$", server.output, re.MULTILINE)
    answers = await asyncio.gather(*(get(line, "/readyz") for _ in range(CONNECTIONS)))
    assert {answer.status for answer in answers} == {200}
    server.stop()


async def test_the_other_workers_serve_while_one_is_replaced(command_line, database_url):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    address = await asyncio.to_thread(server.address)
    stored = []
    async with connections(address) as channels:
        for channel in channels:
            await store(channel, "first")
        os.kill(min(children(server.pid)), signal.SIGKILL)
        for place, channel in enumerate(channels):
            try:
                await store(channel, f"content {place}")
                stored.append(f"content {place}")
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017  most are not raised
    assert stored
    assert set(stored) <= set(await contents(address))
    assert await asyncio.to_thread(server.stop) == 0


async def test_no_worker_outlives_its_parent(command_line, database_url, eventually):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    address = await asyncio.to_thread(server.address)
    orphans = children(server.pid)
    server.kill()

    async def gone() -> bool:
        return not any(map(runs, orphans))

    await eventually(gone)
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


async def test_calls_under_way_in_every_worker_end_before_it_does(command_line, database_url):
    server = command_line.serve(
        "--workers",
        "2",
        MEMORYD_DATABASE_URL=database_url,
        MEMORYD_DRAIN_SECONDS="60",
    )
    address = await asyncio.to_thread(server.address)
    async with connections(address) as channels:
        async with writes_blocked(database_url):
            under_way = [
                asyncio.create_task(store(channel, f"content {place}"))
                for place, channel in enumerate(channels)
            ]
            for channel in channels:  # its answer comes after the calls sent before it have started
                for _ in range(5):
                    await ToolConfigServiceStub(channel).ListTools(tool_pb.ListToolsRequest())
            server.terminate()
            assert not any(task.done() for task in under_way)
        for answer in await asyncio.gather(*under_way):
            assert answer.outcome == pb.STORE_OUTCOME_CREATED
    assert await asyncio.to_thread(server.wait) == 0


async def test_no_acknowledged_store_is_lost_when_all_stop_under_load(
    command_line, database_url, tables
):
    server = command_line.serve(
        "--workers", "2", MEMORYD_DATABASE_URL=database_url, MEMORY_MAX_ENTRIES="1000"
    )
    address = await asyncio.to_thread(server.address)
    workers_before = children(server.pid)
    acknowledged: set[str] = set()
    enough = asyncio.Event()

    async def load(channel: grpc.aio.Channel, place: int) -> grpc.StatusCode:
        for number in itertools.count():
            content = f"content {place} {number}"
            try:
                await store(channel, content, f"session-{place}")
            except grpc.aio.AioRpcError as error:
                return error.code()
            acknowledged.add(content)
            if len(acknowledged) >= 200:
                enough.set()
        raise AssertionError

    async with connections(address) as channels:
        loads = [asyncio.create_task(load(channel, n)) for n, channel in enumerate(channels)]
        await enough.wait()
        server.terminate()
        ended = set(await asyncio.gather(*loads))
    # On stopping, gRPC cancels calls that it has not yet passed on.
    assert ended <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert await asyncio.to_thread(server.wait) == 0
    assert not any(map(runs, workers_before))
    assert acknowledged <= {row[0] for row in await tables.rows("SELECT content FROM memories")}


def test_on_sqlite_one_process_writes(command_line, tmp_path):
    done = command_line.run("serve", "--workers", "2", MEMORYD_PORT="0")
    assert done.returncode == 1
    assert "--workers (command line): 2; on SQLite one process writes" in done.stderr
    done = command_line.run("serve", MEMORYD_WORKERS="2", MEMORYD_PORT="0")
    assert "MEMORYD_WORKERS (environment): 2; on SQLite one process writes" in done.stderr
    assert not list(tmp_path.glob("*.db"))


def test_a_port_that_is_taken_is_named(command_line, database_url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command_line.run(
            "serve", "--workers", "2", "--port", str(port), MEMORYD_DATABASE_URL=database_url
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


async def test_a_server_of_several_does_not_share_the_port_of_another(command_line, database_url):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    port = (await asyncio.to_thread(server.address)).rpartition(":")[2]
    done = await asyncio.to_thread(
        command_line.run,
        "serve",
        "--workers",
        "2",
        "--port",
        port,
        MEMORYD_DATABASE_URL=database_url,
    )
    assert done.returncode == 1
    assert "in use" in done.stderr


def test_an_error_in_every_worker_stops_the_start(command_line, database_url):
    variables = {"MEMORYD_EMBEDDER": "nowhere:Embedder", "MEMORYD_DATABASE_URL": database_url}
    done = command_line.run("serve", "--workers", "2", MEMORYD_PORT="0", **variables)
    assert done.returncode == 1
    assert "MEMORYD_EMBEDDER" in done.stderr
    assert "a worker could not start" in done.stderr
    assert done.stdout == ""


# Metrics


@pytest.fixture
def metrics_folder() -> Iterator[Path]:
    """Where the workers' folders are; a socket's name has to be short."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


def http_of(server: Any) -> str:
    return server.output.partition("memoryd http on http://")[2].splitlines()[0]


async def test_one_scrape_tells_of_all_workers_and_of_those_that_died(
    command_line, database_url, eventually, metrics_folder
):
    server = command_line.serve(
        "--workers", "2", MEMORYD_DATABASE_URL=database_url, TMPDIR=str(metrics_folder)
    )
    address = await asyncio.to_thread(server.address)
    http = http_of(server)
    stores, watching = "memoryd_stores_total", "memoryd.v1.MemoryService/WatchMemories"
    async with connections(address) as channels:
        for number, channel in enumerate(channels):
            await store(channel, f"content {number}")
        watches = [
            MemoryServiceStub(c).WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
            for c in channels
        ]
        for watch in watches:
            await watch.read()
        # Whichever answers, it tells of both.
        for _ in range(CONNECTIONS):
            found = await scrape(http)
            assert found.value(stores, outcome="created") == len(channels)
            assert found.value("memoryd_streams", method=watching) == len(channels)
            assert found.value("memoryd_database_up") == 1
            processes = found.labels("process_cpu_seconds_total")
            assert sorted(labels["worker"] for labels in processes) == ["0", "1"]

    counted = "rpc_server_call_duration_seconds_count"
    calls = (await scrape(http)).value(counted)
    os.kill(min(children(server.pid)), signal.SIGKILL)

    async def replaced() -> bool:
        return server.log.count(" serving") == 3

    await eventually(replaced)
    found = await scrape(http)
    assert found.value(stores, outcome="created") == len(channels)
    assert found.value(counted) >= calls
    async with connections(address) as channels:
        for number, channel in enumerate(channels):
            await store(channel, f"content {number} of a replaced worker")
    assert (await scrape(http)).value(stores, outcome="created") == 2 * len(channels)
    assert [*metrics_folder.iterdir()]
    assert await asyncio.to_thread(server.stop) == 0
    assert not [*metrics_folder.iterdir()]


def test_workers_that_cannot_meet_say_what_to_do(command_line, database_url, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    variables = {"MEMORYD_DATABASE_URL": database_url, "TMPDIR": str(folder)}
    done = command_line.run("serve", "--workers", "2", MEMORYD_PORT="0", **variables)
    assert done.returncode == 1
    assert "workers cannot meet at" in done.stderr
    assert "set TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr


async def test_workers_without_a_parent_leave_no_files(
    command_line, database_url, eventually, metrics_folder
):
    server = command_line.serve(
        "--workers", "2", MEMORYD_DATABASE_URL=database_url, TMPDIR=str(metrics_folder)
    )
    await asyncio.to_thread(server.address)
    assert [*metrics_folder.iterdir()]
    before = children(server.pid)
    server.kill()

    async def all_ended() -> bool:
        return not any(runs(pid) for pid in before)

    await eventually(all_ended)
    assert not [*metrics_folder.iterdir()]


# The supervisor alone, with workers that serve nothing


def of_script(script: str, *, count: int = 2, ready: Callable[[], None] = lambda: None) -> Workers:
    return Workers(
        lambda _: [sys.executable, "-c", script],
        dict(os.environ),
        count,
        stop_timeout_seconds=30,
        ready=ready,
    )


async def test_the_supervisor_gives_up_on_workers_that_die_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "FIRST_PAUSE_SECONDS", 0.0)
    file = tmp_path / "starts"
    script = f"open({str(file)!r}, 'a').write('x'); print('ready')"
    with pytest.raises(WorkersFailed, match="in a row"):
        await of_script(script, count=1).run(asyncio.Event())
    assert len(file.read_text()) == MOST_DEATHS + 1


async def test_a_worker_that_does_not_stop_in_time_is_killed():
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(600)"
    )
    stopping = asyncio.Event()
    stubborn = Workers(
        lambda _: [sys.executable, "-c", script],
        dict(os.environ),
        2,
        stop_timeout_seconds=0.1,
        ready=stopping.set,
    )
    with pytest.raises(WorkersFailed, match="2 workers did not end in time"):
        await stubborn.run(stopping)


async def test_a_worker_that_cannot_be_started_stops_the_start(tmp_path):
    nowhere = Workers(
        lambda _: [f"{tmp_path}/none"], {}, 2, stop_timeout_seconds=30, ready=lambda: None
    )
    with pytest.raises(WorkersFailed, match="could not start"):
        await nowhere.run(asyncio.Event())


async def test_all_stop_on_request_before_they_are_ready():
    stopping = asyncio.Event()
    stopping.set()
    await of_script("import time; time.sleep(600)").run(stopping)


def test_only_processes_that_share_it_get_a_reserved_port():
    host = "127.0.0.1"
    with reserved_port(host, 0) as port, socket.socket() as shared:
        assert port > 0
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with contextlib.suppress(OSError), socket.socket() as alone:
            alone.bind((host, port))
            pytest.fail("another process could reserve it")
        shared.bind((host, port))
        shared.listen()
        with (
            pytest.raises(OSError, match=f"cannot listen on {host}:{port}"),
            reserved_port(host, port),
        ):
            pass
