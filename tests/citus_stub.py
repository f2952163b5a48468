"""What Citus says of tables that are spread over shards, told by a plain PostgreSQL.

The service then sends what it sends to Citus, and one database answers all of it.
"""

from __future__ import annotations

import hashlib
import os

ON_STUB = bool(os.environ.get("TEST_CITUS_STUB"))
"""Whether databases on PostgreSQL look as if Citus had spread their tables."""

SHARDS = 4
FIRST_SHARD = 102_008

# Citus's own tables are in the catalogue.
_ALLOWED = "SET allow_system_table_mods = on"

_SHARD_OF = f"""
CREATE FUNCTION pg_catalog.get_shard_id_for_distribution_column(regclass, text) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$SELECT {FIRST_SHARD} + mod(get_byte(decode(md5($2), 'hex'), 0), {SHARDS})::bigint$$
"""

_DISTRIBUTE = """
CREATE FUNCTION pg_catalog.create_distributed_table(
    table_name regclass, distribution_column text, colocate_with text, shard_count integer DEFAULT 0
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint
               WHERE contype = 'f' AND table_name IN (conrelid, confrelid)) THEN
        RAISE '% has a foreign key with a table that is not distributed', table_name;
    END IF;
    INSERT INTO pg_catalog.pg_dist_partition VALUES (table_name, 'h');
END $$
"""

_UNDISTRIBUTE = """
CREATE FUNCTION pg_catalog.undistribute_table(
    table_name regclass, cascade_via_foreign_keys boolean
) RETURNS void LANGUAGE sql AS 'DELETE FROM pg_catalog.pg_dist_partition'
"""

_EMPTY = """
CREATE FUNCTION pg_catalog.truncate_local_data_after_distributing_table(regclass) RETURNS void
LANGUAGE sql AS 'INSERT INTO pg_catalog.emptied VALUES ($1)'
"""

_NODES = """
CREATE TABLE pg_catalog.pg_dist_node (
    groupid integer, isactive boolean, shouldhaveshards boolean, noderole text
)
"""

_ON_WORKERS = """
CREATE FUNCTION pg_catalog.run_command_on_workers(text, OUT success boolean, OUT result text)
RETURNS SETOF record LANGUAGE sql AS $$SELECT true, '100'$$
"""

STATEMENTS = (
    _ALLOWED,
    'CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char")',
    "CREATE TABLE pg_catalog.pg_dist_local_group (groupid integer)",
    "INSERT INTO pg_catalog.pg_dist_local_group VALUES (0)",
    _NODES,
    "INSERT INTO pg_catalog.pg_dist_node VALUES (0, true, false, 'primary')",
    "INSERT INTO pg_catalog.pg_dist_node VALUES (1, true, true, 'primary')",
    "CREATE TABLE pg_catalog.emptied (logicalrelid regclass)",
    _SHARD_OF,
    _DISTRIBUTE,
    _UNDISTRIBUTE,
    _EMPTY,
    _ON_WORKERS,
    "GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_local_group TO PUBLIC",
)
"""What a database says from then on; its rows stay where they are."""


def shard_of(session_id: str) -> int:
    """Give the shard that a session is said to be in."""
    return (
        FIRST_SHARD + hashlib.md5(session_id.encode(), usedforsecurity=False).digest()[0] % SHARDS
    )
