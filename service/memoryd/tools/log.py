"""The changes of an owner's tools, in the order of their revisions.

They are the rows that the owner has, and then those of the instance's changes that have come since
its last one. These get the next numbers, and become rows of the owner's with its next change: so a
change of the instance's costs one row however many tenants there are, and no number depends on
another tenant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    String,
    and_,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)

from memoryd.database.feed import Changes
from memoryd.database.tables import (
    instance_tool_configs,
    instance_tool_head,
    instance_tool_revisions,
    tenant_tool_configs,
    tenant_tool_heads,
    tenant_tool_revisions,
    tool_config_head,
    tool_config_revisions,
    tool_configs,
)
from memoryd.domain.errors import RevisionOutOfRange, ToolConfigRevisionNotFound
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.tools.stored import INSTANCE, INSTANCE_ACTOR, Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import CTE, ColumnElement, Connection, Row, Select, Table

    from memoryd.tools.stored import Overrides

    Wanted = Callable[[ColumnElement[int], ColumnElement[str]], Sequence[ColumnElement[bool]]]
    """Gives the conditions on a change, of its revision and its tool."""

_FIELDS = tuple(field.name for field in fields(Revision))

READ_LIMIT = 50
"""Changes that one read brings at the most."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the rows of an owner are."""

    head: Table
    configs: Table
    revisions: Table


_OF_DEFAULT = Tables(tool_config_head, tool_configs, tool_config_revisions)
_OF_TENANTS = Tables(tenant_tool_heads, tenant_tool_configs, tenant_tool_revisions)
_OF_INSTANCE = Tables(instance_tool_head, instance_tool_configs, instance_tool_revisions)


def tables_of(owner: str) -> Tables:
    return {INSTANCE: _OF_INSTANCE, DEFAULT_TENANT: _OF_DEFAULT}.get(owner, _OF_TENANTS)


def owned(table: Table, owner: str) -> ColumnElement[bool]:
    """Which rows of its tables are the owner's: all of them, unless tenants share these."""
    return table.c.tenant == owner if "tenant" in table.c else true()


def read_changes(connection: Connection, owner: str, after: int) -> Changes[Revision]:
    """Read the first changes after a revision, in order and without a gap.

    Raises RevisionOutOfRange where not all of them are kept, or the revision was never given out.
    """
    place = _place(owner)
    log = _log(owner, place, lambda revision, _: [revision > after], READ_LIMIT).subquery("log")
    statement = (
        select(*place.c, *log.c).select_from(place.outerjoin(log, true())).order_by(log.c.revision)
    )
    rows = connection.execute(statement).all()
    own, horizon, taken, instance, instance_horizon = rows[0][: len(place.c)]
    last = own + max(instance - taken, 0)
    if instance_horizon > taken:
        horizon = max(horizon, own + instance_horizon - taken)
    if not horizon <= after <= last:
        raise RevisionOutOfRange(
            f"changes of tools since revision {after} are not all kept, or were never made;"
            " watch from 0, which begins with a snapshot"
        )
    changes = [row[len(place.c) :] for row in rows]
    found = [_revision_of(change) for change in changes if change[0] is not None]
    return Changes(found, last, is_all=len(found) < READ_LIMIT)


def read_revisions(
    connection: Connection, owner: str, tool: str, *, before: int | None, limit: int
) -> list[Revision]:
    """Read the newest changes of a tool, newest first; `before`: only those older than it."""

    def wanted(revision: ColumnElement[int], name: ColumnElement[str]) -> list[ColumnElement[bool]]:
        return [name == tool, *([] if before is None else [revision < before])]

    statement = _log(owner, _place(owner), wanted, limit, newest_first=True)
    return [_revision_of(row) for row in connection.execute(statement).all()]


def read_pending(connection: Connection, owner: str) -> list[Revision]:
    """Read the instance's changes that are not among the owner's rows, in order."""
    statement = _pending(owner, _place(owner), lambda *_: [])
    rows = connection.execute(statement.order_by(statement.selected_columns.revision)).all()
    return [_revision_of(row) for row in rows]


