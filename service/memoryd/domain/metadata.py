"""The limits of a memory's metadata, and of other JSON that callers give as messages."""

from __future__ import annotations

import math
from typing import Any

import orjson

MAX_METADATA_BYTES = 16_384
"""As compact JSON in UTF-8."""

JSON_BYTES_A_WIRE_BYTE = 6
"""No metadata is larger as JSON: a control character is one byte there, and six here."""

MAX_METADATA_WIRE_BYTES = 6 * MAX_METADATA_BYTES
"""No metadata within its limit is larger as a message: a digit and its comma take eleven bytes."""

MAX_METADATA_DEPTH = 8
"""Containers inside each other, the outermost counted."""


_HOLDS_NOTHING = frozenset({str, int, bool, type(None)})
"""Types of values that hold no others, and are in JSON what they are here."""


def to_json(value: Any) -> str:
    """Compact JSON, in the key order given."""
    return orjson.dumps(value).decode()


from_json = orjson.loads


def json_bytes(value: Any) -> int:
    """Size as compact JSON, in bytes of UTF-8."""
    return len(orjson.dumps(value))


def problem_with(given: Any, wire_bytes: int | None = None) -> str | None:
    """What is wrong with a caller's JSON and what to do about it; None if nothing is.

    `wire_bytes`: what it takes as a Struct or a Value on the wire, where that is known.
    """
    children = given.values() if isinstance(given, dict) else [given]
    is_flat = _HOLDS_NOTHING.issuperset(map(type, children))
    pending: list[tuple[object, int]] = [] if is_flat else [(given, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return "must not hold NaN or infinite numbers, which JSON has no form for"
        if isinstance(value, (dict, list)):
            if depth > MAX_METADATA_DEPTH:
                return f"must nest at most {MAX_METADATA_DEPTH} containers; flatten it"
            children = value.values() if isinstance(value, dict) else value
            pending.extend((child, depth + 1) for child in children)
    if wire_bytes is not None and wire_bytes * JSON_BYTES_A_WIRE_BYTE <= MAX_METADATA_BYTES:
        return None
    size = json_bytes(given)
    if size > MAX_METADATA_BYTES:
        return f"must be at most {MAX_METADATA_BYTES:,} bytes as JSON; this is {size:,}"
    return None
