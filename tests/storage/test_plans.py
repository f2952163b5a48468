"""Every statement of a call finds its rows by an index that starts with the shard key.

The tests make every call on a large database, catch the statements, and explain them there.
`PLAN_ROWS` is the number of memories on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from unittest import mock

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tests.roles import as_superuser
from tests.storage import document_plans

from memoryd.database import row_security
from memoryd.database import statements as direct
from memoryd.database.postgresql import PLANNER_SETTINGS
from memoryd.database.tables import (
    conversations,
    documents,
    memories,
    memory_history,
    memory_tags,
    schema,
    sessions,
    store_receipts,
    store_requests,
)
from memoryd.database.types import CompactTime, UtcDateTime
from memoryd.memories import group_commit
from memoryd.memories.sweeper import Sweeper
from memoryd.v1 import document_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb

pytestmark = pytest.mark.whole

ROWS = {"postgresql": int(os.environ.get("PLAN_ROWS", "1000000")), "sqlite": 120_000}
IN_SESSION = 50
FIRST_SESSION = 1_000_000
NOW_MICROSECONDS = 1_772_366_400_000_000
"""The time of the tests' clock."""
LARGE = {
    table.name: table
    for table in (
        memories,
        memory_history,
        memory_tags,
        store_receipts,
        store_requests,
        sessions,
        *document_plans.TABLES,
    )
}
SHARD_KEY = ["tenant", "session_id"]
SHARDED = [table.name for table in schema.tables.values() if "session_id" in table.c]
SWEEP = "sweep"
LISTING = "ListSessions"
BY_PREFIX = {LISTING, document_plans.BY_PREFIX}
"""Calls that go from session to session."""
SWEEPERS = {
    "pk_sessions",
    "ix_memory_expires_at",
    "ix_memory_updated_at",
    "ix_memory_deleted_at",
    "ix_memory_history_recorded_at",
    "ix_store_receipts_created_at",
    "ix_store_requests_created_at",
    "ix_document_expires_at",
    "ix_document_history_recorded_at",
    "ix_document_requests_created_at",
    "ix_conversation_expires_at",
    "ix_conversation_requests_created_at",
    "ix_conversation_history_recorded_at",
}
"""The indexes with which the sweeper finds what is due across sessions."""

INDEXES = {
    str(index.name): [column.name for column in index.columns]
    for table in schema.tables.values()
    for index in (*table.indexes, table.primary_key)
}


class Statement(NamedTuple):
    """A statement as passed to the driver."""

    call: str
    sql: str
    parameters: tuple[Any, ...]


# The large database


