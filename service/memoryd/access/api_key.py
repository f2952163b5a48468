"""The text of an API key: `mdk_`, its id, `_`, its secret, a checksum.

`mdk_<id, 12>_<secret, 43><checksum, 6>`, in base62 (digits, upper case, lower case). The secret
has 256 random bits. The checksum is CRC-32 (ISO 3309) of all before it: noise is told from a key
without a look-up, and a scanner for secrets finds keys without false alarms. It proves nothing:
what is kept of a key is its SHA-256, and a random secret needs no slower hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

PREFIX = "mdk_"
ID_DIGITS = 12
SECRET_DIGITS = 43
"""62 ** 43 is more than 2 ** 256."""
CHECKSUM_DIGITS = 6
SECRET_BITS = 256

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(
    rf"(?P<before>{PREFIX}(?P<id>[0-9A-Za-z]{{{ID_DIGITS}}})_[0-9A-Za-z]{{{SECRET_DIGITS}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_DIGITS}}})"
)

is_key_id = re.compile(rf"[0-9A-Za-z]{{{ID_DIGITS}}}").fullmatch
"""Whether a text can be the id of a key. One that cannot may be a whole key: do not repeat it."""


class MalformedKey(ValueError):
    """A text that is no API key. Its own text does not repeat it."""

    def __init__(self) -> None:
        super().__init__("this is no API key, or not all of one; copy the whole key")


class KeyText(NamedTuple):
    """A key, as it is shown once."""

    key_id: str
    text: str

    def __repr__(self) -> str:
        return f"KeyText({self.key_id!r}, …)"


def new_key() -> KeyText:
    """Make a key from the system's random bits."""
    key_id = "".join(secrets.choice(_DIGITS) for _ in range(ID_DIGITS))
    secret = _base62(secrets.randbits(SECRET_BITS), SECRET_DIGITS)
    before = f"{PREFIX}{key_id}_{secret}"
    return KeyText(key_id, before + _checksum(before))


def key_id_of(text: str) -> str:
    """Give the id of a key whose shape and checksum are right. Raises MalformedKey."""
    shaped = _SHAPE.fullmatch(text)
    if shaped is None or shaped["checksum"] != _checksum(shaped["before"]):
        raise MalformedKey
    return shaped["id"]


def key_target(key_id: str) -> str:
    """Name a key in the audit; empty where the text is no id."""
    return f"api_keys/{key_id}" if is_key_id(key_id) else ""


def digest_of(text: str) -> bytes:
    """What is kept of a key: 32 bytes of SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    """Write a number in base62, padded with zeros in front."""
    written = []
    for _ in range(digits):
        number, digit = divmod(number, len(_DIGITS))
        written.append(_DIGITS[digit])
    return "".join(reversed(written))
