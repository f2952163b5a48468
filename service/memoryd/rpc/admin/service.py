"""AccessService: a row for each method; each handler takes a record and answers a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.access.api_key import key_target
from memoryd.domain.audit import Audited, fields_of
from memoryd.domain.principals import Scope
from memoryd.domain.quotas import Quotas, Usage
from memoryd.rpc.access import Anyone
from memoryd.rpc.admin.requests import AccessRequestParser
from memoryd.rpc.memories.messages import timestamp
from memoryd.rpc.methods import BULK_WEIGHT, Method
from memoryd.v1 import access_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from memoryd.access.administration import KeyAdministration, NewKey, TenantAdministration
    from memoryd.access.keyring import Keyring
    from memoryd.access.keys import ApiKey, Grant, Tenant
    from memoryd.audit.log import AuditLog
    from memoryd.domain.audit import Line
    from memoryd.rpc.admin.requests import (
        AuditListing,
        KeyListing,
        KeyName,
        Rotation,
        TenantListing,
        TenantUpdate,
    )
    from memoryd.rpc.call import Call
    from memoryd.sessions.usage import TenantUsage


class AccessService:
    def __init__(
        self,
        keys: KeyAdministration,
        tenants: TenantAdministration,
        keyring: Keyring,
        *,
        usage: TenantUsage,
        streams_of: Callable[[str], int],
        audit: AuditLog,
    ) -> None:
        """`streams_of` gives how many streams of a tenant are under way."""
        self._usage = usage
        self._streams_of = streams_of
        self._audit = audit
        self._keys = keys
        self._tenants = tenants
        self._keyring = keyring

    def methods(self, clock: Callable[[], datetime]) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        parser, admin, instance = AccessRequestParser(clock), Anyone.ADMIN, Scope.INSTANCE_ADMIN
        read, change = Audited.IN_ALL, Audited.BEFORE
        return {
            "WhoAmI": Method(parser.nothing, self.who_am_i, Anyone.KNOWN, read),
            "CreateApiKey": Method(parser.grant, self.create, admin, change),
            "ListApiKeys": Method(parser.listing, self.list_page, admin, read),
            "RevokeApiKey": Method(parser.name, self.revoke, admin, change),
            "RotateApiKey": Method(parser.rotation, self.rotate, admin, change),
            "ListTenants": Method(parser.tenant_listing, self.list_tenants, instance, read),
            "UpdateTenant": Method(parser.tenant_update, self.update_tenant, instance, change),
            "ListAuditEvents": Method(parser.audit_listing, self.list_audit_events, admin, read),
            "GetUsage": Method(parser.tenant, self.get_usage, admin, read, weight=BULK_WEIGHT),
        }

    async def who_am_i(self, nothing: None, call: Call) -> access_pb2.WhoAmIResponse:
        del nothing
        principal = call.principal
        return access_pb2.WhoAmIResponse(
            tenant=principal.tenant,
            principal=principal.name,
            method=principal.method,
            scopes=sorted(principal.scopes),
            sessions=principal.sessions.texts,
            expire_time=None if principal.expires_at is None else timestamp(principal.expires_at),
        )

    async def create(self, grant: Grant, call: Call) -> access_pb2.CreateApiKeyResponse:
        made = await self._keys.create(grant, call.principal, timeout=call.time_remaining())
        return await self._made(made, call)

    async def list_page(self, listing: KeyListing, call: Call) -> access_pb2.ListApiKeysResponse:
        # One more than wanted tells whether there is another page.
        found = await self._keys.page(
            listing.tenant,
            after=listing.after,
            size=listing.size + 1,
            timeout=call.time_remaining(),
        )
        keys = found[: listing.size]
        answer = access_pb2.ListApiKeysResponse(api_keys=map(_key_message, keys))
        if len(found) > len(keys):
            answer.next_page_token = listing.token_at(keys[-1].key_id)
        return answer

    async def revoke(self, name: KeyName, call: Call) -> access_pb2.ApiKey:
        key = await self._keys.revoke(
            name.key_id, name.tenant, call.principal, timeout=call.time_remaining()
        )
        await self._keyring.refresh()
        return _key_message(key)

    async def rotate(self, rotation: Rotation, call: Call) -> access_pb2.CreateApiKeyResponse:
        made = await self._keys.rotate(
            rotation.name.key_id,
            rotation.name.tenant,
            call.principal,
            overlap=rotation.overlap,
            timeout=call.time_remaining(),
        )
        return await self._made(made, call)

    async def list_tenants(
        self, listing: TenantListing, call: Call
    ) -> access_pb2.ListTenantsResponse:
        found = await self._tenants.page(
            after=listing.after, size=listing.size + 1, timeout=call.time_remaining()
        )
        tenants = found[: listing.size]
        answer = access_pb2.ListTenantsResponse(tenants=map(_tenant_message, tenants))
        if len(found) > len(tenants):
            answer.next_page_token = listing.token_at(tenants[-1].name)
        return answer

    async def update_tenant(self, update: TenantUpdate, call: Call) -> access_pb2.Tenant:
        tenant = await self._tenants.update(
            update.tenant,
            disabled=update.disabled,
            tokens_not_before=update.tokens_not_before,
            quotas=update.quotas,
            timeout=call.time_remaining(),
        )
        await self._keyring.refresh()
        if any(name in update.quotas for name in Usage._fields):
            # From here on they hold; what is stored already counts.
            await self._usage.begin(tenant.name, timeout=call.time_remaining())
        return _tenant_message(tenant)

    async def list_audit_events(
        self, listing: AuditListing, call: Call
    ) -> access_pb2.ListAuditEventsResponse:
        found = await self._audit.page(
            listing.tenant,
            before=listing.before,
            since=listing.since,
            size=listing.size + 1,
            timeout=call.time_remaining(),
        )
        lines = found[: listing.size]
        answer = access_pb2.ListAuditEventsResponse(audit_events=map(_event_message, lines))
        if len(found) > len(lines):
            answer.next_page_token = listing.token_at(lines[-1].seq)
        return answer

    async def get_usage(self, tenant: str, call: Call) -> access_pb2.GetUsageResponse:
        stored = await self._usage.of(tenant, timeout=call.time_remaining())
        keys = await self._keys.count_open(tenant, timeout=call.time_remaining())
        usage = access_pb2.Usage(streams=self._streams_of(tenant), keys=keys, **stored._asdict())
        quotas = access_pb2.Quotas(**self._keyring.quotas_of(tenant)._asdict())
        return access_pb2.GetUsageResponse(tenant=tenant, quotas=quotas, usage=usage)

    async def _made(self, made: NewKey, call: Call) -> access_pb2.CreateApiKeyResponse:
        call.is_about(key_target(made.key.key_id), made.key.grant.tenant)
        await self._keyring.refresh()  # so that the key opens here from now on
        return access_pb2.CreateApiKeyResponse(
            key=made.text.text, key_id=made.text.key_id, api_key=_key_message(made.key)
        )


def _event_message(line: Line) -> access_pb2.AuditEvent:
    known = access_pb2.AuditEvent.DESCRIPTOR.fields_by_name
    try:
        fields = fields_of(line)
    except ValueError:  # it was changed; who verifies the chain is told
        fields = {}
    fields |= {"seq": line.seq, "time": timestamp(line.time), "hash": line.hash}
    try:
        # A later release may write more.
        return access_pb2.AuditEvent(**{k: v for k, v in fields.items() if k in known})
    except (TypeError, ValueError):
        return access_pb2.AuditEvent(seq=line.seq, time=timestamp(line.time), hash=line.hash)


def _tenant_message(tenant: Tenant) -> access_pb2.Tenant:
    first = tenant.tokens_not_before
    return access_pb2.Tenant(
        tenant=tenant.name,
        create_time=timestamp(tenant.created_at),
        disabled=tenant.disabled,
        tokens_not_before=None if first is None else timestamp(first),
        quotas=access_pb2.Quotas(**Quotas.known(tenant.quotas)),
    )


def _key_message(key: ApiKey) -> access_pb2.ApiKey:
    grant = key.grant
    message = access_pb2.ApiKey(
        key_id=key.key_id,
        tenant=grant.tenant,
        name=grant.name,
        scopes=sorted(grant.scopes),
        sessions=grant.sessions.texts,
        create_time=timestamp(key.created_at),
    )
    for field, moment in (
        (message.expire_time, grant.expires_at),
        (message.revoke_time, key.revoked_at),
        (message.last_used_time, key.last_used_at),
    ):
        if moment is not None:
            field.CopyFrom(timestamp(moment))
    return message
