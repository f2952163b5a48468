"""Who calls, and whether the method may be called: decided before a request is read."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from memoryd.domain.errors import (
    MAX_CREDENTIAL_BYTES,
    CredentialMalformed,
    CredentialMissing,
    MemorydError,
    ScopeMissing,
)
from memoryd.domain.principals import (
    ADMIN_SCOPES,
    NO_ONE,
    AuthMode,
    Principal,
    Scope,
    unauthenticated,
)
from memoryd.domain.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from memoryd.access.keyring import Keyring

    Metadata: TypeAlias = Iterable[tuple[str, str | bytes]] | None

AUTHORIZATION = "authorization"

_BEARER = "bearer "


class Anyone(enum.Enum):
    """What methods need that need no scope."""

    UNKNOWN = enum.auto()
    """Not even a credential."""
    KNOWN = enum.auto()
    """Any credential."""
    ADMIN = enum.auto()
    """A scope of a tenant's admin, or of the instance's."""


class Gate:
    """Decides on each call by its metadata."""

    def __init__(self, mode: AuthMode, keyring: Keyring) -> None:
        self._keyring = keyring
        self._everybody = unauthenticated(DEFAULT_TENANT)
        self.principal_of = {
            AuthMode.OFF: self._off,
            AuthMode.OBSERVE: self._observed,
            AuthMode.REQUIRED: self._required,
        }[mode]
        """Gives the principal of a call by its metadata and by what its method needs.

        Raises CredentialMissing and its like, TenantDisabled, ScopeMissing, and DatabaseUnavailable
        where the credential is not known and the database is away.
        """

    def check(self, principal: Principal, needs: Scope | Anyone) -> None:
        """Raise as `principal_of` where a principal may no longer what it once could."""
        if principal.credential_id:
            _check_scope(self._keyring.check(principal.credential_id), needs)

    def _off(self, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        del metadata
        _check_scope(self._everybody, needs)
        return self._everybody

    def _required(self, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        if needs is Anyone.UNKNOWN:
            return NO_ONE
        principal = self._keyring.principal_of(credential_of(metadata))
        _check_scope(principal, needs)
        return principal

    def _observed(self, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        observed = ObservedPrincipal(*self._off(metadata, needs))
        try:
            observed.real = self._required(metadata, needs)
        except MemorydError as error:
            observed.refusal = error
        return observed


class ObservedPrincipal(Principal):
    """One that may all, and notes what the caller's own credential would not let it."""

    real: Principal | None = None
    refusal: MemorydError | None = None

    def require(self, scope: Scope) -> None:
        self._note(lambda real: real.require(scope))
        super().require(scope)

    def require_session(self, session_id: str) -> None:
        self._note(lambda real: real.require_session(session_id))
        super().require_session(session_id)

    def _note(self, check: Callable[[Principal], None]) -> None:
        if self.real is None:
            return
        try:
            check(self.real)
        except MemorydError as error:
            self.refusal = error


def credential_of(metadata: Metadata) -> str:
    """Give the text behind `Bearer`. Raises CredentialMissing and CredentialMalformed."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    if not found:
        raise CredentialMissing
    value = found[0]
    if (
        len(found) > 1
        or not isinstance(value, str)
        or len(value) > MAX_CREDENTIAL_BYTES
        or value[: len(_BEARER)].lower() != _BEARER
    ):
        raise CredentialMalformed
    return value[len(_BEARER) :].strip()


def _check_scope(principal: Principal, needs: Scope | Anyone) -> None:
    if isinstance(needs, Scope):
        principal.require(needs)
    elif needs is Anyone.ADMIN and ADMIN_SCOPES.isdisjoint(principal.scopes):
        raise ScopeMissing(Scope.TENANT_ADMIN)
