"""Conditions on JSON values: the same code judges them wherever the JSON is kept. Pure."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Judge = Callable[[Any], bool]

MAX_CONDITIONS = 32
"""In one filter."""

MAX_PATH = 8
"""Keys in the path of a condition."""

_WORK_A_CONDITION = 10
_WORK_A_SEARCH = 100
"""What is added where a list or a text is searched."""


class Operator(enum.StrEnum):
    """How the value at a path is compared; the names are those of the protos."""

    EQ = "EQ"
    NE = "NE"
    GT = "GT"
    GTE = "GTE"
    LT = "LT"
    LTE = "LTE"
    IN = "IN"
    NOT_IN = "NOT_IN"
    CONTAINS = "CONTAINS"
    EXISTS = "EXISTS"


_OPPOSITE_OF = {Operator.NE: Operator.EQ, Operator.NOT_IN: Operator.IN}


class Condition(NamedTuple):
    """What has to hold for the value at a path of keys. A number is no index into a list."""

    path: tuple[str, ...]
    operator: Operator
    value: Any
    """JSON; a list for IN and NOT_IN, a bool for EXISTS."""


class _Absent(enum.Enum):
    ABSENT = enum.auto()


_ABSENT = _Absent.ABSENT
"""Stands for the value at a path that is not there. Equal to nothing else."""


class Conditions:
    """Conditions that all have to hold. False in a boolean context where there are none."""

    __slots__ = ("_judges", "work")

    def __init__(self, conditions: Iterable[Condition] = ()) -> None:
        every = tuple(conditions)
        self._judges = [(one.path, _judge(one.operator, one.value)) for one in every]
        self.work = sum(map(_work, every))
        """About how much there is to do for one value, in characters compared."""

    def __bool__(self) -> bool:
        return bool(self._judges)

    def hold_for(self, value: Any) -> bool:
        """Whether all of them hold for a JSON value, as the standard library parses it."""
        return all(judge(_found(value, path)) for path, judge in self._judges)


def _found(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _judge(operator: Operator, wanted: Any) -> Judge:
    if operator in _OPPOSITE_OF:
        is_opposite = _judge(_OPPOSITE_OF[operator], wanted)
        return lambda found: not is_opposite(found)
    match operator:
        case Operator.EQ:
            return lambda found: _equal(found, wanted)
        case Operator.IN:
            return _among(wanted)
        case Operator.CONTAINS:
            return lambda found: _holds(found, wanted)
        case Operator.EXISTS:
            return lambda found: (found is not _ABSENT) is wanted
    return _ordered(operator, wanted)


def _ordered(operator: Operator, wanted: Any) -> Judge:
    """Numbers are in the order of doubles, texts in that of code points; nothing else has one."""
    if isinstance(wanted, str):
        compare: Judge = {
            Operator.GT: wanted.__lt__,
            Operator.GTE: wanted.__le__,
            Operator.LT: wanted.__gt__,
            Operator.LTE: wanted.__ge__,
        }[operator]
        return lambda found: isinstance(found, str) and compare(found)
    if not _is_number(wanted):
        return lambda _: False
    bound = _double(wanted)
    compare = {
        Operator.GT: bound.__lt__,
        Operator.GTE: bound.__le__,
        Operator.LT: bound.__gt__,
        Operator.LTE: bound.__ge__,
    }[operator]
    return lambda found: _is_number(found) and compare(_double(found))


def _among(wanted: list[Any]) -> Judge:
    scalars = {_scalar(each) for each in wanted if not isinstance(each, (dict, list))}
    containers = [each for each in wanted if isinstance(each, (dict, list))]

    def is_among(found: Any) -> bool:
        if isinstance(found, (dict, list)):
            return any(_equal(found, each) for each in containers)
        return _scalar(found) in scalars

    return is_among


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(found, str):
        return isinstance(wanted, str) and wanted in found
    return isinstance(found, list) and any(_equal(each, wanted) for each in found)


def _equal(found: Any, wanted: Any) -> bool:
    """Deeply, and by JSON type. Goes no deeper than `wanted`, and stops where they differ."""
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and found.keys() == wanted.keys()
            and all(_equal(found[key], each) for key, each in wanted.items())
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(map(_equal, found, wanted))
        )
    return not isinstance(found, (dict, list)) and _scalar(found) == _scalar(wanted)


def _scalar(value: Any) -> Any:
    """Something hashable that is equal where the values are: True == 1 to Python, not to JSON."""
    if isinstance(value, bool):
        return (value,)
    return _double(value) if isinstance(value, (int, float)) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _double(number: float) -> float:
    """As a double; one that is too large for that is infinite, as a parser of JSON makes it."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _work(condition: Condition) -> int:
    work = _WORK_A_CONDITION + len(condition.path) + len(str(condition.value))
    return work + _WORK_A_SEARCH if condition.operator is Operator.CONTAINS else work


NO_CONDITIONS = Conditions()
