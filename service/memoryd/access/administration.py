"""Making, listing, revoking and rotating API keys, by the command line and over the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from memoryd.access import keys as storage
from memoryd.access.api_key import is_key_id
from memoryd.database.tenancy import EVERY_TENANT, one_or_all
from memoryd.domain.errors import (
    InvalidRequest,
    KeyNotFound,
    QuotaExceeded,
    ScopeMissing,
    Violation,
)
from memoryd.domain.principals import Scope
from memoryd.domain.quotas import Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from memoryd.access.api_key import KeyText
    from memoryd.access.keys import ApiKey, Grant, Tenant
    from memoryd.database.engine import Database
    from memoryd.domain.principals import Principal

LIFETIME = timedelta(days=365)
"""Of a key, where nothing is said of it."""

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)

NO_ID = "(the text is no id)"
"""In the place of what is given as an id, and may be a whole key."""


class NewKey(NamedTuple):
    """A key that was just made: the only moment at which its text is known."""

    text: KeyText
    key: ApiKey


class KeyAdministration:
    """The keys of one database.

    `by` is who asks; None is an operator at the command line, who may all.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        quotas_of: Callable[[str], Quotas] = lambda _: Quotas(),
    ) -> None:
        """`quotas_of` gives those of a tenant, which an operator does not obey."""
        self._database = database
        self._clock = clock
        self._quotas_of = quotas_of

    async def create(
        self, grant: Grant, by: Principal | None, *, timeout: float | None = None
    ) -> NewKey:
        """Make a key.

        Raises ScopeMissing and InvalidRequest where it would be wider than `by`, and QuotaExceeded.
        """
        now, dialect = self._clock(), self._database.dialect
        if by is not None:
            _check_within(grant, by)

        def body(connection: Connection) -> NewKey:
            revision = storage.raise_revision(connection, dialect)
            if by is not None:
                self._check_quota(connection, grant.tenant, now)
            return NewKey(
                *storage.create_key(connection, dialect, grant, now=now, revision=revision)
            )

        return await self._database.write(body, tenants=(grant.tenant,), timeout=timeout)

    async def create_first(self, grant: Grant) -> NewKey | None:
        """Make a key where the database has none yet, revoked ones included."""
        now, dialect = self._clock(), self._database.dialect

        def body(connection: Connection) -> NewKey | None:
            revision = storage.raise_revision(connection, dialect)
            if storage.read_keys(connection, None, after="", limit=1):
                return None
            made = storage.create_key(connection, dialect, grant, now=now, revision=revision)
            return NewKey(*made)

        return await self._database.write(body, tenants=EVERY_TENANT)

    async def page(
        self, tenant: str | None, *, after: str, size: int, timeout: float | None = None
    ) -> list[ApiKey]:
        """Read keys in the order of their ids, after one; of a tenant, or of all."""
        return await self._database.read(
            lambda c: storage.read_keys(c, tenant, after=after, limit=size),
            tenants=one_or_all(tenant),
            timeout=timeout,
        )

    async def revoke(
        self, key_id: str, tenant: str | None, by: Principal | None, *, timeout: float | None = None
    ) -> ApiKey:
        """Revoke a key of a tenant, None: of any; answer it as it is then.

        Raises KeyNotFound, and ScopeMissing for an instance admin's key that `by` is not.
        """
        now, dialect = self._clock(), self._database.dialect

        def body(connection: Connection) -> ApiKey:
            revision = storage.raise_revision(connection, dialect)
            key = _key_for(connection, key_id, tenant, by)
            if key.revoked_at is not None:
                return key
            storage.revoke_key(connection, key_id, now=now, revision=revision)
            return key._replace(revoked_at=now)

        return await self._database.write(body, tenants=one_or_all(tenant), timeout=timeout)

    async def rotate(
        self,
        key_id: str,
        tenant: str | None,
        by: Principal | None,
        *,
        overlap: timedelta,
        timeout: float | None = None,
    ) -> NewKey:
        """Make a key that gives what another one gives, for as long as that was made for.

        The other ends after `overlap`. Raises as `create` and `revoke`, and InvalidRequest for a
        key that opens nothing any more.
        """
        now, dialect = self._clock(), self._database.dialect

        def body(connection: Connection) -> NewKey:
            revision = storage.raise_revision(connection, dialect)
            key = _key_for(connection, key_id, tenant, by)
            grant = _grant_again(key, now, by)
            if by is not None and overlap:  # without, the one ends as the other begins
                self._check_quota(connection, grant.tenant, now)
            made = storage.create_key(connection, dialect, grant, now=now, revision=revision)
            storage.end_key(connection, key_id, at=now + overlap, revision=revision)
            return NewKey(*made)

        return await self._database.write(body, tenants=one_or_all(tenant), timeout=timeout)

    async def count_open(self, tenant: str, *, timeout: float | None = None) -> int:
        """Count the keys of a tenant that have not ended."""
        now = self._clock()
        return await self._database.read(
            lambda c: storage.count_open_keys(c, tenant, now), tenants=(tenant,), timeout=timeout
        )

    def _check_quota(self, connection: Connection, tenant: str, now: datetime) -> None:
        limit = self._quotas_of(tenant).keys
        if limit and storage.count_open_keys(connection, tenant, now) >= limit:
            raise QuotaExceeded(tenant, "keys", limit)


