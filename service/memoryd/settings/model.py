"""Models of settings: what a field accepts, and how a refused value is described.

A message shows a refused value only where its field takes no secret and the value looks like none:
no URL, and nothing long.
"""

from __future__ import annotations

import difflib
import enum
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from memoryd.domain.unpicklable import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

_MAX_DIGITS = 18  # of a whole number that surely fits 64 bits
_WHOLE_NUMBER = re.compile(rf"[+-]?[0-9]{{1,{_MAX_DIGITS}}}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")

_HARMLESS = re.compile(r"[A-Za-z]{1,12}|[+-]?[0-9][0-9.,_]{0,11} ?[A-Za-z%]{0,3}", re.ASCII)
"""A word, or a number with a unit: a refused value that a message may show. A secret that got into
the wrong variable is longer, or mixes letters and digits."""

_NO_VALUE: Final = "no value, or one that refers to a variable that is not set"

_REFUSED = "refused"

_UNDECIDED = "default_factory_not_called"
"""Of a field whose default depends on others, of which one is refused: that is fault enough."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One refused value, by the field of its model."""

    field: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Accepts:
    """Metadata of a field: what it accepts, as a phrase."""

    phrase: str


def refusal(expected: str) -> PydanticCustomError:
    """The error of a validator that says more than its field's `Accepts` phrase."""
    return PydanticCustomError(_REFUSED, "{expected}", {"expected": expected})


def _integer(value: object) -> object:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _number(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError


Integer = Annotated[int, BeforeValidator(_integer)]
"""A whole number, or its digits as text; `5.0` is refused."""
Number = Annotated[float, BeforeValidator(_number)]
"""A finite number, or its decimal digits as text."""
Boolean = Annotated[bool, BeforeValidator(_boolean)]
"""A bool, or the text `true` or `false`, in lower case only."""


class SettingsModel(Unpicklable, BaseModel):
    """Settings with a variable for each field. A model reads nothing but its arguments."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        validate_default=True,
    )

    @classmethod
    @abstractmethod
    def variable(cls, field_name: str) -> str:
        """The name of the variable that sets a field, in capitals and matched exactly."""


M = TypeVar("M", bound=SettingsModel)


def validate(model: type[M], values: Mapping[str, object]) -> tuple[M | None, list[Fault]]:
    """Build a model from values; None where any is refused, with one fault for each such field."""
    fields = model.model_fields
    faults = {
        name: Fault(name, "no such setting", suggestion(name, fields))
        for name in values
        if name not in fields
    }
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0])
            if detail["type"] == _UNDECIDED:
                continue
            if name in fields:
                refused = detail["type"] == _REFUSED
                expected = detail["msg"] if refused else f"expected {_accepts(fields[name])}"
                found = _shape(values[name], fields[name]) if name in values else "not given"
                faults.setdefault(name, Fault(name, found, expected))
        return None, list(faults.values())


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: write the known one that is most alike, or remove it."""
    match = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {match[0]}?" if match else "remove it"


def _accepts(info: FieldInfo) -> str:
    """A phrase for the values that a field accepts."""
    for item in info.metadata:
        if isinstance(item, Accepts):
            return item.phrase
    kind = info.annotation
    if kind is bool:
        return "true or false"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        *most, last = (str(member.value) for member in kind)
        return f"{', '.join(most)} or {last}"
    return _accepted_range("a whole number" if kind is int else "a number", info)


def _accepted_range(noun: str, info: FieldInfo) -> str:
    limits = {
        name: limit
        for item in info.metadata
        for name in ("ge", "gt", "le")
        if (limit := getattr(item, name, None)) is not None
    }
    low, above, high = (limits.get(name) for name in ("ge", "gt", "le"))
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    if above is not None:
        return f"{noun} above {above}" + ("" if high is None else f", at most {high}")
    return noun


def _shape(value: object, info: FieldInfo) -> str:
    """Describe a value: the value itself where its field takes no secret and it looks like none."""
    numeric = info.annotation in (int, float)
    match value:
        case None:
            shape = _NO_VALUE
        case "":
            shape = "empty"
        case bool():
            shape = str(value).lower()
        case int() | float():
            shape = str(value) if numeric and abs(value) < 10**_MAX_DIGITS else "a number"
        case str() if numeric and len(value) <= _MAX_DIGITS and _NUMBER.fullmatch(value):
            shape = value
        case str() if _takes_choice(info) and _HARMLESS.fullmatch(value):
            shape = f'"{value}"'
        case str():
            shape = "a text"
        case _:
            shape = f"a value of type {type(value).__name__}"
    return shape


def _takes_choice(info: FieldInfo) -> bool:
    """Whether a field takes a number or one of a few words, and so never a secret."""
    kind = info.annotation
    return kind in (int, float, bool) or (isinstance(kind, type) and issubclass(kind, enum.Enum))


def describe(model: type[SettingsModel]) -> list[tuple[str, str, str]]:
    """The variable, default and description of each field, in their order."""
    return [
        (
            model.variable(name),
            _as_text(info.get_default(call_default_factory=True, validated_data={})),
            f"{info.description} Accepts {_accepts(info)}.",
        )
        for name, info in model.model_fields.items()
    ]


def _as_text(default: object) -> str:
    """A default in the form that its variable takes."""
    match default:
        case SecretStr():
            return default.get_secret_value()
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case Mapping():
            return ",".join(f"{name}={_as_text(value)}" for name, value in default.items())
        case tuple():
            return ",".join(default)
        case _:
            return str(default)
