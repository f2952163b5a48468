"""Who calls, and whether the method may be called: decided before a request is read."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING

from memoryd.access.api_key import PREFIX
from memoryd.access.certificates import combined
from memoryd.domain.errors import (
    MAX_CREDENTIAL_BYTES,
    CredentialExpired,
    CredentialMalformed,
    CredentialMissing,
    DatabaseUnavailable,
    MemorydError,
)
from memoryd.domain.principals import (
    ADMIN_SCOPES,
    NO_ONE,
    AuthMethod,
    AuthMode,
    Principal,
    Scope,
    unauthenticated,
)
from memoryd.domain.quotas import CallBuckets
from memoryd.domain.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from memoryd.access.certificates import Certificates
    from memoryd.access.keyring import Keyring
    from memoryd.access.tokens import Tokens
    from memoryd.rpc.call import Caller

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
    """Decides on each call by its metadata, and by the certificate of its connection."""

    def __init__(self, mode: AuthMode, keyring: Keyring) -> None:
        self._mode = mode
        self._keyring = keyring
        self._buckets = CallBuckets(time.monotonic)
        self._tokens: Tokens | None = None
        self._certificates: Certificates | None = None
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

    async def may_know_tenants(self, call: Caller) -> bool:
        """Whether a caller may see which tenants there are.

        While the database is away, whoever it does not know for sure may not. Raises what
        `principal_of` raises of a credential that is shown and no good.
        """
        if self._mode is AuthMode.OFF:
            return True  # there is one, whose name everybody knows
        metadata = call.invocation_metadata()
        if credential_of(metadata) is None and self._certificates is None:
            return False
        try:
            principal = await self._required(call, metadata, Anyone.KNOWN)
        except (CredentialMissing, DatabaseUnavailable):
            return False
        return Scope.INSTANCE_ADMIN in principal.scopes

    def charge(self, principal: Principal, weight: int) -> None:
        """Count a call of a tenant. Raises QuotaExceeded."""
        if principal.method is not AuthMethod.OFF:
            rate = self._keyring.quotas_of(principal.tenant).calls_per_second
            if rate:
                self._buckets.take(principal.tenant, rate, weight)

    def streams_of(self, principal: Principal) -> int:
        """How many streams its tenant may have; 0: as many as it likes."""
        if principal.method is AuthMethod.OFF:
            return 0
        return self._keyring.quotas_of(principal.tenant).streams

    def take(self, tokens: Tokens | None, certificates: Certificates | None) -> None:
        """Take tokens and certificates of clients, too."""
        self._tokens = tokens
        self._certificates = certificates

    def check(self, principal: Principal, needs: Scope | Anyone) -> None:
        """Raise as `principal_of` where a principal may no longer do what it once could."""
        if principal.credential_id:
            _check_scope(self._keyring.check(principal.credential_id), needs)
        if principal.expires_at is not None and principal.expires_at <= self._keyring.now():
            raise CredentialExpired
        if principal.method is not AuthMethod.OFF:
            self._keyring.check_tenant(principal)

    async def _off(self, call: Caller, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        del call, metadata
        _check_scope(self._everybody, needs)
        return self._everybody

    async def _required(self, call: Caller, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        if needs is Anyone.UNKNOWN:
            return NO_ONE
        certificate = None
        if self._certificates is not None:
            certificate = self._certificates.principal_of(call.auth_context())
        text = credential_of(metadata)
        if text is not None:
            principal = await self._shown(text)
            if certificate is not None:
                principal = combined(certificate, principal)
        elif certificate is not None:
            principal = certificate
        else:
            raise CredentialMissing
        try:
            self._keyring.check_tenant(principal)
            _check_scope(principal, needs)
        except MemorydError as error:
            raise principal.refused(error) from None
        return principal

    async def _shown(self, text: str) -> Principal:
        """Who shows a key or a token."""
        tokens = self._tokens
        if tokens is None or text.startswith(PREFIX):
            return self._keyring.principal_of(text)
        return tokens.known(text) or await tokens.principal_of(text)

    async def _observed(self, call: Caller, metadata: Metadata, needs: Scope | Anyone) -> Principal:
        observed = ObservedPrincipal(*await self._off(call, metadata, needs))
        try:
            observed.real = await self._required(call, metadata, needs)
        except MemorydError as error:
            observed.refusal = error
        return observed


class ObservedPrincipal(Principal):
    """One that may do everything, and notes what the caller's own credential would not let it."""

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


def credential_of(metadata: Metadata) -> str | None:
    """Give the text behind `Bearer`; None where there is none. Raises CredentialMalformed."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    if not found:
        return None
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
        principal.require(Scope.TENANT_ADMIN)
