"""Which page serves which path."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

    from memoryd.console.visit import Visit

Page: TypeAlias = "Callable[[Visit], Awaitable[Response]]"

_PARAMETER = re.compile(r"\\\{(\w+)\\\}")


class Entry(NamedTuple):
    """A place in the navigation."""

    name: str
    path: str


@dataclass(frozen=True)
class Route:
    """One path, by one method."""

    method: str
    """GET or POST; HEAD is served by GET."""
    path: str
    """With names in braces for its parts: `/sessions/{session_id}`."""
    page: Page
    changes: bool = True
    """Whether a POST changes something, so that a console that only reads refuses it."""
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = _PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def parts_of(self, path: str) -> dict[str, str] | None:
        """The named parts of a path; None where it is another route's."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()