async def fill(engine: AsyncEngine, rows: int) -> None:
    """Fill sessions with fifty memories each; one in ten is deleted, one in 10,000 due per sweep.

    Add half as many idle sessions as memories: in a small table, reading all sessions would be
    right for a batch that names a thousand.
    """
    numbers = sa.select(sa.literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < rows - 1))
    n = numbers.c.n

    def moment(days_ago: float) -> sa.ColumnElement[datetime]:
        now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # the time of the tests' clock
        return sa.literal(now - timedelta(days=days_ago), UtcDateTime())

    def one_in_10_000(place: int, due: float, others: float) -> sa.ColumnElement[datetime]:
        return sa.case((n % 10_000 == place, moment(due)), else_=moment(others))

    def counted(revision: int, *, memories: int) -> dict[str, sa.ColumnElement[Any]]:
        return {
            "revision": sa.literal(revision),
            "counted_revision": sa.literal(revision),
            "memory_count": sa.literal(memories),
            "created_at": moment(1),
        }

    key = {
        "tenant": sa.literal("default"),
        "session_id": text("session-", n // IN_SESSION + FIRST_SESSION),
    }
    memory_id = text("00000000-0000-7000-8000-0000", n + 10_000_000)
    place = n % IN_SESSION + 1
    parts: list[tuple[sa.Table, sa.ColumnElement[bool], dict[str, Any]]] = [
        (sessions, n % IN_SESSION == 0, {**key, **counted(1000, memories=45)}),
        (
            sessions,
            n % 2 == 0,
            {
                "tenant": sa.literal("default"),
                "session_id": text("idle-", n),
                **counted(1, memories=0),
                # A few are as an earlier release has made them, and a few have labels.
                "created_at": sa.case((n % 20_000 == 0, sa.null()), else_=moment(1)),
                "labels": sa.case(
                    (n % 2_000 == 0, sa.literal({"team": "x"}, sa.JSON())), else_=sa.null()
                ),
            },
        ),
        (
            memories,
            sa.true(),
            {
                **key,
                "id": memory_id,
                "content_type": sa.literal("fact"),
                "content": text("sentence ", n),
                "content_hash": text("hash ", n),
                "semantic_hash": sa.literal("0123456789abcdef"),
                "created_at": moment(1),
                "updated_at": one_in_10_000(1, due=60, others=1),
                "expires_at": one_in_10_000(2, due=1, others=-30),
                "deleted_at": sa.case(
                    (n % 10_000 == 0, moment(30)), (n % 10 == 0, moment(1)), else_=sa.null()
                ),
                "revision": place,
                "created_revision": place,
                "key": sa.case((n % 5 == 0, text("key ", n)), else_=sa.null()),
                "tags": sa.case(
                    (n % 5 == 0, sa.literal(["often"], sa.JSON())), else_=sa.literal([], sa.JSON())
                ),
            },
        ),
        (
            memory_tags,
            n % 5 == 0,
            {**key, "tag": sa.literal("often"), "id": memory_id},
        ),
        (
            memory_history,
            n % 5 == 0,
            {
                **key,
                "revision": place + IN_SESSION,
                "id": memory_id,
                "change": sa.literal("purged"),
                "recorded_at": one_in_10_000(5, due=30, others=0.1),
            },
        ),
        (
            store_requests,
            n % 5 == 0,
            {
                **key,
                "request_id": memory_id,
                "memory_id": sa.literal("none"),
                "fingerprint": sa.literal(""),
                "answer": sa.literal({}, sa.JSON()),
                "created_at": one_in_10_000(0, due=30, others=0.1),
            },
        ),
    ]
    parts.append(
        (
            store_receipts,
            sa.true(),
            {
                **key,
                "request_id": text("0123456789", n + 10_000_000),
                "fingerprint": n,
                "revision": place,
                # In microseconds.
                "created_at": sa.type_coerce(
                    sa.case((n % 10_000 == 0, sa.literal(0)), else_=sa.literal(NOW_MICROSECONDS)),
                    CompactTime(),
                ),
            },
        )
    )
    parts += document_plans.parts(
        n, key, IN_SESSION, moment, lambda due, others: one_in_10_000(0, due, others)
    )
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # neither logging nor foreign keys bear on plans
            for table in ("memory_vectors", "memory_tags", "memories"):  # referring tables first
                await connection.exec_driver_sql(f"ALTER TABLE {table} SET UNLOGGED")
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for table, condition, columns in parts:
            wanted = sa.select(*columns.values()).select_from(numbers).where(condition)
            await connection.execute(sa.insert(table).from_select(list(columns), wanted))


def text(prefix: str, number: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return sa.literal(prefix) + sa.cast(number, sa.Text)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(as_superuser(database_url))
    yield engine
    await engine.dispose()


# The calls


@contextmanager
def catching(caught: list[Statement], call: str) -> Iterator[None]:
    """Catch every statement that any engine of this process executes within the block."""

    def catch(  # as SQLAlchemy calls it
        _connection: object, _cursor: object, sql: str, parameters: Any, *_rest: object
    ) -> None:
        many = isinstance(parameters, list)
        caught.append(Statement(call, sql, parameters[0] if many else parameters))

    class Catching(direct.Prepared):
        """Catches the statements that bypass SQLAlchemy."""

        def encode(self, given: Mapping[str, Any]) -> list[Any]:
            values = super().encode(given)
            caught.append(Statement(call, self.sql, tuple(values)))
            return values

    direct._PREPARED.clear()  # noqa: SLF001  what was compiled before has no Catching
    sa.event.listen(sa.Engine, "before_cursor_execute", catch)
    try:
        with mock.patch.object(direct, "Prepared", Catching):
            yield
    finally:
        direct._PREPARED.clear()  # noqa: SLF001  what was compiled before has no Catching
        sa.event.remove(sa.Engine, "before_cursor_execute", catch)


def session(number: int) -> str:
    return f"session-{FIRST_SESSION + number}"


SESSION = session(7)


def store(content: str, session_id: str = SESSION, **fields: Any) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def filtered(clock: Any, session_id: str = SESSION) -> dict[str, Any]:
    """A filter with every condition."""
    wanted = pb.MemoryFilter(
        content_types=[pb.CONTENT_TYPE_FACT],
        min_importance=0.2,
        created_after=clock.now - timedelta(days=3),
        created_before=clock.now,
        metadata={"a": 1},
        tags_any=["often", "seldom"],
        tags_all=["often"],
        key_prefix="key",
    )
    return {"session_id": session_id, "filter": wanted}


TAGS_AND_KEYS = (
    {"tags_any": ["often"]},
    {"tags_any": ["often", "seldom"]},
    {"tags_all": ["often", "seldom"]},
    {"key_prefix": "key"},
)
"""Filters with one condition that an index serves."""


async def write(memory: Any, caught: list[Statement]) -> None:
    with catching(caught, "StoreMemory"):
        first = await memory.StoreMemory(store("new", request_id=str(uuid.uuid4())))
        await memory.StoreMemory(store("NEW!"))  # merges
        await memory.StoreMemory(store("new in a new session", "session-new"))
        for content in ("first", "second"):  # which replaces it
            await memory.StoreMemory(store(content, key="a/key", tags=["seldom", content]))
    with catching(caught, "BatchStoreMemories"):
        # The session is full before the last of these, so some are evicted.
        crowd = [store(f"one of a crowd {n}", request_id=str(uuid.uuid4())) for n in range(20)]
        spread = [store("spread", session(n)) for n in range(100, 1080)]
        answer = await memory.BatchStoreMemories(
            pb.BatchStoreMemoriesRequest(requests=[*crowd, *spread])
        )
        assert any(response.evicted_memory_ids for response in answer.responses)
    named = {"session_id": SESSION, "memory_id": first.memory.memory_id}
    changed = pb.Memory(**named, content="newer", content_type=pb.CONTENT_TYPE_FACT)
    last = {"session_id": SESSION, "memory_id": answer.responses[19].memory.memory_id}
    with catching(caught, "UpdateMemory"):
        await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
        await memory.UpdateMemory(
            pb.UpdateMemoryRequest(memory=pb.Memory(**named, tags=["often", "new"]))
        )
        await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=pb.Memory(**named, tags=["new"])))
    with catching(caught, "RollbackMemory"):
        await memory.RollbackMemory(
            pb.RollbackMemoryRequest(**named, revision=first.memory.revision)
        )
    with catching(caught, "DeleteMemory"):
        await memory.DeleteMemory(pb.DeleteMemoryRequest(**named))
        await memory.DeleteMemory(pb.DeleteMemoryRequest(**last))
        await memory.DeleteMemory(pb.DeleteMemoryRequest(session_id=SESSION, key="a/key"))
        await memory.StoreMemory(store("again", key="a/key"))
    with catching(caught, "UndeleteMemory"):
        await memory.UndeleteMemory(pb.UndeleteMemoryRequest(**named))


