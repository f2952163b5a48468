"""The client for API keys, tenants, usage and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memoryd.client import arguments as args
from memoryd.client.answers import (
    ApiKey,
    AuditEvent,
    CreateApiKeyResponse,
    GetUsageResponse,
    Tenant,
    WhoAmIResponse,
)
from memoryd.client.channel import Client
from memoryd.v1 import access_pb2
from memoryd.v1.access_pb2_grpc import AccessServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from datetime import datetime, timedelta

    import grpc.aio

    from memoryd.v1.access_pb2_grpc import AccessServiceAsyncStub


class AccessClient(Client["AccessServiceAsyncStub"]):
    """Who may do what: API keys, tenants, usage and the audit.

    `tenant`, where a method takes it: empty for the caller's own; for another one the caller needs
    the scope `instance:admin`.

    Every method may raise any `MemorydError`; its docstring names the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> AccessServiceAsyncStub:
        return AccessServiceStub(channel)

    async def who_am_i(self, *, timeout: float | None = None) -> WhoAmIResponse:
        """Say who the caller is, and what it may do. Any credential may ask."""
        request = access_pb2.WhoAmIRequest()
        return await self._answer(self._stub.WhoAmI, request, WhoAmIResponse, timeout)

    async def create_key(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        tenant: str = "",
        sessions: Iterable[str] = (),
        ttl: timedelta | None = None,
        never_expires: bool = False,
        timeout: float | None = None,
    ) -> CreateApiKeyResponse:
        """Make an API key; the answer's `key` is shown this once.

        `scopes`: scopes, or `agent`, `reader` and `operator`, which stand for several. `sessions`:
        rules for the sessions that it may name, such as `user-*`; without any, every session of the
        tenant. It ends after `ttl`, by default after 365 days.

        Raises InvalidArgument, PermissionDenied where it would give more than the caller has,
        ResourceExhausted where the tenant has as many keys as it may.
        """
        args.at_most_one(ttl=ttl, never_expires=never_expires)
        request = access_pb2.CreateApiKeyRequest(
            tenant=args.text("tenant", tenant),
            name=args.text("name", name),
            scopes=args.texts("scopes", scopes),
            sessions=args.texts("sessions", sessions),
            ttl=args.duration("ttl", ttl),
        )
        if args.flag("never_expires", never_expires):
            request.never_expires = True
        return await self._answer(self._stub.CreateApiKey, request, CreateApiKeyResponse, timeout)

    def keys(
        self, *, tenant: str = "", page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[ApiKey, None]:
        """Iterate over the keys of a tenant by their ids, revoked and expired ones included.

        Pages are fetched as they are read; `timeout` applies to each page.
        """
        request = access_pb2.ListApiKeysRequest(
            tenant=args.text("tenant", tenant), page_size=args.int32("page_size", page_size)
        )
        return self._pages(self._stub.ListApiKeys, request, _keys_of, timeout)

    async def revoke_key(
        self, key_id: str, *, tenant: str = "", timeout: float | None = None
    ) -> ApiKey:
        """Revoke a key: every server refuses it within a second. Raises NotFound."""
        request = access_pb2.RevokeApiKeyRequest(
            tenant=args.text("tenant", tenant), key_id=args.text("key_id", key_id)
        )
        return await self._answer(self._stub.RevokeApiKey, request, ApiKey, timeout)

    async def rotate_key(
        self,
        key_id: str,
        *,
        overlap: timedelta | None = None,
        tenant: str = "",
        timeout: float | None = None,
    ) -> CreateApiKeyResponse:
        """Make a key with what another one gives, which then ends after `overlap`.

        `overlap`: at most 30 days; None: at once. Raises NotFound.
        """
        request = access_pb2.RotateApiKeyRequest(
            tenant=args.text("tenant", tenant),
            key_id=args.text("key_id", key_id),
            overlap=args.duration("overlap", overlap),
        )
        return await self._answer(self._stub.RotateApiKey, request, CreateApiKeyResponse, timeout)

    def tenants(
        self, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[Tenant, None]:
        """Iterate over the tenants that have had a key or were changed. Needs `instance:admin`."""
        request = access_pb2.ListTenantsRequest(page_size=args.int32("page_size", page_size))
        return self._pages(self._stub.ListTenants, request, _tenants_of, timeout)

    async def update_tenant(
        self,
        tenant: str,
        *,
        disabled: bool | None = None,
        tokens_not_before: datetime | None = None,
        quotas: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> Tenant:
        """Change a tenant; one that there is not yet comes into being. Needs `instance:admin`.

        `disabled`: whether every credential of it is refused. `tokens_not_before`: refuse tokens
        that were issued earlier. `quotas`: those to set, such as `{"memories": 10_000}`; 0 is no
        limit. The others stay as they are.

        Raises InvalidArgument.
        """
        request = access_pb2.UpdateTenantRequest(
            tenant=args.text("tenant", tenant),
            disabled=args.optional_flag("disabled", disabled),
            tokens_not_before=args.timestamp("tokens_not_before", tokens_not_before),
            quotas=_quotas(quotas),
        )
        return await self._answer(self._stub.UpdateTenant, request, Tenant, timeout)

    def audit_events(
        self,
        *,
        tenant: str = "",
        all_tenants: bool = False,
        since: datetime | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[AuditEvent, None]:
        """Iterate over the lines of the audit, the newest first; `timeout` applies to each page.

        `all_tenants` needs `instance:admin`.
        """
        request = access_pb2.ListAuditEventsRequest(
            tenant=args.text("tenant", tenant),
            all_tenants=args.flag("all_tenants", all_tenants),
            since=args.timestamp("since", since),
            page_size=args.int32("page_size", page_size),
        )
        return self._pages(self._stub.ListAuditEvents, request, _events_of, timeout)

    async def usage(self, *, tenant: str = "", timeout: float | None = None) -> GetUsageResponse:
        """Say how much of the service a tenant uses, and how much it may use."""
        request = access_pb2.GetUsageRequest(tenant=args.text("tenant", tenant))
        return await self._answer(self._stub.GetUsage, request, GetUsageResponse, timeout)


def _quotas(given: Mapping[str, int] | None) -> access_pb2.Quotas | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"quotas: expected a dict, not {args.shown(given)}")
    known = access_pb2.Quotas.DESCRIPTOR.fields_by_name
    quotas = access_pb2.Quotas()
    for name, number in args.fields_of("quotas", given, known).items():
        whole = args.int32 if known[name].type == known[name].TYPE_INT32 else args.int64
        setattr(quotas, name, whole(f"quotas.{name}", number))
    return quotas


def _keys_of(page: access_pb2.ListApiKeysResponse) -> Iterable[ApiKey]:
    return map(ApiKey.from_proto, page.api_keys)


def _tenants_of(page: access_pb2.ListTenantsResponse) -> Iterable[Tenant]:
    return map(Tenant.from_proto, page.tenants)


def _events_of(page: access_pb2.ListAuditEventsResponse) -> Iterable[AuditEvent]:
    return map(AuditEvent.from_proto, page.audit_events)
