"""The types of the service's settings that need more than a range: what each accepts."""

from __future__ import annotations

import enum
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from memoryd.database.urls import UrlError, check_url
from memoryd.domain.principals import is_session_id, tenant_of
from memoryd.settings.model import Accepts, refusal


def lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _database_url(url: SecretStr) -> SecretStr:
    try:
        check_url(url.get_secret_value())
    except UrlError as error:
        raise refusal(str(error)) from None
    return url


def _read_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value():
        return url
    if is_sqlite(url):
        raise refusal("SQLite has no standbys; leave it empty")
    return _database_url(url)


def is_sqlite(url: SecretStr) -> bool:
    return url.get_secret_value().startswith("sqlite")


def _host(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+|\[[A-Za-z0-9.:%-]+\]", host):
        raise ValueError
    return host.strip("[]")


def _pem_file(path: str) -> str:
    if "-----BEGIN" in path:
        raise refusal("expected the path of a PEM file, not what is in it")
    return path


def _embedder(choice: str) -> str:
    named = choice in ("none", "multilingual", "static", "minilm")
    if not named and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", choice):
        raise ValueError
    return choice


def _language(name: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", name):
        raise ValueError
    return name


_MAX_NAMES = 100


def _names(value: object, form: re.Pattern[str]) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > _MAX_NAMES:
        raise ValueError
    names = tuple(item.strip() for item in items if isinstance(item, str) and item.strip())
    if not all(map(form.fullmatch, names)):
        raise ValueError
    return names


_SECRET_NAME = re.compile(r"(env|secretsmanager)://[!-+\--~]{1,512}")


def _secret_names(value: object) -> tuple[str, ...]:
    return _names(value, _SECRET_NAME)


_MAX_SECRET_REFERENCES = 1_000


def _secret_references(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > _MAX_SECRET_REFERENCES:
        raise ValueError
    entries = tuple(item.strip() for item in items if isinstance(item, str) and item.strip())
    for entry in entries:
        tenant, has_tenant, pattern = entry.partition("=")
        if not has_tenant or ":" in tenant:  # the sign may be a part of the secret's name
            pattern = entry
        else:
            tenant_of(tenant)
        if _SECRET_NAME.fullmatch(pattern) is None:
            raise ValueError
    return entries


def _bootstrap_key(reference: str) -> str:
    if reference and ("*" in reference or not _SECRET_NAME.fullmatch(reference)):
        raise ValueError
    return reference


HTTP_OFF = "off"
MOST_PORT = 65535


def _http_port(value: object) -> str:
    text = str(value).strip().lower()
    is_port = text.isascii() and text.isdecimal() and int(text) <= MOST_PORT
    if text not in ("", HTTP_OFF) and not is_port:
        raise ValueError
    return text


_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?(?:[0-9A-Fa-f.]*:){2,}[0-9A-Fa-f.]*\]?|\*")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|\*"
)


def _hosts(value: object) -> tuple[str, ...]:
    return tuple(name.strip("[]").lower() for name in _names(value, _HOST_NAME))


def _origins(value: object) -> tuple[str, ...]:
    return _names(value, _ORIGIN)


_PRINCIPAL = "{principal}"


def _session_template(text: str) -> str:
    if is_session_id(text.replace(_PRINCIPAL, "x")) is None:
        raise ValueError
    return text


SessionTemplate = Annotated[
    str,
    AfterValidator(_session_template),
    Accepts(f"a session id, in which {_PRINCIPAL} stands for the caller's name"),
]


class ConsoleMode(enum.StrEnum):
    """What the pages of the console may do."""

    ON = "on"
    READ_ONLY = "read-only"
    OFF = "off"


def _console(value: object) -> str:
    text = str(value).strip().lower()
    if text:
        ConsoleMode(text)
    return text


LEAST_SECRET_CHARACTERS = 32


def _console_secret(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < LEAST_SECRET_CHARACTERS:
        raise ValueError
    return value


Console = Annotated[str, BeforeValidator(_console), Accepts("nothing, on, read-only or off")]
ConsoleSecret = Annotated[
    SecretStr,
    AfterValidator(_console_secret),
    Accepts(f"at least {LEAST_SECRET_CHARACTERS} characters that nobody can guess, or nothing"),
]
HttpPort = Annotated[
    str, BeforeValidator(_http_port), Accepts("nothing, off, or a number from 0 to 65535")
]
HostNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_hosts),
    Accepts("names and addresses without ports, with commas between; * for any; or nothing"),
]
Origins = Annotated[
    tuple[str, ...],
    BeforeValidator(_origins),
    Accepts("origins such as https://example.com, with commas between; * for any; or nothing"),
]
BootstrapKey = Annotated[
    str,
    AfterValidator(_bootstrap_key),
    Accepts("nothing, or a reference: env://NAME or secretsmanager://aws/NAME"),
]
SecretNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_secret_names),
    Accepts(
        "references such as env://CRM_* or secretsmanager://aws/memoryd/*, with commas between;"
        " or nothing"
    ),
]
SecretReferences = Annotated[
    tuple[str, ...],
    BeforeValidator(_secret_references),
    Accepts(
        "patterns such as acme=env://ACME_* or, for every tenant, env://SHARED_*, with commas"
        " between; or nothing"
    ),
]
DatabaseUrl = Annotated[
    SecretStr,
    AfterValidator(_database_url),
    Accepts("sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE"),
]
ReadUrl = Annotated[
    SecretStr,
    AfterValidator(_read_url),
    Accepts("nothing, or postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE"),
]
Embedder = Annotated[
    str,
    AfterValidator(_embedder),
    Accepts("none, multilingual, static, minilm or package.module:Class"),
]
Language = Annotated[
    str,
    BeforeValidator(lower_case),
    AfterValidator(_language),
    Accepts("a language's code by ISO 639, such as de"),
]
PemFile = Annotated[str, AfterValidator(_pem_file), Accepts("the path of a PEM file, or nothing")]
TomlFile = Annotated[str, Accepts("the path of a TOML file, or nothing")]
Host = Annotated[str, AfterValidator(_host), Accepts("an IP address or a host name")]
