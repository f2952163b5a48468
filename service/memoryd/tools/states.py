"""Reads what holds: for one owner or many in one statement, so that each is of one moment."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, BigInteger, String, cast, literal_column, null, select, union_all

from memoryd.database.tables import (
    instance_tool_configs,
    instance_tool_head,
    tenant_tool_configs,
    tenant_tool_heads,
    tool_config_head,
    tool_configs,
)
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.tools.stored import INSTANCE, NO_TOOLS, Place, Stored, StoredTools, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.tools.stored import Overrides

_INSTANCE = literal_column("''", String).label("owner")
_DEFAULT = literal_column(f"'{DEFAULT_TENANT}'", String).label("owner")
_NO_TOOL = cast(null(), String).label("tool")
_NO_OVERRIDES = cast(null(), JSON).label("overrides")
_NONE_TAKEN = literal_column("0", BigInteger).label("instance_revision")


def read_places(
    connection: Connection, dialect: Dialect, owners: Collection[str]
) -> dict[str, Place]:
    """How far the changes of owners have come, in one statement."""
    return _places(_execute(connection, dialect, _heads(dialect, owners), owners), owners)


def read_states(
    connection: Connection, dialect: Dialect, owners: Collection[str]
) -> dict[str, StoredTools]:
    """Read what holds for each of the owners, in one statement."""
    arms = [*_heads(dialect, owners), *_configs(dialect, owners)]
    rows = _execute(connection, dialect, arms, owners)
    places = _places(rows, owners)
    tools: defaultdict[str, dict[str, Stored]] = defaultdict(dict)
    for row in rows:
        if row.tool is not None:
            tools[row.owner][row.tool] = Stored(row.overrides, {}, row.revision)
    return {
        owner: StoredTools(places[owner], tools[owner])
        if owner == INSTANCE
        else joined(places[owner], tools[owner], tools[INSTANCE])
        for owner in owners
    }


def read_state(connection: Connection, dialect: Dialect, owner: str) -> StoredTools:
    """Read what holds for one owner."""
    return read_states(connection, dialect, (owner,)).get(owner, NO_TOOLS)


def read_overrides_of_all(
    connection: Connection, tool: str
) -> tuple[Overrides, dict[str, Overrides]]:
    """Read a tool's overrides: the instance's, and by tenant those of all that have some.

    The one statement on the settings of tenants that it does not name; the sweeper's.
    """
    t = tenant_tool_configs.c
    arms = (
        select(_INSTANCE, instance_tool_configs.c.overrides).where(
            instance_tool_configs.c.tool == tool
        ),
        select(_DEFAULT, tool_configs.c.overrides).where(tool_configs.c.tool == tool),
        select(t.tenant, t.overrides).where(t.tool == tool),
    )
    found = {row.owner: row.overrides for row in connection.execute(union_all(*arms)).all()}
    return found.pop(INSTANCE, {}), found


def _heads(dialect: Dialect, owners: Iterable[str]) -> list[Select[Any]]:
    """The heads of the instance and of owners, as rows without a tool."""
    arms = [select(_INSTANCE, _NO_TOOL, _NO_OVERRIDES, instance_tool_head.c.revision, _NONE_TAKEN)]
    if DEFAULT_TENANT in owners:
        head = tool_config_head.c
        arms.append(
            select(_DEFAULT, _NO_TOOL, _NO_OVERRIDES, head.revision, head.instance_revision)
        )
    if _others(owners):
        h = tenant_tool_heads.c
        found = dialect.look_up((h.tenant,), (h.tenant, h.revision, h.instance_revision))
        f = found.subquery("heads").c
        arms.append(select(f.tenant, _NO_TOOL, _NO_OVERRIDES, f.revision, f.instance_revision))
    return arms


def _configs(dialect: Dialect, owners: Iterable[str]) -> list[Select[Any]]:
    """The overrides of the instance and of owners, a row for each tool."""
    i = instance_tool_configs.c
    arms = [select(_INSTANCE, i.tool, i.overrides, i.revision, _NONE_TAKEN)]
    if DEFAULT_TENANT in owners:
        d = tool_configs.c
        arms.append(select(_DEFAULT, d.tool, d.overrides, d.revision, _NONE_TAKEN))
    if _others(owners):
        t = tenant_tool_configs.c
        found = dialect.look_up((t.tenant,), (t.tenant, t.tool, t.overrides, t.revision))
        f = found.subquery("configs").c
        arms.append(select(f.tenant, f.tool, f.overrides, f.revision, _NONE_TAKEN))
    return arms


def _others(owners: Iterable[str]) -> list[str]:
    return [owner for owner in owners if owner not in {INSTANCE, DEFAULT_TENANT}]


def _execute(
    connection: Connection, dialect: Dialect, arms: list[Select[Any]], owners: Iterable[str]
) -> list[Any]:
    others = _others(owners)
    key = (tenant_tool_heads.c.tenant,)
    parameters = dialect.bind(key, [(owner,) for owner in others]) if others else {}
    return list(connection.execute(union_all(*arms), parameters).all())


def _places(rows: list[Any], owners: Iterable[str]) -> dict[str, Place]:
    heads: Mapping[str, Any] = {row.owner: row for row in rows if row.tool is None}
    instance = heads[INSTANCE].revision if INSTANCE in heads else 0
    places = {}
    for owner in owners:
        head = heads.get(owner)
        if owner == INSTANCE:
            places[owner] = Place(instance)
        elif head is None:
            places[owner] = Place(instance=instance)
        else:
            places[owner] = Place(head.revision, head.instance_revision, instance)
    return places
