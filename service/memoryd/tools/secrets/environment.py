"""`env://NAME`: the service's own variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from memoryd.domain.unpicklable import Unpicklable
from memoryd.tools.secrets.errors import SecretUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.tools.secrets.reference import SecretReference


class EnvironmentSecrets(Unpicklable):
    """`env://NAME`: the variable NAME of the given mapping."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        without_value: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """`without_value`: why variables that are set have no value, and the remedy, by name."""
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
