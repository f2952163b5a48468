"""The files of TLS: a certificate, its key and the CA of client certificates, judged before use."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_FILE_BYTES = 1024 * 1024
"""The most that a PEM file may have; a bundle of every public CA has a quarter of it."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)
"""Curves whose signatures gRPC's clients verify."""


class CertificateFault(ValueError):
    """A file cannot serve TLS. The message names variable, file and remedy."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file, and the variable that names it."""

    variable: str
    path: Path

    def fault(self, problem: str) -> CertificateFault:
        return CertificateFault(f"{self.variable}: {self.path} {problem}")


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at the files found; equal for the same state of all of them."""

    contents: tuple[bytes, ...] = field(repr=False)
    problem: str = ""
    """Why a file cannot be used whatever it contains."""


@dataclass(frozen=True, slots=True)
class TlsPair:
    """What a server needs to serve TLS: a certificate chain, its key, and the CA of clients."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    """None: clients need no certificate."""
    expires: datetime

    def require_valid(self, now: datetime, file: NamedFile) -> None:
        """Raise CertificateFault once the certificate has expired."""
        if now >= self.expires:
            raise file.fault(f"has expired on {_shown(self.expires)}: renew the certificate")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files that the settings name."""

    certificate: NamedFile
    key: NamedFile
    client_ca: NamedFile | None

    def read(self) -> Found:
        """Look at the files. Raises nothing: a file that cannot be read is a state too."""
        named = (self.certificate, self.key, self.client_ca)
        try:
            return Found(tuple(_read(f, is_secret=f is self.key) for f in named if f is not None))
        except CertificateFault as fault:
            return Found((), str(fault))

    def pair(self, found: Found, now: datetime) -> TlsPair:
        """Judge what was found. Raises CertificateFault."""
        if found.problem:
            raise CertificateFault(found.problem)
        chain, key, *rest = found.contents
        certificate = _certificates(self.certificate, chain)[0]
        _require_key(self.key, key, self.certificate, certificate)
        if now < certificate.not_valid_before_utc:
            raise self.certificate.fault(
                f"is not valid before {_shown(certificate.not_valid_before_utc)}, and it is"
                f" {_shown(now)}: set the clock of this machine, or use another certificate"
            )
        pair = TlsPair(chain, key, rest[0] if rest else None, certificate.not_valid_after_utc)
        pair.require_valid(now, self.certificate)
        if self.client_ca is not None:
            authorities = _certificates(self.client_ca, rest[0])
            if all(now >= each.not_valid_after_utc for each in authorities):
                raise self.client_ca.fault("has expired: renew the CA certificate")
        return pair


def usable_pair(files: TlsFiles) -> TlsPair:
    """Read the files and judge them now. Raises CertificateFault."""
    return files.pair(files.read(), datetime.now(UTC))


def name_in(chain: bytes) -> str | None:
    """A name that the first certificate of a chain is valid for; None: it has none."""
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    for name in names.get_values_for_type(x509.DNSName):
        return name.replace("*", "memoryd")
    return next((str(each) for each in names.get_values_for_type(x509.IPAddress)), None)


def _read(file: NamedFile, *, is_secret: bool) -> bytes:
    try:
        # Mode and contents are those of one file, also while another takes its name.
        with file.path.open("rb") as opened:
            if is_secret and is_exposed(os.fstat(opened.fileno()), _user()):
                raise file.fault(f"can be read by others: chmod 600 {file.path}")
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise file.fault(
            f"cannot be read ({reason}): name a PEM file that the user of this process may read"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise file.fault(f"has more than {MAX_FILE_BYTES:,} bytes: name a PEM file")
    return content


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def is_exposed(status: Any, user: int) -> bool:
    """Whether others than a user and root can read a file, by its `os.stat`.

    The group may read a key that is root's, since that is how a container without root gets one.
    """
    if os.name == "nt":  # its modes say nothing about readers
        return False
    is_roots = status.st_uid == 0 and user != 0
    allowed = stat.S_IRWXU | (stat.S_IRGRP if is_roots else 0)
    return bool(stat.S_IMODE(status.st_mode) & 0o777 & ~allowed)


def _certificates(file: NamedFile, content: bytes) -> list[x509.Certificate]:
    found: list[x509.Certificate] | None = _parsed(x509.load_pem_x509_certificates, content)
    if not found:
        raise file.fault("has no readable certificate: name a file with certificates in PEM")
    return found


def _require_key(
    file: NamedFile, content: bytes, of: NamedFile, certificate: x509.Certificate
) -> None:
    key: Any = _parsed(lambda pem: serialization.load_pem_private_key(pem, None), content)
    if key is None:
        raise file.fault(
            "has no readable private key: name a file with one in PEM, without a passphrase"
        )
    is_supported = isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    )
    if not is_supported:
        raise file.fault(
            "has a key of a type that gRPC's clients do not verify: use RSA, or ECDSA with P-256"
            " or P-384"
        )
    if key.public_key() != certificate.public_key():
        raise file.fault(
            f"does not belong to the first certificate of {of.path} ({of.variable}): name the key"
            " that the certificate was made for"
        )


def _parsed(parse: Callable[[bytes], Any], content: bytes) -> Any:
    """What a parser of PEM makes of a content; None where it refuses it."""
    try:
        return parse(content)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return None


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
