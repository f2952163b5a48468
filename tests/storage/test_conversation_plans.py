"""Statements on conversations find their rows by index, and a window reads what it answers."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser
from tests.rpc.test_conversation_branches import delete, fork, pop, rewrite, set_head
from tests.rpc.test_conversation_settings import create, update
from tests.rpc.test_conversation_windows import summarise
from tests.rpc.test_conversations import append, get, listed, said
from tests.storage import test_plans as plans

from memoryd.database.tables import conversation_branches, conversations, messages, sessions
from memoryd.database.types import UtcDateTime
from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import memory_pb2

pytestmark = pytest.mark.whole

ROWS = 100_000
"""Messages of one conversation, and again of many others."""

IN_OTHERS = 100
LISTING = "a listing of several sessions"
LONG, SHORT = {"session_id": "long"}, {"session_id": "other-7"}
TABLES = (conversations, conversation_branches, messages)


@pytest.fixture
async def engine(database_url):
    engine = create_async_engine(as_superuser(database_url))
    yield engine
    await engine.dispose()


async def fill(engine, clock):
    """One conversation of many messages, and many of a few, of a token each."""
    numbers = sa.select(sa.literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < ROWS - 1))
    n, now = numbers.c.n, sa.literal(clock.now, UtcDateTime())
    other = n // IN_OTHERS
    empty, no, yes = sa.literal(""), sa.false(), sa.true()
    every = (
        ({"session_id": sa.literal("long")}, n + 1, sa.literal(ROWS), n == 0),
        (
            {"session_id": plans.text("other-", other)},
            n % IN_OTHERS + 1,
            sa.literal(IN_OTHERS),
            n % IN_OTHERS == 0,
        ),
    )
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for session, depth, count, is_first in every:
            key = {"tenant": sa.literal("default"), **session}
            of_tree = {**key, "branch": sa.literal(1), "tree": sa.literal(1)}
            parts = (
                (
                    sessions,
                    is_first,
                    {
                        **key,
                        **dict.fromkeys(("revision", "counted_revision"), sa.literal(1)),
                        "memory_count": sa.literal(0),
                        "created_at": now,
                        "updated_at": now,
                    },
                ),
                (
                    conversations,
                    is_first,
                    {
                        **key,
                        "conversation_id": sa.literal("c"),
                        **dict.fromkeys(("number", "tree", "revision"), sa.literal(1)),
                        "change": sa.literal("created"),
                        "created_at": now,
                        "updated_at": now,
                        **dict.fromkeys(("head_branch", "head_first_depth"), sa.literal(1)),
                        **dict.fromkeys(("head_depth", "head_tokens", "head_turn_depth"), count),
                        "head_message_id": plans.text("m", count),
                        "head_created_at": now,
                        "expires_at": sa.literal(clock.now + timedelta(days=1), UtcDateTime()),
                        **dict.fromkeys(("head_is_end", "head_is_tip"), yes),
                        "tips": sa.literal([], sa.JSON()),
                        "promoted": sa.literal([], sa.JSON()),
                        **dict.fromkeys(("head_turn_id", "forked_at", "display_name"), empty),
                        "labels": sa.literal({}, sa.JSON()),
                        "state": sa.literal({}, sa.JSON()),
                    },
                ),
                (
                    conversation_branches,
                    is_first,
                    {
                        **of_tree,
                        "owner": sa.literal(1),
                        "first_depth": sa.literal(1),
                        **dict.fromkeys(("parent", "tokens_before"), sa.literal(0)),
                    },
                ),
                (
                    messages,
                    sa.true(),
                    {
                        **of_tree,
                        **dict.fromkeys(("depth", "tokens_through", "turn_depth"), depth),
                        "message_id": plans.text("m", depth),
                        "parent_id": plans.text("m", depth - 1),
                        "revision": sa.literal(1),
                        "created_at": now,
                        "tokens": sa.literal(1),
                        "is_estimated": no,
                        "turn_id": empty,
                        "size": sa.literal(0),
                        "sha256": empty,
                        "body": sa.literal(b"", sa.LargeBinary()),
                    },
                ),
            )
            for table, condition, columns in parts:
                wanted = sa.select(*columns.values()).select_from(numbers).where(condition)
                await connection.execute(sa.insert(table).from_select([*columns], wanted))


async def windows(stub, caught, whose):
    """Every kind of window; the messages that each answers."""
    kinds = {
        "last": {"last": 20},
        "max_tokens": {"max_tokens": 20},
        "turns": {"last": 20, "complete_turns": True},
        "since": {"since": Timestamp(seconds=2**32)},
        "after": {"after_message_id": "m90"},
        "page": {"page_size": 20},
    }
    answered = {}
    for kind, values in kinds.items():
        with plans.catching(caught, kind):
            answer = await stub.ListMessages(listed(**{"page_size": 20, **values, **whose}))
        answered[kind] = len(answer.messages)
    return answered


async def everything(running, caught):
    """Every other call."""
    stub = running.conversations
    whose = {"session_id": "other-9"}
    with plans.catching(caught, "calls"):
        await stub.CreateConversation(create(conversation_id="new", **whose))
        await stub.AppendMessages(append(said("x", "m101"), said("y"), **whose))
        await stub.AppendMessages(append(said("x", "m101"), **whose))
        await stub.RewriteMessages(rewrite("m50", said("z", "n"), **whose))
        await stub.SetHead(set_head("m101", **whose))
        await stub.SetSummary(summarise("x", "m100", **whose))
        await stub.ListMessages(listed(with_summary=True, branch_head="n", **whose))
        await stub.ListMessages(listed(with_summary=True, last=5, **whose))
        await stub.ForkConversation(fork("m60", **whose))
        await stub.PopMessages(pop(5, **whose))
        await stub.UpdateConversation(update("display_name", display_name="x", **whose))
        await stub.GetConversation(get(**whose))
        await stub.ListConversations(pb.ListConversationsRequest(**whose))
        await stub.DeleteConversation(delete(**whose))
        await stub.DeleteConversation(delete(conversation_id="f", **whose))
    with plans.catching(caught, LISTING):
        request = pb.ListConversationsRequest(session_id_prefix="other-1", page_size=5)
        request.page_token = (await stub.ListConversations(request)).next_page_token
        await stub.ListConversations(request)
    with plans.catching(caught, plans.SWEEP):
        await running.server.sweeper.run_once()


async def never(_sweeper, _interval_seconds):
    """Do not sweep; the test does."""


async def test_statements_find_their_rows_by_index(
    engine, database_url, running, clock, monkeypatch
):
    monkeypatch.setattr(plans, "LARGE", {table.name: table for table in TABLES})
    monkeypatch.setattr(plans, "SHARDED", [table.name for table in TABLES])
    await fill(engine, clock)
    caught = []
    await windows(running.conversations, caught, SHORT)
    await everything(running, caught)
    lists = [one for one in caught if one.call == LISTING and "conversations" in one.sql]
    caught = [one for one in caught if one.call != LISTING]
    for listing in lists:
        assert "ix_conversation_updated_at" in await explained(engine, listing)
    assert lists
    found = [one for statement in caught for one in plans.joins_beside_the_shard_key(statement)]
    is_sqlite = engine.dialect.name == "sqlite"
    problems = plans.sqlite_problems if is_sqlite else plans.postgres_problems
    statements = {
        one.sql: one
        for one in caught
        if any(f"{table.name}." in one.sql or f" {table.name} " in one.sql for table in TABLES)
    }
    assert len(statements) > 20
    for state in ("without statistics", "with statistics"):
        serving = create_async_engine(database_url)
        async with serving.connect() as connection:
            for statement in statements.values():
                found += [
                    f"{statement.call}, {state}, {problem}\n    {statement.sql}"
                    for problem in await problems(connection, statement)
                ]
        await serving.dispose()
        async with engine.begin() as connection:
            await connection.exec_driver_sql("ANALYZE")
    if found:
        pytest.fail("\n".join(found))


async def explained(engine, statement):
    """The plan of a query, as text."""
    form = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    async with engine.connect() as connection:
        found = await connection.exec_driver_sql(f"{form} {statement.sql}", statement.parameters)
        return str(found.all())


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_window_of_a_long_conversation_reads_no_more_than_of_a_short_one(
    engine, running, clock
):
    await fill(engine, clock)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")
    reads = {}
    for place, whose in enumerate((SHORT, LONG)):
        caught = []
        answered = await windows(running.conversations, caught, whose)
        assert answered["last"] == answered["max_tokens"] == 20
        for kind, count in answered.items():
            found = [await rows_read(engine, one) for one in caught if one.call == kind]
            reads[kind, place] = sum(found) - count
    for kind in ("last", "max_tokens", "turns", "after", "page"):
        assert reads[kind, 0] == reads[kind, 1] <= 1, (kind, reads)
    assert reads["since", 1] <= 20  # which is searched by halves


async def rows_read(engine, statement):
    """The rows of messages that a query has read."""
    if not statement.sql.startswith(("SELECT", "WITH")):
        return 0
    async with engine.connect() as connection:
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}"
        found = (await connection.exec_driver_sql(explain, statement.parameters)).scalar_one()
    parsed = json.loads(found) if isinstance(found, str) else found
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in plans.nodes(parsed[0]["Plan"])
        if node.get("Relation Name") == "messages"
    )


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_messages_are_analysed_though_the_memories_before_them_were(
    memory, conversations, engine
):
    requests = [
        memory_pb2.StoreMemoryRequest(session_id="s", content=f"fact {n}") for n in range(100)
    ]
    await memory.BatchStoreMemories(memory_pb2.BatchStoreMemoriesRequest(requests=requests))
    await plans.until_analysed(engine, "memories", rows=100)
    await conversations.AppendMessages(append(*(said(f"message {n}") for n in range(100))))
    await plans.until_analysed(engine, "messages", rows=100)
