"""What a condition means, said a second time and as plainly as can be."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from memoryd.v1 import condition_pb2 as pb

OPERATORS = [name.removeprefix("CONDITION_OP_") for name in pb.ConditionOp.keys()[1:]]

MISSING = object()


def condition(path: list[str], op: str, value: Any) -> pb.Condition:
    made = pb.Condition(path=path, op=pb.ConditionOp.Value(f"CONDITION_OP_{op}"))
    ParseDict(value, made.value)
    return made


def message_matches(document: Any, message: pb.Condition) -> bool:
    op = pb.ConditionOp.Name(message.op).removeprefix("CONDITION_OP_")
    return matches(document, list(message.path), op, MessageToDict(message.value))


def takes(op: str, value: Any) -> bool:
    """Whether an operator takes such a value."""
    if op in {"IN", "NOT_IN"}:
        return isinstance(value, list)
    return op != "EXISTS" or isinstance(value, bool)


def at(document: Any, path: list[str]) -> Any:
    if not path:
        return document
    if isinstance(document, dict) and path[0] in document:
        return at(document[path[0]], path[1:])
    return MISSING


def same(left: Any, right: Any) -> bool:
    return left is not MISSING and canonical(left) == canonical(right)


def canonical(value: Any) -> str:
    """JSON with every number as a double, and no negative zero."""
    return json.dumps(_doubles(value), sort_keys=True)


def _doubles(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() | float():
            return _double(value) + 0.0
        case dict():
            return {key: _doubles(each) for key, each in value.items()}
        case list():
            return [_doubles(each) for each in value]
    return value


def matches(document: Any, path: list[str], op: str, value: Any) -> bool:
    found = at(document, path)
    if op in {"NE", "NOT_IN"}:
        return not matches(document, path, {"NE": "EQ", "NOT_IN": "IN"}[op], value)
    if op in {"GT", "GTE", "LT", "LTE"}:
        return _in_order(found, op, value)
    return {
        "EQ": lambda: same(found, value),
        "IN": lambda: any(same(found, each) for each in value),
        "EXISTS": lambda: (found is not MISSING) == value,
        "CONTAINS": lambda: _has(found, value),
    }[op]()


def _has(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and found.find(value) >= 0
    return isinstance(found, list) and any(same(each, value) for each in found)


def _in_order(found: Any, op: str, value: Any) -> bool:
    if not _is_ordered(found) or not _is_ordered(value):
        return False
    left, right = _order(found), _order(value)
    return (
        left[0] == right[0]
        and {
            "GT": left > right,
            "GTE": left >= right,
            "LT": left < right,
            "LTE": left <= right,
        }[op]
    )


def _is_ordered(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _order(value: Any) -> tuple[str, Any]:
    if isinstance(value, str):
        return "text", [ord(character) for character in value]
    return "number", _double(value)


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
