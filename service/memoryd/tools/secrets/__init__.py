"""Secrets by reference: settings hold a `SecretReference`, and `Secrets` reads its value.

A new `SecretProvider` is a class, an entry in `SCHEMES` and one in `Secrets.built_in`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from memoryd.domain.unpicklable import Unpicklable
from memoryd.tools.secrets.aws import AwsSecretsManager
from memoryd.tools.secrets.cache import SecretCache
from memoryd.tools.secrets.environment import EnvironmentSecrets
from memoryd.tools.secrets.errors import MalformedReferenceError, SecretUnavailableError
from memoryd.tools.secrets.reference import (
    REFERENCE_FORMS,
    SCHEMES,
    SecretProvider,
    SecretReference,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr

__all__ = [
    "REFERENCE_FORMS",
    "RESOLVE_TIMEOUT_SECONDS",
    "EnvironmentSecrets",
    "MalformedReferenceError",
    "SecretProvider",
    "SecretReference",
    "SecretUnavailableError",
    "Secrets",
]

RESOLVE_TIMEOUT_SECONDS: Final = 2.0
"""How long a call waits for a provider, unless it says otherwise."""


class Secrets(Unpicklable):
    """Resolves any reference through the provider of its scheme."""

    def __init__(
        self,
        providers: Mapping[str, SecretProvider],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Resolve the schemes of `providers`; `clock` returns seconds, for the caches."""
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
        """All providers of this release; `variables` are those of `env://` and of AWS.

        `without_value` is that of EnvironmentSecrets.
        """
        providers: dict[str, SecretProvider] = {
            "env": EnvironmentSecrets(variables, without_value=without_value),
            "secretsmanager": AwsSecretsManager(variables),
        }
        return cls(providers, clock=clock)

    async def resolve(
        self, reference: SecretReference, *, timeout: float = RESOLVE_TIMEOUT_SECONDS
    ) -> SecretStr:
        """Return the value, which is never empty, within `timeout` seconds.

        Raises `SecretUnavailableError`. A value that could not be refreshed stays in use.
        """
        if not reference:
            raise SecretUnavailableError("no secret is given", f"give {REFERENCE_FORMS}")
        if reference.is_literal:
            return reference.literal
        if cache := self._caches.get(reference.scheme):
            return await cache.resolve(reference, timeout=timeout)
        provider = self._providers.get(reference.scheme)
        if provider is None:
            served = ", ".join(f"{scheme}://" for scheme in (*self._providers, *self._caches))
            raise SecretUnavailableError(
                f"this service has no provider for {reference.scheme}://",
                f"keep the secret where it has one: {served}",
            )
        return await provider.resolve(reference)

    def refresh_failure(self, reference: SecretReference) -> SecretUnavailableError | None:
        """Why the value of a resolved reference could not be refreshed; None where it could."""
        cache = self._caches.get(reference.scheme)
        return cache.refresh_failure(reference) if cache else None
