"""Citus, as far as a plain PostgreSQL can play it: how it is recognised, and what it is sent."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta

import grpc
import pytest
from alembic import command
from alembic.util import CommandError
from tests.citus_stub import SHARDS, shard_of
from tests.life import live
from tests.locks import postgres
from tests.patience import PATIENT_DATABASE
from tests.roles import as_superuser
from tests.routing import recording

from memoryd.database.engine import Database
from memoryd.database.migrate import HEAD, REVISIONS, alembic_config
from memoryd.database.tables import schema
from memoryd.database.transfer import export_to, import_from
from memoryd.v1 import conversation_pb2, document_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb

EARLIER = REVISIONS[REVISIONS.index("017_add_conversations_since_006") - 1]
SESSIONS = [f"session-{number}" for number in range(16)]
SPREAD = sorted(name for name, table in schema.tables.items() if "session_id" in table.c)
FOREIGN_KEYS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE contype = 'f' ORDER BY 1, 2"
)
FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('failures') <= %s THEN
        RAISE 'complex joins are only supported' USING ERRCODE = '0A000';
    END IF;
    RETURN NEW;
END $$
"""
NO_PREPARED = """
CREATE OR REPLACE FUNCTION pg_catalog.run_command_on_workers(
    text, OUT success boolean, OUT result text
) RETURNS SETOF record LANGUAGE sql AS $$SELECT true, '0'$$
"""
LISTENING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
NO_WORKER = "DELETE FROM pg_catalog.pg_dist_node WHERE groupid <> 0"


@pytest.fixture
def database_kind():
    return "postgresql"


@pytest.fixture
def migrated(command_line, database_url):
    """Run `memoryd migrate` as the owner of the tables."""

    def run(*flags):
        return command_line.run("migrate", *flags, MEMORYD_DATABASE_URL=as_superuser(database_url))

    return run


@pytest.fixture
async def citus(tables, migrated):
    """A database that says it is Citus, with its tables spread."""
    await tables.become_citus()
    done = migrated("--distribute")
    assert done.returncode == 0, done.stderr
    return tables


def stored(content, session_id):
    return pb.StoreMemoryRequest(session_id=session_id, content=content)


async def test_tables_are_spread_and_brought_back(tables, migrated, serve):
    await tables.become_citus()
    keys = await tables.rows(FOREIGN_KEYS)
    done = migrated("--distribute", "--shards", "4")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()[1].partition(": ")[2].split(", ")) == SPREAD
    assert await tables.rows(FOREIGN_KEYS) == keys
    emptied = await tables.rows("SELECT logicalrelid::text FROM pg_catalog.emptied ORDER BY 1")
    assert [row[0] for row in emptied] == SPREAD
    secured = "SELECT count(*) FROM pg_class WHERE relrowsecurity"
    assert await tables.rows(secured) == [(0,)]
    assert "spread over Citus's workers before" in migrated("--distribute").stdout
    assert "brought back" in migrated("--undistribute").stdout
    assert "nothing is spread" in migrated("--undistribute").stdout
    assert migrated().returncode == 0
    assert await tables.rows(secured) != [(0,)]
    running = await serve()
    assert (await running.memory.StoreMemory(stored("a fact", "s"))).memory.revision == 1


async def downgrade(database_url, target):
    configured = alembic_config(as_superuser(database_url))
    await asyncio.to_thread(command.downgrade, configured, target)


async def test_tables_of_a_later_release_are_spread_as_they_come(
    tables, migrated, database_url, serve
):
    await downgrade(database_url, EARLIER)
    await tables.become_citus()
    there = await tables.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    later = {*SPREAD} - {row[0] for row in there}
    assert later >= {"conversations", "store_receipts"}
    for table in {*SPREAD} - later:
        await tables.execute(
            f"INSERT INTO pg_catalog.pg_dist_partition VALUES ('{table}'::regclass, 'h')"  # noqa: S608  constant names
        )
    said, sep, names = migrated().stdout.splitlines()[-2].partition(": ")
    assert (said, sep) == ("spread over Citus's workers", ": ")
    assert {*names.split(", ")} == later
    spread = await tables.rows("SELECT logicalrelid::text FROM pg_catalog.pg_dist_partition")
    assert sorted(row[0] for row in spread) == SPREAD
    assert migrated().stdout.splitlines() == [f"schema at {HEAD}"]
    running = await serve()
    assert (await running.memory.StoreMemory(stored("a fact", "s"))).memory.revision == 1


