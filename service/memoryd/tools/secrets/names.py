"""Which secrets callers may name.

Otherwise callers who may change a tool's settings could find out which variables the service has,
and make it read any secret from AWS with its own rights.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memoryd.tools.secrets.reference import SecretReference


class SecretNames:
    """Checks the references of callers before anything is looked up."""

    def __init__(self, patterns: Sequence[str], operators: Iterable[SecretReference]) -> None:
        """Allow what matches one of `patterns`, and the operator's own references exactly.

        In a pattern `*` is any text and `?` any character.
        """
        self._patterns = patterns
        self._operators = frozenset(operators)

    def allow(self, reference: SecretReference) -> bool:
        """Whether a caller may name it. Literals are allowed, since they name nothing."""
        if not reference or reference.is_literal or reference in self._operators:
            return True
        place = reference.source.partition("#")[0]  # a JSON key is part of the same secret
        return any(fnmatchcase(place, pattern) for pattern in self._patterns)
