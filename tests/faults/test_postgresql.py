"""PostgreSQL stops, dies, freezes, runs out of a resource, fails over, or lags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import grpc
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser

from memoryd.database.tenancy import NO_TENANT
from memoryd.v1 import memory_pb2 as pb

from .harness import VARIABLES, acknowledgements, until
from .history import History
from .load import Load
from .nodes import ROLE, Node
from .scale import SCALE

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"])

CALLERS = 4

SEEN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND"}
"""The codes that callers may see; the last one for what they have deleted."""

VARIABLES = {**VARIABLES, "MEMORYD_DATABASE_TIMEOUT_SECONDS": "1"}


class DatabaseFault(NamedTuple):
    """A fault of a server and one of its databases."""

    begin: Callable[[Node, str], object]
    end: Callable[[Node, str], object] | None
    """None if it ends by itself."""
    is_noticed: bool = True
    """Whether health shows it, since the service can do nothing."""


def restart(node: Node, _database: str) -> None:
    node.stop()
    node.start()


def refuse_connections(node: Node, database: str) -> None:
    node.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    close_connections(node, database)


def fill_disk(node: Node, database: str) -> None:
    """As if a table cannot grow. If the log cannot, the server ends, which another test covers."""
    node.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;"
        + "".join(
            f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION full_disk();"
            for table in ("memories", "documents", "conversations", "messages")
        ),
        database,
    )


def close_connections(node: Node, database: str) -> None:
    node.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608


def refuse_writes(node: Node, database: str) -> None:
    """As if an address led to a standby for a while; its connections stay read-only."""
    node.sql(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")
    close_connections(node, database)


FAULTS = {
    "stopped": DatabaseFault(lambda node, _: node.stop(), lambda node, _: node.start()),
    "killed": DatabaseFault(lambda node, _: node.kill(), lambda node, _: node.start()),
    "frozen": DatabaseFault(lambda node, _: node.freeze(), lambda node, _: node.thaw()),
    "restarted": DatabaseFault(restart, None, is_noticed=False),
    "out of connections": DatabaseFault(
        refuse_connections, lambda node, _: node.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
    ),
    "read-only": DatabaseFault(
        refuse_writes,
        lambda node, _: node.sql(f"ALTER ROLE {ROLE} RESET default_transaction_read_only"),
        is_noticed=False,
    ),
    "out of disk": DatabaseFault(
        fill_disk,
        lambda node, database: node.sql("DROP FUNCTION full_disk CASCADE", database),
        is_noticed=False,
    ),
}


async def assert_all_connections_usable(server) -> None:
    """Fail unless all connections of the pools can be used at the same time."""
    await until(lambda: server.database.connections_in_use == 0)
    size = 10
    inside = asyncio.gather(
        *(
            server.database.read(
                lambda c: c.execute(text("SELECT pg_sleep(0.1)")), tenants=NO_TENANT
            )
            for _ in range(size)
        )
    )
    await until(lambda: server.database.connections_in_use >= size)
    await inside


async def test_a_write_cut_off_at_its_start_does_not_affect_a_later_one(serve, pair):
    url = pair.primary.url(pair.create_database())
    running = await serve(**VARIABLES, MEMORYD_DATABASE_URL=url)

    async def store(content: str) -> None:
        request = pb.StoreMemoryRequest(session_id="user-123", content=content)
        await running.memory.StoreMemory(request)

    await store("before")
    await asyncio.to_thread(pair.primary.freeze)
    with pytest.raises(grpc.aio.AioRpcError):
        await store("meanwhile")
    await until(lambda: not running.server.health.is_serving.is_set())
    await asyncio.to_thread(pair.primary.thaw)
    await running.server.health.is_serving.wait()
    for number in range(5):
        await store(f"after {number}")
    engine = create_async_engine(as_superuser(url))
    async with engine.connect() as connection:
        found = set((await connection.execute(text("SELECT content FROM memories"))).scalars())
    await engine.dispose()
    assert found - {"meanwhile"} == {"before", *(f"after {number}" for number in range(5))}


@pytest.mark.parametrize("fault", [*FAULTS] * SCALE.database_rounds)
async def test_calls_are_refused_while_the_database_is_away_and_then_resume(
    serve, pair, fault, fault_report
):
    begin, end, is_noticed = FAULTS[fault]
    database = pair.create_database()
    url = pair.primary.url(database)
    running = await serve(**VARIABLES, MEMORYD_DATABASE_URL=url)
    serving, history = running.server.health.is_serving, History()
    async with Load(history, [running.channel] * CALLERS) as load:
        await acknowledgements(history, 20)
        await asyncio.to_thread(begin, pair.primary, database)
        if end is not None:
            await load.refusals(CALLERS)
        if is_noticed:
            await until(lambda: not serving.is_set())
        await asyncio.sleep(SCALE.hold_milliseconds / 1000)
        if end is not None:
            await asyncio.to_thread(end, pair.primary, database)
        back = time.monotonic()
        await serving.wait()
        await acknowledgements(history, 20)
    faults = await load.faults(url)
    fault_report(f"{fault}: back in {load.first_answer(back):.2f} s", 1, history, faults)
    assert not faults
    assert not history.refusals_besides(SEEN)
    await assert_all_connections_usable(running.server)
