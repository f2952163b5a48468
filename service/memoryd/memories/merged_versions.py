"""Earlier versions of a session's memories, which go along into another session."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select, true

from memoryd.database import statements
from memoryd.database.dialect import Insertion, columns_of
from memoryd.database.tables import document_history, memory_history
from memoryd.memories import answers

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select, Subquery, Table

    from memoryd.database.dialect import Dialect, Row
    from memoryd.domain.records import Memory, Session


class Measured(NamedTuple):
    """The earlier versions that are kept of what a session has."""

    memories: int
    documents: int
    """Versions of documents."""
    size: int
    """Of the states of memories and the bodies of documents, in bytes."""


class _Version(NamedTuple):
    """A row of the history."""

    tenant: str
    memory_id: str
    state: dict[str, Any]
    recorded_at: datetime


def measure_versions(connection: Connection, dialect: Dialect, session: Session) -> Measured:
    """Count a session's versions of memories and of documents, in one statement."""
    found = connection.execute(_measures(dialect), session._asdict()).one()
    return Measured(found[0], found[1], int(found[2] + found[3]))


class MergedVersions:
    """The versions of the source, and those among them that become the target's."""

    def __init__(self) -> None:
        self._of: defaultdict[str, list[_Version]] = defaultdict(list)
        """By the id of the memory; oldest first."""
        self._moved: list[Row] = []

    def read(self, connection: Connection, source: Session) -> None:
        for row in statements.fetch(connection, _versions(), source._asdict()):
            version = _Version(*row)
            self._of[version.memory_id].append(version)

    def count(self, memory: Memory) -> int:
        return len(self._of.get(memory.memory_id, ()))

    def move(self, memory: Memory, moved: Memory) -> None:
        """Have the versions of a memory of the source precede the memory that it has become.

        They take the revisions from the new memory's first one on, in their order.
        """
        first = moved.created_revision
        for place, version in enumerate(self._of.get(memory.memory_id, ())):
            state = answers.moved_state(
                version.state,
                revision=first + place,
                created_revision=first,
                is_first=not place,
            )
            self._moved.append(
                {
                    **moved.session._asdict(),
                    "revision": first + place,
                    "id": moved.memory_id,
                    "change": state["change"],
                    "state": state,
                    "recorded_at": version.recorded_at,
                }
            )

    @property
    def insertions(self) -> list[Insertion]:
        """What writes those that have moved."""
        if not self._moved:
            return []
        return [Insertion(memory_history, columns_of(self._moved), {})]


@cache
def _measures(dialect: Dialect) -> Select[Any]:
    h, d = memory_history.c, document_history.c
    of_memories = _measure(memory_history, dialect.octets(h.state), h.state.is_not(None))
    of_documents = _measure(document_history, d.size, d.kind.is_not(None))
    return select(
        of_memories.c.versions, of_documents.c.versions, of_memories.c.size, of_documents.c.size
    ).select_from(of_memories.join(of_documents, true()))


def _measure(table: Table, size: ColumnElement[int], condition: ColumnElement[bool]) -> Subquery:
    return (
        select(func.count().label("versions"), func.coalesce(func.sum(size), 0).label("size"))
        .select_from(table)
        .where(*_of_session(table), condition)
        .subquery()
    )


@cache
def _versions() -> Select[Any]:
    h = memory_history.c
    return (
        select(h.tenant, h.id, h.state, h.recorded_at)
        .where(*_of_session(memory_history), h.state.is_not(None))
        .order_by(h.revision)
    )


def _of_session(table: Table) -> list[ColumnElement[bool]]:
    return [table.c[name] == bindparam(name) for name in ("tenant", "session_id")]
