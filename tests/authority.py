"""Certificates for tests: a private CA, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Issued(NamedTuple):
    """A certificate and its key, in PEM."""

    chain: bytes
    key: bytes

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.chain).serial_number


def pem_of(key: Any, password: bytes | None = None) -> bytes:
    """Encode a private key."""
    encryption: Any = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


class Authority:
    """A CA that exists for one test."""

    def __init__(self, name: str = "test CA", *, lasts: timedelta = 30 * DAY) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = self._builder(name, self._key.public_key(), lasts - 60 * DAY, lasts)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)  # noqa: FBT003  critical
        self.pem = self._signed(builder)

    def issue(
        self,
        name: str = "memoryd.test",
        *,
        uri: str | None = None,
        begins: timedelta = -DAY,
        ends: timedelta = 30 * DAY,
        key: Any = None,
    ) -> Issued:
        """Sign a certificate for a name and 127.0.0.1, valid from and to moments from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.DNSName(name),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        builder = self._builder(name, key.public_key(), begins, ends)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)  # noqa: FBT003  not critical
        return Issued(self._signed(builder), pem_of(key))

    def _builder(
        self, name: str, key: Any, begins: timedelta, ends: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Folder:
    """The files of a server, and the variables that name them."""

    def __init__(self, path: Path, issued: Issued, client_ca: bytes | None = None) -> None:
        path.mkdir(exist_ok=True)
        self.cert, self.key, self.client_ca = path / "tls.crt", path / "tls.key", path / "ca.crt"
        self.key.touch(0o600)
        self.write(issued)
        self.variables = {"MEMORYD_TLS_CERT": str(self.cert), "MEMORYD_TLS_KEY": str(self.key)}
        if client_ca is not None:
            self.client_ca.write_bytes(client_ca)
            self.variables["MEMORYD_TLS_CLIENT_CA"] = str(self.client_ca)

    def write(self, issued: Issued) -> None:
        self.cert.write_bytes(issued.chain)
        self.key.write_bytes(issued.key)
