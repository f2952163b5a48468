"""The wire's encoding, for answers that are put together from encoded parts.

A message is encoded as its fields, one after the other in any order; a field given in parts is
their union, and of a single value the last one counts
(https://protobuf.dev/programming-guides/encoding/, "Last One Wins").
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

VARINT, DOUBLE, LENGTH = 0, 1, 2
"""Wire types."""

_CACHED_NUMBERS = 8192


def tag(message: type[Message], field: str, wire_type: int) -> int:
    """What stands before a field's value, of one of the first 15 fields."""
    return message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type


@lru_cache(_CACHED_NUMBERS)
def varint(count: int) -> bytes:
    """A number as a varint: seven bits a byte, the lowest first, all but the last marked."""
    encoded = bytearray()
    while count >> 7:
        encoded.append(count & 0x7F | 0x80)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)
