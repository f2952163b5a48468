"""The command line, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy import make_url
from tests.roles import as_superuser

from memoryd.database.migrate import HEAD
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CANARY = "Xylophon-4711"
FUTURE = "999_of_the_future"
COMMANDS_ON_A_DATABASE = (("migrate",), ("sweep", "--once"), ("export", "memories.jsonl"))
SET_REVISION = "UPDATE alembic_version SET version_num = '{}'"


@pytest.fixture
def empty_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema; for SQLite, a file that does not exist yet."""
    if database_kind == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/new.db"
    return str(request.getfixturevalue("postgres_server").create_database())


@pytest.fixture
def empty_postgres(postgres_server) -> str:
    return str(postgres_server.create_database())


@pytest.fixture
def migrated_postgres_url(postgres_server, migrated_postgres) -> str:
    return str(postgres_server.create_database(migrated_postgres))


@contextlib.contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as opened:
        yield opened


def store(address: str, content: str = "prefers e-mail") -> pb.StoreMemoryResponse:
    with channel(address) as opened:
        request = pb.StoreMemoryRequest(session_id="user-123", content=content)
        return MemoryServiceStub(opened).StoreMemory(request, timeout=10)


def retrieve(address: str, query: str = "") -> list[pb.Memory]:
    with channel(address) as opened:
        request = pb.RetrieveMemoriesRequest(session_id="user-123", query=query)
        answer = MemoryServiceStub(opened).RetrieveMemories(request, timeout=10)
        return [result.memory for result in answer.results]


def health(address: str, service: str = "") -> Any:
    with channel(address) as opened:
        request = health_pb2.HealthCheckRequest(service=service)
        return HealthStub(opened).Check(request, timeout=10, wait_for_ready=True).status


def reason(error: grpc.RpcError) -> str:
    """The `reason` of the ErrorInfo."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return str(info.reason)


def sql(url: str, statement: str) -> None:
    """Execute a statement directly in the database."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(make_url(url).database or "")) as connection:
            connection.execute(statement)
            connection.commit()
        return

    async def execute() -> None:
        connection = await asyncpg.connect(dsn(url))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


def dsn(url: str) -> str:
    return as_superuser(url).replace("+asyncpg", "")


