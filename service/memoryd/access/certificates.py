"""Who shows a client certificate, and what that makes of the bearer of another credential."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from memoryd.domain.errors import CredentialExpired, CredentialInvalid
from memoryd.domain.principals import AuthMethod, Principal, SessionRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from memoryd.access.auth_file import CertificateRule

MAX_KNOWN: Final = 1_000
"""Certificates that need not be read again; those that were not used for longest go first."""

_TLS: Final = (b"ssl", b"tls")


class Certificates:
    """What each certificate is good for. TLS has verified it before."""

    def __init__(self, rules: Sequence[CertificateRule], clock: Callable[[], datetime]) -> None:
        """Of rules that fit the same certificate the first counts."""
        # Only a server that knows a certificate by its name needs to read any.
        from memoryd.access.certificate_names import names_in  # noqa: PLC0415  as above

        self._names_in = names_in
        self._rules = tuple(rules)
        self._clock = clock
        self._known: OrderedDict[bytes, Principal | None] = OrderedDict()

    def principal_of(self, auth_context: Mapping[str, Iterable[bytes]]) -> Principal | None:
        """Give who the certificate of a connection is, by gRPC's context of it.

        None where there is no certificate, or no rule has one of its names. Raises
        CredentialExpired: a connection may outlive its certificate.
        """
        if not any(kind in _TLS for kind in auth_context.get("transport_security_type", ())):
            return None
        for pem in auth_context.get("x509_pem_cert", ()):
            principal = self._principal_by(pem)
            if principal is not None and principal.expires_at is not None:
                if principal.expires_at <= self._clock():
                    raise CredentialExpired
                return principal
        return None

    def _principal_by(self, pem: bytes) -> Principal | None:
        if pem in self._known:
            self._known.move_to_end(pem)
            return self._known[pem]
        principal = self._read(pem)
        self._known[pem] = principal
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    def _read(self, pem: bytes) -> Principal | None:
        names = self._names_in(pem)
        if names is None:
            return None
        for rule in self._rules:
            if rule.san in (names.uris if rule.is_uri else names.dns_names):
                return Principal(
                    tenant=rule.tenant,
                    name=rule.san,
                    method=AuthMethod.CERTIFICATE,
                    scopes=rule.scopes,
                    sessions=SessionRules(rule.sessions),
                    expires_at=names.expires_at,
                )
        return None


def combined(certificate: Principal, token: Principal) -> Principal:
    """The bearer of a token or key on a connection with a certificate: what both allow.

    Raises CredentialInvalid where their tenants differ.
    """
    if certificate.tenant != token.tenant:
        raise CredentialInvalid
    ends = [end for end in (certificate.expires_at, token.expires_at) if end is not None]
    return token._replace(
        scopes=certificate.scopes & token.scopes,
        sessions=certificate.sessions.both(token.sessions),
        expires_at=min(ends, default=None),
    )
