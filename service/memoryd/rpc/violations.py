"""What is wrong with a request: every violation, collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import protovalidate

from memoryd.domain.errors import InvalidRequest, Violation
from memoryd.rpc.time_ranges import out_of_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message
    from protovalidate import Violation as RuleViolation

_validator = protovalidate.Validator()


class Violations:
    """Collects what is wrong with a request, so that the caller learns all of it at once."""

    def __init__(self) -> None:
        self._found: dict[str, Violation] = {}
        self._conditional: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Add one, unless the same field has one already, such as from the protos' rules."""
        self._found.setdefault(field, Violation(field, description))

    def add_all(self, violations: Iterable[Violation]) -> None:
        for field, description in violations:
            self.add(field, description)

    def add_conditional(self, violation: Violation) -> None:
        """Add one that counts only where there are others."""
        self._conditional.append(violation)

    def add_rules(self, message: Message) -> None:
        """Add what breaks the protos' rules, and times that are outside their types' ranges."""
        self.add_all(out_of_range(message))
        for violation in _validator.collect_violations(message):
            self.add(_path(violation), violation.proto.message)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raises InvalidRequest if there are any."""
        if self._found:
            others = (v for v in self._conditional if v.field not in self._found)
            raise InvalidRequest(*self._found.values(), *others)


def _path(violation: RuleViolation) -> str:
    """Such as `requests[3].metadata`."""
    path = ""
    field = violation.proto.field
    for element in () if field is None else field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            subscript = element.subscript.value
            path += f"[{subscript}]" if isinstance(subscript, int) else f'["{subscript}"]'
    return path
