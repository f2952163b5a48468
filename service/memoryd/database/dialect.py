"""Every difference between databases; never a business query. See `sqlite` and `postgresql`."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sqlalchemy import inspect

from memoryd.database.tenancy import TenantContext

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Column, ColumnElement, Connection, FromClause, Select, Table
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.sql.functions import Function

    from memoryd.database.options import DatabaseOptions
    from memoryd.database.pools import Pool
    from memoryd.database.shards import Shards

    Columns = Mapping[str, Sequence[Any]]
    """By their names, the values of each; all have as many."""

Row = dict[str, Any]

NOTHING: Row = {}
"""Where rows have nothing in common."""

UTF8 = "UTF8"
"""The encoding that holds every character, by PostgreSQL's name."""


class Keys:
    """A table of parameters to join with; the statement is the same however many there are."""

    def __init__(self, source: FromClause, columns: Mapping[str, ColumnElement[Any]]) -> None:
        self.source = source
        self.c = columns


def columns_of(rows: Sequence[Row]) -> Columns:
    """Turn rows with the same columns, at least one, into these."""
    return {name: [row[name] for row in rows] for name in rows[0]}


class Insertion(NamedTuple):
    """Rows of one table."""

    table: Table
    columns: Columns
    common: Row
    """What each row also has."""


class Update(NamedTuple):
    """Rows of one table that change, as `Dialect.update_many` takes them."""

    table: Table
    key: Sequence[str]
    rows: Sequence[Row]


class RowSecurity(NamedTuple):
    """Whether the database itself keeps statements to their tenants."""

    has_it: bool
    """Whether databases of this kind can."""
    bypassing_role: str = ""
    """The role of the service, if nothing is kept from it."""
    is_on: bool = False
    obstacle: str = ""
    """Why it cannot hold here, if it cannot."""


class Distribution(enum.Enum):
    """How a database spreads the rows of sessions over machines."""

    NONE = enum.auto()
    COORDINATOR = enum.auto()
    """It does, and this is the machine that callers talk to."""
    WORKER = enum.auto()
    """This is one of the machines that it spreads them over."""


class Notification(NamedTuple):
    """What other processes are notified of when a transaction commits."""

    channel: str
    payloads: Sequence[str]


