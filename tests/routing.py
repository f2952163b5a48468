"""What was sent to PostgreSQL, and whether Citus would run each of it as one task on one worker.

A statement that locks, looks up by LATERAL, counts beside keys or changes rows of sessions has to
name, as parameters, tenants and sessions of one shard: for each of its tables, since Citus infers
nothing from a join with an array. One that puts parts of tables together names them for all or for
none. Nothing is notified beside a session's rows: the worker would do it, whom nobody listens to.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor
from tests.roles import SERVING_ROLE

from memoryd.database.tables import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TABLES = "|".join(name for name, table in schema.tables.items() if "session_id" in table.c)
_OF_SESSIONS = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE|DELETE FROM)\s+(?:{_TABLES})\b")
_ROUTED = re.compile(
    r"^\s*(?:INSERT|UPDATE|DELETE|WITH)\b|\bFOR (?:UPDATE|SHARE|NO KEY)|\bLATERAL\b"
    r"|\bunnest\(.*\(SELECT (?:count|min|max)\(|\(SELECT (?:count|min|max)\(.*\bunnest\(",
    re.DOTALL,
)
_TOGETHER = re.compile(r"\bUNION\b|\bJOIN \(SELECT\b")
_READ_FIRST = re.compile(r"^WITH \w+ AS MATERIALIZED \n?\((.*?)\)\n", re.DOTALL)
_NEW_SESSIONS = re.compile(r"\s*INSERT INTO sessions\b")
_READ_OR_CHANGED = re.compile(
    rf"\b(?:FROM|JOIN|UPDATE|DELETE FROM)\s+({_TABLES})\b(?:\s+AS\s+(\w+))?"
)
_SESSIONS = re.compile(r"\b(\w+)\.session_id = (?:ANY \()?\$(\d+)")
_TENANTS = re.compile(r"\b(\w+)\.tenant = (?:ANY \()?\$(\d+)")


class Sent(NamedTuple):
    """A statement and its parameters."""

    sql: str
    values: Sequence[Any]

    @property
    def is_routed(self) -> bool:
        """Whether it has to name what it is about."""
        return bool(
            _OF_SESSIONS.search(self.sql)
            and _ROUTED.search(self.sql)
            and not _NEW_SESSIONS.match(self.sql)
        )

    @property
    def session_ids(self) -> set[str]:
        """Those that it names."""
        found: set[str] = set()
        for _, place in _SESSIONS.findall(self.sql):
            value = self.values[int(place) - 1]
            found.update([value] if isinstance(value, str) else value)
        return found

    def _parts(self) -> tuple[list[Sent], Sent]:
        """What is read first and for itself, and the rest."""
        first = [Sent(found, self.values) for found in _READ_FIRST.findall(self.sql)]
        return first, Sent(_READ_FIRST.sub("", self.sql), self.values)

    def fault(self, shard_of: Callable[[str], int]) -> str | None:
        """What Citus would have against it; None: nothing."""
        if "pg_notify" in self.sql and _OF_SESSIONS.search(self.sql):
            return f"notifies beside rows of sessions: {self.sql}"
        first, rest = self._parts()
        if any(len({shard_of(i) for i in part.session_ids}) > 1 for part in (*first, rest)):
            return f"names sessions of several shards: {self.sql}"
        unnamed = rest.unnamed.union(*(part.unnamed for part in first))
        if unnamed:
            return f"names no sessions and tenants for {', '.join(sorted(unnamed))}: {self.sql}"
        return None

    @property
    def unnamed(self) -> set[str]:
        """The tables for which it has to name what it is about, and does not."""
        tables = {alias or name for name, alias in _READ_OR_CHANGED.findall(self.sql)}
        of_sessions, of_tenants = (
            {table for table, _ in pattern.findall(self.sql)} for pattern in (_SESSIONS, _TENANTS)
        )
        is_partly_named = _TOGETHER.search(self.sql) and of_sessions & tables
        return tables - (of_sessions & of_tenants) if self.is_routed or is_partly_named else set()


@contextmanager
def recording(sent: list[Sent]) -> Iterator[None]:
    """Take note of every statement that servers in this process send within the block."""
    send = AsyncAdapt_asyncpg_cursor._prepare_and_execute  # noqa: SLF001  below it nothing tells
    send_each = AsyncAdapt_asyncpg_cursor._executemany  # noqa: SLF001  likewise

    def is_services(cursor: Any) -> bool:
        driver = cursor._adapt_connection.driver_connection  # noqa: SLF001  likewise
        return bool(driver.get_settings().session_authorization == SERVING_ROLE)

    async def noted(self: Any, operation: str, parameters: Any) -> Any:
        if is_services(self):
            sent.append(Sent(operation, parameters or ()))
        return await send(self, operation, parameters)

    async def each_noted(self: Any, operation: str, parameters: Any) -> Any:
        if is_services(self):
            sent.extend(Sent(operation, one) for one in parameters)
        return await send_each(self, operation, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncAdapt_asyncpg_cursor, "_prepare_and_execute", noted)
        patch.setattr(AsyncAdapt_asyncpg_cursor, "_executemany", each_noted)
        yield
