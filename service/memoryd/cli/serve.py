"""`memoryd serve`: as one process, or as several workers that share a port."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
from contextlib import ExitStack
from logging import getLogger
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from memoryd.cli.running import check_certificate, configuration, logging, run, secrets
from memoryd.console.once import code_of, path_of
from memoryd.domain.principals import AuthMode
from memoryd.settings.field_types import HTTP_OFF, ConsoleMode
from memoryd.settings.service import NO_HTTP, PROBE_HOST, Environment, TlsVersion
from memoryd.telemetry.gauges import Place
from memoryd.telemetry.tracing import tracing_of
from memoryd.tools.checks import require_secrets
from memoryd.workers import READY, Workers, reserved_port

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from multiprocessing.process import BaseProcess

    from memoryd.server import Server
    from memoryd.settings.service import Settings
    from memoryd.tools.settings import ToolConfig

STOP_MARGIN_SECONDS = 15.0
"""How long a worker may take to end after its calls have drained."""

_log = getLogger(__name__)

NO_TLS_1_2 = "ECDHE-PSK-AES128-CBC-SHA"
"""The list of ciphers by which gRPC refuses the handshake of TLS 1.2: its only one needs a key that
both sides share, and the server has none. Those of TLS 1.3 are not in this list."""

SWITCH_INTERVAL_SECONDS = 0.0002
"""After how long a thread that waits for the interpreter takes it from another. SQLite's threads
and the event loop wait for each other all the time, and Python's 5 ms exceed most transactions."""


def serve(*, migrate_first: bool, **flags: object) -> None:
    """Serve until SIGTERM, with flags by the names of settings; None is a flag not given."""
    settings, tools = configuration(**flags)
    _set_library_variables(settings)
    check_certificate(settings)  # before a file is made, and once for all workers
    migrating = _begin_migration(settings) if migrate_first or settings.has_new_file() else None
    with logging(settings):
        if settings.workers > 1:
            run(_serve_with_workers(settings, migrating))
        else:
            run(_serve(settings, tools, migrating))


def work(number: int, folder: Path) -> None:
    """Serve as one of several workers, until SIGTERM or the end of standard input.

    They meet in a folder.
    """
    settings, tools = configuration()
    _set_library_variables(settings)
    with logging(settings):
        run(_serve(settings, tools, worker=Place(folder, str(number))))


def _set_library_variables(settings: Settings) -> None:
    """Set the variables that libraries read while they load."""
    # gRPC's core does not write to our log; the code here reports what matters in its own words. At
    # a higher verbosity the core would show headers and messages.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ.pop("GRPC_TRACE", None)
    # For numpy. Its products here are small: spread over all cores, each costs many times what it
    # costs on one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if settings.tls_min is TlsVersion.TLS_1_3:
        os.environ["GRPC_SSL_CIPHER_SUITES"] = NO_TLS_1_2


async def _serve(
    settings: Settings,
    tools: Mapping[str, ToolConfig],
    migrating: BaseProcess | None = None,
    *,
    worker: Place | None = None,
) -> None:
    from memoryd.server import Server  # the parent of workers does without

    stopping = _stop_event(parent_has=worker.folder if worker is not None else None)
    providers = secrets()
    if settings.environment is Environment.PRODUCTION:
        await require_secrets(tools, providers)
    if migrating is not None:
        await _end_migration(migrating)
    tracing = tracing_of(os.environ)
    server = Server(settings, tools, providers, worker=worker, tracing=tracing)
    async with server.database.claimed():
        try:
            address = await server.start()
            # What is loaded by now stays, so the garbage collector need not search it during calls.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
            announced_by = None if worker is not None else settings
            announcing = asyncio.create_task(_announce(server, address, announced_by))
            await _first_of(server.failed(), stopping.wait())
            announcing.cancel()
        finally:
            await server.stop()


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them ends, cancel the others, and raise what the first one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()


async def _announce(server: Server, address: str, settings: Settings | None) -> None:
    """Print that the service is ready, once it is; without settings, to the parent of workers."""
    await server.health.is_serving.wait()
    if settings is None:
        print(READY, flush=True)
    else:
        _print_ready(address, server.http_address, server.console_path, settings)


def _print_ready(
    address: str, http_address: str | None, console_path: str, settings: Settings
) -> None:
    print(f"memoryd ready on {address}")
    if http_address is not None:
        scheme = "https" if settings.tls_cert else "http"
        print(f"memoryd http on {scheme}://{http_address}")
        if settings.console_mode is not ConsoleMode.OFF:
            print(f"memoryd console on {scheme}://{http_address}{console_path}")
    example = _by_grpcurl if shutil.which("grpcurl") else _by_own_command
    print(f"try: {example(address, settings)}", flush=True)


