"""References to secrets: how they are written, and the protocol of what reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, Self

from pydantic import SecretStr

from memoryd.domain.unpicklable import Unpicklable
from memoryd.tools.secrets.errors import MalformedReferenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LITERAL: Final = "literal"
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<name>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of reference."""

    form: str
    """How to write it, for messages."""
    name_pattern: re.Pattern[str]
    remote: bool = False
    """Whether a read takes a while and may fail, so that its answers are cached."""


SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        "env": Scheme("env://NAME", re.compile(r"[A-Za-z_][A-Za-z0-9_]*")),
        "secretsmanager": Scheme(
            "secretsmanager://aws/NAME[#json-key]",
            re.compile(r"aws/[A-Za-z0-9/_+=.@:-]{1,512}(#[^#\s]{1,256})?"),
            remote=True,
        ),
    }
)

REFERENCE_FORMS: Final = " or ".join(scheme.form for scheme in SCHEMES.values())
"""The kinds of reference, as a phrase for messages."""


class SecretReference(Unpicklable):
    """Where a secret is: a place that a provider reads, or the secret itself, a literal.

    Immutable; false where there is no secret. `repr` and `str` never show a literal.
    """

    __slots__ = ("_literal", "name", "scheme")

    scheme: Final[str]
    """Key of `SCHEMES`; `literal`; empty for none."""
    name: Final[str]
    """What follows `scheme://`; empty for a literal and for none."""

    def __init__(self, scheme: str = "", name: str = "", literal: str = "") -> None:
        self.scheme = scheme
        self.name = name
        self._literal = SecretStr(literal)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `env://NAME` or `secretsmanager://aws/NAME[#json-key]`.

        An empty text is no secret, any other text a literal. Raises `MalformedReferenceError` for
        a known scheme with a name that is impossible in it.
        """
        if not text:
            return cls()
        uri = _URI.fullmatch(text)
        scheme = SCHEMES.get(uri["scheme"].lower()) if uri else None
        if uri is None or scheme is None:
            return cls(_LITERAL, literal=text)
        if not scheme.name_pattern.fullmatch(uri["name"]):
            raise MalformedReferenceError(f"expected {scheme.form}")
        return cls(uri["scheme"].lower(), uri["name"])

    @property
    def source(self) -> str:
        """The reference itself (`env://CRM_KEY`), `literal`, or empty for none."""
        return f"{self.scheme}://{self.name}" if self.name else self.scheme

    @property
    def is_literal(self) -> bool:
        return self.scheme == _LITERAL

    @property
    def literal(self) -> SecretStr:
        """The value of a literal; empty for every other reference."""
        return self._literal

    def __bool__(self) -> bool:
        return bool(self.scheme)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretReference):
            return NotImplemented
        return (self.source, self._literal) == (other.source, other._literal)

    def __hash__(self) -> int:
        return hash((self.source, self._literal))

    def __copy__(self) -> Self:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"SecretReference({self.source!r})"

    def __str__(self) -> str:
        return self.source


class SecretProvider(Protocol):
    """Reads the secrets of one scheme. It may wait, never blocks the event loop, caches nothing."""

    async def resolve(self, reference: SecretReference) -> SecretStr:
        """Return the value, which is never empty. Raises `SecretUnavailableError`."""
        ...
