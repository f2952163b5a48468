"""Parses requests of AccessService into records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from memoryd.access.administration import lifetime_end
from memoryd.access.api_key import key_target
from memoryd.access.keys import Grant
from memoryd.domain.principals import EVERY_SESSION, InvalidGrant, Scope, SessionRules, scopes_of
from memoryd.rpc import page_token
from memoryd.rpc.memories.messages import moment_of, span_of
from memoryd.rpc.violations import NO_TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from memoryd.domain.principals import Principal
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations
    from memoryd.v1 import access_pb2

TOO_LONG = "must end before the year 10000; for a key that never ends, set never_expires"


@dataclass(frozen=True, slots=True)
class KeyListing:
    tenant: str
    after: str
    """The id after which the page begins."""
    size: int
    token_at: Callable[[str], str]
    """Gives the page token of an id."""


@dataclass(frozen=True, slots=True)
class TenantListing:
    after: str
    """The name after which the page begins."""
    size: int
    token_at: Callable[[str], str]
    """Gives the page token of a name."""


@dataclass(frozen=True, slots=True)
class TenantUpdate:
    tenant: str
    disabled: bool | None
    """None: as it is."""
    tokens_not_before: datetime | None
    """None: as it is."""
    quotas: Mapping[str, int]
    """By their names; those that are not here stay as they are."""


@dataclass(frozen=True, slots=True)
class AuditListing:
    tenant: str | None
    """Whose lines; None: of all."""
    since: datetime | None
    before: int | None
    """The place before which the page begins; None: with the newest line."""
    size: int
    token_at: Callable[[int], str]
    """Gives the page token of a place."""


@dataclass(frozen=True, slots=True)
class KeyName:
    key_id: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Rotation:
    name: KeyName
    overlap: timedelta


class AccessRequestParser:
    """Turns requests into records, and adds what is wrong with them."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    @staticmethod
    def nothing(request: access_pb2.WhoAmIRequest, call: Call, violations: Violations) -> None:
        del request, call, violations

    def grant(
        self, request: access_pb2.CreateApiKeyRequest, call: Call, violations: Violations
    ) -> Grant:
        tenant = _tenant(request.tenant, call.principal)
        scopes, sessions = frozenset[Scope](), EVERY_SESSION
        try:
            scopes = scopes_of(request.scopes)
        except InvalidGrant as error:
            violations.add("scopes", str(error))
        try:
            sessions = SessionRules(request.sessions)
        except InvalidGrant as error:
            violations.add("sessions", str(error))
        expires_at = self._expiration(request, call.principal, violations)
        call.is_about("", tenant)
        return Grant(tenant, request.name, scopes, sessions, expires_at)

    @staticmethod
    def listing(
        request: access_pb2.ListApiKeysRequest, call: Call, violations: Violations
    ) -> KeyListing:
        tenant = _tenant(request.tenant, call.principal)
        return KeyListing(
            tenant,
            page_token.decode_name(request, tenant, violations),
            page_token.size(request),
            partial(page_token.encode_name, request=request, tenant=tenant),
        )

    @staticmethod
    def name(
        request: access_pb2.RevokeApiKeyRequest, call: Call, violations: Violations
    ) -> KeyName:
        del violations
        return _key_name(request, call)

    @staticmethod
    def rotation(
        request: access_pb2.RotateApiKeyRequest, call: Call, violations: Violations
    ) -> Rotation:
        del violations
        name = _key_name(request, call)
        try:
            return Rotation(name, span_of(request.overlap))
        except OverflowError:  # the proto's rules tell
            return Rotation(name, timedelta())

    @staticmethod
    def tenant(request: access_pb2.GetUsageRequest, call: Call, violations: Violations) -> str:
        del violations
        return _tenant(request.tenant, call.principal)

    @staticmethod
    def tenant_listing(
        request: access_pb2.ListTenantsRequest, call: Call, violations: Violations
    ) -> TenantListing:
        tenant = call.principal.tenant
        return TenantListing(
            page_token.decode_name(request, tenant, violations),
            page_token.size(request),
            partial(page_token.encode_name, request=request, tenant=tenant),
        )

    @staticmethod
    def tenant_update(
        request: access_pb2.UpdateTenantRequest, call: Call, violations: Violations
    ) -> TenantUpdate:
        if request.disabled and request.tenant == call.principal.tenant:
            violations.add("disabled", "would end your own credential; use one of another tenant")
        disabled = request.disabled if request.HasField("disabled") else None
        first = None
        if request.HasField("tokens_not_before"):
            try:
                first = moment_of(request.tokens_not_before)
            except OverflowError:
                violations.add("tokens_not_before", NO_TIMESTAMP)
        call.is_about("", request.tenant)
        quotas = {field.name: value for field, value in request.quotas.ListFields()}
        return TenantUpdate(request.tenant, disabled, first, quotas)

    @staticmethod
    def audit_listing(
        request: access_pb2.ListAuditEventsRequest, call: Call, violations: Violations
    ) -> AuditListing:
        tenant: str | None = _tenant(request.tenant, call.principal)
        if request.all_tenants:
            call.principal.require(Scope.INSTANCE_ADMIN)
            if request.tenant:
                violations.add("tenant", "must be empty where all_tenants is true; set only one")
            tenant = None
        since = None
        if request.HasField("since"):
            try:
                since = moment_of(request.since)
            except OverflowError:
                violations.add("since", NO_TIMESTAMP)
        own = call.principal.tenant if tenant is None else tenant
        return AuditListing(
            tenant,
            since,
            page_token.decode(request, own, violations) or None,
            page_token.size(request),
            partial(page_token.encode, request=request, tenant=own),
        )

    def _expiration(
        self, request: access_pb2.CreateApiKeyRequest, by: Principal, violations: Violations
    ) -> datetime | None:
        if request.WhichOneof("expiration") == "never_expires" and request.never_expires:
            return None
        try:
            lifetime = span_of(request.ttl) if request.HasField("ttl") else None
            return lifetime_end(self._clock(), lifetime, by)
        except OverflowError:
            violations.add("ttl", TOO_LONG)
            return None


def _key_name(
    request: access_pb2.RevokeApiKeyRequest | access_pb2.RotateApiKeyRequest, call: Call
) -> KeyName:
    name = KeyName(request.key_id, _tenant(request.tenant, call.principal))
    call.is_about(key_target(name.key_id), name.tenant)
    return name


def _tenant(named: str, by: Principal) -> str:
    """Whose keys or usage a request is about. Raises ScopeMissing for another tenant's."""
    if named and named != by.tenant:
        by.require(Scope.INSTANCE_ADMIN)
    return named or by.tenant