async def read(running: Any, clock: Any, caught: list[Statement]) -> None:
    memory = running.memory
    with catching(caught, "ListMemories"):
        for fields in ({"session_id": SESSION}, filtered(clock)):
            for show_deleted in (False, True):
                request = pb.ListMemoriesRequest(page_size=20, show_deleted=show_deleted, **fields)
                page = await memory.ListMemories(request)
                request.page_token = page.next_page_token
                page = await memory.ListMemories(request)
        for condition in TAGS_AND_KEYS:
            wanted = pb.MemoryFilter(**condition)
            request = pb.ListMemoriesRequest(session_id=SESSION, filter=wanted, page_size=5)
            await memory.ListMemories(request)
    named = {
        "session_id": SESSION,
        "memory_id": (await memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION)))
        .memories[0]
        .memory_id,
    }
    with catching(caught, "GetMemory"):
        await memory.GetMemory(pb.GetMemoryRequest(**named))
        await memory.GetMemory(pb.GetMemoryRequest(session_id=SESSION, key="a/key"))
    with catching(caught, "ListMemoryRevisions"):
        listing = pb.ListMemoryRevisionsRequest(**named, page_size=1)
        listing.page_token = (await memory.ListMemoryRevisions(listing)).next_page_token
        await memory.ListMemoryRevisions(listing)
    with catching(caught, "RetrieveMemories"):
        for fields in ({}, {"query": "one of a crowd"}, {"limit": 100}):
            await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=SESSION, **fields))
        await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(**filtered(clock)))
        await running.server.flush_accesses()
    with catching(caught, "FindSimilarMemories"):
        await memory.FindSimilarMemories(pb.FindSimilarMemoriesRequest(**named))
    with catching(caught, "WatchMemories"):
        for start_revision in (0, 1000):
            call = memory.WatchMemories(
                pb.WatchMemoriesRequest(session_id=SESSION, start_revision=start_revision)
            )
            await call.read()
            await asyncio.sleep(0.7)  # until the revisions have been read again
            call.cancel()
    with catching(caught, "ExportMemories"):
        for fields in ({"session_id": SESSION}, filtered(clock)):
            async for _ in memory.ExportMemories(pb.ExportMemoriesRequest(**fields)):
                pass