class Dialect(ABC):
    """What differs between databases; by default, what a database has no need of does nothing."""

    name: ClassVar[str]
    locks_rows: ClassVar[bool] = False
    """Whether writers wait for each other row by row."""
    driver_errors: tuple[type[Exception], ...]
    """What the driver raises where SQLAlchemy does not wrap it."""

    shards: Shards | None = None
    """Where the rows of sessions are; None: all of them in one place."""

    def __eq__(self, other: object) -> bool:
        """Whether both make the same statements, which are cached by the dialect."""
        return type(other) is type(self) and getattr(other, "shards", None) is self.shards

    def __hash__(self) -> int:
        return hash((type(self), id(self.shards)))

    @abstractmethod
    def engine_options(self, options: DatabaseOptions) -> Row: ...

    @abstractmethod
    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool: ...

    def tenant_context(self, tenants: Collection[str], *, in_transaction: bool) -> TenantContext:
        """Make what keeps a piece of work to its tenants."""
        del in_transaction
        return TenantContext(tenants)

    def distribution(self, connection: Connection) -> Distribution:
        """How the database spreads the rows of sessions."""
        del connection
        return Distribution.NONE

    def routing(self, table: Table) -> tuple[ColumnElement[bool], ...]:
        """What a statement that finds rows by keys says besides, so that it goes to one place.

        For such as lock, change, look up or count rows of sessions; `statements` sends them once
        for each place.
        """
        del table
        return ()

    def beside(
        self,
        table: Table,
        name: str,
        columns: Collection[str],
        condition: Callable[[FromClause], ColumnElement[bool]],
    ) -> tuple[FromClause, ColumnElement[bool]]:
        """Give rows of a session to be joined with another's, which may be in another place.

        Answers them, with at least these columns, and what a statement has to say of them still.
        """
        del columns
        there = table.alias(name)
        return there, condition(there)

    def has_tables(self, connection: Connection) -> bool:
        """Whether there are tables of ours already."""
        return inspect(connection).has_table("memories")

    def set_row_security(self, connection: Connection, *, on: bool) -> None:
        """Have the database itself keep statements to their tenants, if it can; or no longer."""

    def row_security(self, connection: Connection) -> RowSecurity:
        """Whether the database itself keeps statements to their tenants."""
        return RowSecurity(has_it=False)

    def missing_rights(self, connection: Connection, tables: Collection[str]) -> list[str]:
        """What the role may not do with the tables, though serving needs it: `DELETE on memories`.

        Where a file is the database, its rights decide.
        """
        del connection
        return []

    @abstractmethod
    def unusable_indexes(self, connection: Connection, names: Collection[str]) -> list[str]:
        """Which of these indexes are missing, or not built to the end."""

    @abstractmethod
    def size(self, connection: Connection) -> int:
        """Give the bytes that the database takes."""

    def damage(self, connection: Connection) -> str:
        """What the database finds damaged in its files, if it looks by itself when it is asked.

        Reads all of an embedded database.
        """
        del connection
        return ""

    def on_connect(self, connection: DBAPIConnection, options: DatabaseOptions) -> None:
        """Set up a new connection."""

    def try_out(self, url: URL, options: DatabaseOptions) -> None:
        """Raise what the driver raises if there is no using the database; blocks."""

    @abstractmethod
    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        """First thing in a writing transaction."""

    def end_write(self, connection: Connection) -> None:
        """Last thing in a writing transaction, before it is committed."""

    @abstractmethod
    def is_in_transaction(self, connection: Connection) -> bool:
        """Whether the database has one open, as the driver knows without asking."""

    @abstractmethod
    def begin_snapshot(self, connection: Connection) -> None:
        """First thing in a transaction whose statements all see one state."""

    @abstractmethod
    def keys(self, *columns: Column[Any]) -> Keys: ...

    @abstractmethod
    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        """Parameters that fill `keys(*columns)` with `rows`."""

    @abstractmethod
    def look_up(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[ColumnElement[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        """Select the rows whose key is among `keys(*key, *carried)`, always by an index on the key.

        Answers `columns` and the carried columns.
        """

    @abstractmethod
    def look_up_first(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        after: Sequence[Column[Any]],
    ) -> Select[Any]:
        """Select some rows of each key among `keys(*key, *after)`, always by an index on both.

        They are the first `most`, a parameter, of those beyond the values of `after`, in its order.
        """

    @abstractmethod
    def insert_many(
        self,
        connection: Connection,
        table: Table,
        columns: Columns,
        common: Row = NOTHING,
        *,
        ignore_existing: bool = False,
    ) -> int:
        """Insert a row for each place in the columns; each also has what is `common`.

        With `ignore_existing`, skip rows whose key exists. Answers how many were inserted.
        """

    @abstractmethod
    def update_many(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[str],
        rows: Sequence[Row],
        *,
        notification: Notification | None = None,
        along: Sequence[Insertion | Update] = (),
    ) -> None:
        """Set the columns of each row other than its key, where the key is equal.

        A notification goes along as `notify` has it, and what is written to other rows as `write`
        has it, without round trips of their own. None of it sees the rest.
        """

    def write(self, connection: Connection, pending: Iterable[Insertion | Update]) -> None:
        """Insert and update rows."""
        for one in pending:
            if isinstance(one, Update):
                self.update_many(connection, *one)
            else:
                self.insert_many(connection, *one)

    @abstractmethod
    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        """Delete the rows whose key is equal; answer how many there were."""

    def notify(self, connection: Connection, notification: Notification) -> None:
        """Tell other processes when this transaction commits, if the database can."""

    async def listen(
        self, connection: Any, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        """On the driver's own connection: hear of notifications until the connection is lost."""

    async def stay(self, connection: Any) -> None:
        """On the driver's own connection: have it seen, until that ends, that a server runs."""

    async def hang_up(self, connection: Any) -> None:
        """End a connection that listened, within a second whether the database answers or not."""

    def try_lock(self, connection: Connection, key: int) -> bool:
        """Take a lock between processes for the length of this transaction, if it is free."""
        return True  # where a writing transaction has the whole database to itself

    def owe_scrubbing(self, connection: Connection) -> None:
        """With this transaction: have an embedded file's bytes of what was deleted be zeroed."""

    def owes_scrubbing(self, connection: Connection) -> bool:
        """Whether bytes of what was deleted may still be in an embedded database's files."""
        return False

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Have the planner know how the rows of tables are spread, if it goes by that."""

    @abstractmethod
    def now(self, connection: Connection) -> datetime:
        """Ask the database for the time."""

    @abstractmethod
    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any: ...

    def by_code_point(self, column: Column[Any]) -> ColumnElement[str]:
        """Give a text as it compares and sorts by code point."""
        return column

    @abstractmethod
    def octets(self, column: Column[Any]) -> ColumnElement[int]:
        """Give the size of a text or of JSON as it is stored, in bytes of UTF-8."""

    @abstractmethod
    def least(self, *values: Any) -> Function[Any]: ...

    @abstractmethod
    def greatest(self, *values: Any) -> Function[Any]: ...

    @abstractmethod
    def is_unavailable(self, error: Exception) -> bool:
        """Whether, by the driver's error, the database's state is at fault, not the statement."""

    @abstractmethod
    def is_schema_mismatch(self, error: Exception) -> bool:
        """Whether the driver's error is about a table or column that is not there."""

    def is_stale(self, error: BaseException) -> bool:
        """Whether what a connection knows of the schema is of an earlier time.

        What it was doing has changed nothing: it is done on another connection.
        """
        return False

    def is_misrouted(self, error: BaseException) -> bool:
        """Whether rows may be in other shards than `shards` says. Nothing has been changed then."""
        del error
        return False

    @abstractmethod
    def obstacle(self, error: BaseException, url: URL) -> str | None:
        """What to change before the database can be used; None where trying again may help."""

    def encoding(self, connection: Connection) -> str:
        """How the database keeps texts, as it names that itself."""
        return UTF8
