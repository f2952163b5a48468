"""Statements handed to the driver itself.

SQLAlchemy says once how a statement reads on a database and how values of its types travel. Sending
it through SQLAlchemy each time costs several times what the driver takes for it, so that which
every call needs goes this way. What the driver raises is raised as it is, and no transaction begins
by itself.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import ARRAY, JSON

from memoryd.database.tenancy import SHARD_SESSIONS, context_of
from memoryd.database.types import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Executable, Row
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

TENANT = "tenant"
"""The column of a row's tenant, in every table that has one."""


def fetch(
    connection: Connection, statement: Executable, parameters: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """The rows of a select, with Python's values. Raises ForeignRow."""
    sending = prepared(statement, connection.dialect)
    context = context_of(connection)
    found: Sequence[Sequence[Any]]
    if sending.is_routed:
        portions = context.portions(connection, parameters)
        found = [row for one in portions for row in _fetch(connection, sending, one)]
    else:
        found = _fetch(connection, sending, parameters)
    for place in sending.tenants:
        context.check(row[place] for row in found)
    return sending.decode(found)


def _fetch(
    connection: Connection, sending: Prepared, parameters: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    sql, values = context_of(connection).select(sending.sql, sending.encode(parameters))
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(sql, values)
        found: Sequence[Sequence[Any]] = cursor.fetchall()
        return found


def fetch_built(
    connection: Connection, statement: Executable, parameters: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    """As `fetch`, through SQLAlchemy: of a statement that is built for the call."""
    context = context_of(connection)
    found: list[Row[Any]] = []
    for portion in context.portions(connection, parameters):
        result = connection.execute(statement, portion)
        places = [place for place, name in enumerate(result.keys()) if name == TENANT]
        rows = result.all()
        for place in places:
            context.check(row[place] for row in rows)
        found += rows
    return found


def execute(connection: Connection, statement: Executable, parameters: Mapping[str, Any]) -> int:
    """Send what answers no rows; give the number of those that it was about."""
    sending = prepared(statement, connection.dialect)
    context = context_of(connection)
    portions = context.portions(connection, parameters) if sending.is_routed else (parameters,)
    count = 0
    with closing(connection.connection.cursor()) as cursor:
        context.prepare(cursor)
        for portion in portions:
            cursor.execute(sending.sql, sending.encode(portion))
            count += cursor.rowcount
    return count


def execute_each(
    connection: Connection, statement: Executable, rows: Iterable[Mapping[str, Any]]
) -> int:
    """Send the same for each row; give the number of all rows that it was about."""
    sending = prepared(statement, connection.dialect)
    with closing(connection.connection.cursor()) as cursor:
        cursor.executemany(sending.sql, [sending.encode(row) for row in rows])
        return cursor.rowcount


def execute_columns(
    connection: Connection,
    statement: Executable,
    columns: Mapping[str, Sequence[Any]],
    common: Mapping[str, Any],
) -> int:
    """As `execute_each`, of rows that are given by columns and by what they have in common."""
    sending = prepared(statement, connection.dialect)
    # What is common has no end.
    rows = [*zip(*sending.encode_columns(columns, common), strict=False)]
    with closing(connection.connection.cursor()) as cursor:
        cursor.executemany(sending.sql, rows)
        return cursor.rowcount


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as one database's driver takes it."""

    sql: str
    names: tuple[str, ...]
    """Of the parameters, in the driver's order."""
    constants: Mapping[str, Any]
    """Parameters of the statement itself."""
    encoders: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Of those parameters that need one."""
    decoders: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Of those columns that need one."""
    tenants: tuple[int, ...]
    """The places of a row that have its tenant."""
    is_routed: bool
    """Whether it names the sessions of one shard, and so is sent once for each."""

    def encode(self, given: Mapping[str, Any]) -> list[Any]:
        if self.constants:
            given = {**self.constants, **given}
        values = [given[name] for name in self.names]
        for place, encoder in self.encoders:
            values[place] = encoder(values[place])
        return values

    def encode_columns(
        self, columns: Mapping[str, Sequence[Any]], common: Mapping[str, Any]
    ) -> Iterator[Iterable[Any]]:
        encoders = dict(self.encoders)
        for place, name in enumerate(self.names):
            encoder = encoders.get(place)
            if name in columns:
                yield columns[name] if encoder is None else map(encoder, columns[name])
            else:
                yield repeat(common[name] if encoder is None else encoder(common[name]))

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


def prepared(statement: Any, dialect: Dialect) -> Prepared:
    """Compile a statement, once for each dialect, which is an engine's own."""
    of_dialect = _PREPARED.get(dialect)
    if of_dialect is None:
        of_dialect = _PREPARED[dialect] = {}
    found = of_dialect.get(statement)
    if found is None:
        found = of_dialect[statement] = _prepare(statement, dialect)
    return found


_PREPARED: WeakKeyDictionary[Dialect, dict[Any, Prepared]] = WeakKeyDictionary()
"""So that what was compiled goes with its engine."""


def _prepare(statement: Any, dialect: Dialect) -> Prepared:
    compiled: SQLCompiler = statement.compile(dialect=dialect)
    names = tuple(compiled.positiontup or ())
    encoders = ((place, _encoder(compiled.binds[n].type, dialect)) for place, n in enumerate(names))
    columns = statement.selected_columns if statement.is_select else ()
    decoders = ((place, _decoder(column.type, dialect)) for place, column in enumerate(columns))
    return Prepared(
        compiled.string,
        names,
        {name: bound.value for name in names if (bound := compiled.binds[name]).value is not None},
        tuple((place, encoder) for place, encoder in encoders if encoder is not None),
        tuple((place, decoder) for place, decoder in decoders if decoder is not None),
        tuple(p for p, column in enumerate(columns) if getattr(column, "name", "") == TENANT),
        SHARD_SESSIONS in names,
    )


def _encoder(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(type_, ARRAY):
        of_item = _encoder(type_.item_type, dialect)
        return None if of_item is None else lambda values: [of_item(value) for value in values]
    return type_.dialect_impl(dialect).bind_processor(dialect)


def _decoder(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if not isinstance(type_, (UtcDateTime, JSON)):
        return None  # the driver gives it as it is
    return type_.dialect_impl(dialect).result_processor(dialect, None)