@pytest.mark.usefixtures("citus")
async def test_no_schema_that_cannot_be_spread_is_gone_back_to(database_url, migrated):
    with pytest.raises(CommandError, match="memoryd migrate --undistribute"):
        await downgrade(database_url, EARLIER)
    assert migrated("--undistribute").returncode == 0
    await downgrade(database_url, EARLIER)


async def test_servers_have_to_be_stopped(tables, migrated, serve, eventually):
    await tables.become_citus()

    async def listens():
        return bool(await tables.rows(LISTENING))

    for flag in ("--distribute", "--undistribute"):
        running = await serve()
        await eventually(listens)
        done = migrated(flag)
        assert done.returncode == 1
        assert "servers are running" in done.stderr
        await running.server.stop()
        assert migrated(flag).returncode == 0


@pytest.mark.usefixtures("citus")
def test_row_level_security_is_said_not_to_hold(command_line, database_url, migrated):
    production = {
        "MEMORYD_DATABASE_URL": database_url,
        "MEMORYD_ENVIRONMENT": "production",
        "MEMORYD_AUTH": "observe",
    }
    refused = command_line.run("serve", **production)
    assert refused.returncode != 0
    for words in ("row-level security does not hold", "MEMORYD_RLS=off"):
        assert words in refused.stderr
    found = json.loads(command_line.run("doctor", "--json", **production).stdout)["findings"]
    rls = next(finding for finding in found if finding["check"] == "rls")
    assert (rls["status"], "does not hold" in rls["message"]) == ("warning", True)
    assert "MEMORYD_RLS=off" in migrated("--distribute").stdout
    server = command_line.serve(MEMORYD_RLS="off", **production)
    server.wait_for(lambda: "memoryd ready" in server.output)
    assert "row-level security" not in server.log


@pytest.mark.whole
def test_a_plain_postgresql_spreads_nothing(migrated):
    for flag in ("--distribute", "--undistribute"):
        done = migrated(flag)
        assert done.returncode == 1
        assert "CREATE EXTENSION citus" in done.stderr


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [(NO_WORKER, "citus_add_node"), (NO_PREPARED, "max_prepared_transactions")],
)
async def test_what_citus_lacks_is_named(tables, migrated, statement, remedy):
    await tables.become_citus()
    await tables.execute(statement)
    done = migrated("--distribute")
    assert done.returncode == 1
    assert remedy in done.stderr


async def test_a_worker_serves_nothing(citus, command_line, database_url):
    await citus.execute("UPDATE pg_catalog.pg_dist_local_group SET groupid = 2")
    done = command_line.run("sweep", "--once", MEMORYD_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "a worker of Citus" in done.stderr


@pytest.mark.usefixtures("citus")
async def test_every_statement_is_about_one_shard(serve):
    running = await serve()
    memory, documents = running.memory, running.documents
    sent = []
    with recording(sent):
        for session_id in SESSIONS:
            await memory.StoreMemory(stored("a fact", session_id))
        others = [stored("another fact", session_id) for session_id in SESSIONS]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=others))
        found = await memory.RetrieveMemories(
            pb.RetrieveMemoriesRequest(
                session_id=SESSIONS[0],
                session_ids=SESSIONS[1:],
                query="fact",
                limit=100,
                diversify=False,
            )
        )
        assert len(found.results) == 2 * len(SESSIONS)
        await running.server.flush_accesses()
        for session_id in SESSIONS:
            await documents.PutDocument(
                document_pb2.PutDocumentRequest(
                    document=document_pb2.Document(session_id=session_id, key="k", text="v")
                )
            )
            await running.conversations.AppendMessages(
                conversation_pb2.AppendMessagesRequest(
                    session_id=session_id,
                    conversation_id="c",
                    messages=[
                        conversation_pb2.Message(
                            role=conversation_pb2.ROLE_USER,
                            parts=[conversation_pb2.Part(text="hello")],
                        )
                    ],
                )
            )
    assert {shard_of(session_id) for session_id in SESSIONS} == {*range(102_008, 102_008 + SHARDS)}
    routed = [one for one in sent if one.is_routed]
    assert {session_id for one in routed for session_id in one.session_ids} == {*SESSIONS}
    assert [fault for one in sent if (fault := one.fault(shard_of))] == []


