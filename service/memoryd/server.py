"""The composition root: builds the parts of the service, connects, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

from memoryd.access.administration import KeyAdministration, TenantAdministration
from memoryd.access.api_key import MalformedKey, digest_of, key_id_of
from memoryd.access.keyring import Keyring
from memoryd.audit.log import AuditLog
from memoryd.audit.writer import AuditWriter
from memoryd.console.door import ConsoleDoor
from memoryd.conversations.history import read_changes as read_conversation_changes
from memoryd.conversations.history import session_purged as conversations_purged
from memoryd.conversations.store import ConversationStore
from memoryd.database.engine import Database
from memoryd.database.notifications import Listener
from memoryd.database.roles import check_role
from memoryd.documents.history import read_changes as read_document_changes
from memoryd.documents.history import session_purged as documents_purged
from memoryd.documents.store import DocumentStore
from memoryd.domain.audit import AuditMode
from memoryd.domain.errors import MemorydError
from memoryd.domain.principals import AuthMethod, AuthMode, Principal, Scope
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.memories.access import AccessTracker
from memoryd.memories.history import read_changes, session_purged
from memoryd.memories.store import MemoryStore
from memoryd.memories.sweeper import Sweeper
from memoryd.recall.embedders.embedder import EmbedderUnavailable, load
from memoryd.retrieval.document_search import DocumentSearch
from memoryd.retrieval.lazy import LazyRetrieval
from memoryd.rpc import core_server, reflection, rules
from memoryd.rpc.access import Anyone, Gate
from memoryd.rpc.admin.service import AccessService
from memoryd.rpc.aio_server import aio_server
from memoryd.rpc.answer_size import LargeAnswers
from memoryd.rpc.auditing import Auditor
from memoryd.rpc.conversations.promotion import Promotions
from memoryd.rpc.conversations.service import ConversationService
from memoryd.rpc.core_server import CoreServer
from memoryd.rpc.documents.service import DocumentService
from memoryd.rpc.endpoint import Endpoint
from memoryd.rpc.exposure import check_exposure
from memoryd.rpc.flags.service import SERVICES as FLAG_SERVICES
from memoryd.rpc.flags.service import FlagService
from memoryd.rpc.health import NOT_HEALTH, HealthMonitor
from memoryd.rpc.memories.requests import RequestParser
from memoryd.rpc.memories.results import ENCODING
from memoryd.rpc.memories.service import MemoryService, MemoryServiceOptions
from memoryd.rpc.pipeline import CallPipeline, Lane
from memoryd.rpc.sessions.service import SessionService
from memoryd.rpc.tools.service import ToolConfigService
from memoryd.server_options import (
    channel_options,
    database_options,
    default_quotas,
    exposure_of,
    http_connections,
    limits_of,
    tls_version,
)
from memoryd.sessions.feed import ChangeFeed
from memoryd.sessions.store import SessionStore
from memoryd.sessions.usage import TenantUsage
from memoryd.settings.field_types import ConsoleMode
from memoryd.settings.service import (
    NO_HTTP,
    PROBE_HOST,
    Environment,
    GrpcServerKind,
    Reflection,
    TlsVersion,
)
from memoryd.telemetry import metrics
from memoryd.telemetry.instruments import SILENT
from memoryd.telemetry.scraping import Telemetry
from memoryd.tools.checks import warnings_of
from memoryd.tools.configs import ToolConfigs
from memoryd.tools.secrets import SecretReference, SecretUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection

    from memoryd.access.tokens import Tokens
    from memoryd.database.options import DatabaseOptions
    from memoryd.domain.records import Session
    from memoryd.http.endpoint import HttpEndpoint
    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.rpc.call import Call
    from memoryd.rpc.endpoint import GrpcServer
    from memoryd.rpc.pipeline import Handler
    from memoryd.rpc.tls import Tls
    from memoryd.settings.service import Settings
    from memoryd.telemetry.gauges import Gauge, Place
    from memoryd.telemetry.instruments import Counter
    from memoryd.telemetry.otel import Tracing
    from memoryd.tools.secrets import Secrets
    from memoryd.tools.settings import ToolConfig

_service = descriptor_pool.Default().FindServiceByName
MEMORY_SERVICE = _service("memoryd.v1.MemoryService")
DOCUMENT_SERVICE = _service("memoryd.v1.DocumentService")
CONVERSATION_SERVICE = _service("memoryd.v1.ConversationService")
TOOL_SERVICE = _service("memoryd.v1.ToolConfigService")
SESSION_SERVICE = _service("memoryd.v1.SessionService")
ACCESS_SERVICE = _service("memoryd.v1.AccessService")
HEALTH_SERVICE = _service("grpc.health.v1.Health")

SERVICES = tuple(
    service.full_name
    for service in (
        *(MEMORY_SERVICE, SESSION_SERVICE, DOCUMENT_SERVICE, CONVERSATION_SERVICE),
        *(TOOL_SERVICE, ACCESS_SERVICE),
        *FLAG_SERVICES,
    )
)

LEAST_FLUSH_SECONDS = 1.0
"""How long traces may take to be sent at the end, where the drain has left less."""

DROP_SECONDS = 3600.0
"""Between two looks for lines of the audit that were kept long enough."""

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


def sweeper_of(
    database: Database,
    settings: Settings,
    tools: ToolConfigs,
    *,
    notify: Callable[[Iterable[Session]], None] = lambda _: None,
    clock: Callable[[Connection], datetime] | None = None,
    usage: TenantUsage | None = None,
    swept: Counter = SILENT.swept,
) -> Sweeper:
    """Build the sweeper of a database, by the database's clock unless another is given.

    Without `usage`, what is due of all tenants is counted.
    """
    return Sweeper(
        database,
        notify,
        clock=clock or database.dialect.now,
        cleanup_days=tools.cleanup_days,
        retention=timedelta(hours=settings.deleted_retention_hours),
        usage=usage or TenantUsage(database, utc_now, None),
        swept=swept,
    )


def tool_configs_of(
    database: Database,
    settings: Settings,
    base: Mapping[str, ToolConfig],
    *,
    clock: Callable[[], datetime] = utc_now,
) -> ToolConfigs:
    """Build the tools' configuration over `base`, that of the environment and the defaults."""
    production = settings.environment is Environment.PRODUCTION
    return ToolConfigs(
        base,
        database,
        clock=clock,
        production=production,
        secret_names=settings.secret_names,
        secret_references=settings.secret_references,
    )


