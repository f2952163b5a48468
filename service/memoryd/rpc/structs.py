"""JSON values and the messages that carry them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import NULL_VALUE, Value

from memoryd.domain.metadata import MAX_METADATA_BYTES, MAX_METADATA_WIRE_BYTES, problem_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.struct_pb2 import Struct

    from memoryd.rpc.violations import Violations

_MAX_EXACT_INTEGER = 2.0**53
"""Up to here a double holds every whole number."""


def parse_struct(struct: Struct, field: str, violations: Violations) -> dict[str, Any]:
    """A caller's JSON object, which has the limits of metadata; empty where it breaks one."""
    value: dict[str, Any] = _parsed(struct, field, violations) or {}
    return value


def parse_value(value: Value, field: str, violations: Violations) -> Any:
    """The same of any JSON value; None where it breaks a limit."""
    return _parsed(value, field, violations)


def _parsed(message: Struct | Value, field: str, violations: Violations) -> Any:
    wire_bytes = message.ByteSize()
    if wire_bytes > MAX_METADATA_WIRE_BYTES:
        violations.add(field, f"must be at most {MAX_METADATA_BYTES:,} bytes as JSON")
        return None
    value = plain_value(message) if isinstance(message, Value) else struct_value(message)
    problem = problem_with(value, wire_bytes)
    if problem is not None:
        violations.add(field, problem)
    return value


def struct_value(struct: Struct) -> dict[str, Any]:
    """Plain JSON values. Whole numbers come out as int, in the order of the keys in the message."""
    fields = struct.fields
    return {key: plain_value(fields[key]) for key in fields}  # items() takes a fifth longer


def plain_value(value: Value) -> Any:
    """A plain JSON value; None also where no kind is set."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            exact = number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER
            is_negative_zero = not number and math.copysign(1, number) < 0  # no int is
            return int(number) if exact and not is_negative_zero else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_value(value.struct_value)
        case "list_value":
            return [plain_value(item) for item in value.list_value.values]
        case _:
            return None


def fill_struct(struct: Struct, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        _fill(struct.fields[key], value)


def _fill(target: Value, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = value
    elif value is None:
        target.null_value = NULL_VALUE
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        fill_struct(target.struct_value, value)
    else:
        target.list_value.SetInParent()
        for item in value:
            _fill(target.list_value.values.add(), item)
