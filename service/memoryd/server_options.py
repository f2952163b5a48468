"""What the settings say, in the words of the parts of a server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from memoryd.database.options import DatabaseOptions
from memoryd.domain.quotas import Quotas
from memoryd.rpc.exposure import Exposure
from memoryd.rpc.limits import Limits
from memoryd.rpc.receiving import RECEIVE_MARGIN_BYTES
from memoryd.settings.service import Environment, TlsVersion

try:
    import resource
except ImportError:  # on Windows, which sets no such limit
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from memoryd.settings.service import Settings

HANDSHAKE_TIMEOUT_SECONDS = 10
"""A connection on which no client has begun HTTP/2 by then is closed."""

CONNECTION_IDLE_TIMEOUT_SECONDS = 20
"""A connection without a call for so long is closed; a client that calls again opens another. Where
idle connections have taken all descriptors, a new caller is served as soon as these are closed."""

OWN_DESCRIPTORS = 121
"""The files that the process opens besides connections to the database and of callers."""

MOST_CONNECTIONS = 1_000_000
"""The most connections of callers, whatever the limit on open files."""

MOST_HTTP_CONNECTIONS = 1_000
"""The most of them over HTTP, and at most a quarter of all."""

KEEPALIVE_TIMEOUT_SECONDS = 20
"""A connection that does not answer a ping for so long is closed."""

MIN_PING_INTERVAL_SECONDS = 10
"""Clients and proxies may ping an idle connection this often."""

MAX_PENDING_CALLS = 4_000
"""Calls that have arrived and that no handler has taken yet. Beyond it gRPC itself cancels some of
them, beyond twice as many all; their callers get no other error."""


def exposure_of(settings: Settings) -> Exposure:
    return Exposure(
        settings.host,
        settings.auth,
        has_tls=bool(settings.tls_cert),
        allow_unauthenticated=settings.allow_unauthenticated,
        allow_plaintext=settings.allow_plaintext,
        is_production=settings.environment is Environment.PRODUCTION,
    )


def default_quotas(settings: Settings) -> Quotas:
    """Those of tenants that have none of their own."""
    return Quotas(
        calls_per_second=settings.quota_calls_per_second,
        streams=settings.quota_streams,
        keys=settings.quota_keys,
        memories=settings.quota_memories,
        sessions=settings.quota_sessions,
        bytes=settings.quota_bytes,
        documents=settings.quota_documents,
        conversations=settings.quota_conversations,
        messages=settings.quota_messages,
    )


def database_options(settings: Settings) -> DatabaseOptions:
    return DatabaseOptions(
        pool_size=settings.database_pool_size,
        writers=settings.database_writers,
        timeout_seconds=settings.database_timeout_seconds,
        statement_timeout_seconds=settings.database_statement_timeout_seconds,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        pgbouncer=settings.database_pgbouncer,
    )


def limits_of(settings: Settings) -> Limits:
    return Limits(
        calls=settings.max_calls,
        calls_per_client=settings.max_calls_per_client,
        streams=settings.max_streams,
        streams_per_client=settings.max_streams_per_client,
        message_bytes=settings.max_message_bytes,
        request_seconds=settings.request_seconds,
        stream_stall_seconds=settings.stream_stall_seconds,
        stream_idle_seconds=settings.stream_idle_seconds,
    )


def tls_version(settings: Settings) -> ssl.TLSVersion:
    """The least version of TLS for what serves with Python's own."""
    is_newest = settings.tls_min is TlsVersion.TLS_1_3
    return ssl.TLSVersion.TLSv1_3 if is_newest else ssl.TLSVersion.TLSv1_2


def channel_options(settings: Settings, *, shares_port: bool = False) -> list[tuple[str, int]]:
    """How gRPC is set up, as channel arguments.

    Raises OSError where the process may open too few files.
    """
    connections = most_connections(settings.database_pool_size + settings.database_writers)
    if connections and settings.port_for_http(settings.port) is not None:
        connections -= http_connections(settings)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes + RECEIVE_MARGIN_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        # A second server on the port is an error, unless it is a worker of the same service.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        *((("grpc.max_allowed_incoming_connections", connections),) if connections else ()),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", CONNECTION_IDLE_TIMEOUT_SECONDS * 1000),
        ("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.connection_grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", int(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_SECONDS * 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_SECONDS * 1000),
    ]


def http_connections(settings: Settings) -> int:
    """How many callers' connections there may be over HTTP. Raises as `most_connections`."""
    connections = most_connections(settings.database_pool_size + settings.database_writers)
    if connections is None:
        return MOST_HTTP_CONNECTIONS
    return min(connections // 4, MOST_HTTP_CONNECTIONS)


def most_connections(database_connections: int) -> int | None:
    """How many callers' connections the limit on open files allows; None: there is no limit.

    Raises OSError where it allows none.
    """
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    room = limit - OWN_DESCRIPTORS - database_connections
    if room < 1:
        raise OSError(
            f"the process may open {limit:,} files, and needs more than"
            f" {OWN_DESCRIPTORS + database_connections:,}: raise the limit (ulimit -n)"
        )
    return min(room, MOST_CONNECTIONS)