def tls_of(settings: Settings) -> Tls | None:
    """Make what serves TLS; None: the settings name no certificate."""
    files = settings.tls_files()
    if files is None:
        return None
    from memoryd.rpc.tls import Tls  # noqa: PLC0415  loads cryptography

    return Tls(files)


def embedder_of(settings: Settings) -> Embedder | None:
    """Make the embedder that the settings name, if any. Raises ValueError if it is missing."""
    try:
        return load(settings.embedder)
    except EmbedderUnavailable as error:
        raise ValueError(f"{settings.variable('embedder')}: {error}") from error


class Server:
    """The service, on one address and one database."""

    def __init__(
        self,
        settings: Settings,
        tools: Mapping[str, ToolConfig],
        secrets: Secrets,
        *,
        clock: Callable[[], datetime] = utc_now,
        worker: Place | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Build the service. Needs a running event loop.

        `worker`: where it meets other workers, which share its port; None: it serves alone.
        `tracing` traces calls, and is closed with the server; None: they are not traced.

        Raises OSError where it cannot meet them, ValueError for an SQLite database without a file
        or with a standby, and for an embedder that is not available.
        """
        self._settings = settings
        self._clock = clock
        # Nobody could ask for what is counted where HTTP is not served.
        self._telemetry = Telemetry(worker, is_on=settings.port_for_http(settings.port) is not None)
        instruments = self._telemetry.instruments
        self._tracing = tracing
        self._url = settings.database_url.get_secret_value()
        options = database_options(settings)
        self.database = Database(self._url, options)
        self._standby = _standby_of(settings, options, self.database)
        self._listener = Listener(self.database)
        self._feed = ChangeFeed(self.database, self._listener, read_changes, session_purged)
        self._conversation_feed = ChangeFeed(
            self.database,
            self._listener,
            lambda *given: read_conversation_changes(self.database.dialect, *given),
            conversations_purged,
        )
        self._document_feed = ChangeFeed(
            self.database,
            self._listener,
            lambda *given: read_document_changes(self.database.dialect, *given),
            documents_purged,
        )
        self._secrets = secrets
        self._tools = tool_configs_of(self.database, settings, tools, clock=clock)
        self._keyring = Keyring(
            self.database,
            clock,
            stale_after=timedelta(seconds=settings.auth_stale_seconds),
            quotas=default_quotas(settings),
        )
        self._usage = TenantUsage(self.database, clock, self._keyring.quotas_of)
        self._store = MemoryStore(
            self.database,
            clock,
            self._notify,
            standby=self._standby,
            queue_limit=settings.write_queue_limit,
            batch_limit=settings.write_batch_limit,
            cache_bytes=settings.session_cache_bytes,
            quotas_of=self._keyring.quotas_of,
            instruments=instruments,
        )
        self._documents = DocumentStore(
            self.database, self._store.reads, self._store.write_documents
        )
        self._document_search = DocumentSearch(
            self.database,
            self._store.reads,
            max_bytes=settings.session_cache_bytes,
            language=settings.recall_language,
        )
        self._accesses = AccessTracker(self.database, self._store.cache)
        self._retrieval = LazyRetrieval(
            self.database,
            self._store.cache,
            embedder_of(settings),
            encoding=ENCODING,
            language=settings.recall_language,
            half_life_days=settings.importance_half_life_days,
        )
        self.sweeper = sweeper_of(
            self.database,
            settings,
            self._tools,
            notify=self._notify,
            clock=None if clock is utc_now else lambda _: clock(),
            usage=self._usage,
            swept=instruments.swept,
        )
        self._sweeping: asyncio.Task[None] | None = None
        self._role_is_unknown = False
        """Whether the database did not answer yet when asked for the rights of its role."""
        self.health = HealthMonitor(self.database.check, SERVICES)
        self._gate = Gate(settings.auth, self._keyring)
        self._tokens: Tokens | None = None
        self._audit = AuditLog(self.database)
        self._auditor = (
            Auditor(settings.audit, AuditWriter(self.database), clock)
            if settings.audit is not AuditMode.OFF
            else None
        )
        self._dropping: asyncio.Task[None] | None = None
        self._pipeline = CallPipeline(
            *(limits_of(settings), self._store.admitted_write, self._gate, self._auditor),
            instruments=instruments,
            tracer=tracing,
        )
        self._add_services(clock)
        self._shares_port = worker is not None
        self._channel_options = channel_options(settings, shares_port=self._shares_port)
        self._tls = tls_of(settings)
        self._endpoint = self._main_endpoint(settings)
        self._probed = self._endpoint_for_probes() if settings.health_port else None
        self._http: HttpEndpoint | None = None
        self.http_address: str | None = None
        """Where HTTP is served, once the server has started; None: nowhere."""
        self._console = ConsoleDoor(
            self._pipeline.handlers,
            secret=settings.console_secret.get_secret_value(),
            asks_for_key=settings.auth is AuthMode.REQUIRED,
            is_read_only=settings.console_mode is ConsoleMode.READ_ONLY,
            folder=None if worker is None else worker.folder,
            clock=clock,
            half_life_days=settings.importance_half_life_days,
        )

    @property
    def console_path(self) -> str:
        """Where the console is entered, below the address of HTTP."""
        return self._console.path

    def _main_endpoint(self, settings: Settings) -> Endpoint:
        handlers, unknown = self._pipeline.handlers, self._pipeline.unknown
        if settings.tls_min is TlsVersion.TLS_1_3:
            from memoryd.rpc.tls import over_tls_1_3  # noqa: PLC0415  loads cryptography

            handlers = {path: over_tls_1_3(handler) for path, handler in handlers.items()}
            unknown = over_tls_1_3(unknown)
        return Endpoint(
            partial(self._make_server, handlers, unknown),
            settings.host,
            settings.address,
            self._tls.credentials if self._tls is not None else None,
        )

    def _endpoint_for_probes(self) -> Endpoint:
        """Health alone, for callers on this machine that have no certificate."""
        prefix = f"/{HEALTH_SERVICE.full_name}/".encode()
        handlers = {
            path: handler
            for path, handler in self._pipeline.handlers.items()
            if path.startswith(prefix)
        }
        return Endpoint(
            partial(self._make_server, handlers, NOT_HEALTH),
            PROBE_HOST,
            lambda port: f"{PROBE_HOST}:{port}",
        )

    def _http_endpoint(self) -> HttpEndpoint:
        # Nothing of it is loaded where the port is off.
        from memoryd.http.app import application  # noqa: PLC0415  as above
        from memoryd.http.endpoint import HttpEndpoint  # noqa: PLC0415  as above

        settings = self._settings
        app = application(
            self._pipeline.handlers,
            self._pipeline.unknown,
            problem=lambda: self.health.problem,
            scrape=self._telemetry.scrape,
            may_know_tenants=self._gate.may_know_tenants,
            hosts=settings.http_hosts,
            origins=settings.http_allowed_origins,
            message_bytes=settings.max_message_bytes,
            mcp_session=settings.mcp_session,
            console=None if settings.console_mode is ConsoleMode.OFF else self._console.load,
        )
        return HttpEndpoint(
            app,
            settings.host,
            settings.address,
            tls=self._tls.context(tls_version(settings)) if self._tls is not None else None,
            most_connections=http_connections(settings),
            shares_port=self._shares_port,
        )

    def _make_server(self, handlers: Mapping[bytes, Handler], unknown: Handler) -> GrpcServer:
        options = self._channel_options
        if self._settings.grpc_server is GrpcServerKind.CORE:
            problem = core_server.unavailable()
            if not problem:
                return CoreServer(handlers, unknown, options)
            _log.warning("grpc.aio serves, at about half the speed: %s", problem)
        return aio_server(handlers, unknown, options, apart=HEALTH_SERVICE.full_name)

    def _notify(self, changed: Iterable[Session]) -> None:
        """Wake those who watch sessions, whatever they watch there."""
        sessions = [*changed]
        self._feed.notify(sessions)
        self._document_feed.notify(sessions)
        self._conversation_feed.notify(sessions)

    def _add_services(self, clock: Callable[[], datetime]) -> None:
        settings, pipeline, tools = self._settings, self._pipeline, self._tools

        def holds(call: Call) -> AbstractAsyncContextManager[None]:
            return tools.holding(call.principal.tenant, call.time_remaining(), must_be_read=True)

        options = MemoryServiceOptions(
            settings.importance_half_life_days, tools.memory_settings, holds
        )
        service = MemoryService(
            self._store,
            self._accesses,
            self._feed,
            self._retrieval,
            clock=clock,
            options=options,
            charge=self._gate.charge,
        )
        parser = RequestParser(
            settings.content_policy, clock, tools.memory_settings, max_batch=settings.max_batch_size
        )
        pipeline.add_service(MEMORY_SERVICE, service.methods(parser))
        sessions = SessionStore(
            self.database, clock, self._feed.notify, quotas_of=self._keyring.quotas_of
        )
        pipeline.add_service(
            SESSION_SERVICE, SessionService(sessions, self._store, clock).methods()
        )
        answers = LargeAnswers()
        documents = DocumentService(
            self._documents, self._document_feed, self._document_search, answers, clock=clock
        )
        pipeline.add_service(DOCUMENT_SERVICE, documents.methods())
        conversations = ConversationStore(
            self.database, self._store.reads, self._store.write_conversations
        )
        promotions = Promotions(conversations, parser, options, clock=clock)
        pipeline.add_service(
            CONVERSATION_SERVICE,
            {
                **ConversationService(
                    conversations, self._conversation_feed, answers, clock
                ).methods(),
                **promotions.methods(),
            },
        )
        pipeline.add_service(TOOL_SERVICE, ToolConfigService(tools, self._secrets).methods())
        flags = FlagService(tools, idle_seconds=settings.stream_idle_seconds)
        for version in FLAG_SERVICES:
            pipeline.add_service(version, flags.methods(version))
        access = AccessService(
            KeyAdministration(self.database, clock, self._keyring.quotas_of),
            TenantAdministration(self.database, clock),
            self._keyring,
            usage=self._usage,
            streams_of=pipeline.open_streams.count,
            audit=self._audit,
        )
        pipeline.add_service(ACCESS_SERVICE, access.methods(clock))
        pipeline.add_service(HEALTH_SERVICE, self.health.methods(), Lane.HEALTH)
        if settings.reflection is not Reflection.OFF:
            self._add_reflection()

    def _add_reflection(self) -> None:
        its_own = [service.full_name for service in reflection.SERVICES]
        # The protos as they are written, rules and all; the stubs have none.
        for service in (HEALTH_SERVICE, *reflection.SERVICES):
            rules.POOL.AddSerializedFile(service.file.serialized_pb)
        is_open = self._settings.reflection is Reflection.ON
        needs = Anyone.UNKNOWN if is_open else Anyone.KNOWN
        names = [*SERVICES, HEALTH_SERVICE.full_name, *its_own]
        table = reflection.methods(names, rules.POOL, needs)
        for service in reflection.SERVICES:
            self._pipeline.add_service(service, table, Lane.REFLECTION)

    async def start(self) -> str:
        """Listen, and return the address as HOST:PORT.

        An SQLite file is migrated first if needed. Raises SchemaMismatch where that is impossible,
        DatabaseUnavailable, OSError for an address that it cannot listen on, and ValueError for a
        certificate that cannot serve, and where it would be open to more callers than is said to be
        meant, or to none.
        """
        settings = self._settings
        await check_exposure(exposure_of(settings), settings.variable)
        if self._tls is not None:
            await self._tls.start()
        if self.database.is_embedded:
            await self.database.migrate()
        elif settings.has_row_security:
            await self._check_role(may_refuse=settings.environment is Environment.PRODUCTION)
        await self._start_access()
        await self._tools.start(self._listener)
        await self._warn()
        self._listener.start()
        address = await self._endpoint.start(self._settings.port)
        await self._telemetry.start(self._gauges)
        port = self._console.grpc_port = int(address.rpartition(":")[2])
        http_port = settings.port_for_http(port)
        if http_port is not None:
            await self._start_http(http_port)
        if self._probed is not None:
            await self._probed.start(self._settings.health_port)
        await self.health.start()
        self._sweeping = asyncio.create_task(self._sweep(), name="sweeper")
        self._dropping = asyncio.create_task(self._drop_old_lines(), name="old lines of the audit")
        if self._auditor is not None:
            self._auditor.start()
        return address

    async def _start_http(self, port: int) -> None:
        endpoint = self._http_endpoint()
        try:
            self.http_address = await endpoint.start(port)
        except OSError as error:
            if self._settings.http_port:
                raise
            # Nobody has asked for it, and who upgrades may have another server there.
            _log.warning(NO_HTTP, error, self._settings.variable("http_port"))
            return
        self._http = endpoint

    async def _start_access(self) -> None:
        settings = self._settings
        if settings.auth is AuthMode.OFF:
            return
        await self._keyring.start(self._listener, await self._bootstrap_key())
        if settings.auth_file:
            await self._take_others(Path(settings.auth_file))
        elif settings.auth is AuthMode.REQUIRED and self._keyring.is_empty:
            raise ValueError(
                f"{settings.variable('auth')} is required and there is no API key, so that no"
                " call could be served; make one with `memoryd keys create`, or set"
                f" {settings.variable('bootstrap_key')} or {settings.variable('auth_file')}"
            )
        self._pipeline.open_streams.start()

    async def _take_others(self, path: Path) -> None:
        """Take the tokens and certificates that the auth file names."""
        # Most servers take keys alone.
        from memoryd.access.auth_file import load_auth_file  # noqa: PLC0415  as above
        from memoryd.access.certificates import Certificates  # noqa: PLC0415  as above
        from memoryd.access.tokens import Tokens  # noqa: PLC0415  as above

        given = await asyncio.to_thread(load_auth_file, path)
        certificates = None
        if given.certificates:
            certificates = await asyncio.to_thread(Certificates, given.certificates, self._clock)
        if given.issuers:
            self._tokens = Tokens(given.issuers, self._clock)
            await self._tokens.start()
        self._gate.take(self._tokens, certificates)

    async def _bootstrap_key(self) -> dict[bytes, Principal]:
        """Give the principal of the key that the settings refer to, if any, by its digest."""
        place = self._settings.bootstrap_key
        if not place:
            return {}
        variable = self._settings.variable("bootstrap_key")
        try:
            text = (await self._secrets.resolve(SecretReference.parse(place))).get_secret_value()
            key_id = key_id_of(text)
        except (SecretUnavailableError, MalformedKey) as error:
            raise ValueError(f"{variable}: {place}: {error}") from None
        scopes = frozenset({Scope.INSTANCE_ADMIN})
        principal = Principal(
            DEFAULT_TENANT, "bootstrap", AuthMethod.API_KEY, scopes, credential_id=key_id
        )
        return {digest_of(text): principal}

    async def failed(self) -> None:
        """Wait until the service cannot go on, and raise EndpointFailed."""
        endpoints = (self._endpoint, self._probed)
        await asyncio.gather(*(each.failed() for each in endpoints if each is not None))

    async def _check_role(self, *, may_refuse: bool) -> None:
        try:
            state = await self.database.row_security()
        except MemorydError:  # health reports it
            self._role_is_unknown = True
            return
        self._role_is_unknown = False
        check_role(state, self._settings.variable, may_refuse=may_refuse)

    async def _warn(self) -> None:
        configs = self._tools.of(DEFAULT_TENANT)
        for warnings in await asyncio.gather(
            *(warnings_of(config, self._secrets) for config in configs)
        ):
            for warning in warnings:
                _log.warning("%s: %s", warning.path, warning.description)

    async def _sweep(self) -> None:
        await self.health.is_serving.wait()  # before, it would only repeat what health logs
        if self._role_is_unknown:
            await self._check_role(may_refuse=False)
        await self.sweeper.run(self._settings.sweep_seconds)

    async def _drop_old_lines(self) -> None:
        """Drop lines of the audit again and again, also of one that is off by now."""
        await self.health.is_serving.wait()
        while True:
            try:
                await self.drop_old_lines()
            except MemorydError as error:
                _log.warning("old lines of the audit were not dropped: %s", error.for_operator)
            except Exception:  # noqa: BLE001  it is tried again
                _log.exception("unhandled exception while old lines of the audit are dropped")
            await asyncio.sleep(DROP_SECONDS)

    async def drop_old_lines(self) -> int:
        """Drop the lines of the audit that were kept long enough; answer how many."""
        return await self._audit.drop(self._clock(), timedelta(days=self._settings.audit_days))

    def _gauges(self) -> list[Gauge]:
        """What is measured when a scrape asks for it."""
        pools = [self.database] if self._standby is None else [self.database, self._standby]
        streams = self._pipeline.open_streams.by_method
        return [
            (metrics.QUEUE.name, (), self._store.all_waiting_writes),
            (metrics.DATABASE_UP.name, (), float(self.health.database_is_up)),
            (metrics.CONNECTIONS.name, ("used",), sum(p.connections_in_use for p in pools)),
            (metrics.CONNECTIONS.name, ("idle",), sum(p.connections_idle for p in pools)),
            (metrics.CACHE_BYTES.name, (), self.kept_bytes),
            (metrics.BACKLOG.name, (), self._retrieval.backlog),
            *((metrics.STREAMS.name, (method,), count) for method, count in streams.items()),
            (
                metrics.AUDIT_LAG.name,
                (),
                0.0 if self._auditor is None else self._auditor.lag_seconds,
            ),
        ]

    @property
    def watchers(self) -> int:
        """How many streams follow a session."""
        feeds = (self._feed, self._document_feed, self._conversation_feed)
        return sum(feed.subscriptions for feed in feeds)

    @property
    def tool_watchers(self) -> int:
        """How many streams follow the tools' configuration."""
        return self._tools.feed.subscriptions

    @property
    def known_tenants(self) -> list[str]:
        """The tenants whose tools' settings are in memory besides those of `default`."""
        return self._tools.known.tenants

    def waiting_writes(self, tenant: str) -> int:
        """How many writes of a tenant wait for their transaction, by weight."""
        return self._store.waiting_writes(tenant)

    @property
    def kept_bytes(self) -> int:
        """The approximate size of what is kept in memory of sessions."""
        return self._store.cache.nbytes + self._document_search.nbytes

    async def flush_accesses(self) -> None:
        """Write the accesses counted so far."""
        await self._accesses.flush()

    async def stop(self) -> None:
        """Accept no new calls, drain those under way, write pending accesses, close everything."""
        seconds = self._settings.drain_seconds
        end = time.monotonic() + seconds
        await self.health.stop()
        await self._pipeline.close()
        draining = asyncio.create_task(self._endpoint.stop(seconds))
        draining_http = asyncio.create_task(self._http.stop(seconds)) if self._http else None
        for task in (self._sweeping, self._dropping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._feed.close()
        await self._document_feed.close()
        await self._conversation_feed.close()
        await self._tools.aclose()
        await self._pipeline.open_streams.aclose()
        await self._listener.close()
        await draining
        if draining_http is not None:
            await draining_http
        await self._telemetry.stop()
        if self._probed is not None:
            await self._probed.stop(0)
        if self._tls is not None:
            await self._tls.stop()
        await self._accesses.close()
        await self._keyring.aclose()
        if self._tokens is not None:
            await self._tokens.aclose()
        await self._retrieval.aclose()
        await self._document_search.aclose()
        await self._store.close()
        if self._auditor is not None:
            await self._auditor.aclose()
        await self.database.close()
        if self._standby is not None:
            await self._standby.close()
        await self._close_tracing(end - time.monotonic())
        if self._sweeping is not None:  # it had started
            _log.info("stopped")

    async def _close_tracing(self, seconds: float) -> None:
        if self._tracing is not None:
            await self._tracing.close(max(seconds, LEAST_FLUSH_SECONDS))


def _standby_of(settings: Settings, options: DatabaseOptions, primary: Database) -> Database | None:
    url = settings.database_read_url.get_secret_value()
    if url and primary.is_embedded:
        variable = settings.variable("database_read_url")
        raise ValueError(f"{variable}: SQLite has no standbys; leave it empty")
    return Database(url, options) if url else None
