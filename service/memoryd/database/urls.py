"""Database URLs: what is wrong with one, what of it may be shown, and what the driver gets of it.

No text of a URL is shown unless it can be no secret: the name of a known parameter, a host, a file.
SQLAlchemy is loaded only for what the driver gets; commands that need no database do without.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import URL

SQLITE: Final = "sqlite+aiosqlite://"
POSTGRESQL: Final = "postgresql+asyncpg://"

_FORMS = f"{SQLITE}/FILE or {POSTGRESQL}USER:PASSWORD@HOST:PORT/DATABASE"

_SCHEME = re.compile(
    r"(?P<kind>sqlite|postgres|postgresql|pgsql)(\+[a-z0-9]{1,20})?:", re.IGNORECASE
)
"""A scheme that says which database is meant, with the name of another driver or of none."""

# SQLAlchemy reads an authority in the same way; what it would take for another host is left out.
_POSTGRESQL_PARTS = re.compile(
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^\]/?@]+\]|[^\[\]:/?@]*)(?::(?P<port>[^/?@]*))?"
    r"(?:/(?P<database>[^?@]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.%-]+")
_HOST_AND_PORT = re.compile(rf"(?:/[^:]*|{_HOST.pattern})(?::(?P<port>.*))?")
_ESCAPES = "write @ in a user name or password as %40, and : / ? # as %3A %2F %3F %23"
_SEVERAL_HOSTS = "write /DATABASE?host=HOST1:5432&host=HOST2:5432"

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")

_BY_DSN = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "application_name", "options"),
)
"""Parameters that the driver reads from a DSN, and has no argument for."""

_BY_ARGUMENT = (
    *("host", "port", "user", "password", "database", "ssl", "passfile", "service", "servicefile"),
    *("target_session_attrs", "krbsrvname", "gsslib", "prepared_statement_cache_size"),
)
"""Parameters that the driver has an argument of the same name for."""

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "servicefile")

_NUMBERS = ("connect_timeout", "prepared_statement_cache_size")

_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "ssl": _SSL_MODES,
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": _SESSION_ATTRIBUTES,
    "gsslib": ("gssapi", "sspi"),
}
"""What a parameter accepts, where that is a choice."""

_WITHOUT_EFFECT: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "load_balance_hosts": ("disable",),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
}
"""Parameters of libpq with the values that ask for what the driver does anyway."""

_OWN_TIMEOUT = "leave it out; MEMORYD_DATABASE_TIMEOUT_SECONDS bounds how long an answer may take"
_NOTHING_PREPARED = "leave it out; MEMORYD_DATABASE_PGBOUNCER=true keeps no prepared statement"
_REMEDIES: Final[Mapping[str, str]] = {
    "channel_binding": (
        "the driver cannot bind channels; leave it out, and write sslmode=verify-full with"
        " sslrootcert to be sure of the server"
    ),
    "gssencmode": "the driver has no GSSAPI encryption; leave it out, and write sslmode=require",
    "gssdelegation": "the driver delegates no credentials; leave it out",
    "sslcompression": "the driver does not compress; leave it out",
    "sslsni": "the driver always names the server; leave it out",
    "load_balance_hosts": "hosts are tried in their order; leave it out",
    "client_encoding": "the service speaks UTF-8; leave it out",
    "hostaddr": "write the address as the host",
    "fallback_application_name": "write application_name",
    "sslcertmode": "a certificate is sent where sslcert names one; leave it out",
    "requiressl": "write sslmode=require",
    "require_auth": "leave it out; pg_hba.conf on the server decides how a role logs in",
    "requirepeer": "leave it out; write sslmode=verify-full to be sure of a server",
    "replication": "leave it out; the service does not replicate",
    "keepalives": _OWN_TIMEOUT,
    "keepalives_idle": _OWN_TIMEOUT,
    "keepalives_interval": _OWN_TIMEOUT,
    "keepalives_count": _OWN_TIMEOUT,
    "tcp_user_timeout": _OWN_TIMEOUT,
    "timeout": _OWN_TIMEOUT,
    "command_timeout": "leave it out; MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS is the setting",
    "pool_size": "leave it out; MEMORYD_DATABASE_POOL_SIZE is the setting",
    "statement_cache_size": _NOTHING_PREPARED,
    "prepared_statement_name_func": _NOTHING_PREPARED,
    "pgbouncer": "leave it out, and set MEMORYD_DATABASE_PGBOUNCER=true",
    "connection_limit": "leave it out; MEMORYD_DATABASE_POOL_SIZE is the setting",
    "direct_tls": "write sslnegotiation=direct",
    "schema": "write options=-csearch_path%3DSCHEMA",
    "search_path": "write options=-csearch_path%3DSCHEMA",
}
"""What to write in place of parameters that other drivers have, or of values of theirs."""

_KNOWN = frozenset((*_BY_DSN, *_BY_ARGUMENT, *_REMEDIES, "dbname", "connect_timeout"))

_SQLITE_URI = ("mode", "cache", "nolock", "immutable", "psow", "vfs")
"""Parameters of a file's URI, which SQLite itself reads."""


