"""Which secrets callers may name.

Otherwise callers who may change a tool's settings could find out which variables the service has,
and make it read any secret from AWS with its own rights.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from memoryd.domain.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.tools.secrets.reference import SecretReference


class SecretNames:
    """Checks the references of callers before anything is looked up."""

    def __init__(
        self, patterns: Mapping[str, Sequence[str]], inherited: Iterable[SecretReference]
    ) -> None:
        """Allow what matches a pattern of each list, and exactly what is `inherited`.

        The lists are named by the settings that they come from. In a pattern `*` is any text and
        `?` any character.
        """
        self._patterns = patterns
        self._inherited = frozenset(inherited)

    def refusing(self, reference: SecretReference) -> str | None:
        """Which setting keeps a caller from naming it; None where it may be named.

        Literals are allowed, since they name nothing.
        """
        if not reference or reference.is_literal or reference in self._inherited:
            return None
        place = reference.source.partition("#")[0]  # a JSON key is part of the same secret
        for setting, patterns in self._patterns.items():
            if not any(fnmatchcase(place, pattern) for pattern in patterns):
                return setting
        return None


class SecretRules:
    """Which secrets each owner of settings may name."""

    def __init__(
        self,
        names: Sequence[str],
        references: Sequence[str],
        operators: Iterable[SecretReference],
    ) -> None:
        """`names`: patterns for the tenant `default` and the instance.

        `references`: patterns for tenants, each as `TENANT=PATTERN`, or as PATTERN for all of them.
        `operators`: what the environment names, which the first two may name, too.
        """
        self._names = names
        self._shared: list[str] = []
        self._of: dict[str, list[str]] = {}
        for entry in references:
            tenant, has_tenant, pattern = entry.partition("=")
            if has_tenant and ":" not in tenant:  # else it is a part of the secret's name
                self._of.setdefault(tenant, []).append(pattern)
            else:
                self._shared.append(entry)
        self._operators = frozenset(operators)

    def of(self, owner: str, inherited: Iterable[SecretReference]) -> SecretNames:
        """Those of an owner, for a tool whose settings below the owner's name `inherited`."""
        confined = [*self._of.get(owner, ()), *self._shared]
        if owner and owner != DEFAULT_TENANT:
            return SecretNames({"secret_references": confined}, inherited)
        patterns = {"secret_names": self._names}
        if owner and confined:
            patterns["secret_references"] = confined
        return SecretNames(patterns, self._operators.union(inherited))
