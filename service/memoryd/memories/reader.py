"""Rows of sessions that are locked, read into what becomes of them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from memoryd.domain.records import Session
from memoryd.memories import lookups, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Memory
    from memoryd.memories.lookups import Lookup
    from memoryd.memories.session_changes import SessionWork


class Reader:
    def __init__(
        self, connection: Connection, dialect: Dialect, works: Mapping[Session, SessionWork]
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self.works = works

    def fetch(self, lookup: Lookup, keys: Iterable[tuple[Any, ...]], **parameters: Any) -> Any:
        """Read the rows of keys."""
        return lookups.fetch(self._connection, self._dialect, lookup, keys, **parameters)

    def take_in(
        self, lookup: Lookup, keys: Iterable[tuple[Any, ...]], **parameters: Any
    ) -> list[Memory]:
        """Read the memories of keys into their sessions."""
        found = [*map(rows.memory_of, self.fetch(lookup, keys, **parameters))]
        loaded: defaultdict[Session, list[Memory]] = defaultdict(list)
        for memory in found:
            loaded[memory.session].append(memory)
        for session, of_session in loaded.items():
            self.works[session].load(of_session)
        return found

    def measure(self) -> None:
        """Read what the rows that were taken in take of the accounts of their tenants."""
        ids = [
            (*session, memory_id)
            for session, work in self.works.items()
            if work.account is not None
            for memory_id in work.rows
        ]
        sizes = lookups.lookups_of(self._dialect).sizes
        for tenant, session_id, memory_id, size in self.fetch(sizes, ids):
            self.works[Session(tenant, session_id)].sizes[memory_id] = size
