"""The types of the auth file's keys: what each accepts."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from memoryd.domain.principals import (
    SCOPES_RULE,
    TENANT_RULE,
    InvalidGrant,
    Scope,
    SessionRules,
    scopes_of,
    tenant_of,
)
from memoryd.settings.model import Accepts, refusal

MAX_ITEMS: Final = 1000
"""Of a list or table of the file."""

MAX_CHARACTERS: Final = 512
"""Of a text of the file."""

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")

SUBJECT = "{sub}"
"""In a rule for sessions: the subject of the token."""

_SAMPLE_SUBJECT = "0"
"""Stands for a subject where a rule is checked before there is one."""

_is_text = re.compile(rf"(?=.{{1,{MAX_CHARACTERS}}}$)[!-~]+( [!-~]+)*").fullmatch
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_is_dns_name = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*").fullmatch
is_uri = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://|urn:)[!-~]{1,240}").fullmatch


def _text(value: object) -> object:
    if value is not None and not (isinstance(value, str) and _is_text(value)):
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | frozenset) or len(value) > MAX_ITEMS:
        raise ValueError
    if not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _jwks_url(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, str) or not _is_text(value) or " " in value:
        raise ValueError
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise refusal("expected an address such as https://issuer.example/jwks.json") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError
    if "@" in parts.netloc or parts.fragment:
        raise refusal("leave out the user and what follows '#'")
    if parts.scheme == "http" and not _is_loopback(host):
        raise refusal("use https; http is for 127.0.0.1, [::1] and localhost alone")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file(value: object) -> object:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return Path(value)


def _algorithms(value: object) -> tuple[str, ...]:
    names = _texts(value)
    if not names or not set(names) <= set(ALGORITHMS):
        raise ValueError
    return names


def _tenant(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  what pydantic takes for a refusal
    try:
        return tenant_of(value)
    except InvalidGrant:
        raise ValueError from None


def _tenants(value: object) -> frozenset[str]:
    return frozenset(str(_tenant(name)) for name in _texts(value))


def _scopes(value: object) -> frozenset[Scope]:
    try:
        return scopes_of(_texts([value] if isinstance(value, str) else value))
    except InvalidGrant as error:
        raise refusal(str(error)) from None


def _some_scopes(value: object) -> frozenset[Scope]:
    scopes = _scopes(value)
    if not scopes:
        raise ValueError
    return scopes


def _scope_map(value: object) -> dict[str, frozenset[Scope]]:
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise ValueError
    return {name: _scopes(scopes) for name, scopes in value.items()}


def _rules(value: object) -> tuple[str, ...]:
    rules = _texts(value)
    try:
        SessionRules(rules)
    except InvalidGrant as error:
        raise refusal(str(error)) from None
    return rules


def _rules_of_subjects(value: object) -> tuple[str, ...]:
    templates = _texts(value)
    _rules([template.replace(SUBJECT, _SAMPLE_SUBJECT) for template in templates])
    return templates


def _san(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  what pydantic takes for a refusal
    if is_uri(value):
        return value
    if not _is_dns_name(value.lower()):
        raise ValueError
    return value.lower()


_TENANT = Accepts(f"a tenant, which {TENANT_RULE}")

Text = Annotated[
    str,
    BeforeValidator(_text),
    Accepts(f"1 to {MAX_CHARACTERS} printable characters of ASCII"),
]
OptionalText = Annotated[
    str | None,
    BeforeValidator(_text),
    Accepts(f"1 to {MAX_CHARACTERS} printable characters of ASCII"),
]
JwksUrl = Annotated[
    str | None,
    BeforeValidator(_jwks_url),
    Accepts("an address such as https://issuer.example/jwks.json"),
]
JwksFile = Annotated[
    Path | None, BeforeValidator(_file), Accepts("the name of a file with a JSON Web Key Set")
]
Algorithms = Annotated[
    tuple[str, ...],
    BeforeValidator(_algorithms),
    Accepts(f"a list of one or more of {', '.join(ALGORITHMS)}"),
]
Tenant = Annotated[str, BeforeValidator(_tenant), _TENANT]
OptionalTenant = Annotated[str | None, BeforeValidator(_tenant), _TENANT]
Tenants = Annotated[
    frozenset[str],
    BeforeValidator(_tenants),
    Accepts(f"a list of tenants, each of which {TENANT_RULE}"),
]
Scopes = Annotated[
    frozenset[Scope], BeforeValidator(_some_scopes), Accepts(f"a list of scopes: {SCOPES_RULE}")
]
ScopeMap = Annotated[
    dict[str, frozenset[Scope]],
    BeforeValidator(_scope_map),
    Accepts(f"a table from names in the scope claim to lists of scopes: {SCOPES_RULE}"),
]
Rules = Annotated[
    tuple[str, ...],
    BeforeValidator(_rules),
    Accepts("a list of session ids, and of beginnings of them such as user-7.*"),
]
RulesOfSubjects = Annotated[
    tuple[str, ...],
    BeforeValidator(_rules_of_subjects),
    Accepts("a list of session ids, and of beginnings of them such as user-{sub}.*"),
]
San = Annotated[
    str,
    BeforeValidator(_san),
    Accepts(
        "a URI such as spiffe://example.org/agent, or a DNS name, without '*': one of the"
        " certificate's subject alternative names"
    ),
]
