"""Floors of revisions: a session that is made after its erasure begins beyond what was erased.

So a watcher or an etag of the erased session is never taken for current. Other sessions begin as
they always do, and tell nothing of the erasure.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, bindparam, cast, literal, null, select, union_all, update

from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.tables import revision_floors, session_floors, session_ref_keys
from memoryd.sessions.refs import ensure_key, session_ref

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import BindParameter, Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session

_KEY = (session_floors.c.tenant, session_floors.c.session_ref)

_TENANTS: BindParameter[Sequence[str]] = bindparam("tenants", expanding=True)

_OF_TENANTS = union_all(
    select(session_ref_keys.c.tenant, session_ref_keys.c.key, literal(-1).label("revision")).where(
        session_ref_keys.c.tenant.in_(_TENANTS)
    ),
    select(
        revision_floors.c.tenant, cast(null(), String).label("key"), revision_floors.c.revision
    ).where(revision_floors.c.tenant.in_(_TENANTS)),
)
"""Keys of tenants, and floors for all sessions of a tenant, which earlier releases have left."""


def read_floors(
    connection: Connection, dialect: Dialect, new: Collection[Session]
) -> dict[Session, int]:
    """Read the revisions beyond which sessions begin, of those sessions that have one."""
    tenants = sorted({session.tenant for session in new})
    keys: dict[str, bytes] = {}
    of_tenants: dict[str, int] = {}
    for tenant, key, revision in connection.execute(_OF_TENANTS, {"tenants": tenants}):
        if key is None:
            of_tenants[tenant] = revision
        else:
            keys[tenant] = bytes.fromhex(key)
    floors = {s: of_tenants[s.tenant] for s in new if s.tenant in of_tenants}
    named = {
        (tenant, session_ref(keys[tenant], session.session_id)): session
        for session in new
        if (tenant := session.tenant) in keys
    }
    if named:
        bound = dialect.bind(_KEY, sorted(named))
        for tenant, ref, revision in statements.fetch(connection, _by_ref(dialect), bound):
            session = named[tenant, ref]
            floors[session] = max(revision, floors.get(session, -1))
    return floors


def raise_floor(connection: Connection, dialect: Dialect, session: Session, revision: int) -> None:
    """Have a session begin beyond a revision when it is made again."""
    ref = session_ref(ensure_key(connection, dialect, session.tenant), session.session_id)
    row = {"tenant": session.tenant, "session_ref": ref, "revision": revision}
    dialect.insert_many(connection, session_floors, columns_of([row]), ignore_existing=True)
    f = session_floors.c
    connection.execute(
        update(session_floors)
        .where(f.tenant == session.tenant, f.session_ref == ref, f.revision < revision)
        .values(revision=revision)
    )


@cache
def _by_ref(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(_KEY, (*_KEY, session_floors.c.revision))
