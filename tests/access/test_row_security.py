"""Row-level security: the database itself keeps tenants apart, and answers are checked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from tests.access.guarded import outcome
from tests.conftest import Tables
from tests.roles import as_serving_role

from memoryd.database import statements
from memoryd.database.migrate import REVISIONS, migrate
from memoryd.database.row_security import SETTING, TABLES
from memoryd.database.tables import memories, schema
from memoryd.database.tenancy import MAX_TENANTS, ForeignRow
from memoryd.v1 import memory_pb2 as pb

pytestmark = pytest.mark.whole

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

NEW_SESSION = "INSERT INTO sessions (tenant, session_id, revision) VALUES ('acme', 'x', 1)"
SETTING_AND_ROWS = "SELECT current_setting('memoryd.tenants', true), count(*) FROM memories"
FLAGS = "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
ROLES = Path(__file__).parents[2] / "deploy" / "postgresql" / "roles.sql"
OLDER = REVISIONS[REVISIONS.index("007_add_access_since_006")]


def stored(session_id: str, content: str) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content)


async def protected(tables: Tables) -> list[str]:
    return sorted(row[0] for row in await tables.rows(FLAGS))


# The wall


@on_postgresql
async def test_every_table_with_a_tenant_is_behind_it(tables):
    with_tenant = await tables.rows(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'tenant'"
    )
    assert await protected(tables) == sorted({row[0] for row in with_tenant}) == list(TABLES)


@on_postgresql
async def test_without_its_tenant_nothing_is_seen_or_written(guarded, database_url, tables):
    caller = await guarded.caller("acme", scopes=["agent"])
    await caller.memory("StoreMemory", stored("s", "a fact"))
    # Whose tenant is not known, as in lines of the audit: no work names nobody.
    await tables.execute(NEW_SESSION.replace("acme", ""))
    engine = create_async_engine(database_url)
    for named, sees in (("", False), ("other", False), ("acme", True), ("other,acme", True)):
        async with engine.connect() as connection:
            if named:
                await connection.execute(
                    sa.text(f"SELECT set_config('{SETTING}', :named, true)"), {"named": named}
                )
            for table in ("sessions", "memories", "tenants", "api_keys"):
                found = (await connection.execute(sa.select(schema.tables[table]))).all()
                assert bool(found) is sees, (named, table)
            changed = await connection.execute(sa.update(memories).values(content="changed"))
            assert bool(changed.rowcount) is sees
    for named in ("", "other"):
        async with engine.connect() as connection:
            await connection.execute(
                sa.text(f"SELECT set_config('{SETTING}', :named, true)"), {"named": named}
            )
            with pytest.raises(DBAPIError, match="row-level security"):
                await connection.execute(sa.text(NEW_SESSION))
    await engine.dispose()
    ((content,),) = await tables.rows("SELECT content FROM memories")
    assert content == "a fact"


@on_postgresql
async def test_a_context_ends_with_its_statement(running):
    await running.memory.StoreMemory(stored("s", "a fact"))
    await running.memory.ListMemories(pb.ListMemoriesRequest(session_id="s"))
    database = running.server.database
    left = await asyncio.gather(
        *(
            database.read(
                lambda c: c.exec_driver_sql(SETTING_AND_ROWS).one(),
                tenants=(),
            )
            for _ in range(20)
        )
    )
    assert {(setting or "", count) for setting, count in left} == {("", 0)}


# Through the service


async def test_many_tenants_write_and_read_at_once(guarded):
    tenants = [f"tenant-{n}" for n in range(MAX_TENANTS + 10)]
    callers = [await guarded.caller(tenant, scopes=["agent"]) for tenant in tenants]
    made = await asyncio.gather(
        *(
            caller.memory("StoreMemory", stored("same", f"of {tenant}"))
            for caller, tenant in zip(callers, tenants, strict=True)
        )
    )
    read = await asyncio.gather(
        *(
            caller.memory(
                "GetMemory",
                pb.GetMemoryRequest(session_id="same", memory_id=answer.memory.memory_id),
            )
            for caller, answer in zip(callers, made, strict=True)
        )
    )
    assert [memory.content for memory in read] == [f"of {tenant}" for tenant in tenants]
    foreign = pb.GetMemoryRequest(session_id="same", memory_id=made[1].memory.memory_id)
    refusal = await outcome(callers[0].memory("GetMemory", foreign))
    assert refusal.reason == "ERROR_REASON_MEMORY_NOT_FOUND"


async def test_an_answer_with_another_tenants_row_is_refused(guarded):
    caller = await guarded.caller("acme", scopes=["agent"])
    await caller.memory("StoreMemory", stored("s", "a fact"))
    database = guarded.server.database
    # A statement without its condition, as only a fault of the program would send it. A superuser
    # stands for a database without row-level security.
    everything = sa.select(memories.c.id, memories.c.tenant)
    for tenants, sees in ((("acme",), 1), (("other",), 0)):
        for fetch in (statements.fetch, statements.fetch_built):
            body = lambda c, f=fetch: f(c, everything, {})  # noqa: E731
            if sees or database.dialect.name == "postgresql":
                assert len(await database.read(body, tenants=tenants)) == sees
            else:
                with pytest.raises(ForeignRow, match="acme"):
                    await database.read(body, tenants=tenants)


@on_postgresql
async def test_a_superusers_answers_are_checked_too(serve, postgres_server, migrated_postgres):
    url = postgres_server.create_database(migrated_postgres)
    running = await serve(MEMORYD_DATABASE_URL=url)
    await running.memory.StoreMemory(stored("s", "a fact"))
    everything = sa.select(memories.c.tenant)
    with pytest.raises(ForeignRow, match="default"):
        await running.server.database.read(
            lambda c: statements.fetch(c, everything, {}), tenants=("other",)
        )


# Turning it on and off


@pytest.fixture
async def older(postgres_server):
    """A database with the schema of an earlier release, its URL and its tables."""
    url = postgres_server.create_database()
    await migrate(url, target=OLDER)
    tables = Tables(url)
    await tables.execute(NEW_SESSION)
    yield url, tables
    await tables.close()


async def test_a_new_database_has_it(command_line, postgres_server):
    url = postgres_server.create_database()
    assert command_line.run("migrate", MEMORYD_DATABASE_URL=url).returncode == 0
    tables = Tables(url)
    assert await protected(tables) == list(TABLES)
    await tables.close()


async def test_a_database_in_use_gets_it_by_the_second_migrate(command_line, older):
    url, tables = older
    variables = {"MEMORYD_DATABASE_URL": url}
    done = command_line.run("migrate", **variables)
    assert "run `memoryd migrate` once more" in done.stdout + done.stderr
    assert await protected(tables) == []  # servers of the release before would find nothing
    server = command_line.serve("--migrate", **variables)
    server.wait_for(lambda: "memoryd ready" in server.output)
    assert "row-level security is not on" in server.log or "BYPASSRLS" in server.log
    assert await protected(tables) == []
    done = command_line.run("migrate", **variables)
    assert "once more" not in done.stdout + done.stderr
    assert await protected(tables) == list(TABLES)
    assert command_line.run("migrate", MEMORYD_RLS="off", **variables).returncode == 0
    assert await protected(tables) == []


async def test_a_role_that_it_does_not_hold_for(command_line, postgres_server, migrated_postgres):
    url = postgres_server.create_database(migrated_postgres)
    production = {"MEMORYD_ENVIRONMENT": "production", "MEMORYD_AUTH": "observe"}
    refused = command_line.run("serve", MEMORYD_DATABASE_URL=url, **production)
    assert refused.returncode != 0
    for word in ("postgres", "BYPASSRLS", "another role", "MEMORYD_RLS=off"):
        assert word in refused.stderr
    for variables in (
        {"MEMORYD_DATABASE_URL": url, "MEMORYD_RLS": "off", **production},
        {"MEMORYD_DATABASE_URL": url},
        {"MEMORYD_DATABASE_URL": as_serving_role(url), **production},
    ):
        server = command_line.serve(**variables)
        server.wait_for(lambda s=server: "memoryd ready" in s.output)
        warns = variables == {"MEMORYD_DATABASE_URL": url}
        assert ("BYPASSRLS" in server.log) is warns
        server.stop()


@pytest.mark.parametrize("roles_first", [True, False])
async def test_an_owner_without_other_rights_migrates(command_line, postgres_server, roles_first):
    """The owner makes and protects the tables, and a role with rights on rows alone serves."""
    owner, server = f"owner_{roles_first}".lower(), f"server_{roles_first}".lower()
    postgres_server.psql(f"CREATE ROLE {owner} LOGIN CREATEROLE")
    url = sa.make_url(postgres_server.create_database())
    postgres_server.psql(f"ALTER DATABASE {url.database} OWNER TO {owner}")
    by_owner, by_server = (url.set(username=name).render_as_string() for name in (owner, server))
    if roles_first:
        postgres_server.run_script(by_owner, ROLES, server=server)
    done = command_line.run("migrate", MEMORYD_DATABASE_URL=by_owner)
    assert done.returncode == 0, done.stderr
    postgres_server.run_script(by_owner, ROLES, server=server)  # again, or for the first time
    production = {"MEMORYD_ENVIRONMENT": "production", "MEMORYD_AUTH": "observe"}
    serving = command_line.serve(MEMORYD_DATABASE_URL=by_server, **production)
    serving.wait_for(lambda: "memoryd ready" in serving.output)
    assert "row-level security" not in serving.log
    tables = Tables(by_owner)
    assert await protected(tables) == list(TABLES)
    await tables.close()