def read_overrides(connection: Connection, owner: str, tool: str, revision: int) -> Overrides:
    """Read a tool's overrides as they were after one of its revisions, which is an owner's row.

    Raises ToolConfigRevisionNotFound.
    """
    table = tables_of(owner).revisions
    r = table.c
    found: Overrides | None = connection.execute(
        select(r.overrides).where(owned(table, owner), r.revision == revision, r.tool == tool)
    ).scalar_one_or_none()
    if found is None:
        raise ToolConfigRevisionNotFound(tool, revision)
    return found


def _revision_of(row: Row[Any] | Sequence[Any]) -> Revision:
    values = dict(zip(_FIELDS, row, strict=True))
    # A tool that the owner has never changed has none.
    return Revision(**{**values, "overrides": values["overrides"] or {}})


def _place(owner: str) -> CTE:
    """One row: how far the owner has come, and the instance."""
    head, i = tables_of(owner).head, instance_tool_head.alias("i")
    one = select(literal_column("1").label("one")).subquery("one")
    taken = head.c.instance_revision if owner != INSTANCE else i.c.revision
    named = {
        "own": head.c.revision,
        "horizon": head.c.horizon,
        "taken": taken,
        "instance": i.c.revision,
        "instance_horizon": i.c.horizon,
    }
    return (
        select(*(func.coalesce(c, literal_column("0")).label(name) for name, c in named.items()))
        .select_from(one.outerjoin(head, owned(head, owner)).outerjoin(i, true()))
        .cte("place")
    )


def _log(
    owner: str, place: CTE, wanted: Wanted, limit: int, *, newest_first: bool = False
) -> Select[Any]:
    """The first or the newest of the wanted changes."""

    def some(changes: Select[Any]) -> Select[Any]:
        revision = changes.selected_columns.revision
        return changes.order_by(revision.desc() if newest_first else revision).limit(limit)

    arms = [_own(owner, wanted)]
    if owner != INSTANCE:
        arms.append(_pending(owner, place, wanted))
    each = [select(*some(arm).subquery().c) for arm in arms]
    return some(select(*union_all(*each).subquery("both").c))


def _own(owner: str, wanted: Wanted) -> Select[Any]:
    table = tables_of(owner).revisions
    r = table.c
    nothing = cast(null(), JSON)
    columns = (
        *(r.revision, r.tool, r.change_time, r.actor, r.reason, r.before, r.after, r.overrides),
        r.get("instance_overrides", nothing).label("instance_overrides"),
        r.get("instance_before", nothing).label("instance_before"),
        r.get("previous_revision", cast(null(), BigInteger)).label("previous_revision"),
    )
    return select(*columns).where(owned(table, owner), *wanted(r.revision, r.tool))


def _pending(owner: str, place: CTE, wanted: Wanted) -> Select[Any]:
    i, p, own = instance_tool_revisions.c, place.c, tables_of(owner).configs
    revision = p.own + i.revision - p.taken
    previous = case(
        (i.previous_revision > p.taken, p.own + i.previous_revision - p.taken),
        else_=func.coalesce(own.c.revision, literal_column("0")),
    )
    return (
        select(
            *(revision.label("revision"), i.tool, i.change_time),
            literal_column(f"'{INSTANCE_ACTOR}'", String).label("actor"),
            i.reason,
            *(cast(null(), JSON).label(name) for name in ("before", "after")),
            *(own.c.overrides, i.overrides.label("instance_overrides")),
            i.overrides_before.label("instance_before"),
            previous.label("previous_revision"),
        )
        .select_from(
            instance_tool_revisions.join(place, true()).outerjoin(
                own, and_(own.c.tool == i.tool, owned(own, owner))
            )
        )
        .where(i.revision > p.taken, *wanted(revision, i.tool))
    )
