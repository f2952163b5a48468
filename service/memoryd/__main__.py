"""The command line: serve, migrate, health, config, sweep, reindex, backup, export, import."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` looks for modules in the working folder first. A file there that is named as one
    # that this program imports is not to run in its place.
    sys.path.pop(0)

import asyncio
import gc
import io
import json
import multiprocessing
import os
import signal
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from memoryd.domain.errors import MemorydError
from memoryd.rpc.endpoint import EndpointFailed
from memoryd.settings.service import SettingsError
from memoryd.tools.settings import load_configuration
from memoryd.workers import READY, Workers, WorkersFailed, reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping
    from contextlib import AbstractContextManager
    from multiprocessing.process import BaseProcess

    from pydantic import SecretStr

    from memoryd.database.engine import Database
    from memoryd.server import Server
    from memoryd.settings.service import Settings
    from memoryd.tools.configs import ToolConfigs
    from memoryd.tools.secrets import Secrets
    from memoryd.tools.settings import ToolConfig

HEALTH_TIMEOUT_SECONDS = 3.0

ENDED_BY_SIGNAL = 128
"""Added to a signal's number, the exit code of what it ended, as shells have it."""

FAREWELL_SECONDS = 15.0
"""What a worker may take beside its calls' drain to end."""

TURN_SECONDS = 0.0002
"""After which a thread that needs the interpreter takes it from another: SQLite's and the event
loop do so all the time, and Python's 5 ms are longer than most transactions."""
LONG_SECONDS = 7 * 86_400.0
"""What a transaction of a command may take, which no caller waits for."""

