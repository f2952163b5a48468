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

_SPREAD = """
INSERT INTO pg_catalog.pg_dist_partition SELECT c.oid, 'h' FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'session_id'
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""

STATEMENTS = (
    _ALLOWED,
    'CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char")',
    "CREATE TABLE pg_catalog.pg_dist_local_group (groupid integer)",
    "INSERT INTO pg_catalog.pg_dist_local_group VALUES (0)",
    _SHARD_OF,
    _SPREAD,
    "GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_local_group TO PUBLIC",
)
"""What a database that has the schema says from then on."""


def shard_of(session_id: str) -> int:
    """Give the shard that a session is said to be in."""
    return (
        FIRST_SHARD + hashlib.md5(session_id.encode(), usedforsecurity=False).digest()[0] % SHARDS
    )
