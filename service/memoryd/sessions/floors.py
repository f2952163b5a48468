"""Floors of revisions: a session that is made after an erasure begins beyond all that was erased.

So a watcher or an etag of the erased session is never taken for current.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from memoryd.database.dialect import columns_of
from memoryd.database.tables import revision_floors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect

_FLOORS = select(revision_floors.c.tenant, revision_floors.c.revision).where(
    revision_floors.c.tenant.in_(bindparam("tenants", expanding=True))
)


def read_floors(connection: Connection, tenants: Iterable[str]) -> dict[str, int]:
    """Read the highest revision of any erased session, of those tenants that have one."""
    found = connection.execute(_FLOORS, {"tenants": sorted(set(tenants))}).all()
    return {row.tenant: row.revision for row in found}


def raise_floor(connection: Connection, dialect: Dialect, tenant: str, revision: int) -> None:
    """Have new sessions of a tenant begin beyond a revision."""
    row = columns_of([{"tenant": tenant, "revision": revision}])
    dialect.insert_many(connection, revision_floors, row, ignore_existing=True)
    connection.execute(
        update(revision_floors)
        .where(revision_floors.c.tenant == tenant, revision_floors.c.revision < revision)
        .values(revision=revision)
    )