async def list_sessions(sessions: Any, **arguments: Any) -> list[str]:
    """Three pages of a listing."""
    request, found = session_pb2.ListSessionsRequest(page_size=20, **arguments), []
    for _ in range(3):
        page = await sessions.ListSessions(request)
        found += [one.session_id for one in page.sessions]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return found


async def of_sessions(running: Any, caught: list[Statement]) -> None:
    sessions = running.sessions
    with catching(caught, LISTING):
        assert len(await list_sessions(sessions)) == 60
        found = await list_sessions(sessions, session_id_prefix="session-10")
        assert found == [session(n) for n in range(60)]
        assert len(await list_sessions(sessions, labels={"team": "x"})) >= 10
    with catching(caught, "GetSession"):
        await sessions.GetSession(session_pb2.GetSessionRequest(session_id=SESSION))
    with catching(caught, "UpdateSession"):
        for session_id in (SESSION, "session-set"):
            settings = session_pb2.Session(session_id=session_id, labels={"team": "y"})
            await sessions.UpdateSession(
                session_pb2.UpdateSessionRequest(session=settings, allow_missing=True)
            )
    for _ in range(2):  # so that there are versions to move
        await running.memory.StoreMemory(store("as before", session(11)))
        document = document_pb2.Document(session_id=session(11), key="k", text="as before")
        await running.documents.PutDocument(document_pb2.PutDocumentRequest(document=document))
    with catching(caught, "MergeSessions"):
        await sessions.MergeSessions(
            session_pb2.MergeSessionsRequest(
                source_session_id=session(11),
                target_session_id=session(12),
                request_id=str(uuid.uuid4()),
            )
        )


async def of_documents(running: Any, caught: list[Statement]) -> None:
    def catching_call(call: str) -> AbstractContextManager[None]:
        return catching(caught, call)

    await document_plans.write(running.documents, catching_call, SESSION)
    await document_plans.read(running.documents, catching_call, SESSION)


async def remove(running: Any, clock: Any, caught: list[Statement]) -> None:
    memory = running.memory
    with catching(caught, "PurgeMemories"):
        for fields in (filtered(clock, session(8)), {"session_id": session(9)}):
            for force in (False, True):
                await memory.PurgeMemories(pb.PurgeMemoriesRequest(force=force, **fields))
    with catching(caught, "EraseSession"):
        await memory.EraseSession(pb.EraseSessionRequest(session_id=session(10)))
    with catching(caught, SWEEP):
        swept = await running.server.sweeper.run_once()
        assert min(swept.expired, swept.retired, swept.purged, swept.requests, swept.history) > 0
        assert swept.expired_documents > 0
        assert swept.counted > 0


# The plans


def as_read(statement: Statement) -> Statement:
    """A query as it is sent where it is not part of a transaction: naming its tenants."""
    call, sql, parameters = statement
    if not sql.startswith("SELECT") or row_security.SETTING in sql:
        return statement
    return Statement(call, row_security.naming(sql, len(parameters) + 1), (*parameters, "default"))


async def postgres_problems(connection: AsyncConnection, statement: Statement) -> list[str]:
    """Check the plans within a transaction and of a lone query."""
    problems = await problems_of_plans(connection, statement)
    alone = as_read(statement)
    if alone is not statement:
        problems += await problems_of_plans(connection, alone)
    return problems


