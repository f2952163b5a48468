"""LangGraph's filters as conditions on JSON that the service judges, and what is left to judge.

A filter's value is equal to what is there, or has operators: `$eq $ne $gt $gte $lt $lte`. Values
compare by their JSON type. An object is contained: what is there has all of its keys, and maybe
more. What is absent equals null.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from memoryd.client import Condition

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PATH = 8
"""Keys that lead to a value, as the service takes them."""

MAX_CONDITIONS = 32

MAX_WHOLE = 2**53
"""From here on different whole numbers are the same double, and the service compares doubles."""

_OPERATORS: Mapping[str, Literal["eq", "ne", "gt", "gte", "lt", "lte"]] = {
    "$eq": "eq",
    "$ne": "ne",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
}


def conditions_of(
    given: Mapping[str, Any],
) -> tuple[list[Condition], Callable[[Mapping[str, Any]], bool] | None]:
    """The conditions to send, and how what they let pass is judged; None: it need not be.

    Raises ValueError for an operator that does not exist.
    """
    sent: list[Condition] = []
    is_whole = True
    for key, wanted in given.items():
        parts = _conditions((key,), wanted)
        if parts is None or len(sent) + len(parts) > MAX_CONDITIONS:
            is_whole = False
        else:
            sent += parts
    if is_whole:
        return sent, None
    return sent, lambda value: all(fits(value.get(key), wanted) for key, wanted in given.items())


def _conditions(path: tuple[str, ...], wanted: Any) -> list[Condition] | None:
    """What says the same to the service; None: nothing does."""
    _require_operators(wanted)
    if len(path) > MAX_PATH or not all(path):
        return None
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            parts = [_operator(path, name, value) for name, value in wanted.items()]
        elif wanted:
            parts = [_conditions((*path, key), value) for key, value in wanted.items()]
        else:
            return None  # any object
    else:
        parts = [_operator(path, "$eq", wanted)]
    if any(part is None for part in parts):
        return None
    return [condition for part in parts for condition in part or ()]


def _operator(path: tuple[str, ...], name: str, value: Any) -> list[Condition] | None:
    if value is None:
        # Null or absent is no condition of the service's; neither of them is two.
        if name == "$ne":
            return [Condition(path, "exists", value=True), Condition(path, "ne", None)]
        return None
    if not _is_plain(value):
        return None
    return [Condition(path, _OPERATORS[name], value)]


def _is_plain(value: Any) -> bool:
    """Whether the service compares a value as `fits` does."""
    if isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return abs(value) < MAX_WHOLE
    return isinstance(value, float)


def _has_operators(wanted: Mapping[str, Any]) -> bool:
    return any(str(key).startswith("$") for key in wanted)


def _require_operators(wanted: Any) -> None:
    if isinstance(wanted, Mapping) and _has_operators(wanted):
        for name in wanted:
            if name not in _OPERATORS:
                known = ", ".join(_OPERATORS)
                raise ValueError(f"filter: {name!r} is no operator; use {known}")


def fits(value: Any, wanted: Any) -> bool:
    """Whether what is there is what a filter wants. `value`: None where there is nothing."""
    if isinstance(wanted, Mapping):
        _require_operators(wanted)
        if _has_operators(wanted):
            return all(_compare(value, name, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and all(
            fits(value.get(key), each) for key, each in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(fits, value, wanted))
        )
    return _equal(value, wanted)


def _compare(value: Any, name: str, wanted: Any) -> bool:
    if name == "$eq":
        return _equal(value, wanted)
    if name == "$ne":
        return not _equal(value, wanted)
    if not _has_order(value) or not _has_order(wanted) or _kind(value) != _kind(wanted):
        return False
    compare: Callable[[Any, Any], bool] = _ORDERS[name]
    return compare(value, wanted)


_ORDERS = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def _equal(value: Any, wanted: Any) -> bool:
    return _kind(value) == _kind(wanted) and bool(value == wanted)


def _has_order(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    if isinstance(value, bool):  # before numbers, which Python has it among
        return "boolean"
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return type(value).__name__


_KINDS: tuple[tuple[Any, str], ...] = (
    (int | float, "number"),
    (str, "string"),
    (Mapping, "object"),
    (list | tuple, "array"),
)