def _by_grpcurl(address: str, settings: Settings) -> str:
    credential = ""
    if settings.auth is AuthMode.REQUIRED:
        credential = ' -H "authorization: Bearer $KEY"'
    request = '{"session_id": "user-123", "content": "prefers e-mail"}'
    method = "memoryd.v1.MemoryService/StoreMemory"
    transport = "-plaintext"
    if settings.tls_cert:
        transport = "-cacert CA.pem"
        if settings.tls_client_ca:
            transport += " -cert CLIENT.pem -key CLIENT.key"
    return f"grpcurl {transport}{credential} -d '{request}' {address} {method}"


def _by_own_command(address: str, settings: Settings) -> str:
    credential = 'MEMORYD_API_KEY="$KEY" ' if settings.auth is AuthMode.REQUIRED else ""
    tls = " --ca CA.pem" if settings.tls_cert else ""
    if settings.tls_client_ca:
        tls += " --client-cert CLIENT.pem --client-key CLIENT.key"
    return f"{credential}{_own_name()} store user-123 'prefers e-mail' --target {address}{tls}"


def _own_name() -> str:
    """What this command is called by in a shell, wherever that is."""
    script = Path(sys.argv[0])
    if script.name != "memoryd":
        return f"{shlex.quote(sys.executable)} -m memoryd"
    found = shutil.which(script.name)
    is_found = found is not None and Path(found).resolve() == script.resolve()
    return script.name if is_found else shlex.quote(str(script))


async def _serve_with_workers(settings: Settings, migrating: BaseProcess | None) -> None:
    stopping = _stop_event()
    if migrating is not None:
        await _end_migration(migrating)
    with ExitStack() as reserved:
        folder = reserved.enter_context(_meeting_place())
        port = reserved.enter_context(reserved_port(settings.host, settings.port))
        if settings.health_port:
            reserved.enter_context(reserved_port(PROBE_HOST, settings.health_port))
        address = settings.address(port)
        http_port = settings.port_for_http(port)
        if http_port is not None:
            try:
                http_port = reserved.enter_context(reserved_port(settings.host, http_port))
            except OSError as error:
                if settings.http_port:
                    raise
                http_port = None
                _log.warning(NO_HTTP, error, settings.variable("http_port"))
        http_address = None if http_port is None else settings.address(http_port)
        secret = settings.console_secret.get_secret_value() or token_urlsafe(32)
        is_open = settings.auth is not AuthMode.REQUIRED
        console_path = path_of(code_of(secret, Path(folder))) if is_open else "/"
        workers = Workers(
            lambda number: _command("worker", str(number), "--folder", folder),
            _environment_of_worker(settings, port, http_port, secret),
            settings.workers,
            stop_timeout_seconds=settings.drain_seconds + STOP_MARGIN_SECONDS,
            ready=lambda: _print_ready(address, http_address, console_path, settings),
        )
        await workers.run(stopping)


def _meeting_place() -> TemporaryDirectory[str]:
    """A folder where workers keep what they count, and ask each other. Raises OSError."""
    try:
        # Its files are removed by who made them; a name of a socket has about 100 characters.
        return TemporaryDirectory(prefix="memoryd-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OSError(
            f"the workers' metrics need a temporary folder: {error.strerror}; set TMPDIR to a"
            " folder that can be written to"
        ) from error


def _stop_event(*, parent_has: Path | None = None) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, and for a worker the end of standard input.

    Then its parent is gone, and can no longer remove the folder that it has for its workers.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def input_ended() -> None:
        loop.remove_reader(sys.stdin)
        stopping.set()
        if parent_has is not None:
            shutil.rmtree(parent_has, ignore_errors=True)

    if parent_has is not None:
        loop.add_reader(sys.stdin, input_ended)
    return stopping


def _command(*arguments: str) -> list[str]:
    """A command of this program, run by the same interpreter in the same way."""
    own = len(sys.orig_argv) - len(sys.argv[1:])
    return [sys.executable, *sys.orig_argv[1:own], *arguments]


def _environment_of_worker(
    settings: Settings, port: int, http_port: int | None, console_secret: str
) -> dict[str, str]:
    """The environment that gives another process these settings, also those given by flags."""
    values = {
        "database_url": settings.database_url.get_secret_value(),
        "host": settings.host,
        "port": port,
        "http_port": HTTP_OFF if http_port is None else http_port,
        "console_secret": console_secret,
        "log_level": settings.log_level,
        "log_format": settings.log_format,
    }
    return os.environ | {settings.variable(name): str(value) for name, value in values.items()}


def _begin_migration(settings: Settings) -> BaseProcess | None:
    """Migrate in another process, since what the migration loads would stay in a server's memory.

    To call before there are threads and before gRPC is loaded: neither survives a fork.
    """
    from memoryd.cli.data import migrate_database  # also loads the engine, once for both processes

    if sys.platform != "linux":  # elsewhere a fork breaks more than that
        migrate_database(settings)
        return None
    process = multiprocessing.get_context("fork").Process(target=migrate_database, args=(settings,))
    process.start()
    return process


async def _end_migration(process: BaseProcess) -> None:
    await asyncio.to_thread(process.join)
    if process.exitcode != 0:
        raise SystemExit(1)  # the process has printed why
