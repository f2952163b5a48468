"""Schema changes under a running server make its prepared statements stale."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from sqlalchemy import Integer, String
from tests.life import live
from tests.roles import SERVING_ROLE

from memoryd.database.tables import schema
from memoryd.v1 import memory_pb2 as pb

only_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])


def widened(table: str) -> list[str]:
    """Statements that widen every text and number column of a table."""
    wider = {
        c.name: f"VARCHAR({c.type.length + 16})"
        if type(c.type) is String
        else "BIGINT"
        if type(c.type) is Integer
        else None
        for c in schema.tables[table].c
        if c.name != "tenant"  # of which a policy keeps the type
    }
    return [
        f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {to}" for name, to in wider.items() if to
    ]


CHANGES = {
    "every table widened": [statement for name in schema.tables for statement in widened(name)],
    "memories widened": widened("memories"),
    "tools widened": widened("tool_configs") + widened("tool_config_revisions"),
    "revision of the schema widened": [
        "ALTER TABLE alembic_version ALTER COLUMN version_num TYPE VARCHAR(200)"
    ],
    "text of any length": [
        "ALTER TABLE memories ALTER COLUMN content_type TYPE TEXT",
        "ALTER TABLE tool_configs ALTER COLUMN tool TYPE TEXT",
    ],
    "table written again, with other storage, another index and a trigger": [
        "ALTER TABLE memories ADD COLUMN made_at TIMESTAMPTZ DEFAULT clock_timestamp()",
        "ALTER TABLE memories SET (fillfactor = 70)",
        "DROP INDEX ix_memory_history_id",
        "CREATE INDEX ix_memory_history_id ON memory_history (tenant, session_id, id)",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "CREATE TRIGGER nothing BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION nothing()",
    ],
    "column renamed and back": [
        "ALTER TABLE memories RENAME COLUMN importance TO weight",
        "ALTER TABLE memories RENAME COLUMN weight TO importance",
    ],
    "column made again": [
        "ALTER TABLE sessions DROP COLUMN access_revision",
        "ALTER TABLE sessions ADD COLUMN access_revision BIGINT NOT NULL DEFAULT 0",
    ],
    "table moved to a copy": [
        "CREATE TABLE copied (LIKE store_receipts INCLUDING ALL)",
        "INSERT INTO copied SELECT * FROM store_receipts",
        "DROP TABLE store_receipts",
        "ALTER TABLE copied RENAME TO store_receipts",
        f"GRANT ALL ON store_receipts TO {SERVING_ROLE}",
    ],
}


@only_postgresql
@pytest.mark.parametrize("change", CHANGES)
async def test_no_call_fails_after_a_compatible_change(serve, tables, clock, change):
    running = await serve()
    await live(running, clock, name="before")
    for statement in CHANGES[change]:
        await tables.execute(statement)
    await running.server.database.check()
    await live(running, clock, name="after")
    assert running.server.health.is_serving.is_set()


async def test_no_call_fails_after_a_migration_of_the_next_release(
    serve, tables, clock, later_schema
):
    running = await serve()
    await live(running, clock, name="before")
    for statement in later_schema:
        await tables.execute(statement)
    await running.server.database.check()
    await live(running, clock, name="after")
    assert running.server.health.is_serving.is_set()


@only_postgresql
async def test_no_connection_keeps_statements_prepared_before_a_change(serve, tables):
    """For every connection of the pool, and for a change during calls."""
    memory = (await serve()).memory
    stored = await memory.StoreMemory(pb.StoreMemoryRequest(session_id="user", content="kept"))
    key = {"session_id": "user", "memory_id": stored.memory.memory_id}

    async def use(times: int) -> None:
        for _ in range(times):
            await memory.ListMemories(pb.ListMemoriesRequest(session_id="user"))
            await memory.GetMemory(pb.GetMemoryRequest(**key))
            change = pb.Memory(**key, content="kept", metadata={"times": times})
            await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=change))

    await asyncio.gather(*(use(2) for _ in range(30)))
    for length in range(100, 106):
        widening = f"ALTER TABLE memories ALTER COLUMN content_hash TYPE VARCHAR({length})"
        await asyncio.gather(tables.execute(widening), *(use(2) for _ in range(30)))


@only_postgresql
async def test_a_standby_is_still_read_after_a_change(serve, pair, clock, caplog):
    database = pair.create_database()
    await asyncio.to_thread(pair.replicate, synchronously=True)
    await asyncio.to_thread(pair.catch_up)
    running = await serve(
        MEMORYD_DATABASE_URL=pair.primary.url(database),
        MEMORYD_DATABASE_READ_URL=pair.standby.url(database),
    )
    await live(running, clock, name="before")
    for statement in CHANGES["memories widened"]:
        pair.primary.sql(statement, database)
    await asyncio.to_thread(pair.catch_up)
    await live(running, clock, name="after")
    assert "the primary alone is read" not in caplog.text


@only_postgresql
async def test_a_missing_column_is_reported_until_it_is_back(serve, tables, clock):
    running = await serve()
    await live(running, clock, name="before")
    await tables.execute("ALTER TABLE memories RENAME COLUMN importance TO weight")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.memory.StoreMemory(pb.StoreMemoryRequest(session_id="user", content="x"))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "schema" in refused.value.details()
    await tables.execute("ALTER TABLE memories RENAME COLUMN weight TO importance")
    await live(running, clock, name="after")
