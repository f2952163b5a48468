"""API keys as the database keeps them: never the key itself, only its SHA-256.

Every change raises one counter, so that a process that keeps all keys in memory sees by one row
whether it has missed any, and reads only those that have changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, func, insert, or_, select, update

from memoryd.access.api_key import digest_of, new_key
from memoryd.database.dialect import Notification, columns_of
from memoryd.database.tables import access_head, api_keys, tenants
from memoryd.domain.principals import AuthMethod, Principal, Scope, SessionRules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.access.api_key import KeyText
    from memoryd.database.dialect import Dialect

CHANNEL = "memoryd_access"
"""Of PostgreSQL's NOTIFY. A payload is the counter."""


class Grant(NamedTuple):
    """What a key gives."""

    tenant: str
    name: str
    scopes: frozenset[Scope]
    sessions: SessionRules
    expires_at: datetime | None
    """None: never."""


class ApiKey(NamedTuple):
    """A key, but its secret."""

    key_id: str
    digest: bytes
    grant: Grant
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def principal(self) -> Principal:
        grant = self.grant
        return Principal(
            tenant=grant.tenant,
            name=grant.name,
            method=AuthMethod.API_KEY,
            scopes=grant.scopes,
            sessions=grant.sessions,
            expires_at=grant.expires_at,
            credential_id=self.key_id,
        )


class Tenant(NamedTuple):
    name: str
    created_at: datetime
    disabled: bool
    tokens_not_before: datetime | None
    """Tokens that were issued earlier are refused."""
    quotas: Mapping[str, int]
    """Those that are not the service's own."""


class AccessState(NamedTuple):
    """What has changed since a revision."""

    revision: int
    keys: Sequence[ApiKey]
    tenants: Sequence[Tenant]


_TENANTS = select(
    *(tenants.c.tenant, tenants.c.created_at, tenants.c.disabled, tenants.c.tokens_not_before),
    tenants.c.quotas,
)


def raise_revision(connection: Connection, dialect: Dialect) -> int:
    """Give the next revision, and notify other processes of it at the commit.

    Whoever raises it next waits for that: so revisions become visible in their order, and what is
    read after it stays as it is until the commit.
    """
    first = columns_of([{"id": 1, "revision": 0}])
    dialect.insert_many(connection, access_head, first, ignore_existing=True)
    raised: int = connection.execute(
        update(access_head)
        .values(revision=access_head.c.revision + 1)
        .returning(access_head.c.revision)
    ).scalar_one()
    dialect.notify(connection, Notification(CHANNEL, [str(raised)]))
    return raised


def create_key(
    connection: Connection, dialect: Dialect, grant: Grant, *, now: datetime, revision: int
) -> tuple[KeyText, ApiKey]:
    """Make a key, which is shown this once, and its tenant where there is none."""
    text = new_key()
    key = ApiKey(text.key_id, digest_of(text.text), grant, now, None, None)
    _ensure_tenant(connection, dialect, grant.tenant, now, revision)
    connection.execute(
        insert(api_keys),
        {
            "key_id": key.key_id,
            "digest": key.digest,
            "tenant": grant.tenant,
            "name": grant.name,
            "scopes": sorted(grant.scopes),
            "sessions": list(grant.sessions.texts),
            "created_at": now,
            "expires_at": grant.expires_at,
            "revision": revision,
        },
    )
    return text, key


def revoke_key(connection: Connection, key_id: str, *, now: datetime, revision: int) -> None:
    """Let a key open nothing more."""
    changed = update(api_keys).where(api_keys.c.key_id == key_id)
    connection.execute(changed.values(revoked_at=now, revision=revision))


def end_key(connection: Connection, key_id: str, *, at: datetime, revision: int) -> None:
    """Have a key end at a time, unless it ends before."""
    k = api_keys.c
    connection.execute(
        update(api_keys)
        .where(k.key_id == key_id, (k.expires_at.is_(None)) | (k.expires_at > at))
        .values(expires_at=at, revision=revision)
    )


def count_open_keys(connection: Connection, tenant: str, now: datetime) -> int:
    """Count the keys of a tenant that have not ended."""
    k = api_keys.c
    is_open = and_(k.revoked_at.is_(None), or_(k.expires_at.is_(None), k.expires_at > now))
    counted: int = connection.execute(
        select(func.count()).select_from(api_keys).where(k.tenant == tenant, is_open)
    ).scalar_one()
    return counted


def read_tenants(connection: Connection, *, after: str, limit: int) -> list[Tenant]:
    """Read tenants by their names, after one."""
    t = tenants.c
    found = connection.execute(_TENANTS.where(t.tenant > after).order_by(t.tenant).limit(limit))
    return [Tenant(*row) for row in found]


def update_tenant(
    connection: Connection,
    dialect: Dialect,
    tenant: str,
    values: Mapping[str, Any],
    *,
    now: datetime,
    revision: int,
) -> Tenant:
    """Set columns of a tenant, which comes into being; answer it as it is then.

    Of quotas, those that are not given stay.
    """
    _ensure_tenant(connection, dialect, tenant, now, revision)
    t = tenants.c
    if "quotas" in values:
        before = connection.execute(select(t.quotas).where(t.tenant == tenant)).scalar_one()
        values = {**values, "quotas": {**before, **values["quotas"]}}
    connection.execute(
        update(tenants).where(t.tenant == tenant).values(revision=revision, **values)
    )
    return Tenant(*connection.execute(_TENANTS.where(t.tenant == tenant)).one())


def _ensure_tenant(
    connection: Connection, dialect: Dialect, tenant: str, now: datetime, revision: int
) -> None:
    row = {"tenant": tenant, "created_at": now, "disabled": False, "revision": revision}
    dialect.insert_many(connection, tenants, columns_of([row]), ignore_existing=True)


def write_used(connection: Connection, dialect: Dialect, used: Mapping[str, datetime]) -> None:
    """Keep when keys were last used, which is no change that others have to read."""
    rows = [{"key_id": key_id, "last_used_at": at} for key_id, at in used.items()]
    dialect.update_many(connection, api_keys, ("key_id",), rows)


def read_key(connection: Connection, key_id: str) -> ApiKey | None:
    found = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one_or_none()
    return None if found is None else _key(found)


def read_keys(
    connection: Connection, tenant: str | None, *, after: str, limit: int
) -> list[ApiKey]:
    """Read keys by their ids, after one; of a tenant, or of all."""
    statement = select(api_keys).where(api_keys.c.key_id > after)
    if tenant is not None:
        statement = statement.where(api_keys.c.tenant == tenant)
    return [_key(row) for row in connection.execute(statement.order_by("key_id").limit(limit))]


def read_state(connection: Connection, after: int) -> AccessState:
    """Read what has changed since a revision; everything since 0. Run it in one snapshot."""
    revision = connection.execute(select(access_head.c.revision)).scalar_one_or_none() or 0
    if after and revision == after:
        return AccessState(revision, (), ())
    changed = connection.execute(select(api_keys).where(api_keys.c.revision > after))
    of_tenants = connection.execute(_TENANTS.where(tenants.c.revision > after))
    return AccessState(
        revision, [_key(row) for row in changed], [Tenant(*row) for row in of_tenants]
    )


def _key(row: Any) -> ApiKey:
    grant = Grant(
        row.tenant,
        row.name,
        # One that this release does not know opens nothing here.
        frozenset(Scope(name) for name in row.scopes if name in set(Scope)),
        SessionRules(row.sessions),
        row.expires_at,
    )
    return ApiKey(row.key_id, row.digest, grant, row.created_at, row.revoked_at, row.last_used_at)
