"""Issuers for tests: keys, tokens signed by them, and a server of key sets that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from tests.authority import DAY, Authority, Issued, pem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from memoryd.access.tokens import Tokens

ISSUER = "https://issuer.example/"
AUDIENCE = "memoryd"


def new_key(algorithm: str) -> Any:
    """A private key for an algorithm."""
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, 2048)


@dataclass
class IssuerKey:
    """A key of an issuer, and what it signs."""

    algorithm: str = "ES256"
    kid: str | None = "one"
    private: Any = None

    def __post_init__(self) -> None:
        self.private = self.private or new_key(self.algorithm)

    def jwk(self, **members: Any) -> dict[str, Any]:
        """Its public half, as key sets have it."""
        jwk = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        jwk.pop("key_ops", None)
        kid = {} if self.kid is None else {"kid": self.kid}
        return {**jwk, **kid, **members}

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """Sign claims; a member of the header that is None is left out."""
        members = {"typ": "JWT", "alg": self.algorithm, "kid": self.kid, **(header or {})}
        members = {name: value for name, value in members.items() if value is not None}
        return self.sign_bytes(json.dumps(claims).encode(), json.dumps(members).encode())

    def sign_bytes(self, payload: bytes, header: bytes | None = None) -> str:
        """Sign any bytes as claims."""
        if header is None:
            header = json.dumps({"alg": self.algorithm, "kid": self.kid}).encode()
        signed = f"{base64url(header)}.{base64url(payload)}"
        signature = get_default_algorithms()[self.algorithm].sign(signed.encode(), self.private)
        return f"{signed}.{base64url(signature)}"


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def hmac_token(claims: dict[str, Any], secret: bytes, kid: str | None) -> str:
    """Sign claims with HMAC, also with what PyJWT refuses as its secret."""
    signed = ".".join(
        base64url(json.dumps(part).encode())
        for part in ({"alg": "HS256", "kid": kid, "typ": "JWT"}, claims)
    )
    signature = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), secret)
    return f"{signed}.{base64url(signature)}"


def claims_at(now: dt.datetime, **claims: Any) -> dict[str, Any]:
    """Claims of a good token; those that are None are left out."""
    at = int(now.timestamp())
    all_claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": at,
        "exp": at + 600,
        "scope": "memories:read",
        **claims,
    }
    return {name: value for name, value in all_claims.items() if value is not None}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


# A server of key sets


@dataclass
class KeyServer:
    """Answers each request with what it is told to."""

    content: bytes = b'{"keys": []}'
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
    """What to do in place of answering."""
    requests: list[bytes] = field(default_factory=list)
    url: str = ""
    tasks: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is not None:
                await self.answer(writer)
            else:
                head = (f"HTTP/1.1 {self.status}", *self.headers)
                length = f"Content-Length: {len(self.content)}"
                writer.write("\r\n".join((*head, length, "", "")).encode() + self.content)
                await writer.drain()
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            if not writer.is_closing():
                writer.transport.abort()
            self.tasks.discard(asyncio.current_task())

    async def stop(self) -> None:
        """End the answers that are under way."""
        tasks = [task for task in self.tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes their sockets


@contextlib.asynccontextmanager
async def key_server(
    *keys: dict[str, Any], tls: ssl.SSLContext | None = None
) -> AsyncIterator[KeyServer]:
    """Serve a key set on a port of this machine until the end of the block."""
    server = KeyServer(key_set(*keys))
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{port}/jwks.json"
    try:
        yield server
    finally:
        listening.close()
        await server.stop()


@contextlib.asynccontextmanager
async def starting() -> AsyncIterator[Callable[[Tokens], Awaitable[Tokens]]]:
    """Start tokens; all of them are closed at the end of the block."""
    all_started: list[Tokens] = []

    async def start(tokens: Tokens) -> Tokens:
        all_started.append(tokens)
        await tokens.start()
        return tokens

    yield start
    for tokens in all_started:
        await tokens.aclose()


# Certificates


class Issuing(Authority):
    """Signs certificates of any names, as strict verifiers want them."""

    def issue_names(self, *names: x509.GeneralName, ends: dt.timedelta = DAY) -> Issued:
        """Sign a certificate with exactly these alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder("holder", key.public_key(), -DAY, ends)
        if names:
            alternative = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(alternative, critical=False)
        return Issued(self._signed(builder), pem_of(key))

    def _builder(
        self, name: str, key: Any, begins: dt.timedelta, ends: dt.timedelta
    ) -> x509.CertificateBuilder:
        own = self._key.public_key()
        usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
        if key == own:
            usage |= {"key_cert_sign": True, "crl_sign": True}
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(own)
        return (
            super()
            ._builder(name, key, begins, ends)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(identifier, critical=False)
        )

    def server_context(self, folder: Path) -> ssl.SSLContext:
        """What a server on 127.0.0.1 presents itself with."""
        issued = self.issue()
        (folder / "server.pem").write_bytes(issued.chain + issued.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return context


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
