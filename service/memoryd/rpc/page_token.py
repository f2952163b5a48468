"""Page tokens: a position, bound to the method and the arguments that it belongs to.

They outlive a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

from memoryd.domain.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from memoryd.rpc.violations import Violations

DEFAULT_SIZE = 50
MAX_SIZE = 1000
"""Entries of a page; a request for more gets so many."""

_POSITION_BYTES = 8
_DIGEST_BYTES = 16
LAST = 2**63 - 1
"""The last position: what a database can compare with."""

NOT_OURS = (
    "is not from a page of these arguments; send the next_page_token as it came, with the same"
    " arguments as before (page_size may change), or none for the first page"
)


def size(request: Any) -> int:
    """How many entries a page of this request has at most."""
    return min(request.page_size or DEFAULT_SIZE, MAX_SIZE)


def encode(position: int, request: Any, tenant: str) -> str:
    """Give the token of a position within what this request of a tenant lists."""
    return _sealed(position.to_bytes(_POSITION_BYTES), request, tenant)


def encode_name(position: str, request: Any, tenant: str) -> str:
    """As `encode`, for what is listed by its name."""
    return _sealed(position.encode(), request, tenant)


def decode(request: Any, tenant: str, violations: Violations) -> int:
    """Give the position; 0 for no token, and for one of other arguments, which is a violation."""
    position = int.from_bytes(_opened(request, tenant, violations)[:_POSITION_BYTES])
    if position > LAST:
        violations.add("page_token", NOT_OURS)
        return 0
    return position


def decode_name(request: Any, tenant: str, violations: Violations) -> str:
    """As `decode`, for what is listed by its name; empty for no token."""
    name = _opened(request, tenant, violations).decode(errors="replace")
    if "\0" in name:  # which no name has, and no database compares with
        violations.add("page_token", NOT_OURS)
        return ""
    return name


def _sealed(position: bytes, request: Any, tenant: str) -> str:
    raw = position + _digest(position, request, tenant)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _opened(request: Any, tenant: str, violations: Violations) -> bytes:
    token: str = request.page_token
    if not token:
        return b""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    position = raw[:-_DIGEST_BYTES]
    if raw[-_DIGEST_BYTES:] != _digest(position, request, tenant):
        violations.add("page_token", NOT_OURS)
        return b""
    return position


def _method(request: Any) -> bytes:
    """Requests of several methods have the same bytes where they hold nothing but a name.

    Tokens of the first of these methods name none, as before there were others, so that its lists
    go on while a server is updated.
    """
    name: str = request.DESCRIPTOR.name
    return b"" if name == "ListMemoriesRequest" else name.encode() + b"\0"


def _digest(position: bytes, request: Any, tenant: str) -> bytes:
    """Of the position, the method, every argument that a token is bound to, and the tenant."""
    arguments = type(request)()
    arguments.CopyFrom(request)
    arguments.ClearField("page_size")
    arguments.ClearField("page_token")
    return hashlib.blake2b(
        _method(request) + position + arguments.SerializeToString(deterministic=True),
        digest_size=_DIGEST_BYTES,
        # Tokens of the one tenant that there was before others have no key.
        key=b"" if tenant == DEFAULT_TENANT else tenant.encode(),
    ).digest()
