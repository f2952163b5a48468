"""Parses conditions on JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.domain.conditions import MAX_CONDITIONS, Condition, Conditions, Operator
from memoryd.rpc.structs import parse_value
from memoryd.v1 import condition_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from memoryd.rpc.violations import Violations

_OPERATOR_OF: Mapping[int, Operator] = {
    number: Operator(name.removeprefix("CONDITION_OP_"))
    for name, number in condition_pb2.ConditionOp.items()
    if number
}


def parse_conditions(
    messages: Sequence[condition_pb2.Condition],
    field: str,
    violations: Violations,
    *,
    equal: Mapping[str, Any] | None = None,
) -> Conditions:
    """`field`: where they stand in the request. `equal`: keys that must have these values, too."""
    conditions = [Condition((key,), Operator.EQ, value) for key, value in (equal or {}).items()]
    conditions += _parsed(messages, field, violations)
    return Conditions(conditions)


def check_size(
    messages: Sequence[condition_pb2.Condition], field: str, violations: Violations
) -> None:
    """Find what is too large to be validated at all."""
    if len(messages) > MAX_CONDITIONS:
        violations.add(
            field,
            f"must be at most {MAX_CONDITIONS}, these are {len(messages):,}; IN takes many values",
        )


def _parsed(
    messages: Iterable[condition_pb2.Condition], field: str, violations: Violations
) -> Iterator[Condition]:
    for place, message in enumerate(messages):
        operator = _OPERATOR_OF.get(message.op)
        at = f"{field}[{place}].value"
        problem = _problem(message.value.WhichOneof("kind"), operator)
        if problem is not None:
            violations.add(at, problem)
        elif operator is not None:  # else the rules have a violation
            value = parse_value(message.value, at, violations)
            yield Condition(tuple(message.path), operator, value)


def _problem(kind: str | None, operator: Operator | None) -> str | None:
    """What is wrong with the kind of a value, if anything."""
    if kind is None:
        return "must be set; for null, set null_value"
    if operator in {Operator.IN, Operator.NOT_IN} and kind != "list_value":
        return f"must be a list for {operator}; for one value, use EQ or NE"
    if operator is Operator.EXISTS and kind != "bool_value":
        return "must be true or false for EXISTS"
    return None
