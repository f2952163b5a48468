"""The tools' overrides and their revisions. What a value means is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, insert, select, true, update

from memoryd.database.dialect import Notification, columns_of
from memoryd.database.feed import Changes
from memoryd.database.tables import tool_config_head, tool_config_revisions, tool_configs
from memoryd.domain.errors import RevisionOutOfRange, ToolConfigRevisionNotFound

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect

CHANNEL = "memoryd_tool_configs"
"""Of PostgreSQL's NOTIFY. A payload is the revision that was committed."""

KEPT_REVISIONS = 1000
"""Of each tool; older ones go as new ones come."""

READ_LIMIT = 50
"""Changes that one read brings at the most."""

Overrides = Mapping[str, Any]
"""JSON values by their path: `{"enabled": true, "rag.chunk_size": 600}`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one tool."""

    overrides: Overrides
    revision: int
    """Of its last change; 0: never changed."""


NOTHING_STORED = Stored({}, 0)


@dataclass(frozen=True, slots=True)
class StoredTools:
    """All that holds at one moment."""

    revision: int
    """Of the last change of any tool; 0: none yet."""
    tools: Mapping[str, Stored]
    """By the tool's name; without those that were never changed."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of one tool."""

    revision: int
    tool: str
    change_time: datetime
    actor: str
    reason: str
    before: Mapping[str, Any]
    """The effective configuration before it, as JSON that shows no secret."""
    after: Mapping[str, Any]
    overrides: Overrides
    """All of the tool's, after it."""


Decide = Callable[[Stored, int], Revision | None]
"""Given what is stored of the tool, and the revision that a change would have: what to record, or
None for no change. May refuse by raising."""

_STATE = select(
    tool_config_head.c.revision,
    tool_configs.c.tool,
    tool_configs.c.overrides,
    tool_configs.c.revision.label("tool_revision"),
).select_from(tool_config_head.outerjoin(tool_configs, true()))

_NEWER = (
    select(tool_config_revisions)
    .where(tool_config_revisions.c.revision > bindparam("after"))
    .order_by(tool_config_revisions.c.revision)
    .limit(READ_LIMIT)
    .subquery("newer")
)
_CHANGES = (
    select(
        tool_config_head.c.revision.label("head"),
        tool_config_head.c.horizon,
        *_NEWER.c,
    )
    .select_from(tool_config_head.outerjoin(_NEWER, true()))
    .order_by(_NEWER.c.revision)
)


def read_state(connection: Connection) -> StoredTools:
    """Read the overrides of all tools."""
    rows = connection.execute(_STATE).all()
    return StoredTools(
        rows[0].revision if rows else 0,
        {row.tool: Stored(row.overrides, row.tool_revision) for row in rows if row.tool},
    )


def read_changes(connection: Connection, after: int) -> Changes[Revision]:
    """Read the first changes after a revision, in order and without a gap.

    Raises RevisionOutOfRange where not all of them are kept, or the revision was never given out.
    """
    rows = connection.execute(_CHANGES, {"after": after}).all()
    head, horizon = (rows[0].head, rows[0].horizon) if rows else (0, 0)
    if not horizon <= after <= head:
        raise RevisionOutOfRange(
            f"changes of tools since revision {after} are not all kept, or were never made;"
            " watch from 0, which begins with a snapshot"
        )
    found = [Revision(*row[2:]) for row in rows if row[2] is not None]
    return Changes(found, head, is_all=len(found) < READ_LIMIT)


def read_revisions(
    connection: Connection, tool: str, *, before: int | None, limit: int
) -> list[Revision]:
    """Read the newest revisions of a tool, newest first; `before`: only those older than it."""
    r = tool_config_revisions
    statement = select(r).where(r.c.tool == tool).order_by(r.c.revision.desc()).limit(limit)
    if before is not None:
        statement = statement.where(r.c.revision < before)
    return [Revision(*row) for row in connection.execute(statement).all()]


def read_overrides(connection: Connection, tool: str, revision: int) -> Overrides:
    """Read a tool's overrides as they were after one of its revisions.

    Raises ToolConfigRevisionNotFound.
    """
    r = tool_config_revisions.c
    found: Overrides | None = connection.execute(
        select(r.overrides).where(r.revision == revision, r.tool == tool)
    ).scalar_one_or_none()
    if found is None:
        raise ToolConfigRevisionNotFound(tool, revision)
    return found


def change(connection: Connection, dialect: Dialect, tool: str, decide: Decide) -> StoredTools:
    """Let `decide` change a tool while no other change is under way; answer what holds then.

    Runs in a writing transaction, which commits it together with its revision.
    """
    unchanged = columns_of([{"id": 1, "revision": 0, "horizon": 0}])
    dialect.insert_many(connection, tool_config_head, unchanged, ignore_existing=True)
    head: int = connection.execute(
        select(tool_config_head.c.revision).with_for_update()
    ).scalar_one()
    made = decide(_stored(connection, tool), head + 1)
    if made is not None:
        _record(connection, dialect, made)
    return read_state(connection)


def _stored(connection: Connection, tool: str) -> Stored:
    t = tool_configs.c
    row = connection.execute(select(t.overrides, t.revision).where(t.tool == tool)).one_or_none()
    return NOTHING_STORED if row is None else Stored(row.overrides, row.revision)


def _record(connection: Connection, dialect: Dialect, made: Revision) -> None:
    r = tool_config_revisions
    connection.execute(insert(r), [{c.name: getattr(made, c.name) for c in r.c}])
    new = {"overrides": dict(made.overrides), "revision": made.revision}
    changed = connection.execute(
        update(tool_configs).where(tool_configs.c.tool == made.tool).values(new)
    )
    if not changed.rowcount:
        connection.execute(insert(tool_configs), [{"tool": made.tool, **new}])
    connection.execute(update(tool_config_head).values(revision=made.revision))
    _compact(connection, made.tool)
    dialect.notify(connection, Notification(CHANNEL, [str(made.revision)]))


def _compact(connection: Connection, tool: str) -> None:
    """Drop the oldest revisions of a tool; a watch can no longer resume from before them."""
    r = tool_config_revisions.c
    last: int | None = connection.execute(
        select(r.revision)
        .where(r.tool == tool)
        .order_by(r.revision.desc())
        .offset(KEPT_REVISIONS)
        .limit(1)
    ).scalar_one_or_none()
    if last is None:
        return
    connection.execute(
        delete(tool_config_revisions).where(and_(r.tool == tool, r.revision <= last))
    )
    connection.execute(
        update(tool_config_head).where(tool_config_head.c.horizon < last).values(horizon=last)
    )
