"""Two real servers on one database, driven from outside, with a watcher on every session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from tests.patience import PATIENT

from memoryd.access.api_key import new_key
from memoryd.memories import sweeper
from memoryd.server import Server
from memoryd.tools.secrets import Secrets
from memoryd.tools.settings import load_configuration
from memoryd.v1 import access_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.access_pb2_grpc import AccessServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub

from .model import Event, Limits, Refusal, Row, Session
from .sessions import SessionModel

TIMEOUT_SECONDS = 60.0
"""After this many seconds an event counts as missing."""

VARIABLES = {**PATIENT, "MEMORYD_PORT": "0", "MEMORY_MAX_ENTRIES": "10"}
LIMITS = Limits(
    max_entries=10,
    default_ttl=timedelta(hours=24),
    cleanup=timedelta(days=30),
    importance_threshold=0.3,
    half_life_days=30.0,
    deleted_retention=timedelta(hours=168),
    kept_for_retries=sweeper.KEPT_FOR_RETRIES,
    kept_history=sweeper.KEPT_HISTORY,
)

OUT_OF_RANGE = Refusal("OUT_OF_RANGE", "REVISION_OUT_OF_RANGE")
ENDS_OF_A_STOP = (
    Refusal("UNAVAILABLE", "SHUTTING_DOWN"),
    # From gRPC itself, if the service never saw the stream.
    Refusal("UNAVAILABLE", ""),
    Refusal("CANCELLED", ""),
)

T = TypeVar("T")
Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Clock(Protocol):
    now: Any

    def __call__(self) -> Any: ...


def shown(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


class Watcher:
    """Follows one session and keeps all its events."""

    def __init__(
        self, stub: MemoryServiceStub, metadata: Metadata, session_id: str, start_revision: int = 0
    ) -> None:
        self.session_id = session_id
        self._metadata = metadata
        self.events: list[pb.WatchMemoriesResponse] = []
        self.end: Refusal | None = None
        self._news = asyncio.Event()
        self.follow(stub, start_revision)

    def follow(self, stub: MemoryServiceStub, start_revision: int) -> None:
        request = pb.WatchMemoriesRequest(session_id=self.session_id, start_revision=start_revision)
        self.end = None
        self._call = stub.WatchMemories(request, metadata=self._metadata)
        self._task = asyncio.create_task(self._read(self._call))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds or the stream ends."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not condition() and self.end is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            received = [(e.revision, e.change, e.memory.memory_id) for e in self.events]
            raise AssertionError(f"a watcher still waits; it has received {received}") from None

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, call: Any) -> None:
        try:
            async for event in call:
                self.events.append(event)
                self._news.set()
        except grpc.aio.AioRpcError as error:
            self.end = refusal_of(error)
        self._news.set()


@dataclass
class Tenant:
    """One caller, and what must be in the service for it."""

    metadata: Metadata
    model: SessionModel
    watchers: dict[str, Watcher] = field(default_factory=dict)


class Node:
    """One server, and a channel to it."""

    def __init__(self, server: Server, address: str) -> None:
        self.server = server
        self.channel = grpc.aio.insecure_channel(address)
        self.stub = MemoryServiceStub(self.channel)
        self.sessions = SessionServiceStub(self.channel)

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop()
        assert self.server.database.connections_in_use == 0


class World:
    """What the state machine drives. It owns an event loop; each example has new sessions."""

    def __init__(self, database_url: str, clock: Clock, *tenants: str) -> None:
        """Without tenants, everybody is one that shows no credential."""
        self._runner = asyncio.Runner()
        self._environ = {"MEMORYD_DATABASE_URL": database_url, **VARIABLES}
        self._beginning = clock.now
        self._examples = 0
        self.clock = clock
        self._callers: list[Metadata] = [()]
        if tenants:
            bootstrap = new_key().text
            place = {"MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP", "BOOTSTRAP": bootstrap}
            self._environ |= {"MEMORYD_AUTH": "required", **place}
        self.nodes = [self.run(self._start())]
        if tenants:
            self._callers = [self.run(self._key(bootstrap, tenant)) for tenant in tenants]
        self.nodes.append(self.run(self._start()))

    @property
    def model(self) -> SessionModel:
        """Of the tenant whose turn it is."""
        return self.tenant.model

    @property
    def watchers(self) -> dict[str, Watcher]:
        """Of the tenant whose turn it is."""
        return self.tenant.watchers

    def begin(self) -> None:
        """Start an example."""
        self._examples += 1
        self.clock.now = self._beginning
        self.tenants = [
            Tenant(caller, SessionModel(LIMITS, self.clock)) for caller in self._callers
        ]
        for tenant in self.tenants:
            self.tenant = tenant
            for name in "ab":
                session_id = self.session(name)
                self.watchers[session_id] = self.run(self._watch(session_id))

    def end(self) -> None:
        """End the example and remove its data."""
        for tenant in self.tenants:
            self.tenant = tenant
            for session_id, watcher in self.watchers.items():
                self.run(watcher.close())
                request = pb.EraseSessionRequest(session_id=session_id)
                self.call(0, "EraseSession", request)

    def close(self) -> None:
        for node in self.nodes:
            self.run(node.stop())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def session(self, name: str) -> str:
        return f"example-{self._examples}:{name}"

    def call(self, via: int, method: str, request: Any) -> Any:
        """Return the answer or the Refusal of a call through one of the servers."""
        node = self.nodes[via]
        stub = node.sessions if hasattr(node.sessions, method) else node.stub

        async def call() -> Any:
            try:
                return await getattr(stub, method)(
                    request, timeout=TIMEOUT_SECONDS, metadata=self.tenant.metadata
                )
            except grpc.aio.AioRpcError as error:
                return refusal_of(error)

        return self.run(call())

    def check_sessions(self, via: int) -> None:
        """Compare the sessions that a server lists with those that there are."""
        request = session_pb2.ListSessionsRequest(session_id_prefix=self.session(""))
        found = self.call(via, "ListSessions", request).sessions
        assert [one.session_id for one in found] == [
            session_id
            for session_id, session in sorted(self.model.sessions.items())
            if session.revision
        ]
        for one in found:
            self.model.check_session(one)

    def stream(self, via: int, method: str, request: Any) -> list[Any]:
        """Return all answers of a stream that ends."""

        async def read() -> list[Any]:
            call = getattr(self.nodes[via].stub, method)(
                request, timeout=TIMEOUT_SECONDS, metadata=self.tenant.metadata
            )
            return [answer async for answer in call]

        return self.run(read())

    def watch(self, via: int, session_id: str, start_revision: int) -> Watcher:
        return self.run(self._watch(session_id, via, start_revision))

    def flush(self, via: int, row: Row) -> None:
        """Wait until the accesses of a memory are written, which happens after the read."""

        async def poll() -> None:
            request = pb.GetMemoryRequest(session_id=row.session_id, memory_id=row.memory_id)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while True:
                    found = await self.nodes[via].stub.GetMemory(
                        request, metadata=self.tenant.metadata
                    )
                    if found.access_count >= row.access_count:
                        break
                    await asyncio.sleep(0.002)

        self.run(poll())

    def sweep(self, via: int) -> None:
        """Sweep once."""
        self.run(self.nodes[via].server.sweeper.run_once())

    def follow_sweep(self, via: int) -> None:
        """Wait until the tenant's watchers have received all changes of a sweep."""

        async def follow() -> None:
            for session_id, watcher in self.watchers.items():
                request = pb.RetrieveMemoriesRequest(session_id=session_id, peek=True)
                answer = await self.nodes[via].stub.RetrieveMemories(
                    request, metadata=self.tenant.metadata
                )
                if self.model.revision(session_id) < answer.revision:
                    await watcher.until(
                        lambda received=watcher.events, last=answer.revision: (
                            bool(received) and received[-1].revision >= last
                        )
                    )

        self.run(follow())

    def restart(self, via: int) -> None:
        """Replace a server by a new one; watchers resume where they were."""
        node = self.nodes[via]
        watchers = [watcher for tenant in self.tenants for watcher in tenant.watchers.values()]

        async def restart() -> None:
            await node.server.stop()
            if via == 0:
                for watcher in watchers:
                    await watcher.until(lambda: False)
                    assert watcher.end in ENDS_OF_A_STOP
            await node.stop()
            self.nodes[via] = await self._start()
            if via == 0:
                for watcher in watchers:
                    start_revision = watcher.events[-1].revision if watcher.events else 0
                    watcher.follow(self.nodes[0].stub, start_revision)

        self.run(restart())

    def check_watcher(self, session_id: str) -> None:
        """Check that a watcher has received every change, once and in order."""
        session = self.model.sessions.get(session_id, Session())
        watcher = self.watchers[session_id]
        self.run(watcher.until(lambda: len(watcher.events) >= len(session.events)))
        assert watcher.end is None
        received = [(e.revision, e.change, e.memory.memory_id) for e in watcher.events]
        assert received == [(e.revision, e.change, e.memory_id) for e in session.events]
        for response, event in zip(watcher.events, session.events, strict=True):
            self.check_event(response, event)

    def check_event(self, response: pb.WatchMemoriesResponse, event: Event) -> None:
        if event.row is None:
            identifiers = pb.Memory(
                session_id=response.memory.session_id,
                memory_id=event.memory_id,
                revision=event.revision,
            )
            assert response.memory == identifiers
        else:
            self.model.check_version(response.memory, event.row)

    def check_watcher_of_erased(self, session_id: str) -> None:
        """Check that the watch of an erased session ended with an error, and start a new one.

        A watcher without events may have seen the session or not.
        """
        watcher = self.watchers[session_id]
        if watcher.events:
            self.check_refused(watcher)
        self.run(watcher.close())
        self.watchers[session_id] = self.watch(0, session_id, 0)

    def check_refused(self, watcher: Watcher) -> None:
        self.run(watcher.until(lambda: False))
        assert watcher.end == OUT_OF_RANGE

    def check_resumed(self, watcher: Watcher, session: Session, start: int) -> None:
        """Check that the events since a revision lead from the state of then to the current one."""
        self.run(
            watcher.until(
                lambda: bool(watcher.events) and watcher.events[-1].revision >= session.revision
            )
        )
        if watcher.end is not None:
            assert watcher.end == OUT_OF_RANGE
            assert 0 < start < session.horizon
            return
        self.run(watcher.close())
        log = {event.revision: event for event in session.events}
        versions = {(e.memory_id, e.revision): e.row for e in session.events if e.row}
        known = {row.memory_id: row.revision for row in session.present(start).values()}
        position = start
        for received in watcher.events:
            assert position < received.revision <= session.revision
            position = received.revision
            event = log[received.revision]
            assert (received.change, received.memory.memory_id) == (event.change, event.memory_id)
            if event.row is None:
                known.pop(event.memory_id, None)
                continue
            version = versions[event.memory_id, received.memory.revision]
            assert version.revision >= event.revision
            self.model.check_version(received.memory, version)
            if version.delete_time is None:
                known[event.memory_id] = version.revision
            else:
                known.pop(event.memory_id, None)
        present = session.present()
        assert known == {row.memory_id: row.revision for row in present.values()}

    async def _watch(self, session_id: str, via: int = 0, start_revision: int = 0) -> Watcher:
        stub, metadata = self.nodes[via].stub, self.tenant.metadata
        return Watcher(stub, metadata, session_id, start_revision)

    async def _key(self, bootstrap: str, tenant: str) -> Metadata:
        request = access_pb2.CreateApiKeyRequest(
            tenant=tenant, name=tenant, scopes=["operator"], never_expires=True
        )
        made = await AccessServiceStub(self.nodes[0].channel).CreateApiKey(
            request, metadata=shown(bootstrap)
        )
        return shown(made.key)

    async def _start(self) -> Node:
        settings, tools = load_configuration(environ=self._environ, dotenv=None, flags={})
        server = Server(settings, tools, Secrets.built_in(self._environ), clock=self.clock)
        node = Node(server, await server.start())
        await node.channel.channel_ready()
        return node


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    assert isinstance(details, bytes)
    info, resource = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()
    bad_request = error_details_pb2.BadRequest()
    for packed in status_pb2.Status.FromString(details).details:
        for kind in (info, resource, bad_request):
            packed.Unpack(kind)
    return Refusal(
        code=error.code().name,
        reason=info.reason.removeprefix("ERROR_REASON_"),
        resource=resource.resource_name,
        fields=tuple(sorted(violation.field for violation in bad_request.field_violations)),
    )
