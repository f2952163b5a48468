"""The limits of a memory's metadata, and how it compares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_METADATA_BYTES = 16_384
"""As compact JSON in UTF-8."""

JSON_BYTES_A_WIRE_BYTE = 6
"""No metadata is larger as JSON: a control character is one byte there, and six here."""

MAX_METADATA_DEPTH = 8
"""Containers inside each other, the outermost counted."""


_HOLDS_NOTHING = frozenset({str, int, bool, type(None)})
"""Types of values that hold no others, and are in JSON what they are here."""


def to_json(value: Any) -> str:
    """Compact JSON, in the key order given."""
    return orjson.dumps(value).decode()


from_json = orjson.loads


def json_bytes(metadata: Mapping[str, Any]) -> int:
    """Size as compact JSON, in bytes of UTF-8."""
    return len(orjson.dumps(metadata))


def problem_with(metadata: Mapping[str, Any], wire_bytes: int | None = None) -> str | None:
    """What is wrong with a caller's metadata and what to do about it; None if nothing is.

    `wire_bytes`: what it takes as a Struct on the wire, where that is known.
    """
    is_flat = _HOLDS_NOTHING.issuperset(map(type, metadata.values()))
    pending: list[tuple[object, int]] = [] if is_flat else [(metadata, 1)]
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
    size = json_bytes(metadata)
    if size > MAX_METADATA_BYTES:
        return f"must be at most {MAX_METADATA_BYTES:,} bytes as JSON; this is {size:,}"
    return None


def contains(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether every key wanted is there with an equal value: deeply, and by JSON type."""
    return all(key in metadata and _equal(metadata[key], value) for key, value in wanted.items())


def _equal(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right  # True == 1 to Python, not to JSON
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return left == right
