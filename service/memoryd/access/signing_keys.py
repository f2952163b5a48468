"""The public keys of a JSON Web Key Set (RFC 7517) that may verify tokens.

Imported by those that need it alone: PyJWT and cryptography take a while to load.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK
from jwt.exceptions import PyJWTError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_SET_BYTES: Final = 1024 * 1024
"""Of a key set."""

MAX_KEYS: Final = 100
"""Of a key set, those included that verify no tokens."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Larger keys take too long to verify with."""

MAX_RSA_EXPONENT_BITS: Final = 64
"""Usual is 17: with a large exponent, verifying takes a hundred times as long."""

_PUBLIC_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
_ALGORITHMS: Final = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}

_is_number = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_RSA_BITS // 6 + 1}}}").fullmatch


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key. Equal are those that verify the same tokens."""

    kid: str | None
    algorithms: frozenset[str]
    """Those that fit the key's type, and its `alg` where it has one."""
    thumbprint: bytes
    _keys: Mapping[str, PyJWK] = field(compare=False, repr=False)
    """By algorithm."""

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is by this key. The algorithm must be one of the key's."""
        key = self._keys[algorithm]
        try:
            return bool(key.Algorithm.verify(signed, key.key, signature))
        except (PyJWTError, ValueError):
            return False


def read_key_file(path: Path) -> tuple[SigningKey, ...]:
    """Read the keys in a file. Raises ValueError, whose text says what is wrong with it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("no regular file")  # a pipe could be waited for without end
        with path.open("rb") as file:
            content = file.read(MAX_SET_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    return keys_in(content)


def keys_in(content: bytes) -> tuple[SigningKey, ...]:
    """Read the keys in a set; those that cannot verify tokens are left out.

    Raises ValueError, whose text says what is wrong with the set.
    """
    if len(content) > MAX_SET_BYTES:
        raise ValueError(f"more than {MAX_SET_BYTES:,} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError("no JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JSON Web Key Set")  # noqa: TRY004  it is the set that is wrong
    if len(listed) > MAX_KEYS:
        raise ValueError(f"a key set of more than {MAX_KEYS} keys")
    return tuple(key for key in map(_key_of, listed) if key is not None)


def _key_of(listed: Any) -> SigningKey | None:
    """Read a key; None where it is not one to verify tokens with."""
    if not isinstance(listed, dict) or listed.keys() & _PRIVATE_MEMBERS:
        return None
    key_type, kid, operations = listed.get("kty"), listed.get("kid"), listed.get("key_ops")
    if not isinstance(key_type, str) or key_type not in _ALGORITHMS:
        return None
    algorithms = [name for name in _ALGORITHMS[key_type] if listed.get("alg", name) == name]
    public = {name: listed.get(name) for name in _PUBLIC_MEMBERS[key_type]}
    fits = (
        algorithms
        and (kid is None or isinstance(kid, str))
        and listed.get("use", "sig") == "sig"
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        and public.get("crv") == _CURVES.get(key_type)
        and all(isinstance(text, str) and _is_number(text) for text in public.values())
    )
    if not fits:
        return None
    try:
        keys = {name: PyJWK({"kty": key_type, **public}, name) for name in algorithms}
    except (PyJWTError, ValueError, UnsupportedAlgorithm):
        return None
    key = keys[algorithms[0]].key
    if isinstance(key, RSAPublicKey) and not _is_fit(key):
        return None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(kid, frozenset(algorithms), hashlib.sha256(encoded).digest(), keys)


def _is_fit(key: RSAPublicKey) -> bool:
    exponent = key.public_numbers().e
    return (
        MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
        and exponent.bit_length() <= MAX_RSA_EXPONENT_BITS
    )
