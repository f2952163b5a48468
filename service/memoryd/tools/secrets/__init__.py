"""Secrets by reference: where one comes from, and who can read it.

Settings hold a `SecretReference`; a `SecretProvider` turns it into a `SecretStr` at the edge that
needs it. A new provider is one class, and one line of `SCHEMES`.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, Self

from pydantic import SecretStr

from memoryd.domain.unpicklable import Unpicklable
from memoryd.tools.secrets.aws import AwsSecretsManager
from memoryd.tools.secrets.cache import SecretCache
from memoryd.tools.secrets.errors import MalformedReferenceError, SecretUnavailableError

__all__ = [
    "PATIENCE_SECONDS",
    "REFERENCE_FORMS",
    "SCHEMES",
    "EnvironmentSecrets",
    "MalformedReferenceError",
    "Scheme",
    "SecretProvider",
    "SecretReference",
    "SecretUnavailableError",
    "Secrets",
]

PATIENCE_SECONDS: Final = 2.0
"""How long a call waits for a provider, unless it says otherwise."""

_LITERAL: Final = "literal"
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<name>.*)", re.DOTALL)


class SecretReference(Unpicklable):
    """Where a secret comes from: a place that a provider reads, a literal, or nowhere. Immutable.

    True where there is one. `repr` and `str` never show a literal.
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

        Anything else is a literal, nothing is none. Raises `MalformedReferenceError` for a known
        scheme with a name that it cannot have.
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
    """Reads the secrets of one scheme. May wait, never blocks the event loop, keeps nothing."""

    async def resolve(self, reference: SecretReference) -> SecretStr:
        """Answer the value, never empty; raises `SecretUnavailableError`."""
        ...


class EnvironmentSecrets(Unpicklable):
    """`env://NAME`: the variable NAME of the given mapping."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        without_value: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """`without_value`: why variables that are written have none, and what to do about it."""
        self._variables = variables
        self._without_value = without_value or {}

    async def resolve(self, reference: SecretReference) -> SecretStr:
        value = self._variables.get(reference.name)
        if value is None and reference.name in self._without_value:
            why, remedy = self._without_value[reference.name]
            raise SecretUnavailableError(f"the variable {reference.name} {why}", remedy)
        if value is None:
            reason = f"the variable {reference.name} is not set"
        elif not value.strip():
            reason = f"the variable {reference.name} is empty"
        else:
            return SecretStr(value)
        raise SecretUnavailableError(
            reason,
            f"set {reference.name} in the environment of the service or in .env, and restart",
        )


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of reference."""

    form: str
    """How it is written, for messages."""
    name_pattern: re.Pattern[str]
    provider: Callable[[Mapping[str, str]], SecretProvider]
    """Builds the provider over the service's variables."""
    remote: bool = False
    """Whether reading takes a while, and may fail: what was read is cached."""


SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        "env": Scheme("env://NAME", re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), EnvironmentSecrets),
        "secretsmanager": Scheme(
            "secretsmanager://aws/NAME[#json-key]",
            re.compile(r"aws/[A-Za-z0-9/_+=.@:-]{1,512}(#[^#\s]{1,256})?"),
            AwsSecretsManager,
            remote=True,
        ),
    }
)

REFERENCE_FORMS: Final = " or ".join(scheme.form for scheme in SCHEMES.values())
"""The references there are, as a phrase for messages."""


class Secrets(Unpicklable):
    """Resolves any reference through the provider of its scheme."""

    def __init__(
        self,
        providers: Mapping[str, SecretProvider],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the schemes of `providers`; `clock` answers seconds, for what is cached."""
        self._caches = {
            scheme: SecretCache(provider, clock)
            for scheme, provider in providers.items()
            if SCHEMES[scheme].remote
        }
        self._providers = {
            scheme: provider for scheme, provider in providers.items() if scheme not in self._caches
        }

    @classmethod
    def built_in(
        cls,
        variables: Mapping[str, str],
        *,
        without_value: Mapping[str, tuple[str, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Every provider of this release; `variables` is what `env://` reads, and AWS's set-up.

        `without_value` is as that of EnvironmentSecrets.
        """
        providers = {name: scheme.provider(variables) for name, scheme in SCHEMES.items()}
        providers["env"] = EnvironmentSecrets(variables, without_value=without_value)
        return cls(providers, clock=clock)

    async def resolve(
        self, reference: SecretReference, *, patience: float = PATIENCE_SECONDS
    ) -> SecretStr:
        """Answer the value, never empty, within `patience` seconds.

        Raises `SecretUnavailableError`. A value that could not be refreshed still serves.
        """
        if not reference:
            raise SecretUnavailableError("no secret is given", f"give {REFERENCE_FORMS}")
        if reference.is_literal:
            return reference.literal
        if cache := self._caches.get(reference.scheme):
            return await cache.resolve(reference, patience=patience)
        provider = self._providers.get(reference.scheme)
        if provider is None:
            served = ", ".join(f"{scheme}://" for scheme in (*self._providers, *self._caches))
            raise SecretUnavailableError(
                f"this service has no provider for {reference.scheme}://",
                f"keep the secret where it has one: {served}",
            )
        return await provider.resolve(reference)

    def refresh_failure(self, reference: SecretReference) -> SecretUnavailableError | None:
        """Why only the last value of a resolved reference serves; None where it is a fresh one."""
        cache = self._caches.get(reference.scheme)
        return cache.refresh_failure(reference) if cache else None
