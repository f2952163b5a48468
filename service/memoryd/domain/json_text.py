"""JSON that is checked and kept as the text it came as."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

MAX_JSON_DEPTH = 512
"""Containers inside each other, the outermost counted."""

_token = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def problem_with_json(text: str) -> str | None:
    """Say why a text is no JSON that is accepted; None where it is."""
    if _nests_too_deep(text):
        return f"must nest at most {MAX_JSON_DEPTH} containers; flatten it, or send it as text"
    try:
        parsed(text)
    except ValueError as error:
        return f"must be JSON by RFC 8259: {error}"
    return None


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


def _nests_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for match in _token.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                return True
        elif match[0] in "]}":
            depth -= 1
    return False
