"""How a database is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """Limits of a database's use; times in seconds."""

    pool_size: int = 10
    writers: int = 8
    """Transactions that write at a time, each to a shard, where rows are spread over several."""
    timeout_seconds: float = 4.0
    """A transaction may take, waiting for a connection included."""
    statement_timeout_seconds: float = 4.0
    lock_timeout_seconds: float = 3.0
    connect_seconds: float | None = None
    """A connection may take to be made, where the URL says so; never longer than a transaction."""
    pgbouncer: bool = False
    """Whether PgBouncer's transaction pooling stands between: keep nothing prepared."""
    row_security: bool = True
    """Whether row-level security is turned on where the tables are made."""
    must_exist: bool = False
    """Whether an embedded database's file has to be there, with a schema in it, to be opened."""