app = typer.Typer(
    help="memoryd: the memory and tool configuration of conversational agents, over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

config_app = typer.Typer(
    help="The configuration: environment, defaults, and the database's overrides if it answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(config_app, name="config")

DatabaseUrl = Annotated[str | None, typer.Option(help="MEMORYD_DATABASE_URL")]
Host = Annotated[str | None, typer.Option(help="MEMORYD_HOST")]
Port = Annotated[int | None, typer.Option(help="MEMORYD_PORT; 0 is any free one")]


@app.command()
def serve(  # noqa: PLR0917  typer takes them by name
    database_url: DatabaseUrl = None,
    host: Host = None,
    port: Port = None,
    log_level: Annotated[str | None, typer.Option(help="MEMORYD_LOG_LEVEL")] = None,
    log_format: Annotated[str | None, typer.Option(help="MEMORYD_LOG_FORMAT")] = None,
    workers: Annotated[int | None, typer.Option(help="MEMORYD_WORKERS; on PostgreSQL")] = None,
    migrate: Annotated[bool, typer.Option("--migrate", help="Migrate PostgreSQL first.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Serve until SIGTERM. Flags beat variables, variables beat .env."""
    settings, tools = _configuration(
        database_url=database_url,
        host=host,
        port=port,
        log_level=log_level,
        log_format=log_format,
        workers=workers,
    )
    _set_libraries_up()
    migrating = _begin_migration(settings) if migrate or settings.has_new_file() else None
    with _logging(settings):
        if settings.workers > 1:
            _run(_serve_by_workers(settings, migrating))
        else:
            _run(_serve(settings, tools, migrating))


@app.command(hidden=True)
def worker() -> None:
    """Serve as one of several processes; `serve` starts these, and standard input ties them."""
    settings, tools = _configuration()
    _set_libraries_up()
    with _logging(settings):
        _run(_serve(settings, tools, is_worker=True))


def _set_libraries_up() -> None:
    """Set the variables that libraries read as they are loaded."""
    # gRPC's core writes past the log; what it has to say, its callers here say in their words. Told
    # to say more, it would show headers and messages.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ.pop("GRPC_TRACE", None)
    # Read as numpy is loaded. Its products here are small: spread over all cores, each costs many
    # times what it takes one of them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@app.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Bring the database's schema to this release's."""
    settings, _ = _configuration(database_url=database_url)
    from memoryd.database.migrate import HEAD  # noqa: PLC0415  only what a command needs is loaded

    with _logging(settings):
        _run(_migrate(settings.database_url.get_secret_value()))
    print(f"schema at {HEAD}")


@app.command()
def sweep(
    database_url: DatabaseUrl = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing is left.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Remove what has had its time.

    What expired, what nobody uses, what was deleted long ago. Servers do this by themselves; one
    process at a time.
    """
    settings, tools = _configuration(database_url=database_url)
    with _logging(settings):
        _run(_sweep(settings, tools, once=once))


@app.command()
def reindex(database_url: DatabaseUrl = None) -> None:
    """Make the vectors that are missing, or were made by another embedder.

    Servers make those of a session when it is next searched; this makes all, and they may run on.
    """
    settings, _ = _configuration(database_url=database_url)
    with _logging(settings):
        _run(_reindex(settings))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The copy; it must not exist yet.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Copy an SQLite database as of one moment, while servers run on.

    To restore it, put it in the database's place while no server runs.
    """
    settings, _ = _configuration(database_url=database_url)
    with _logging(settings):
        _run(_backup(settings, file))


@app.command(name="export")
def export_(
    file: Annotated[Path, typer.Argument(help="JSON Lines; it must not exist yet.")],
    database_url: DatabaseUrl = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted memories too.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Write the whole database to a file, as of one moment."""
    settings, _ = _configuration(database_url=database_url)
    with _logging(settings):
        _run(_export(settings, file, with_deleted=deleted))


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `memoryd export` wrote.", exists=True)],
    database_url: DatabaseUrl = None,
) -> None:
    """Insert what a file has and the database has not."""
    settings, _ = _configuration(database_url=database_url)
    with _logging(settings):
        _run(_import(settings, file))


@app.command()
def health(host: Host = None, port: Port = None) -> None:
    """Ask a server for its health; exit 0 if it serves."""
    settings, _ = _configuration(host=host, port=port)
    import grpc  # noqa: PLC0415  only what a command needs is loaded
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415  as above

    # Where the server listens on every address, it is here too.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    address = (
        f"[{reachable}]:{settings.port}" if ":" in reachable else f"{reachable}:{settings.port}"
    )
    # Never by way of a proxy: the server is this machine's, or a neighbour's.
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # its types leave the methods out
            answer = check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            _fail(f"no answer from {address}: {error.code().name}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(1)


@config_app.command()
def show(database_url: DatabaseUrl = None) -> None:
    """Print every setting, its value, and where that comes from; of secrets only their place."""
    settings, tools = _configuration(database_url=database_url)
    flags = {"database_url"} if database_url is not None else set()
    values = settings.model_dump(mode="json")
    values["database_url"] = _place(settings.database_url)
    values["database_read_url"] = _place(settings.database_read_url)
    for name, value in values.items():
        given = "environment" if name in settings.model_fields_set else "default"
        origin = "command line" if name in flags else given
        print(f"{settings.variable(name)} = {json.dumps(value, ensure_ascii=False)}  # {origin}")
    _run(_show(settings, tools))


@config_app.command()
def check(database_url: DatabaseUrl = None) -> None:
    """Exit 0 if a server would start with these settings; print what is doubtful about them."""
    settings, tools = _configuration(database_url=database_url)
    _run(_check(settings, tools))


def _logging(settings: Settings) -> AbstractContextManager[None]:
    from memoryd.logs import logging_to  # noqa: PLC0415  only what a command needs is loaded

    return logging_to(level=settings.log_level, as_json=settings.log_format == "json")


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    """The database, for work that may take its time; it is there, and its schema fits."""
    from memoryd.database.engine import Database  # noqa: PLC0415  only what a command needs is loaded
    from memoryd.database.options import DatabaseOptions  # noqa: PLC0415  only what a command needs is loaded

    options = DatabaseOptions(
        timeout_seconds=LONG_SECONDS,
        statement_timeout_seconds=LONG_SECONDS,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        pgbouncer=settings.database_pgbouncer,
        must_exist=True,
    )
    database = Database(settings.database_url.get_secret_value(), options)
    try:
        await database.try_out()
        await database.check()
        yield database
    finally:
        await database.close()


async def _sweep(settings: Settings, base: Mapping[str, ToolConfig], *, once: bool) -> None:
    from memoryd.server import sweeper_of, tool_configs_of  # noqa: PLC0415  only what a command needs is loaded

    async with (
        _database(settings) as database,
        aclosing(tool_configs_of(database, settings, base)) as tools,
    ):
        await tools.start()
        sweeper = sweeper_of(database, settings, tools)
        if once:
            print(await sweeper.run_once())
            return
        sweeping = asyncio.create_task(sweeper.run(settings.sweep_seconds))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, sweeping.cancel)
        await asyncio.gather(sweeping, return_exceptions=True)


@asynccontextmanager
async def _tool_configs(
    settings: Settings, base: Mapping[str, ToolConfig]
) -> AsyncIterator[ToolConfigs]:
    """The tools' configuration, with the database's overrides if it answers."""
    from memoryd.database.engine import Database  # noqa: PLC0415  as above
    from memoryd.database.options import DatabaseOptions  # noqa: PLC0415  as above
    from memoryd.server import tool_configs_of  # noqa: PLC0415  only what a command needs is loaded

    options = DatabaseOptions(pgbouncer=settings.database_pgbouncer, must_exist=True)
    database = Database(settings.database_url.get_secret_value(), options)
    try:
        tools = tool_configs_of(database, settings, base)
        # Of a file that is yet to be made there is nothing to complain about.
        if not await asyncio.to_thread(settings.has_new_file):
            await tools.refresh()
        yield tools
    finally:
        await database.close()


async def _show(settings: Settings, base: Mapping[str, ToolConfig]) -> None:
    from memoryd.tools.settings import shown_values  # noqa: PLC0415  only what a command needs is loaded

    async with _tool_configs(settings, base) as tools:
        print(f"# overrides: {_overrides(tools)}")
        for config in tools.now.configs.values():
            for path, value in shown_values(config).items():
                origin = config.provenance[path].name.lower()
                name = f"{config.tool}.{path}" if path == "enabled" else path
                print(f"{name} = {json.dumps(value, ensure_ascii=False)}  # {origin}")


async def _check(settings: Settings, base: Mapping[str, ToolConfig]) -> None:
    from memoryd.settings.service import Environment, refers_to  # noqa: PLC0415  only what a command needs is loaded
    from memoryd.tools.settings import check, require_secrets  # noqa: PLC0415  as above

    secrets = _secrets()
    if settings.environment is Environment.PRODUCTION:
        await require_secrets(base, secrets)
    async with _tool_configs(settings, base) as tools:
        warnings = [
            warning
            for config in tools.now.configs.values()
            for warning in await check(config, secrets)
        ]
        print(f"overrides: {_overrides(tools)}")
    told = [f"{warning.path}: {warning.description}" for warning in warnings]
    told += [f".env: {name} {'; '.join(refers_to(u))}" for name, u in _unset_references().items()]
    for line in told:
        print(f"warning: {line}")
    print(f"no problems; warnings: {len(told)}")


def _overrides(tools: ToolConfigs) -> str:
    """What is known of the overrides."""
    if tools.stale_since is not None:
        return f"not known: {tools.problem or 'there is no database yet'}"
    return f"at revision {tools.now.revision}"


def _place(secret: SecretStr) -> str:
    """A database's URL without what may be secret in it; empty where that is."""
    from memoryd.database.urls import shown  # noqa: PLC0415  only what a command needs is loaded

    url = secret.get_secret_value()
    return shown(url) if url else ""


def _secrets() -> Secrets:
    from memoryd.settings.service import merge_variables, refers_to  # noqa: PLC0415  as above
    from memoryd.tools.secrets import Secrets  # noqa: PLC0415  only what a command needs is loaded

    return Secrets.built_in(
        merge_variables(environ=os.environ, dotenv=Path(".env")),
        without_value={name: refers_to(names) for name, names in _unset_references().items()},
    )


def _unset_references() -> dict[str, tuple[str, ...]]:
    from memoryd.settings.service import unset_references  # noqa: PLC0415  only what a command needs is loaded

    return unset_references(environ=os.environ, dotenv=Path(".env"))


async def _reindex(settings: Settings) -> None:
    from memoryd.progress import progress  # noqa: PLC0415  only what a command needs is loaded
    from memoryd.retrieval.embedding_worker import EmbeddingWorker  # noqa: PLC0415  as above
    from memoryd.server import embedder_of  # noqa: PLC0415  as above

    async with _database(settings) as database:
        embedder = embedder_of(settings)
        if embedder is None:
            raise ValueError("MEMORYD_EMBEDDER is none, so there are no vectors to be made")
        async with aclosing(EmbeddingWorker(database, embedder)) as maker:
            with progress("embedding", await maker.lacking()) as advance:
                count = await maker.reindex(advance)
    print(f"made {count:,} vectors with {maker.embedder.name}")


async def _backup(settings: Settings, file: Path) -> None:
    from memoryd.database.backup import back_up  # noqa: PLC0415  only what a command needs is loaded

    size = await back_up(settings.database_url.get_secret_value(), file)
    print(f"backed up {size:,} bytes to {file}")


async def _export(settings: Settings, file: Path, *, with_deleted: bool) -> None:
    from memoryd.database.new_file import new_file  # noqa: PLC0415  only what a command needs is loaded
    from memoryd.database.transfer import export_to  # noqa: PLC0415  as above

    async with _database(settings) as database:
        with new_file(file) as out:
            count = await export_to(database, out, with_deleted=with_deleted)
    print(f"exported {count:,} rows to {file}")


async def _import(settings: Settings, file: Path) -> None:
    from memoryd.database.transfer import import_from  # noqa: PLC0415  only what a command needs is loaded

    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    async with _database(settings) as database:
        with file.open("rb") as lines:
            new, known = await import_from(database, lines, total=total)
    print(f"imported {new:,} rows; {known:,} were there already")


async def _serve(
    settings: Settings,
    tools: Mapping[str, ToolConfig],
    migrating: BaseProcess | None = None,
    *,
    is_worker: bool = False,
) -> None:
    from memoryd.server import Server  # noqa: PLC0415  only what a command needs is loaded
    from memoryd.settings.service import Environment  # noqa: PLC0415  as above
    from memoryd.tools.settings import require_secrets  # noqa: PLC0415  as above

    stopping = _told_to_stop(or_by_input=is_worker)
    secrets = _secrets()
    if settings.environment is Environment.PRODUCTION:
        await require_secrets(tools, secrets)
    if migrating is not None:
        await _end_migration(migrating)
    server = Server(settings, tools, secrets, shares_port=is_worker)
    async with server.database.claimed():
        try:
            address = await server.start()
            # What is loaded by now stays: no call need wait while garbage is looked for in it.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(TURN_SECONDS)
            announcing = asyncio.create_task(_announce(server, address, to_parent=is_worker))
            await _first_of(server.failed(), stopping.wait())
            announcing.cancel()
        finally:
            await server.stop()


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them ends, and give the others up. Raises what that one does."""
    tasks = [asyncio.create_task(work) for work in works]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()


async def _serve_by_workers(settings: Settings, migrating: BaseProcess | None) -> None:
    stopping = _told_to_stop()
    if migrating is not None:
        await _end_migration(migrating)
    with reserved_port(settings.host, settings.port) as port:
        address = settings.address(port)
        workers = Workers(
            _command("worker"),
            _variables(settings, port=port),
            settings.workers,
            patience_seconds=settings.drain_seconds + FAREWELL_SECONDS,
            ready=lambda: _print_ready(address),
        )
        await workers.run(stopping)


def _told_to_stop(*, or_by_input: bool = False) -> asyncio.Event:
    """Set once a signal, or the end of standard input, tells this process to stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def ended() -> None:
        loop.remove_reader(sys.stdin)
        stopping.set()

    if or_by_input:
        loop.add_reader(sys.stdin, ended)
    return stopping


def _command(name: str) -> list[str]:
    """A command of this program, run by the same interpreter in the same way."""
    own = len(sys.orig_argv) - len(sys.argv[1:])
    return [sys.executable, *sys.orig_argv[1:own], name]


def _variables(settings: Settings, **others: object) -> dict[str, str]:
    """The environment for another process with these settings, flags included."""
    names = ("database_url", "host", "log_level", "log_format")
    values = {name: getattr(settings, name) for name in names} | others
    values["database_url"] = settings.database_url.get_secret_value()
    return os.environ | {settings.variable(name): str(value) for name, value in values.items()}


def _begin_migration(settings: Settings) -> BaseProcess | None:
    """Migrate in a process of its own: what that loads would stay with a server for good.

    To be called before there are threads, and gRPC, which no fork survives.
    """
    if sys.platform != "linux":  # elsewhere a fork breaks more than that
        return _migrate_with_log(settings)
    import memoryd.database.engine  # noqa: F401, PLC0415  once for both

    process = multiprocessing.get_context("fork").Process(
        target=_migrate_with_log, args=(settings,)
    )
    process.start()
    return process


def _migrate_with_log(settings: Settings) -> None:
    with _logging(settings):
        _run(_migrate(settings.database_url.get_secret_value()))


async def _end_migration(process: BaseProcess) -> None:
    await asyncio.to_thread(process.join)
    if process.exitcode != 0:
        raise SystemExit(1)  # it has said why


async def _migrate(database_url: str) -> None:
    from memoryd.database.engine import Database  # noqa: PLC0415  only what a command needs is loaded

    database = Database(database_url)
    try:
        await database.migrate()
    finally:
        await database.close()


async def _announce(server: Server, address: str, *, to_parent: bool) -> None:
    """Say that the service is ready, once it is."""
    await server.health.is_serving.wait()
    if to_parent:
        print(READY, flush=True)
    else:
        _print_ready(address)


def _print_ready(address: str) -> None:
    print(f"memoryd ready on {address}")
    request = '{"session_id": "user-123", "content": "prefers e-mail"}'
    method = "memoryd.v1.MemoryService/StoreMemory"
    print(f"try: grpcurl -plaintext -d '{request}' {address} {method}", flush=True)


def _configuration(**flags: object) -> tuple[Settings, Mapping[str, ToolConfig]]:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return load_configuration(environ=os.environ, dotenv=Path(".env"), flags=given)
    except SettingsError as error:
        _fail(str(error))


def _run(work: Coroutine[Any, Any, None]) -> None:
    loop_factory = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415  there is none for Windows

        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_until_told_to_end(work))
    except asyncio.CancelledError:
        print("memoryd: ended by SIGTERM before it was done", file=sys.stderr)
        raise SystemExit(ENDED_BY_SIGNAL + signal.SIGTERM) from None
    except MemorydError as error:
        _fail(error.for_operator)
    except (SettingsError, WorkersFailed, EndpointFailed, OSError, ValueError) as error:
        _fail(str(error))


async def _until_told_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Have SIGTERM cancel the work, as SIGINT does, so that it leaves nothing half done behind."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work


def _fail(message: str) -> NoReturn:
    print(f"memoryd: {message}", file=sys.stderr)
    raise SystemExit(1)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a console lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="memoryd")  # also as `python -m memoryd`


if __name__ == "__main__":
    main()
