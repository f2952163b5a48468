"""Changes the tools' overrides in the database. What a value means is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, insert, select, update

from memoryd.database.dialect import Notification, columns_of
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.tools.log import READ_LIMIT, owned, read_pending, tables_of
from memoryd.tools.states import read_state
from memoryd.tools.stored import INSTANCE, NOTHING_STORED, Place, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row

    from memoryd.database.dialect import Dialect
    from memoryd.tools.stored import Decide, Revision, StoredTools

__all__ = ["CHANNEL", "KEPT_REVISIONS", "READ_LIMIT", "change"]

CHANNEL = "memoryd_tool_configs"
"""Of PostgreSQL's NOTIFY. A payload is the revision that was committed."""

KEPT_REVISIONS = 1000
"""Of each tool of an owner; older ones go as new ones come."""


def change(
    connection: Connection,
    dialect: Dialect,
    owner: str,
    tool: str,
    *,
    decide: Decide,
    documented: Callable[[Revision], Revision],
) -> StoredTools:
    """Let `decide` change an owner's tool while no other change of it is under way.

    Answers what holds then. Runs in a writing transaction, which commits all of it together.
    `documented` gives a change of the instance's with the configurations before and after it.
    """
    # The instance's first, for every writer. Tenants share it: none waits for another.
    instance = _locked(connection, dialect, INSTANCE, shared=owner != INSTANCE)
    if owner == INSTANCE:
        place = Place(instance.revision)
    else:
        place = _take_in(connection, dialect, owner, instance, documented)
    made = decide(_stored(connection, owner, tool), place.revision + 1)
    if made is not None:
        _record(connection, owner, made)
        if owner == INSTANCE:
            # A server of an earlier release shows what the tenant `default` has, and counts on.
            instance = _locked(connection, dialect, INSTANCE)
            _take_in(connection, dialect, DEFAULT_TENANT, instance, documented)
        dialect.notify(connection, Notification(CHANNEL, [str(made.revision)]))
    return read_state(connection, dialect, owner)


def _locked(
    connection: Connection, dialect: Dialect, owner: str, *, shared: bool = False
) -> Row[Any]:
    """Make the head of an owner where there is none, and lock it."""
    head = tables_of(owner).head
    key: dict[str, Any] = {"tenant": owner} if "tenant" in head.c else {"id": 1}
    first = dict.fromkeys((c.name for c in head.c if not c.primary_key), 0)
    dialect.insert_many(connection, head, columns_of([{**key, **first}]), ignore_existing=True)
    statement = select(head).where(owned(head, owner)).with_for_update(read=shared)
    return connection.execute(statement).one()


def _take_in(
    connection: Connection,
    dialect: Dialect,
    owner: str,
    instance: Row[Any],
    documented: Callable[[Revision], Revision],
) -> Place:
    """Make rows of the owner's of the instance's changes that have come since its last one."""
    head = _locked(connection, dialect, owner)
    place = Place(head.revision, head.instance_revision, instance.revision)
    if place.instance <= place.instance_taken:
        return place
    pending = read_pending(connection, owner)
    if owner == DEFAULT_TENANT:
        pending = [documented(revision) for revision in pending]
    _insert(connection, owner, *pending)
    for last in {revision.tool: revision for revision in pending}.values():
        _set(connection, owner, last)
    horizon = head.horizon
    if instance.horizon > place.instance_taken:
        horizon = max(horizon, place.following(instance.horizon))
    _raise_head(
        connection,
        owner,
        revision=place.last,
        instance_revision=place.instance,
        horizon=horizon,
    )
    for tool in {revision.tool for revision in pending}:
        _compact(connection, owner, tool)
    return Place(place.last, place.instance, place.instance)


def _stored(connection: Connection, owner: str, tool: str) -> Stored:
    """What is stored of a tool, once the owner has taken everything in."""
    own = _row(connection, owner, tool)
    instance = None if owner == INSTANCE else _row(connection, INSTANCE, tool)
    return Stored(
        own.overrides if own else NOTHING_STORED.overrides,
        instance.overrides if instance else NOTHING_STORED.overrides,
        own.revision if own else NOTHING_STORED.revision,
    )


def _row(connection: Connection, owner: str, tool: str) -> Row[Any] | None:
    configs = tables_of(owner).configs
    statement = select(configs).where(owned(configs, owner), configs.c.tool == tool)
    return connection.execute(statement).one_or_none()


def _record(connection: Connection, owner: str, made: Revision) -> None:
    _insert(connection, owner, made)
    _set(connection, owner, made)
    _raise_head(connection, owner, revision=made.revision)
    _compact(connection, owner, made.tool)


def _insert(connection: Connection, owner: str, *made: Revision) -> None:
    table = tables_of(owner).revisions
    rows = []
    for revision in made:
        others = {"tenant": owner, "overrides_before": revision.instance_before}
        names = [c.name for c in table.c]
        rows.append({n: others[n] if n in others else getattr(revision, n) for n in names})
    connection.execute(insert(table), rows)


def _set(connection: Connection, owner: str, made: Revision) -> None:
    table = tables_of(owner).configs
    new = {"overrides": dict(made.overrides), "revision": made.revision}
    changed = connection.execute(
        update(table).where(owned(table, owner), table.c.tool == made.tool).values(new)
    )
    if not changed.rowcount:
        key = {"tenant": owner, "tool": made.tool}
        row = {name: value for name, value in key.items() if name in table.c}
        connection.execute(insert(table), [{**row, **new}])


def _raise_head(connection: Connection, owner: str, **values: int) -> None:
    head = tables_of(owner).head
    connection.execute(update(head).where(owned(head, owner)).values(values))


def _compact(connection: Connection, owner: str, tool: str) -> None:
    """Drop the oldest revisions of a tool; a watch can no longer resume from before them."""
    tables = tables_of(owner)
    r, head = tables.revisions.c, tables.head
    of_tool = and_(owned(tables.revisions, owner), r.tool == tool)
    last: int | None = connection.execute(
        select(r.revision)
        .where(of_tool)
        .order_by(r.revision.desc())
        .offset(KEPT_REVISIONS)
        .limit(1)
    ).scalar_one_or_none()
    if last is None:
        return
    connection.execute(delete(tables.revisions).where(of_tool, r.revision <= last))
    connection.execute(
        update(head).where(owned(head, owner), head.c.horizon < last).values(horizon=last)
    )
