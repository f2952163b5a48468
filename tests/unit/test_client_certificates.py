"""Client certificates: who shows them, and what that leaves of a token's rights."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from tests.authority import DAY
from tests.issuers import Issuing

from memoryd.access.auth_file import CertificateRule
from memoryd.access.certificates import MAX_KNOWN, Certificates, combined
from memoryd.domain.errors import CredentialExpired, CredentialInvalid
from memoryd.domain.principals import (
    NO_SESSION,
    AuthMethod,
    Principal,
    Scope,
    SessionRules,
    scopes_of,
)

URI = "spiffe://acme.example/agent"
DNS = "agent.acme.example"


def utc_now() -> datetime:
    return datetime.now(UTC)


def certificates(*sans: str, clock=utc_now, **fields) -> Certificates:
    rules = [
        CertificateRule(**{"san": san, "tenant": "acme", "scopes": ["agent"], **fields})
        for san in sans
    ]
    return Certificates(rules, clock)


def context_of(*pems: bytes, transport: bytes = b"ssl") -> dict[str, list[bytes]]:
    return {"transport_security_type": [transport], "x509_pem_cert": list(pems)}


@pytest.fixture(scope="module")
def authority() -> Issuing:
    return Issuing()


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


@pytest.mark.parametrize(
    ("san", "name"),
    [
        (URI, uri(URI)),
        (DNS, x509.DNSName(DNS)),
        (DNS, x509.DNSName(DNS.upper())),
        (DNS.upper(), x509.DNSName(DNS)),
        ("urn:acme:agent", uri("urn:acme:agent")),
    ],
)
def test_a_certificate_is_known_by_a_name(authority, san, name):
    pem, _ = authority.issue_names(x509.DNSName("other.example"), name)
    principal = certificates(san, sessions=["agent.*"]).principal_of(context_of(pem))
    assert principal is not None
    assert principal.tenant == "acme"
    assert principal.name.lower() == san.lower()
    assert principal.method is AuthMethod.CERTIFICATE
    assert principal.scopes == scopes_of(["agent"])
    assert principal.sessions == SessionRules(["agent.*"])
    assert principal.expires_at == x509.load_pem_x509_certificate(pem).not_valid_after_utc


@pytest.mark.parametrize(
    ("san", "name"),
    [
        (DNS, x509.DNSName("*.acme.example")),
        (DNS, x509.DNSName(f"a.{DNS}")),
        (DNS, x509.DNSName("acme.example")),
        (DNS, uri(DNS)),
        (DNS, x509.RFC822Name(DNS)),
        (DNS, x509.RegisteredID(ObjectIdentifier("1.2.3"))),
        ("127.0.0.1", x509.IPAddress(ipaddress.ip_address("127.0.0.1"))),
        (URI, x509.DNSName(URI)),
        (URI, uri(f"{URI}/other")),
        (URI, uri(URI.upper())),
    ],
)
def test_a_certificate_of_another_name_is_not_known(authority, san, name):
    pem, _ = authority.issue_names(name)
    assert certificates(san).principal_of(context_of(pem)) is None


def test_a_common_name_names_no_one(authority):
    pem, _ = authority.issue_names()
    assert certificates("holder").principal_of(context_of(pem)) is None


def test_the_first_rule_of_the_file_counts(authority):
    pem, _ = authority.issue_names(x509.DNSName(DNS), uri(URI))
    for sans in ((URI, DNS), (DNS, URI)):
        principal = certificates(*sans).principal_of(context_of(pem))
        assert principal is not None
        assert principal.name == sans[0]


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"transport_security_type": [b"ssl"]},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": []},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": [b""]},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": [b"no certificate"]},
        {
            "transport_security_type": [b"ssl"],
            "x509_subject_alternative_name": [URI.encode()],
        },
    ],
)
def test_a_connection_without_a_certificate(context):
    assert certificates(URI).principal_of(context) is None


def test_a_certificate_counts_on_tls_alone(authority):
    pem, _ = authority.issue_names(uri(URI))
    assert certificates(URI).principal_of(context_of(pem, transport=b"insecure")) is None
    assert certificates(URI).principal_of({"x509_pem_cert": [pem]}) is None


def test_a_connection_may_outlive_its_certificate(authority):
    pem, _ = authority.issue_names(uri(URI), ends=DAY)
    now = utc_now()
    known = certificates(URI, clock=lambda: now)
    assert known.principal_of(context_of(pem))
    now += DAY
    with pytest.raises(CredentialExpired):
        known.principal_of(context_of(pem))


def test_more_certificates_than_are_kept_are_known_all_the_same(authority):
    pem, _ = authority.issue_names(uri(URI))
    known = certificates(URI)
    assert known.principal_of(context_of(pem))
    for number in range(MAX_KNOWN + 1):
        assert known.principal_of(context_of(b"%d" % number)) is None
    assert known.principal_of(context_of(pem))


async def test_what_grpc_says_of_a_connection(authority):
    pem, key = authority.issue_names(uri(URI), x509.DNSName(DNS))
    server_pem, server_key = authority.issue("localhost")
    found: list[Principal | None] = []

    async def handle(_, context) -> bytes:
        found.append(certificates(URI).principal_of(context.auth_context()))
        return b""

    handler = grpc.unary_unary_rpc_method_handler(handle)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"m": handler})])
    credentials = grpc.ssl_server_credentials(
        [(server_key, server_pem)], authority.pem, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    client = grpc.ssl_channel_credentials(authority.pem, key, pem)
    async with (
        grpc.aio.secure_channel(f"localhost:{port}", client) as channel,
        asyncio.timeout(30),
    ):
        await channel.unary_unary("/s/m")(b"")
    await server.stop(None)
    (principal,) = found
    assert principal is not None
    assert (principal.name, principal.method) == (URI, AuthMethod.CERTIFICATE)


# With another credential

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CERTIFICATE = Principal(
    "acme",
    URI,
    AuthMethod.CERTIFICATE,
    scopes_of(["reader", "memories:erase"]),
    SessionRules(["user-7.*", "shared"]),
    NOW,
)
TOKEN = Principal(
    "acme",
    "alice",
    AuthMethod.JWT,
    scopes_of(["agent"]),
    SessionRules(["user-7.a", "user-8.*"]),
    NOW + timedelta(hours=1),
    issued_at=NOW - timedelta(hours=1),
)


def test_both_may_do_what_each_may():
    both = combined(CERTIFICATE, TOKEN)
    assert (both.tenant, both.name, both.method) == ("acme", "alice", AuthMethod.JWT)
    assert both.scopes == scopes_of(["reader"])
    assert both.sessions.texts == ("user-7.a",)
    assert both.expires_at == NOW
    assert both.issued_at == TOKEN.issued_at
    assert Scope.MEMORIES_ERASE not in both.scopes


def test_both_end_with_the_first_of_them():
    later = CERTIFICATE._replace(expires_at=NOW + timedelta(hours=2))
    assert combined(later, TOKEN).expires_at == TOKEN.expires_at
    assert combined(CERTIFICATE, TOKEN._replace(expires_at=None)).expires_at == NOW


def test_both_without_a_session_in_common_may_name_none():
    both = combined(CERTIFICATE, TOKEN._replace(sessions=SessionRules(["other"])))
    assert both.sessions.texts == (NO_SESSION,)


def test_both_are_of_one_tenant():
    with pytest.raises(CredentialInvalid):
        combined(CERTIFICATE, TOKEN._replace(tenant="other"))
