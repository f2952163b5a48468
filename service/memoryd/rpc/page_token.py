"""Page tokens: a position, bound to the arguments that it belongs to. They outlive a restart."""

from __future__ import annotations

import base64
import binascii
import hashlib

from memoryd.errors import InvalidRequest, Violation

_POSITION_BYTES = 8
_DIGEST_BYTES = 16


def encode(position: int, arguments: bytes) -> str:
    """Give the token of a position within what these arguments list."""
    raw = position.to_bytes(_POSITION_BYTES) + _digest(position, arguments)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(token: str, arguments: bytes) -> int:
    """Give the position; 0 for no token. Raises InvalidRequest for a token of other arguments."""
    if not token:
        return 0
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    position = int.from_bytes(raw[:_POSITION_BYTES])
    if raw[_POSITION_BYTES:] != _digest(position, arguments):
        raise InvalidRequest(
            Violation(
                "page_token",
                "is not from a page of these arguments; send the next_page_token as it came, with"
                " the same arguments as before (page_size may change), or none to begin anew",
            )
        )
    return position


def _digest(position: int, arguments: bytes) -> bytes:
    return hashlib.blake2b(
        position.to_bytes(_POSITION_BYTES) + arguments, digest_size=_DIGEST_BYTES
    ).digest()
