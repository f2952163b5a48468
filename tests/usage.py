"""What a tenant has stored, by the rows themselves and by its account."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Tables

    Usage = tuple[int, int, int, int, int, int]

SIZES = {
    "sqlite": "length(CAST(content AS BLOB)) + length(CAST(metadata AS BLOB))",
    "postgresql": "octet_length(content) + octet_length(metadata::text)",
}
"""Of a memory in bytes, by the kind of database."""

BOTH = """
SELECT m.memories, s.sessions, m.bytes + d.bytes + t.bytes,
    d.documents, c.conversations, t.messages,
    u.memories, u.sessions, u.bytes, u.documents, u.conversations, u.messages
FROM (
    SELECT count(*) AS memories, coalesce(sum({size}), 0) AS bytes
    FROM memories WHERE tenant = :tenant AND deleted_at IS NULL
) m
CROSS JOIN (
    SELECT count(*) AS documents, coalesce(sum(size), 0) AS bytes
    FROM documents WHERE tenant = :tenant
) d
CROSS JOIN (
    SELECT count(*) AS messages, coalesce(sum(size), 0) AS bytes
    FROM messages WHERE tenant = :tenant
) t
CROSS JOIN (SELECT count(*) AS conversations FROM conversations WHERE tenant = :tenant) c
CROSS JOIN (SELECT count(*) AS sessions FROM sessions WHERE tenant = :tenant) s
LEFT JOIN tenant_usage u ON u.tenant = :tenant
"""
"""Both as they are at one moment."""


async def stored_and_counted(tables: Tables, kind: str, tenant: str) -> tuple[Usage, Usage]:
    """Memories, sessions, bytes, documents, conversations and messages, twice.

    Without an account the latter are None.
    """
    (found,) = await tables.rows(BOTH.format(size=SIZES[kind]), tenant=tenant)
    stored = tuple(map(int, found[:6]))
    return stored, tuple(found[6:])
