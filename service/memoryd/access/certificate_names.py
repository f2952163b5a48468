"""What a certificate says of its holder (RFC 5280).

Imported by those that need it alone: cryptography takes a while to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime


class CertificateNames(NamedTuple):
    """Its subject alternative names, each by its type, and when it ends."""

    uris: frozenset[str]
    dns_names: frozenset[str]
    """In lower case."""
    expires_at: datetime


def names_in(pem: bytes) -> CertificateNames | None:
    """Read a certificate; None where it cannot be read or has no alternative names."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return CertificateNames(
            frozenset(names.get_values_for_type(x509.UniformResourceIdentifier)),
            frozenset(map(str.lower, names.get_values_for_type(x509.DNSName))),
            certificate.not_valid_after_utc,
        )
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        return None