async def problems_of_plans(connection: AsyncConnection, statement: Statement) -> list[str]:
    """Check the plan for these parameters, and the generic plan."""
    for setting, value in PLANNER_SETTINGS.items():  # as on the service's connections
        await connection.exec_driver_sql(f"SET LOCAL {setting} = {value}")
    explain = f"EXPLAIN (FORMAT JSON) {statement.sql}"
    found = (await connection.exec_driver_sql(explain, statement.parameters)).scalar_one()
    plans = [("custom", found)]
    await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(f"PREPARE generic AS {statement.sql}")
    nulls = ", ".join("NULL" for _ in statement.parameters)
    arguments = f"({nulls})" if nulls else ""
    found = await driver.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE generic{arguments}")
    plans.append(("generic", found))
    await driver.execute("DEALLOCATE generic")
    problems = []
    for kind, plan in plans:
        parsed = json.loads(plan) if isinstance(plan, str) else plan
        for node in nodes(parsed[0]["Plan"]):
            problem = problem_with_node(node, statement.call)
            if problem:
                problems.append(f"{kind}: {problem}")
    return problems


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def problem_with_node(node: dict[str, Any], call: str) -> str:
    kind, table, index = node["Node Type"], node.get("Relation Name"), node.get("Index Name")
    if index is not None and table in SHARDED:
        return problem_with_index(index, node.get("Index Cond", ""), call)
    if table in LARGE and kind not in ("ModifyTable", "Bitmap Heap Scan"):
        return f"{kind} of {table}"
    return ""


def problem_with_index(index: str, condition: str, call: str) -> str:
    if call == SWEEP and index in SWEEPERS:
        return ""
    columns = INDEXES[index]
    if columns[:2] != SHARD_KEY:
        return f"{index} begins with {columns[0]}"
    missing = [name for name in SHARD_KEY if not re.search(rf"\b{name}\b", condition)]
    return f"{index} is searched without {', '.join(missing)}" if missing else ""


async def sqlite_problems(connection: AsyncConnection, statement: Statement) -> list[str]:
    explain = f"EXPLAIN QUERY PLAN {statement.sql}"
    found = await connection.exec_driver_sql(explain, statement.parameters)
    return [problem for row in found if (problem := problem_with_step(row[3], statement.call))]


def problem_with_step(step: str, call: str) -> str:
    match = re.match(
        r"(SCAN|SEARCH) (\w+)(?: USING (?:(?:COVERING )?INDEX (\w+)|PRIMARY KEY) \((.*)\))?", step
    )
    if match is None or match[2] not in LARGE:
        return ""
    if call == SWEEP and match[2] == "sessions" and "sqlite_autoindex_sessions_1" in step:
        return ""  # the walk through all of them, by their key
    index, condition = match[3], match[4]
    if match[1] == "SEARCH" and call == SWEEP and index in SWEEPERS:
        return ""
    wanted = ["tenant=? AND session_id=?", *["tenant=? AND session_id>?"] * (call in BY_PREFIX)]
    if match[1] == "SEARCH" and condition and condition.startswith(tuple(wanted)):
        return ""
    return step


def joins_beside_the_shard_key(statement: Statement) -> list[str]:
    """Find the tables of a join that are not bound to a shard.

    Statements of a single table, such as the sweeper's, may ask every shard.
    """
    named = [t for t in SHARDED if re.search(rf"\b{t}\.", statement.sql)]
    if len(named) + bool(re.search(r"\b(unnest|json_each)\(", statement.sql)) < 2:
        return []
    return [
        f"{statement.call}: {table} without {column}\n    {statement.sql}"
        for table in named
        for column in SHARD_KEY
        if not re.search(rf"\b{table}\.{column} = |= {table}\.{column}\b", statement.sql)
    ]


FindProblems = Callable[[AsyncConnection, Statement], Any]


async def problems_of(
    url: str, caught: Iterable[Statement], find_problems: FindProblems, state: str
) -> list[str]:
    """Find problems of plans as the service gets them, with row-level security."""
    problems = []
    statements = [
        statement
        for statement in {(s.call, s.sql): s for s in caught}.values()
        if any(re.search(rf"\b{table}\b", statement.sql) for table in LARGE)
    ]
    assert len(statements) > 40
    engine = create_async_engine(url)  # SQLite reads statistics on connecting
    async with engine.connect() as connection:
        for statement in statements:
            problems += [
                f"{statement.call}, {state}, {problem}\n    {statement.sql}"
                for problem in await find_problems(connection, statement)
            ]
    await engine.dispose()
    return problems


