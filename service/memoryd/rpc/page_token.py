"""Page tokens: a position, bound to the arguments that it belongs to. They outlive a restart."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoryd.rpc.violations import Violations

DEFAULT_SIZE = 50
MAX_SIZE = 1000
"""Entries of a page; a request for more gets so many."""

_POSITION_BYTES = 8
_DIGEST_BYTES = 16
_MAX_POSITION = 2**63 - 1
"""What a database can compare with."""


def size(request: Any) -> int:
    """How many entries a page of this request has at most."""
    return min(request.page_size or DEFAULT_SIZE, MAX_SIZE)


def encode(position: int, request: Any) -> str:
    """Give the token of a position within what this request lists."""
    raw = position.to_bytes(_POSITION_BYTES) + _digest(position, request)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(request: Any, violations: Violations) -> int:
    """Give the position; 0 for no token, and for one of other arguments, which is a violation."""
    token: str = request.page_token
    if not token:
        return 0
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    position = int.from_bytes(raw[:_POSITION_BYTES])
    if position > _MAX_POSITION or raw[_POSITION_BYTES:] != _digest(position, request):
        violations.add(
            "page_token",
            "is not from a page of these arguments; send the next_page_token as it came, with the"
            " same arguments as before (page_size may change), or none for the first page",
        )
        return 0
    return position


def _digest(position: int, request: Any) -> bytes:
    """Of the position and of every argument that a token is bound to."""
    arguments = type(request)()
    arguments.CopyFrom(request)
    arguments.ClearField("page_size")
    arguments.ClearField("page_token")
    return hashlib.blake2b(
        position.to_bytes(_POSITION_BYTES) + arguments.SerializeToString(deterministic=True),
        digest_size=_DIGEST_BYTES,
    ).digest()
