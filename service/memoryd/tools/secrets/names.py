"""Which secrets callers may name.

Whoever may change a tool's settings could otherwise find out which variables the service has, and
have it ask AWS, with its own rights, for any secret.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memoryd.tools.secrets.reference import SecretReference


class SecretNames:
    """Judges references that come from callers, before anything is looked up."""

    def __init__(self, patterns: Sequence[str], operators: Iterable[SecretReference]) -> None:
        """Allow what matches one of `patterns`, and the operator's own references as they are.

        In a pattern `*` is any text and `?` any character.
        """
        self._patterns = patterns
        self._operators = frozenset(operators)

    def allow(self, reference: SecretReference) -> bool:
        """Whether a caller may name it. A literal names nothing."""
        if not reference or reference.is_literal or reference in self._operators:
            return True
        place = reference.source.partition("#")[0]  # a JSON key is a part of the same secret
        return any(fnmatchcase(place, pattern) for pattern in self._patterns)
