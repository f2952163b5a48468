"""Statements handed to the driver itself.

SQLAlchemy says once how a statement reads on a database and how values of its types travel. Sending
it through SQLAlchemy each time costs several times what the driver takes for it, so that which
every call needs goes this way. What the driver raises is raised as it is, and no transaction begins
by itself.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON

from memoryd.storage.types import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Executable
    from sqlalchemy.sql.compiler import SQLCompiler


def fetch(
    connection: Connection, statement: Executable, parameters: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """The rows of a select, with Python's values."""
    prepared = _prepared(statement, connection.dialect)
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(prepared.sql, prepared.encode(parameters))
        found = cursor.fetchall()
    return prepared.decode(found)


def execute(connection: Connection, statement: Executable, parameters: Mapping[str, Any]) -> int:
    """Send what answers no rows; give the number of those that it was about."""
    prepared = _prepared(statement, connection.dialect)
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(prepared.sql, prepared.encode(parameters))
        return cursor.rowcount


def execute_each(
    connection: Connection, statement: Executable, rows: Iterable[Mapping[str, Any]]
) -> int:
    """Send the same for each row; give the number of all rows that it was about."""
    prepared = _prepared(statement, connection.dialect)
    with closing(connection.connection.cursor()) as cursor:
        cursor.executemany(prepared.sql, [prepared.encode(row) for row in rows])
        return cursor.rowcount


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    encoder: Callable[[Any], Any] | None
    """None: the driver takes it as it is."""
    constant: Any
    """Of the statement itself; None where the caller gives it."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    sql: str
    parameters: tuple[_Parameter, ...]
    """In the driver's order."""
    decoders: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Of those columns that need one."""

    def encode(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        values = []
        for parameter in self.parameters:
            value = given.get(parameter.name, parameter.constant)
            values.append(value if parameter.encoder is None else parameter.encoder(value))
        return tuple(values)

    def decode(self, found: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        if not self.decoders:
            return found
        rows = []
        for values in found:
            row = list(values)
            for place, decoder in self.decoders:
                row[place] = decoder(row[place])
            rows.append(row)
        return rows


@cache
def _prepared(statement: Any, dialect: Dialect) -> _Prepared:
    compiled: SQLCompiler = statement.compile(dialect=dialect)
    parameters = []
    for name in compiled.positiontup or ():
        bound = compiled.binds[name]
        encoder = bound.type.dialect_impl(dialect).bind_processor(dialect)
        parameters.append(_Parameter(name, encoder, bound.value))
    decoders = []
    for place, column in enumerate(statement.selected_columns if statement.is_select else ()):
        if isinstance(column.type, (UtcDateTime, JSON)):  # others come as they are
            decoder = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if decoder is not None:
                decoders.append((place, decoder))
    return _Prepared(compiled.string, tuple(parameters), tuple(decoders))