def free_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that it did not start, and says why in plain words."""
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# Serving


def test_the_ready_line_has_the_address_and_a_working_call(command_line, database_url):
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    address = server.address()
    assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", address)
    server.wait_for(lambda: server.output.count("\n") == 4)
    ready, http, console, example = server.output.splitlines()
    assert ready == f"memoryd ready on {address}"
    assert re.fullmatch(r"memoryd http on http://127\.0\.0\.1:[1-9][0-9]*", http)
    origin = http.removeprefix("memoryd http on ")
    assert re.fullmatch(rf"memoryd console on {origin}/sign-in\?once=[\w-]+", console)
    grpcurl = re.fullmatch(r"try: (grpcurl .*)", example)[1]
    assert address in shlex.split(grpcurl)
    answer = json.loads(command_line.shell(grpcurl))
    assert answer["outcome"] == "STORE_OUTCOME_CREATED"
    assert [memory.content for memory in retrieve(address)] == [answer["memory"]["content"]]


def test_where_there_is_no_grpcurl_the_ready_lines_call_is_a_command_of_ours(command_line):
    server = command_line.serve(PATH=str(command_line.folder))
    address = server.address()
    server.wait_for(lambda: re.search(r"^try: .*\n", server.output, re.MULTILINE))
    example = server.output.splitlines()[-1].removeprefix("try: ")
    assert "grpcurl" not in example
    assert command_line.shell(example).startswith("created ")
    assert [memory.content for memory in retrieve(address)] == ["prefers e-mail"]


def test_an_idle_server_loads_only_what_it_needs(command_line, database_url):
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url, PYTHONPROFILEIMPORTTIME="1")
    server.address()
    loaded = set(re.findall(r"\| +(\w+)[\w.]*$", server.log, re.MULTILINE))
    assert {"grpc", "sqlalchemy"} <= loaded
    assert not loaded & {"alembic", "boto3", "botocore", "dateparser", "numpy", "onnxruntime"}
    assert not loaded & {"rich", "safetensors", "sentencepiece", "tokenizers", "wordllama"}


def test_an_sqlite_file_is_made_and_migrated(command_line, tmp_path):
    first = command_line.serve()
    store(first.address())
    assert first.stop() == 0
    second = command_line.serve()
    assert [memory.content for memory in retrieve(second.address())] == ["prefers e-mail"]
    assert (tmp_path / "memoryd.db").is_file()


def test_a_server_on_postgresql_waits_for_the_migration_and_continues(command_line, empty_postgres):
    # The port is chosen beforehand, since a server names its port only once it is ready.
    port = free_port()
    address = f"127.0.0.1:{port}"
    variables = {"MEMORYD_DATABASE_URL": empty_postgres, "MEMORYD_PORT": str(port)}
    server = command_line.serve(**variables)
    server.wait_for(lambda: "memoryd migrate" in server.log)
    (line,) = [line for line in server.log.splitlines() if "memoryd migrate" in line]
    assert "behind" in line
    for service in ("", "memoryd.v1.MemoryService", "memoryd.v1.ToolConfigService"):
        assert health(address, service) == NOT_SERVING
    asked = command_line.run("health", **variables)
    assert (asked.returncode, asked.stdout) == (1, "NOT_SERVING\n")
    for call in (store, retrieve):
        with pytest.raises(grpc.RpcError) as refused:
            call(address)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason(refused.value) == "ERROR_REASON_SCHEMA_MISMATCH"
        assert "memoryd migrate" in refused.value.details()
    assert server.output == ""

    assert command_line.run("migrate", **variables).returncode == 0
    assert server.address() == address
    assert health(address) == SERVING
    store(address)
    assert server.stop() == 0


def test_serve_migrates_postgresql_on_request(command_line, empty_postgres):
    server = command_line.serve("--migrate", MEMORYD_DATABASE_URL=empty_postgres)
    store(server.address())
    assert server.stop() == 0


def test_migrating_again_changes_nothing(command_line, empty_url):
    for _ in range(2):
        done = command_line.run("migrate", "--database-url", empty_url)
        assert done.returncode == 0
        assert done.stdout == f"schema at {HEAD}\n"


def test_an_sqlite_file_of_a_newer_release_is_left_alone(command_line, migrated_sqlite, tmp_path):
    file = tmp_path / "memoryd.db"
    file.write_bytes(migrated_sqlite.read_bytes())
    sql(f"sqlite:///{file}", SET_REVISION.format(FUTURE))
    for command in ("serve", "migrate"):
        assert_refused(command_line.run(command, MEMORYD_PORT="0"), "ahead", HEAD)


def test_a_postgresql_of_a_newer_release_is_left_alone(command_line, migrated_postgres_url):
    url = migrated_postgres_url
    sql(url, SET_REVISION.format(FUTURE))
    port = free_port()
    address = f"127.0.0.1:{port}"
    server = command_line.serve(MEMORYD_DATABASE_URL=url, MEMORYD_PORT=str(port))
    server.wait_for(lambda: "ahead" in server.log)
    assert health(address) == NOT_SERVING
    for call in (store, retrieve):
        with pytest.raises(grpc.RpcError) as refused:
            call(address)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason(refused.value) == "ERROR_REASON_SCHEMA_MISMATCH"
    assert server.output == ""
    sql(url, SET_REVISION.format(HEAD))
    assert server.address() == address
    assert server.stop() == 0


def test_a_server_waits_for_a_missing_postgresql(command_line, migrated_postgres_url):
    url = make_url(migrated_postgres_url)
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        place = Path(folder) / "sockets"
        port = free_port()
        address = f"127.0.0.1:{port}"
        server = command_line.serve(
            MEMORYD_DATABASE_URL=f"postgresql+asyncpg://postgres:{CANARY}@/{url.database}?host={place}",
            MEMORYD_PORT=str(port),
        )
        server.wait_for(lambda: "not serving" in server.log)
        assert str(place) in server.log
        assert health(address) == NOT_SERVING
        with pytest.raises(grpc.RpcError) as refused:
            store(address)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason(refused.value) == "ERROR_REASON_DATABASE_UNAVAILABLE"
        assert str(place) not in refused.value.details()
        assert server.output == ""

        place.symlink_to(str(url.query["host"]), target_is_directory=True)
        assert server.address() == address
        store(address)
        assert server.stop() == 0
        assert CANARY not in server.log


def test_a_database_that_does_not_answer_a_command_is_named(command_line):
    url = f"postgresql+asyncpg://memoryd:{CANARY}@127.0.0.1:{free_port()}/memoryd"
    for command in (*COMMANDS_ON_A_DATABASE, ("serve", "--migrate")):
        done = command_line.run(*command, MEMORYD_DATABASE_URL=url, MEMORYD_PORT="0")
        assert_refused(done, "the database does not answer", "127.0.0.1")
        assert CANARY not in done.stderr


@pytest.mark.parametrize("kind", ["in no folder", "in a file", "a folder", "no database"])
def test_an_sqlite_path_that_cannot_be_used_is_named(command_line, tmp_path, kind):
    (tmp_path / "text").write_text("This is a text, and has been one all its life.\n" * 100)
    (tmp_path / "folder").mkdir()
    path = {
        "in no folder": tmp_path / "nowhere" / "memoryd.db",
        "in a file": tmp_path / "text" / "memoryd.db",
        "a folder": tmp_path / "folder",
        "no database": tmp_path / "text",
    }[kind]
    for command in (*COMMANDS_ON_A_DATABASE, ("serve",)):
        url = f"sqlite+aiosqlite:///{path}"
        done = command_line.run(*command, MEMORYD_DATABASE_URL=url, MEMORYD_PORT="0")
        assert_refused(done, str(path))


@pytest.mark.parametrize("path", ["a%00b", "file:x%2500?uri=true", "file:x?uri=maybe"])
def test_an_sqlite_url_that_names_no_file_is_one_line(command_line, path):
    url = f"sqlite+aiosqlite:///{path}"
    done = command_line.run("serve", MEMORYD_DATABASE_URL=url, MEMORYD_PORT="0")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith("memoryd: ")) == (1, True)
    assert "Traceback" not in command_line.run("config", "show", MEMORYD_DATABASE_URL=url).stderr


def test_a_port_that_is_taken_is_named(command_line):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = command_line.run("serve", "--port", str(port))
    assert_refused(done, f"cannot listen on 127.0.0.1:{port}", "in use")
    assert "stopped" not in done.stderr


# Settings


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"flag", "variable", "dotenv"}, "flag.db"),
        ({"variable", "dotenv"}, "variable.db"),
        ({"dotenv"}, "dotenv.db"),
        (set(), "memoryd.db"),
    ],
)
def test_flags_beat_variables_beat_dotenv_beat_defaults(command_line, tmp_path, given, used):
    url = "sqlite+aiosqlite:///{}.db".format
    if "dotenv" in given:
        (tmp_path / ".env").write_text(f"MEMORYD_DATABASE_URL={url('dotenv')}\n")
    variables = {"MEMORYD_DATABASE_URL": url("variable")} if "variable" in given else {}
    arguments = ["--database-url", url("flag")] if "flag" in given else []
    assert command_line.run("migrate", *arguments, **variables).returncode == 0
    assert [file.name for file in tmp_path.glob("*.db")] == [used]


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        ([], {"MEMORYD_PROT": "1"}, "MEMORYD_PROT"),
        ([], {"MEMORYD_PORT": "many"}, "MEMORYD_PORT"),
        ([], {"MEMORYD_DATABASE_URL": "mysql://localhost/x"}, "MEMORYD_DATABASE_URL"),
        ([], {"RAG_CHUNK_SIZE": "99"}, "RAG_CHUNK_SIZE"),
        ([], {"ENABLE_RAG_TOOL": "maybe"}, "ENABLE_RAG_TOOL"),
        (["--log-level", "loud"], {}, "--log-level"),
        (["--port", "many"], {}, "--port"),
        (["--port", "70000"], {}, "--port"),
        (["--colour", "red"], {}, "--colour"),
        (["now"], {}, "now"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(
    command_line, tmp_path, arguments, variables, named
):
    assert_refused(command_line.run("serve", *arguments, **variables), named)
    assert not list(tmp_path.glob("*.db"))


def test_every_bad_setting_is_named_at_once(command_line, tmp_path):
    (tmp_path / ".env").write_text("MEMORYD_COLOUR=red\nMEMORY_TTL_HOURS=0\n")
    done = command_line.run("serve", "--log-format", "xml", MEMORYD_PORT="-1")
    names = ("MEMORYD_COLOUR", "MEMORY_TTL_HOURS", "--log-format", "MEMORYD_PORT")
    assert_refused(done, *names)


@pytest.mark.parametrize("key", [CANARY, "env://NOT_SET"])
def test_production_refuses_secrets_that_are_literal_or_missing(command_line, key):
    done = command_line.run("serve", MEMORYD_ENVIRONMENT="production", CRM_API_KEY=key)
    assert_refused(done, "CRM_API_KEY")
    assert CANARY not in done.stderr


# The commands


def test_the_module_is_the_command(command_line):
    for command in ("", "serve", "migrate", "sweep", "backup", "export", "import", "health"):
        assert command_line.shell(f"memoryd {command} --help") == command_line.shell(
            f"{shlex.quote(sys.executable)} -m memoryd {command} --help"
        )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["serve", "migrate", "sweep", "backup", "export", "import", "health"]),
        (["serve"], ["--database-url", "--host", "--port", "--migrate", "MEMORYD_DATABASE_URL"]),
        (["migrate"], ["--database-url"]),
        (["sweep"], ["--once", "--database-url"]),
        (["backup"], ["file", "--database-url", "SQLite"]),
        (["export"], ["file", "--deleted", "--database-url"]),
        (["import"], ["file", "--database-url"]),
        (["health"], ["--host", "--port"]),
    ],
)
def test_every_command_has_help(command_line, command, words):
    done = command_line.run(*command, "--help")
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout


def test_the_version_is_that_of_the_package(command_line):
    done = command_line.run("--version")
    assert (done.returncode, done.stdout) == (0, f"memoryd {metadata.version('memoryd')}\n")


def test_a_shell_is_told_how_to_complete(command_line):
    assert "complete" in command_line.shell("bash -c 'memoryd --show-completion; true'")


@pytest.mark.parametrize("missing", ["typer", "uvloop"])
def test_where_the_client_alone_is_installed_the_command_names_the_extra(command_line, missing):
    """A name that is None among the modules counts as not installed."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None; from memoryd.__main__ import main; main()"
    )
    done = command_line.shell(
        f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} --help 2>&1 || true"
    )
    assert ("pip install 'memoryd[server]'" in done) == (missing == "typer")
    assert "Traceback" not in done


