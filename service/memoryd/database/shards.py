"""Where Citus keeps sessions, and the parameters of statements that go to one shard at a time."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from memoryd.database.tenancy import SHARD_SESSIONS, SHARD_TENANTS, TenantContext

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

MAX_SESSIONS = 200_000
"""Sessions whose shards are known; beyond them all are asked for again."""

_WHERE = (
    "SELECT s, get_shard_id_for_distribution_column('sessions', s) FROM unnest($1::VARCHAR[]) AS s"
)

_PREFIXES = ("key_", "value_")
"""What the names of parameters that are arrays of keys or of rows begin with."""


class Shards:
    """Which shard each session is in; a session's id alone decides."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def known(self, session_ids: Iterable[str]) -> set[int] | None:
        """The shards of sessions; None where that of one is unknown."""
        found = [self._of.get(session_id) for session_id in session_ids]
        shards = {shard for shard in found if shard is not None}
        return None if None in found else shards

    def of(self, connection: Connection, session_ids: Iterable[str]) -> dict[str, int]:
        """The shard of each session; asks the database for those that are unknown."""
        wanted = set(session_ids)
        found = {i: self._of[i] for i in wanted if i in self._of}
        if unknown := sorted(wanted - found.keys()):
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(_WHERE, (unknown,))
                asked = {row[0]: row[1] for row in cursor.fetchall()}
            if len(self._of) + len(asked) > MAX_SESSIONS:
                self._of.clear()
            self._of |= asked
            found |= asked
        return found

    def forget(self) -> None:
        """Know nothing more: shards have been split or moved."""
        self._of.clear()


class ShardContext(TenantContext):
    """The tenants of a piece of work whose rows are spread over shards."""

    __slots__ = ("_shards",)

    def __init__(self, tenants: Collection[str], shards: Shards) -> None:
        super().__init__(tenants)
        self._shards = shards

    def portions(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Give the parameters of each shard in the shards' order, which all writers keep to."""
        prefix = next((p for p in _PREFIXES if f"{p}session_id" in parameters), None)
        if prefix is None:
            return (parameters,)
        sessions: Sequence[str] = parameters[f"{prefix}session_id"]
        shard_of = self._shards.of(connection, sessions)
        places: dict[int, list[int]] = {}
        for place, session_id in enumerate(sessions):
            places.setdefault(shard_of[session_id], []).append(place)
        return [_portion(parameters, prefix, places[shard]) for shard in sorted(places)]


def _portion(parameters: Mapping[str, Any], prefix: str, places: Sequence[int]) -> dict[str, Any]:
    portion = {
        name: [value[place] for place in places] if name.startswith(prefix) else value
        for name, value in parameters.items()
    }
    portion[SHARD_SESSIONS] = sorted(set(portion[f"{prefix}session_id"]))
    portion[SHARD_TENANTS] = sorted(set(portion[f"{prefix}tenant"]))
    return portion
