"""Spreads the rows of sessions over the machines of Citus, and brings them back.

The tables that have sessions are distributed by `session_id`, all of them alike, so that a session
is in one place; the others stay the coordinator's own. See
https://docs.citusdata.com/en/stable/develop/api_udf.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, text

from memoryd.database import row_security
from memoryd.database.dialect import Distribution
from memoryd.database.tables import schema, sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection

SHARDS_A_WORKER = 4
"""Unless a number is given. Each has transactions of its own, so that more write more slowly."""

_TABLES = [table.name for table in schema.sorted_tables if "session_id" in table.c]

_FIRST = sessions.name
"""The table that the others are put beside."""

SERVERS = int.from_bytes(b"servers", "big")
"""The advisory lock that each server shares on the connection on which it listens."""

_NO_SERVER = text(f"SELECT pg_try_advisory_xact_lock({SERVERS})")

# Citus's own tables are in the catalogue.
_HAS_CITUS = text("SELECT to_regclass('pg_dist_partition') IS NOT NULL")
_DISTRIBUTION = text(
    """
    SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('sessions')),
           EXISTS (SELECT FROM pg_dist_local_group WHERE groupid <> 0)
    """
)
_WORKERS = text(
    """
    SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards AND noderole = 'primary'
    """
)
_WITHOUT_PREPARED = text(
    """
    SELECT count(*) FROM run_command_on_workers('SHOW max_prepared_transactions') AS answers
    WHERE NOT answers.success OR answers.result = '0'
    """
)
_SPREAD = text("SELECT logicalrelid::text FROM pg_dist_partition WHERE partmethod = 'h'")

# One worker after the other: foreign keys between distributed tables need it.
_ONE_BY_ONE = "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"

_FOREIGN_KEYS = text(
    """
    SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
      AND conrelid = ANY (SELECT to_regclass(t) FROM unnest(CAST(:tables AS TEXT[])) AS t)
    ORDER BY 1, 2
    """
)
_DISTRIBUTE_FIRST = text(
    """
    SELECT create_distributed_table(
        to_regclass(CAST(:table AS TEXT)), 'session_id',
        colocate_with => 'none', shard_count => CAST(:shards AS INTEGER))
    """
)
_DISTRIBUTE = text(
    """
    SELECT create_distributed_table(
        to_regclass(CAST(:table AS TEXT)), 'session_id', colocate_with => CAST(:beside AS TEXT))
    """
).bindparams(bindparam("beside", _FIRST))
_EMPTY = text(
    "SELECT truncate_local_data_after_distributing_table(to_regclass(CAST(:table AS TEXT)))"
)
_UNDISTRIBUTE = text(
    "SELECT undistribute_table(to_regclass(CAST(:table AS TEXT)), cascade_via_foreign_keys => true)"
).bindparams(bindparam("table", _FIRST))


class CannotSpread(ValueError):
    """What an operator has to change before rows can be spread."""


def distribution(connection: Connection) -> Distribution:
    """How a PostgreSQL spreads the rows of sessions."""
    if not connection.execute(_HAS_CITUS).scalar_one():
        return Distribution.NONE
    are_spread, is_worker = connection.execute(_DISTRIBUTION).one()
    if is_worker:
        return Distribution.WORKER
    return Distribution.COORDINATOR if are_spread else Distribution.NONE


def distribute(connection: Connection, shards: int | None = None) -> list[str]:
    """Distribute the tables that are not distributed yet; give their names.

    In a transaction. `shards` matters where none is distributed yet; then no server may be running.

    Raises CannotSpread.
    """
    _check_extension(connection)
    spread = set(connection.execute(_SPREAD).scalars())
    missing = [name for name in _TABLES if name not in spread]
    if not missing:
        return []
    workers = _check_workers(connection)
    if _FIRST in missing:
        _require_no_server(connection)
    # The setting that it goes by does not reach the workers.
    row_security.unprotect(connection)
    connection.exec_driver_sql(_ONE_BY_ONE)
    # Between a table that is distributed and one that is not there may be no foreign key.
    keys = connection.execute(_FOREIGN_KEYS, {"tables": missing}).all()
    for table, name, _ in keys:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name in missing:
        if name == _FIRST:
            wanted = shards or SHARDS_A_WORKER * workers
            connection.execute(_DISTRIBUTE_FIRST, {"table": name, "shards": wanted})
        else:
            connection.execute(_DISTRIBUTE, {"table": name})
        # Rows are copied; what stays here would outlive an erasure.
        connection.execute(_EMPTY, {"table": name})
    for table, name, definition in keys:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    return missing


def undistribute(connection: Connection) -> bool:
    """Bring all rows back to the coordinator; give whether they were elsewhere.

    In a transaction, with no server running.

    Raises CannotSpread.
    """
    _check_extension(connection)
    if distribution(connection) is Distribution.NONE:
        return False
    _require_no_server(connection)
    connection.exec_driver_sql(_ONE_BY_ONE)
    connection.execute(_UNDISTRIBUTE)
    return True


def _require_no_server(connection: Connection) -> None:
    if not connection.execute(_NO_SERVER).scalar_one():
        raise CannotSpread(
            "servers are running on the database: stop each of them first, so that nothing is"
            " written where it would be missed"
        )


def _check_extension(connection: Connection) -> None:
    if not connection.execute(_HAS_CITUS).scalar_one():
        raise CannotSpread(
            "the database has no extension Citus: run CREATE EXTENSION citus in it, and in the"
            " database of the same name on each worker"
        )


def _check_workers(connection: Connection) -> int:
    """Count the workers. Raises CannotSpread where something is missing."""
    workers: int = connection.execute(_WORKERS).scalar_one()
    if not workers:
        raise CannotSpread(
            "Citus has no worker: run SELECT citus_add_node('HOST', 5432) on the coordinator for"
            " each of them"
        )
    if connection.execute(_WITHOUT_PREPARED).scalar_one():
        raise CannotSpread(
            "max_prepared_transactions is 0 on a worker, or the worker does not answer; a"
            " transaction on several workers needs it: set it to at least max_connections"
        )
    return workers