@pytest.mark.usefixtures("citus")
async def test_every_statement_of_a_life_is_about_one_shard(serve, clock, database_url):
    """All calls, reads by way of a standby, the sweeper, a purge, an export and an import."""
    sent, exported = [], io.StringIO()
    with recording(sent):
        running = await serve(MEMORYD_DATABASE_READ_URL=database_url)
        await live(running, clock)
        merge = session_pb2.MergeSessionsRequest(
            source_session_id="user-1", target_session_id="user-0"
        )
        await running.sessions.MergeSessions(merge)
        database = Database(database_url, PATIENT_DATABASE)
        await export_to(database, exported, with_deleted=True)
        lines = exported.getvalue().encode().splitlines(keepends=True)
        await import_from(database, lines, total=len(lines))
        await database.close()
        clock.move(timedelta(days=30))
        await running.server.sweeper.run_once()
    assert [fault for one in sent if (fault := one.fault(shard_of))] == []
    for begins in ("INSERT INTO", "DELETE FROM"):
        concerned = {table for table in SPREAD if any(f"{begins} {table} " in s.sql for s in sent)}
        assert concerned == {*SPREAD}, begins


@pytest.mark.usefixtures("citus")
async def test_it_is_told_last_what_has_changed(serve):
    running = await serve()
    sent = []
    with recording(sent):
        await running.memory.StoreMemory(stored("a fact", "s"))
    place = next(n for n, one in enumerate(sent) if "pg_notify" in one.sql)
    assert [one.sql for one in sent[place + 1 :] if one.is_routed] == []


async def test_a_shard_that_waits_holds_up_no_other(citus, serve, database_url, eventually):
    running = await serve()
    held = SESSIONS[0]
    other = next(s for s in SESSIONS if shard_of(s) != shard_of(held))
    for session_id in (held, other):
        await running.memory.StoreMemory(stored("a fact", session_id))
    async with postgres(database_url) as connection, connection.transaction():
        await connection.execute("SELECT FROM sessions WHERE session_id = $1 FOR UPDATE", held)
        waiting = asyncio.ensure_future(running.memory.StoreMemory(stored("more", held)))

        async def waits():
            return bool(await citus.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))

        await eventually(waits)
        await running.memory.StoreMemory(stored("more", other))
        assert not waiting.done()
    assert (await waiting).memory.content == "more"


async def refuse(citus, times):
    """Have what changes a session refused, as where its shard was split since it was asked for."""
    await citus.execute("CREATE SEQUENCE failures")
    await citus.execute("GRANT ALL ON SEQUENCE failures TO PUBLIC")
    await citus.execute(FAILING % times)
    await citus.execute(
        "CREATE TRIGGER fails BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION fail()"
    )


async def test_a_shard_that_was_split_is_asked_for_again(citus, serve):
    running = await serve()
    await running.memory.StoreMemory(stored("a fact", "s"))
    await refuse(citus, 1)
    sent = []
    with recording(sent):
        await running.memory.StoreMemory(stored("another", "s"))
    assert [one.values for one in sent if "get_shard_id" in one.sql] == [(["s"],)]


async def test_what_is_refused_twice_is_left_to_the_caller(citus, serve):
    running = await serve()
    await running.memory.StoreMemory(stored("a fact", "s"))
    await refuse(citus, 100)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.memory.StoreMemory(stored("another", "s"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await citus.rows("SELECT last_value FROM failures") == [(2,)]
