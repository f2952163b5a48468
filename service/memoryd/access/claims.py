"""A JSON Web Token (RFC 7519) as text, and what its claims make of its bearer. Pure.

No error repeats any part of a token.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from memoryd.domain.errors import (
    MAX_CREDENTIAL_BYTES,
    CredentialExpired,
    CredentialInvalid,
    CredentialMalformed,
)
from memoryd.domain.principals import AuthMethod, InvalidGrant, Principal, Scope

if TYPE_CHECKING:
    from memoryd.access.auth_file import Issuer

MAX_SUBJECT_CHARACTERS: Final = 255
"""As OpenID Connect has it."""

MAX_TIME: Final = 253_370_764_800
"""1 January 9999 in seconds: a time that every leeway may be added to."""

_is_token = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)").fullmatch

_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "jku", "jwk", "x5u"})
"""Members that carry a key, point to one, or change how the token is read."""

_TYPES: Final = frozenset({"jwt", "jose", "at+jwt", "application/jwt", "application/at+jwt"})
"""Others, such as logout+jwt and dpop+jwt, are not access tokens, whoever signs them."""

_SCOPES: Final = {str(scope): frozenset({scope}) for scope in Scope}


class Unverified(NamedTuple):
    """The parts of a token whose signature is not verified yet."""

    algorithm: str
    kid: str | None
    issuer: str
    audiences: tuple[str, ...]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_token(token: str) -> Unverified:
    """Parse a token. Raises CredentialMalformed, or CredentialInvalid."""
    parts = _is_token(token) if len(token) <= MAX_CREDENTIAL_BYTES else None
    if parts is None:
        raise CredentialMalformed("the call's credential is no API key and no signed token")
    try:
        header = orjson.loads(_decoded(parts[1]))
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise CredentialMalformed("the header of the call's token cannot be read")
    try:
        claims, signature = orjson.loads(_decoded(parts[2])), _decoded(parts[3])
    except ValueError:
        raise CredentialInvalid from None
    if not isinstance(claims, dict) or not _is_access_token(header):
        raise CredentialInvalid
    issuer, audience = claims.get("iss"), claims.get("aud")
    audiences: list[Any] = audience if isinstance(audience, list) else [audience]
    if not isinstance(issuer, str) or not all(isinstance(name, str) for name in audiences):
        raise CredentialInvalid
    signed = token[: parts.end(2)].encode()
    return Unverified(
        header["alg"], header.get("kid"), issuer, tuple(audiences), claims, signed, signature
    )


def _is_access_token(header: dict[str, Any]) -> bool:
    """Whether the header may be that of an access token, and all of it is understood."""
    kid, kind = header.get("kid"), header.get("typ", "JWT")
    return (
        isinstance(header.get("alg"), str)
        and (kid is None or isinstance(kid, str))
        and isinstance(kind, str)
        and kind.lower() in _TYPES
        and not header.keys() & _REFUSED_HEADERS
    )


def _decoded(text: str) -> bytes:
    """Decode base64url, of which each content has one text. Raises ValueError."""
    encoded = text.encode()
    decoded = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != encoded:
        raise binascii.Error
    return decoded


def principal_by(issuer: Issuer, claims: dict[str, Any], now: datetime) -> Principal:
    """Give who the claims of a verified token make its bearer.

    Raises CredentialInvalid; CredentialExpired where nothing else is wrong with them.
    """
    at = now.timestamp()
    subject, expires, issued = claims.get("sub"), _time(claims, "exp"), _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise CredentialInvalid
    if not subject.isprintable() or max(begins, issued) > at + issuer.leeway:
        raise CredentialInvalid
    try:
        sessions = issuer.rules_of(subject)
    except InvalidGrant:
        raise CredentialInvalid from None
    principal = Principal(
        tenant=_tenant(issuer, claims),
        name=subject,
        method=AuthMethod.JWT,
        scopes=_scopes(issuer, claims),
        sessions=sessions,
        expires_at=datetime.fromtimestamp(expires + issuer.leeway, UTC),
        issued_at=datetime.fromtimestamp(issued, UTC),
    )
    if at >= expires + issuer.leeway:
        raise CredentialExpired
    return principal


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialInvalid
    if not 0 <= value <= MAX_TIME:  # nor where it is no number
        raise CredentialInvalid
    return value


def _tenant(issuer: Issuer, claims: dict[str, Any]) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    tenant = claims.get(issuer.tenant_claim or "")
    if not isinstance(tenant, str) or tenant not in issuer.allowed_tenants:
        raise CredentialInvalid
    return tenant


def _scopes(issuer: Issuer, claims: dict[str, Any]) -> frozenset[Scope]:
    """The scopes that the claim names. Names that are not known name nothing."""
    claim = claims.get(issuer.scope_claim, "")
    names = claim.split(" ") if isinstance(claim, str) else claim
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CredentialInvalid
    named = {**_SCOPES, **issuer.scope_map}
    return frozenset().union(*(named.get(name, ()) for name in names))