def test_an_unknown_command_is_refused(command_line):
    assert_refused(command_line.run("server"), "server")


def test_health_answers_by_its_exit_code(command_line):
    server = command_line.serve()
    host, port = server.address().split(":")
    asked = command_line.run("health", "--host", host, "--port", port)
    assert (asked.returncode, asked.stdout) == (0, "SERVING\n")
    assert server.stop() == 0
    asked = command_line.run("health", "--host", host, "--port", port)
    assert_refused(asked, f"{host}:{port}")


def test_health_bypasses_proxies(command_line):
    _, port = command_line.serve().address().split(":")
    proxy = f"http://127.0.0.1:{free_port()}"
    asked = command_line.run("health", "--port", port, http_proxy=proxy, https_proxy=proxy)
    assert asked.returncode == 0


def test_an_ipv6_address_can_be_served_and_checked(command_line):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = command_line.serve("--host", "::1")
    address = server.address()
    assert address.startswith("[::1]:")
    asked = command_line.run("health", "--host", "::1", "--port", address.rpartition(":")[2])
    assert asked.returncode == 0


# Stopping


@contextlib.asynccontextmanager
async def writes_blocked(url: str) -> AsyncIterator[None]:
    """Block all writes to the session `user-123` until the end of the block."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(make_url(url).database or "")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()
        return
    connection = await asyncpg.connect(dsn(url))
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM sessions FOR UPDATE")
            yield
    finally:
        await connection.close()


async def until_started(opened: grpc.aio.Channel) -> None:
    """Return when the service has started all that was sent on the channel before."""
    for _ in range(5):
        await ToolConfigServiceStub(opened).ListTools(tool_pb.ListToolsRequest())


async def test_sigterm_finishes_running_calls_and_accepts_no_new_ones(command_line, database_url):
    server = command_line.serve(
        MEMORYD_DATABASE_URL=database_url,
        MEMORYD_DRAIN_SECONDS="60",
    )
    address = await asyncio.to_thread(server.address)
    await asyncio.to_thread(store, address, "first")
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options) as opened:
        watch = HealthStub(opened).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        async with writes_blocked(database_url):
            under_way = MemoryServiceStub(opened).StoreMemory(
                pb.StoreMemoryRequest(session_id="user-123", content="second")
            )
            await until_started(opened)
            server.terminate()
            assert (await watch.read()).status == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await watch.read()
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.RpcError) as refused:
                await asyncio.to_thread(store, address, "third")
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert not under_way.done()
        answer = await under_way
        assert answer.outcome == pb.STORE_OUTCOME_CREATED
    assert await asyncio.to_thread(server.wait) == 0
    again = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    contents = [m.content for m in retrieve(await asyncio.to_thread(again.address))]
    assert sorted(contents) == ["first", "second"]


async def test_a_call_that_outlasts_the_drain_is_ended(command_line, database_url):
    server = command_line.serve(
        MEMORYD_DATABASE_URL=database_url,
        MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="2",
        MEMORYD_DRAIN_SECONDS="0.2",
    )
    address = await asyncio.to_thread(server.address)
    await asyncio.to_thread(store, address, "first")
    options = [("grpc.enable_http_proxy", 0)]
    async with (
        grpc.aio.insecure_channel(address, options) as opened,
        writes_blocked(database_url),
    ):
        under_way = MemoryServiceStub(opened).StoreMemory(
            pb.StoreMemoryRequest(session_id="user-123", content="second")
        )
        await until_started(opened)
        server.terminate()
        with pytest.raises(grpc.aio.AioRpcError):
            await under_way
        assert await asyncio.to_thread(server.wait) == 0


def test_accesses_that_have_gathered_are_written_at_the_end(command_line, database_url):
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    address = server.address()
    store(address)
    for _ in range(3):
        retrieve(address)
    assert server.stop() == 0
    again = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    (memory,) = retrieve(again.address())
    assert memory.access_count == 3


# The log


@pytest.mark.parametrize("level", ["info", "debug"])
def test_the_log_is_one_json_object_per_line_without_contents(command_line, database_url, level):
    server = command_line.serve(
        "--log-format", "json", "--log-level", level, MEMORYD_DATABASE_URL=database_url
    )
    address = server.address()
    with channel(address) as opened:
        memory = MemoryServiceStub(opened)
        request = pb.StoreMemoryRequest(session_id="user-123", content=f"likes the {CANARY}")
        request.metadata.update({CANARY: CANARY})
        memory.StoreMemory(request, metadata=[("x-request-id", "first-store")])
        memory.StoreMemory(request)
        memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="user-123", query=CANARY))
        memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123"))
        for refused in (
            pb.StoreMemoryRequest(session_id="user-123", content=CANARY, importance=7),
            pb.StoreMemoryRequest(session_id=f"{CANARY}!", content=CANARY),
        ):
            with pytest.raises(grpc.RpcError):
                memory.StoreMemory(refused)
        with pytest.raises(grpc.RpcError):
            opened.unary_unary("/memoryd.v1.MemoryService/Guess")(CANARY.encode())
    assert server.stop() == 0

    assert CANARY not in server.log
    assert CANARY not in server.output
    entries = [json.loads(line) for line in server.log.splitlines()]
    calls = [entry for entry in entries if entry["logger"] == "memoryd.access"]
    assert [(call["method"].rpartition("/")[2], call["code"]) for call in calls] == [
        ("StoreMemory", "OK"),
        ("StoreMemory", "OK"),
        ("RetrieveMemories", "OK"),
        ("ListMemories", "OK"),
        ("StoreMemory", "INVALID_ARGUMENT"),
        ("StoreMemory", "INVALID_ARGUMENT"),
        ("UNKNOWN", "UNIMPLEMENTED"),
    ]
    assert all(isinstance(call["ms"], float) and call["ms"] >= 0 for call in calls)
    assert calls[0]["request_id"] == "first-store"
    assert len({call["request_id"] for call in calls}) == len(calls)


def test_the_text_log_has_one_line_per_call(command_line):
    server = command_line.serve()
    store(server.address())
    assert server.stop() == 0
    (line,) = [line for line in server.log.splitlines() if "StoreMemory" in line]
    for field in ("method=/memoryd.v1.MemoryService/StoreMemory", "code=OK", "ms=", "request_id="):
        assert field in line


def test_a_level_of_error_keeps_calls_out_of_the_log(command_line):
    server = command_line.serve("--log-level", "ERROR")
    store(server.address())
    assert server.stop() == 0
    assert server.log == ""