class UrlError(ValueError):
    """A database URL that cannot be used: what is wrong and what to write. Shows no secret."""


@dataclass(frozen=True, slots=True)
class _Postgresql:
    """The parts of a URL that are checked; each as it is written."""

    password: str
    host: str
    port: str
    database: str
    parameters: Sequence[tuple[str, str]]


def check_url(url: str) -> None:
    """Return if the service can use the URL. Raises UrlError."""
    if url.startswith(POSTGRESQL):
        _check_postgresql(_parsed(url))
    elif url.startswith(SQLITE):
        _check_sqlite(url.removeprefix(SQLITE))
    else:
        raise UrlError(_other_scheme(url))


def has_password(url: str) -> bool:
    """Whether a secret stands in the URL, or may do in one that cannot be used."""
    try:
        check_url(url)
    except UrlError:
        return "@" in url or "password=" in url
    if not url.startswith(POSTGRESQL):
        return False
    parts = _parsed(url)
    secret = [value for name, value in parts.parameters if name in ("password", "sslpassword")]
    return bool(parts.password or any(secret))


def shown(url: str) -> str:
    """A URL that `check_url` takes, without what may be secret in it."""
    if not url.startswith(POSTGRESQL):
        return url
    parts = _parsed(url)
    port = f":{parts.port}" if parts.port else ""
    places = [(name, value) for name, value in parts.parameters if name in ("host", "port")]
    query = f"?{urlencode(places, safe='/:,')}" if places else ""
    return f"{POSTGRESQL}{parts.host}{port}/{parts.database}{query}"


def driver_url(url: str) -> URL:
    """What the driver gets of a URL. Raises UrlError.

    The parameters of libpq that the driver has no argument for go along as a DSN.
    """
    from sqlalchemy import make_url  # noqa: PLC0415  as the module says

    check_url(url)
    made = make_url(url)
    if not url.startswith(POSTGRESQL):
        return made
    query: dict[str, str | tuple[str, ...]] = {
        "database" if name == "dbname" else name: value
        for name, value in made.query.items()
        if name in _BY_ARGUMENT or name == "dbname"
    }
    by_dsn = {name: value for name, value in made.query.items() if name in _BY_DSN}
    if by_dsn:
        query["dsn"] = f"postgresql://?{urlencode(by_dsn)}"
    return made.set(query=query)


def connect_seconds(url: str) -> float | None:
    """How long connecting may take by the URL's `connect_timeout`; None: it does not say."""
    if not url.startswith(POSTGRESQL):
        return None
    given = dict(_parsed(url).parameters).get("connect_timeout", "0")
    return float(given) if float(given) > 0 else None  # as with libpq, 0 is no limit


def _other_scheme(url: str) -> str:
    if match := _SCHEME.match(url):
        meant = SQLITE if match["kind"].lower() == "sqlite" else POSTGRESQL
        return f"write {meant} in place of {match[0].lower()}//"
    return f"memories are kept in SQLite or PostgreSQL; write {_FORMS}"


def _check_sqlite(rest: str) -> None:
    if not rest.startswith("/"):
        raise UrlError(
            f"write {SQLITE}/FILE for a file in the working folder, {SQLITE}//PATH/FILE for another"
        )
    path, _, query = rest[1:].partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    if not path:
        raise UrlError(f"no file is named; write {SQLITE}/FILE")
    if ":memory:" in path or parameters.get("mode") == "memory":
        # Each connection would see a database of its own, and none would outlive it.
        raise UrlError(f"a database in memory keeps nothing; write {SQLITE}/FILE")
    for name in parameters:
        if name not in (*_SQLITE_URI, "uri"):
            raise UrlError(f"{_named(name, _SQLITE_URI)}; leave it out")
        if name != "uri" and parameters.get("uri") != "true":
            raise UrlError(
                f"{name} is read of a file's URI only; write {SQLITE}/file:FILE?{name}=…&uri=true"
            )


