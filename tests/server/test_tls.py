"""TLS: who gets a connection, and what a renewed or damaged certificate does to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests import frames
from tests.authority import DAY, Authority, Folder, Issued

from memoryd.rpc import tls
from memoryd.rpc.aio_server import aio_server
from memoryd.rpc.core_server import MOST_FAULTS, CoreCall, CoreServer
from memoryd.rpc.endpoint import Endpoint
from memoryd.rpc.pipeline import Handler
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_SECONDS = 30.0
CALL_SECONDS = 3.0
NAME = "memoryd.test"
FRONTS = ("core", "aio")

on_each_front = pytest.mark.parametrize("front", FRONTS)


@pytest.fixture
def database_kind() -> str:
    """All of this lies before the database."""
    return "sqlite"


@pytest.fixture
def often(monkeypatch) -> None:
    """Have servers look at their files all the time."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)


@contextlib.asynccontextmanager
async def channel_to(
    address: str, roots: bytes, client: Issued | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with a connection of its own."""
    chain, key = (client.chain, client.key) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


async def store(channel: grpc.aio.Channel, content: str = "prefers e-mail") -> int:
    request = pb.StoreMemoryRequest(session_id="user-123", content=content)
    stored = MemoryServiceStub(channel).StoreMemory
    answer = await stored(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    return answer.memory.revision


async def refused(channel: grpc.aio.Channel) -> bool:
    """Whether a channel gets no connection."""
    try:
        await MemoryServiceStub(channel).GetMemory(pb.GetMemoryRequest(), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return False


async def served_serial(address: str) -> int:
    """The serial number of the certificate that a new connection gets."""
    host, _, port = address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=30)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serves(address: str, issued: Issued):
    """A condition: new connections get this certificate."""

    async def condition() -> bool:
        return await served_serial(address) == issued.serial

    return condition


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@on_each_front
async def test_calls_come_over_tls_alone(serve, authority, tls_folder, front):
    running = await serve(MEMORYD_GRPC_SERVER=front, **tls_folder.variables)
    async with channel_to(running.address, authority.pem) as channel:
        assert await store(channel) == 1
    assert await refused(running.channel)  # plaintext


async def test_a_server_of_an_unknown_ca_is_not_called(serve, tls_folder):
    running = await serve(**tls_folder.variables)
    async with channel_to(running.address, Authority("another CA").pem) as channel:
        assert await refused(channel)


@on_each_front
async def test_clients_show_a_certificate(serve, authority, closed_tls_folder, front):
    running = await serve(MEMORYD_GRPC_SERVER=front, **closed_tls_folder.variables)
    async with channel_to(running.address, authority.pem, authority.issue("agent")) as channel:
        assert await store(channel) == 1
    foreign = Authority("another CA").issue("agent")
    expired = authority.issue("agent", begins=-2 * DAY, ends=-DAY)
    for client in (None, foreign, expired):
        async with channel_to(running.address, authority.pem, client) as channel:
            assert await refused(channel)


@pytest.mark.usefixtures("often")
async def test_a_renewed_client_ca_is_taken_up(serve, authority, closed_tls_folder, eventually):
    running = await serve(**closed_tls_folder.variables)
    next_authority = Authority("the next CA")
    old, new = authority.issue("agent"), next_authority.issue("agent")
    closed_tls_folder.client_ca.write_bytes(next_authority.pem)

    async def is_known() -> bool:
        async with channel_to(running.address, authority.pem, new) as channel:
            return not await refused(channel)

    await eventually(is_known)
    async with channel_to(running.address, authority.pem, old) as channel:
        assert await refused(channel)


async def seen(front: str, folder: Folder, client: Issued, roots: bytes) -> dict[str, list[bytes]]:
    """What a handler is told of the connection of a client."""
    found: dict[str, list[bytes]] = {}

    async def serve(context) -> bytes:
        found.update({key: list(values) for key, values in context.auth_context().items()})
        return b""

    handlers = {b"/a.B/C": Handler(serve, answers_once=True)}

    def make_server():
        if front == "core":
            return CoreServer(handlers, handlers[b"/a.B/C"], ())
        return aio_server(handlers, handlers[b"/a.B/C"], (), apart="none")

    pair = grpc.ssl_server_certificate_configuration(
        [(folder.key.read_bytes(), folder.cert.read_bytes())], roots
    )
    endpoint = Endpoint(
        make_server,
        "127.0.0.1",
        lambda port: f"127.0.0.1:{port}",
        lambda: grpc.dynamic_ssl_server_credentials(pair, lambda: None, True),  # noqa: FBT003  client certificates
    )
    address = await endpoint.start(0)
    async with channel_to(address, roots, client) as channel:
        await channel.unary_unary("/a.B/C")(b"", timeout=TIMEOUT_SECONDS)
    await endpoint.stop(0)
    return found


@on_each_front
async def test_handlers_know_the_clients_certificate(authority, tls_folder, front):
    client = authority.issue("agent", uri="spiffe://test/agent")
    found = await seen(front, tls_folder, client, authority.pem)
    assert found["x509_subject_alternative_name"] == [
        b"agent",
        b"127.0.0.1",
        b"spiffe://test/agent",
    ]
    assert found["ssl_tls_version"] == [b"TLSv1.3"]


@pytest.mark.parametrize("front", FRONTS)
async def test_without_tls_there_is_nothing_to_know(front):
    found = []

    async def serve(context) -> bytes:
        found.append(context.auth_context().get("x509_pem_cert"))
        return b""

    handler = Handler(serve, answers_once=True)
    make = {
        "core": lambda: CoreServer({}, handler, ()),
        "aio": lambda: aio_server({}, handler, (), apart="none"),
    }[front]
    endpoint = Endpoint(make, "127.0.0.1", lambda port: f"127.0.0.1:{port}")
    address = await endpoint.start(0)
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary("/a.B/C")(b"", timeout=TIMEOUT_SECONDS)
    await endpoint.stop(0)
    assert found == [None]


# Renewal


def link(target: Path, name: Path) -> None:
    """Have a name mean another folder from one moment to the next, as Kubernetes does."""
    next_name = name.with_suffix(".next")
    next_name.symlink_to(target)
    os.replace(next_name, name)  # noqa: PTH105  pathlib's has the same name as str's


@pytest.mark.usefixtures("often")
@on_each_front
async def test_a_renewal_under_load_fails_no_call(serve, authority, tmp_path, eventually, front):
    certificates = [authority.issue() for _ in range(4)]
    for number, issued in enumerate(certificates):
        Folder(tmp_path / f"version-{number}", issued)
    data = tmp_path / "data"
    link(tmp_path / "version-0", data)
    running = await serve(
        MEMORYD_GRPC_SERVER=front,
        MEMORYD_TLS_CERT=str(data / "tls.crt"),
        MEMORYD_TLS_KEY=str(data / "tls.key"),
        MEMORY_MAX_ENTRIES="1000",
    )
    stopping = asyncio.Event()
    numbers = itertools.count()

    async def on_one_connection() -> None:
        async with channel_to(running.address, authority.pem) as channel:
            while not stopping.is_set():
                await store(channel, f"fact {next(numbers) % 500}")

    async def on_new_connections() -> None:
        while not stopping.is_set():
            async with channel_to(running.address, authority.pem) as channel:
                await store(channel, f"fact {next(numbers) % 500}")

    load = [asyncio.create_task(on_one_connection()) for _ in range(2)]
    load += [asyncio.create_task(on_new_connections()) for _ in range(2)]
    for number, issued in enumerate(certificates[1:], start=1):
        link(tmp_path / f"version-{number}", data)
        await eventually(serves(running.address, issued))
    stopping.set()
    await asyncio.gather(*load)  # raises what a call raised


def mismatch(folder: Folder, authority: Authority) -> None:
    folder.key.write_bytes(authority.issue().key)


def expired(folder: Folder, authority: Authority) -> None:
    folder.write(authority.issue(begins=-2 * DAY, ends=-DAY))


def not_yet_valid(folder: Folder, authority: Authority) -> None:
    folder.write(authority.issue(begins=DAY))


def garbage(folder: Folder, _: Authority) -> None:
    folder.cert.write_bytes(folder.cert.read_bytes()[:200])


def missing(folder: Folder, _: Authority) -> None:
    folder.key.unlink()


def exposed(folder: Folder, _: Authority) -> None:
    folder.key.chmod(0o644)


DAMAGES = {
    mismatch: "MEMORYD_TLS_KEY",
    expired: "MEMORYD_TLS_CERT",
    not_yet_valid: "MEMORYD_TLS_CERT",
    garbage: "MEMORYD_TLS_CERT",
    missing: "MEMORYD_TLS_KEY",
    exposed: "MEMORYD_TLS_KEY",
}
"""What may happen to the files, and the variable that the warning names."""


class Warnings:
    """What a server has warned of its certificate."""

    def __init__(self, caplog: pytest.LogCaptureFixture, eventually) -> None:
        self._caplog = caplog
        self._eventually = eventually

    def __call__(self) -> list[str]:
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.name == "memoryd.rpc.tls" and record.levelno == logging.WARNING
        ]

    async def reach(self, count: int) -> None:
        async def is_reached() -> bool:
            return len(self()) >= count

        await self._eventually(is_reached)


@pytest.fixture
def warnings(caplog, eventually) -> Warnings:
    return Warnings(caplog, eventually)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_bad_pair_is_one_warning(serve, tls_folder, eventually, damage, warnings):
    running = await serve(**tls_folder.variables)
    first = await served_serial(running.address)
    authority = Authority()
    damage(tls_folder, authority)
    await warnings.reach(1)
    assert await served_serial(running.address) == first
    (warning,) = warnings()
    assert warning.startswith(f"serving the certificate loaded before: {DAMAGES[damage]}: ")
    # A pair that is good again is taken up, and what is bad after that is warned of again.
    renewed = authority.issue()
    tls_folder.key.unlink(missing_ok=True)
    tls_folder.key.touch(0o600)
    tls_folder.write(renewed)
    await eventually(serves(running.address, renewed))
    assert len(warnings()) == 1
    damage(tls_folder, authority)
    await warnings.reach(2)


# Start


@pytest.mark.parametrize("command", [("serve",), ("config", "check")])
@pytest.mark.parametrize("damage", [mismatch, exposed])
def test_a_bad_pair_stops_the_start(command_line, authority, tls_folder, command, damage):
    damage(tls_folder, authority)
    done = command_line.run(*command, MEMORYD_PORT="0", **tls_folder.variables)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"memoryd: MEMORYD_TLS_KEY: {tls_folder.key} ")
    assert not list(command_line.folder.glob("*.db"))


def test_the_ready_line_has_the_flags_of_tls(command_line, closed_tls_folder):
    server = command_line.serve(**closed_tls_folder.variables)
    server.address()
    assert "grpcurl -cacert CA.pem -cert CLIENT.pem -key CLIENT.key -d" in server.output


@pytest.fixture
def faulty_calls(monkeypatch):
    """Have the server fail where a call with the header `x-faulty` begins."""
    begin = CoreCall.__init__

    def fail(self, loop, event):
        if ("x-faulty", "yes") in {tuple(pair) for pair in event.invocation_metadata}:
            raise OSError("a fault")
        begin(self, loop, event)

    monkeypatch.setattr(CoreCall, "__init__", fail)


@pytest.mark.usefixtures("faulty_calls")
async def test_a_replacement_has_tls_too(serve, authority, tls_folder, caplog, eventually):
    running = await serve(MEMORYD_GRPC_SERVER="core", **tls_folder.variables)
    async with channel_to(running.address, authority.pem) as channel:
        for _ in range(MOST_FAULTS):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await MemoryServiceStub(channel).GetMemory(
                    pb.GetMemoryRequest(), metadata=(("x-faulty", "yes"),)
                )

    async def is_replaced() -> bool:
        return any("another listens in its place" in record.message for record in caplog.records)

    await eventually(is_replaced)
    async with channel_to(running.address, authority.pem) as channel:
        assert await store(channel) == 1


# The least version


def context_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    return context


def shakes_hands(address: str, version: ssl.TLSVersion) -> bool:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as raw:
        try:
            with context_of(version).wrap_socket(raw, server_hostname=NAME):
                return True
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.mark.parametrize(("least", "takes_1_2"), [("1.2", True), ("1.3", False)])
def test_the_least_version_of_tls(command_line, tls_folder, least, takes_1_2):
    server = command_line.serve(MEMORYD_TLS_MIN=least, **tls_folder.variables)
    address = server.address()
    assert shakes_hands(address, ssl.TLSVersion.TLSv1_2) is takes_1_2
    assert shakes_hands(address, ssl.TLSVersion.TLSv1_3)


async def status_over(address: str, version: ssl.TLSVersion) -> int | None:
    """The status of a call without a message."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context_of(version), server_hostname=NAME
    )
    connection = frames.Connection(reader, writer, answers=True)
    reading = asyncio.create_task(connection.read())
    headers = frames.call_headers(b"/memoryd.v1.MemoryService/GetMemory", scheme=b"https")
    ends = frames.Flag.END_HEADERS | frames.Flag.END_STREAM
    await connection.send(frames.PREFACE, frames.settings(), frames.opened(1, headers, ends))
    outcome = await connection.outcome(1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    writer.transport.abort()
    return outcome.grpc_status


@on_each_front
async def test_a_call_over_an_earlier_version_is_refused(serve, tls_folder, front):
    """In a process where gRPC was loaded before, it takes the handshake of TLS 1.2."""
    running = await serve(MEMORYD_GRPC_SERVER=front, MEMORYD_TLS_MIN="1.3", **tls_folder.variables)
    status = await status_over(running.address, ssl.TLSVersion.TLSv1_2)
    assert status == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert await status_over(running.address, ssl.TLSVersion.TLSv1_3) != status


# Health


@on_each_front
async def test_the_port_for_probes_answers_health_alone(serve, closed_tls_folder, front):
    port = free_port()
    await serve(
        MEMORYD_GRPC_SERVER=front, MEMORYD_HEALTH_PORT=str(port), **closed_tls_folder.variables
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for path in ("/memoryd.v1.MemoryService/GetMemory", "/grpc.reflection.v1alpha", "/x"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path)(b"", timeout=TIMEOUT_SECONDS)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "answers grpc.health.v1 alone" in caught.value.details()


async def test_a_port_for_probes_that_is_taken_stops_the_start(command_line, tls_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await asyncio.to_thread(
            command_line.run,
            *("serve", "--port", "0"),
            MEMORYD_HEALTH_PORT=str(port),
            **tls_folder.variables,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def test_the_health_command_asks_over_tls(command_line, tls_folder):
    server = command_line.serve(**tls_folder.variables)
    variables = {**tls_folder.variables, "MEMORYD_PORT": port_of(server.address())}
    done = command_line.run("health", **variables)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    # What the server does not serve, the command does not trust.
    tls_folder.write(Authority("another CA").issue())
    done = command_line.run("health", **variables)
    assert done.returncode == 1
    assert "MEMORYD_HEALTH_PORT" in done.stderr
    tls_folder.cert.write_bytes(b"")
    done = command_line.run("health", **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"memoryd: MEMORYD_TLS_CERT: {tls_folder.cert} ")


def test_the_health_command_has_no_certificate(command_line, closed_tls_folder):
    port = str(free_port())
    variables = {**closed_tls_folder.variables, "MEMORYD_HEALTH_PORT": port}
    server = command_line.serve(**variables)
    main_port = port_of(server.address())
    done = command_line.run("health", MEMORYD_PORT=main_port, **closed_tls_folder.variables)
    assert done.returncode == 1
    assert "MEMORYD_TLS_CLIENT_CA" in done.stderr
    assert "set MEMORYD_HEALTH_PORT" in done.stderr
    done = command_line.run("health", MEMORYD_PORT=main_port, **variables)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_workers_share_both_ports(command_line, database_url, closed_tls_folder, authority):
    port = str(free_port())
    variables = {
        **closed_tls_folder.variables,
        "MEMORYD_DATABASE_URL": database_url,
        "MEMORYD_HEALTH_PORT": port,
    }
    server = command_line.serve("--workers", "2", **variables)
    address = server.address()

    async def call_each() -> list[int]:
        client = authority.issue("agent")
        revisions = []
        for number in range(8):
            async with channel_to(address, authority.pem, client) as channel:
                revisions.append(await store(channel, f"fact {number}"))
        return revisions

    assert asyncio.run(call_each()) == list(range(1, 9))
    done = command_line.run("health", **variables)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_workers_are_not_started_with_a_bad_pair(command_line, database_url, tls_folder, authority):
    mismatch(tls_folder, authority)
    done = command_line.run(
        *("serve", "--workers", "2", "--port", "0"),
        MEMORYD_DATABASE_URL=database_url,
        **tls_folder.variables,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("memoryd: MEMORYD_TLS_KEY: ")
