"""JSON that is checked and kept as the text it came as."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

import msgspec
import orjson

MAX_JSON_DEPTH = 512
"""Containers inside each other, the outermost counted."""

_TOO_DEEP = f"must nest at most {MAX_JSON_DEPTH} containers; flatten it, or send it as text"

# It goes through a text without making anything of it. To make its values takes up to a hundred
# times as long, during which no other thread of the process runs.
_checker = msgspec.json.Decoder(msgspec.Raw)

_surrogate = re.compile(rb"\\u[dD][89a-fA-F]")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(byte for byte in range(256) if byte not in {*_STEPS, ord('"')})
_AT_ONCE = 4_096
"""Brackets; other threads run in between."""


def problem_with_json(data: bytes) -> str | None:
    """Say why a text, as UTF-8, is no JSON that is accepted; None where it is."""
    if b"\\" in data:
        data = data.replace(rb"\\", b"__").replace(rb"\"", b"__")
        # Halves of surrogate pairs are JSON, which the checker refuses.
        data = _surrogate.sub(rb"\\u00", data)
    try:
        _checker.decode(data)
    except RecursionError:
        return _TOO_DEEP
    except ValueError as error:
        return f"must be JSON by RFC 8259: {error}"
    return _TOO_DEEP if _nests_too_deep(data) else None


def parsed(text: str | bytes) -> Any:
    """Parse it; of repeated keys the last counts. Raises ValueError."""
    try:
        return orjson.loads(text)
    except ValueError:
        # It also refuses halves of surrogate pairs that are escaped, and some large numbers.
        return json.loads(text, parse_constant=_refuse, parse_int=_number, parse_float=_number)


def _number(digits: str) -> float:
    return float(digits)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _nests_too_deep(data: bytes) -> bool:
    """Whether JSON does in which no quotation mark is escaped."""
    # Left of a string are the brackets in it, between quotation marks.
    marks = data.translate(None, _OTHERS).replace(b'""', b"")
    brackets = b"".join(marks.split(b'"')[::2])
    if len(brackets) <= 2 * MAX_JSON_DEPTH:
        return False  # each container has two
    depth = 0
    for start in range(0, len(brackets), _AT_ONCE):
        steps = map(_STEPS.__getitem__, brackets[start : start + _AT_ONCE])
        depths = [*accumulate(steps, initial=depth)]
        if max(depths) > MAX_JSON_DEPTH:
            return True
        depth = depths[-1]
    return False