class TenantAdministration:
    """The tenants of one database, for an instance's admin."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def page(self, *, after: str, size: int, timeout: float | None = None) -> list[Tenant]:
        """Read tenants in the order of their names, after one."""
        return await self._database.read(
            lambda c: storage.read_tenants(c, after=after, limit=size),
            tenants=EVERY_TENANT,
            timeout=timeout,
        )

    async def update(
        self,
        tenant: str,
        *,
        disabled: bool | None,
        tokens_not_before: datetime | None,
        quotas: Mapping[str, int],
        timeout: float | None = None,
    ) -> Tenant:
        """Change what is given; answer the tenant as it is then."""
        now, dialect = self._clock(), self._database.dialect
        given = {"disabled": disabled, "tokens_not_before": tokens_not_before}
        values: dict[str, object] = {
            name: value for name, value in given.items() if value is not None
        }
        if quotas:
            values["quotas"] = dict(quotas)

        def body(connection: Connection) -> Tenant:
            revision = storage.raise_revision(connection, dialect)
            return storage.update_tenant(
                connection, dialect, tenant, values, now=now, revision=revision
            )

        return await self._database.write(body, tenants=(tenant,), timeout=timeout)


def _key_for(
    connection: Connection, key_id: str, tenant: str | None, by: Principal | None
) -> ApiKey:
    key = storage.read_key(connection, key_id)
    if key is None or (tenant is not None and key.grant.tenant != tenant):
        raise KeyNotFound(key_id if is_key_id(key_id) else NO_ID)
    if by is not None and Scope.INSTANCE_ADMIN in key.grant.scopes:
        by.require(Scope.INSTANCE_ADMIN)
    return key


def _grant_again(key: ApiKey, now: datetime, by: Principal | None) -> Grant:
    """What a key gives, for as long as it was made for."""
    expires_at = key.grant.expires_at
    if key.revoked_at is not None or (expires_at is not None and expires_at <= now):
        raise InvalidRequest(
            Violation("key_id", "is of a key that has ended; create a new one instead")
        )
    if expires_at is not None:
        expires_at = now + min(expires_at - key.created_at, LAST_MOMENT - now)
        if by is not None and by.expires_at is not None:
            expires_at = min(expires_at, by.expires_at)
    grant = key.grant._replace(expires_at=expires_at)
    if by is not None:
        _check_within(grant, by)
    return grant


def lifetime_end(now: datetime, lifetime: timedelta | None, by: Principal | None) -> datetime:
    """When a key ends that shall live so long; None: as long as is usual and `by` may give.

    Raises OverflowError.
    """
    if lifetime is not None:
        return now + lifetime
    end = now + LIFETIME
    return end if by is None or by.expires_at is None else min(end, by.expires_at)


def _check_within(grant: Grant, by: Principal) -> None:
    """Raise where a grant is wider than who gives it.

    An instance's admin may give every scope and session, since the first keys are theirs to make.
    """
    if by.expires_at is not None and (grant.expires_at is None or grant.expires_at > by.expires_at):
        raise InvalidRequest(
            Violation(
                "ttl",
                f"must end by {by.expires_at.isoformat(timespec='seconds')}, as your own credential"
                " does",
            )
        )
    if Scope.INSTANCE_ADMIN in by.scopes:
        return
    if grant.tenant != by.tenant:
        raise ScopeMissing(Scope.INSTANCE_ADMIN)
    wider = sorted(grant.scopes - by.scopes)
    if wider:
        raise ScopeMissing(wider[0])
    if not grant.sessions.within(by.sessions):
        raise InvalidRequest(
            Violation("sessions", "must allow no session that your own credential does not")
        )