async def analyse(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")


async def sweep(engine: AsyncEngine, clock: Any) -> None:
    """Let nothing be due any more."""
    async with engine.begin() as connection:
        for table in (memories, documents, conversations):
            due = sa.update(table).where(table.c.expires_at <= clock.now)
            await connection.execute(due.values(expires_at=clock.now + timedelta(days=30)))


async def test_no_statement_of_a_call_leaves_its_session(
    engine, database_url, serve, clock, monkeypatch
):
    async def never(_sweeper: Sweeper, _interval_seconds: float) -> None:
        """Do not sweep; the test does."""

    monkeypatch.setattr(Sweeper, "run", never)
    monkeypatch.setattr(group_commit, "ANALYSE_AFTER", ())  # the test decides when
    await fill(engine, ROWS[engine.dialect.name])
    running = await serve(MEMORY_MAX_ENTRIES="50")
    caught: list[Statement] = []
    await write(running.memory, caught)
    await read(running, clock, caught)
    await of_documents(running, caught)
    await of_sessions(running, caught)
    await remove(running, clock, caught)
    found = [problem for statement in caught for problem in joins_beside_the_shard_key(statement)]
    is_sqlite = engine.dialect.name == "sqlite"
    find_problems = sqlite_problems if is_sqlite else postgres_problems
    found += await problems_of(database_url, caught, find_problems, "without statistics")
    await analyse(engine)
    found += await problems_of(database_url, caught, find_problems, "with statistics")
    await sweep(engine, clock)
    await analyse(engine)
    found += await problems_of(database_url, caught, find_problems, "with statistics after a sweep")
    if found:
        pytest.fail("\n".join(found))


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_no_statement_finds_a_row_without_its_tenants(
    engine, database_url, serve, clock, monkeypatch
):
    """Row-level security stands behind every statement."""

    async def never(_sweeper: Sweeper, _interval_seconds: float) -> None:
        """Do not sweep; the test does."""

    monkeypatch.setattr(Sweeper, "run", never)
    await fill(engine, 20_000)
    running = await serve(MEMORY_MAX_ENTRIES="50")
    caught: list[Statement] = []
    await write(running.memory, caught)
    await read(running, clock, caught)
    await of_documents(running, caught)
    await of_sessions(running, caught)
    with_names = sa.text(f"SELECT set_config('{row_security.SETTING}', 'default', true)")
    serving = create_async_engine(database_url)
    found: dict[bool, set[str]] = {True: set(), False: set()}
    queries = {s.sql: s for s in caught if s.sql.startswith("SELECT")}.values()
    for named in (True, False):
        async with serving.connect() as connection:
            for query in queries:
                if row_security.SETTING in query.sql or not about_rows(query.sql):
                    continue
                if named:
                    await connection.execute(with_names)
                rows = await connection.exec_driver_sql(query.sql, query.parameters)
                given = {str(value) for value in flat(query.parameters)}  # which some give back
                if any(value and str(value) not in given for value in flat(rows.all())):
                    found[named].add(query.sql)
                await connection.rollback()
    await serving.dispose()
    assert not found[False]
    assert len(found[True]) > 5  # else they would find nothing anyway


def flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple, sa.Row)):
            yield from flat(value)
        else:
            yield value


def about_rows(sql: str) -> bool:
    return any(re.search(rf"\b{table}\b", sql) for table in row_security.TABLES)


INDEXES_READ = sa.text(
    "SELECT indexrelname, idx_scan, idx_tup_read FROM pg_stat_user_indexes"
    " WHERE relname = 'memories'"
)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_growing_table_is_not_read_through_the_sweepers_indexes(memory, engine):
    for start in range(0, 4000, 100):
        # Each content twice, mostly in different batches: one that is new is not looked up.
        requests = [
            pb.StoreMemoryRequest(session_id=session(n % 40), content=f"fact {n // 80}")
            for n in range(start, start + 100)
        ]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    async with asyncio.timeout(30), engine.connect() as connection:
        used: dict[str, sa.Row[Any]] = {}
        while not used or not used["uq_memory_live_content"].idx_scan:
            await asyncio.sleep(0.1)  # backends report with a delay
            await connection.rollback()
            used = {row.indexrelname: row for row in await connection.execute(INDEXES_READ)}
    assert used["ix_memory_updated_at"].idx_tup_read == 0
    assert used["ix_memory_expires_at"].idx_tup_read == 0


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_new_table_is_analysed_before_it_is_large(memory, engine):
    requests = [
        pb.StoreMemoryRequest(session_id=SESSION, content=f"fact {n}", never_expires=True)
        for n in range(100)
    ]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    await until_analysed(engine, "memories", rows=100)


async def until_analysed(engine: AsyncEngine, table: str, *, rows: int) -> None:
    """Wait until the planner knows of so many rows; -1: the table was never analysed."""
    known = sa.text("SELECT reltuples FROM pg_class WHERE relname = :table")
    async with asyncio.timeout(30), engine.connect() as connection:
        while (await connection.execute(known, {"table": table})).scalar_one() < rows:
            await asyncio.sleep(0.05)
            await connection.rollback()