def _parsed(url: str) -> _Postgresql:
    rest = url.removeprefix(POSTGRESQL)
    match = _POSTGRESQL_PARTS.fullmatch(rest)
    query = match["query"] or "" if match else ""
    # What follows may be the rest of a password that holds an @ itself.
    if match is None or (
        match["password"] and _may_be_cut(match["user"], match["password"], query)
    ):
        if rest.count("@") > 1:
            raise UrlError(f"more than one @ stands in it; {_ESCAPES}")
        raise UrlError(f"expected {POSTGRESQL}USER:PASSWORD@HOST:PORT/DATABASE; {_ESCAPES}")
    return _Postgresql(
        password=match["password"] or "",
        host=match["host"],
        port=match["port"] or "",
        database=match["database"] or "",
        parameters=parse_qsl(query, keep_blank_values=True),
    )


def _may_be_cut(user: str, password: str, query: str) -> bool:
    """Whether a raw @ may have ended the password, or the host, before its time."""
    return bool(password) and (
        "@" in query or user.count("@") > 1 or ("@" in user and "/" in password)
    )


def _check_postgresql(parts: _Postgresql) -> None:
    if "," in parts.host + parts.port:
        raise UrlError(f"several hosts stand in the query; {_SEVERAL_HOSTS}")
    if parts.host and not _HOST.fullmatch(parts.host):
        raise UrlError(f"the host is no name or address; {_ESCAPES}")
    _check_port(parts.port)
    seen: set[str] = set()
    for name, value in parts.parameters:
        if name in seen and name not in ("host", "port"):
            raise UrlError(f"{_named(name, _KNOWN)} stands twice; write it once")
        seen.add(name)
        if name not in ("host", "port"):
            _check_parameter(name, value)
    _check_places(parts.parameters)


def _check_places(parameters: Sequence[tuple[str, str]]) -> None:
    """Check the hosts and ports of a query: of several hosts each has a port of its own.

    They are HOST:PORT each, or a list of hosts and as long a list of ports, as SQLAlchemy has them.
    """
    given = [value for name, value in parameters if name == "host"]
    listed = [value.split(",") for name, value in parameters if name == "port"]
    hosts = given if len(given) > 1 else [each for value in given for each in value.split(",")]
    found = [_HOST_AND_PORT.fullmatch(host) for host in hosts]
    if not all(found):
        raise UrlError("host: expected a name, an address or the folder of a socket")
    if any(host.startswith("[") for host in hosts):  # the driver would take it for a name
        raise UrlError(f"host: write an IPv6 address as in {POSTGRESQL}USER@[::1]:5432/DATABASE")
    own = [match["port"] for match in found if match is not None and match["port"] is not None]
    ports = [port for value in listed for port in value]
    for port in (*own, *ports):
        _check_port(port)
    if len(listed) > 1 or (own and listed) or len(ports) > max(len(hosts), 1):
        raise UrlError(f"port stands twice; {_SEVERAL_HOSTS}")
    if len(hosts) > 1:
        each_has_one = own if len(given) > 1 else ports
        if len(each_has_one) != len(hosts) or not all((*hosts, *each_has_one)):
            raise UrlError(f"one of several hosts has no port; {_SEVERAL_HOSTS}")


def _check_port(port: str) -> None:
    if port and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise UrlError(f"the port is no number from 1 to 65535; {_ESCAPES}")


def _check_parameter(name: str, value: str) -> None:
    accepted = _WITHOUT_EFFECT.get(name, ())
    if value.lower() in accepted:
        return
    if name in _REMEDIES:
        raise UrlError(f"{name}: {_REMEDIES[name]}")
    if name not in _KNOWN:
        raise UrlError(f"{_named(name, _KNOWN)}; leave it out")
    if not value:
        raise UrlError(f"{name} is empty; give it a value, or leave it out")
    if name in _VALUES and value not in _VALUES[name]:
        *most, last = _VALUES[name]
        raise UrlError(f"{name}: expected {', '.join(most)} or {last}")
    if name in _NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
        raise UrlError(f"{name}: expected a whole number")
    if name in _FILES:
        _check_file(name, value)


def _check_file(name: str, path: str) -> None:
    if name == "sslrootcert" and path == "system":
        raise UrlError("sslrootcert: the driver has no word for the system's; name their file")
    try:
        with open(path, "rb"):  # noqa: PTH123  a name with a NUL is an error of `open` alone
            return
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        raise UrlError(f"{name}: {path}: {reason}; name a file that the service may read") from None
    except ValueError:
        raise UrlError(f"{name}: expected the path of a file") from None


def _named(name: str, known: Sequence[str] | frozenset[str]) -> str:
    """A parameter for a message: itself where it is known, else what it may be meant for."""
    if name in known:
        return name
    match = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f"; did you mean {match[0]}?" if match else ""
    return f"there is no such parameter in its query{meant}"
