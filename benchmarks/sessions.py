"""Pages of ListSessions, at the beginning, in the middle and at the end of many sessions.

python benchmarks/sessions.py [--sessions 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import grpc
import sqlalchemy as sa
import uvloop
from harness import KINDS, Database, database, memoryd
from sqlalchemy.ext.asyncio import create_async_engine

from memoryd.domain.records import DEFAULT_TENANT
from memoryd.rpc import page_token
from memoryd.v1.session_pb2 import ListSessionsRequest
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memoryd.v1.session_pb2_grpc import SessionServiceAsyncStub

FIRST = 10_000_000
PAGE = 50
TIMES = 200
ROUNDS = 3
LABELLED = 1_000
"""One session of so many has the label that is asked for; one in ten has another."""

FILL = """
    INSERT INTO sessions (tenant, session_id, revision, counted_revision, memory_count, created_at,
        updated_at, labels)
    WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {last})
    SELECT 'default', 'user-' || ({first} + n), 1, 1, 50, {now}, {now},
        CASE WHEN n % {labelled} = 0 THEN CAST('{{"team": "x"}}' AS JSON)
             WHEN n % 10 = 0 THEN CAST('{{"team": "y"}}' AS JSON) END FROM n
"""


async def fill(kept_in: Database, count: int) -> None:
    engine = create_async_engine(kept_in.url)
    is_sqlite = kept_in.process is None
    now = "'2026-03-01 12:00:00.000000'" if is_sqlite else "now()"
    statement = FILL.format(last=count - 1, first=FIRST, now=now, labelled=LABELLED)
    if is_sqlite:
        statement = statement.replace("AS JSON)", "AS TEXT)")
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))
        await connection.execute(sa.text("ANALYZE"))
    await engine.dispose()


async def median(stub: SessionServiceAsyncStub, requests: Sequence[ListSessionsRequest]) -> float:
    """Milliseconds of a page."""
    taken = []
    for request in requests:
        begun = time.perf_counter()
        await stub.ListSessions(request)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def at(place: int, **arguments: object) -> ListSessionsRequest:
    """A page that begins behind a session."""
    request = ListSessionsRequest(page_size=PAGE, **arguments)  # type: ignore[arg-type]
    if place:
        name = f"user-{FIRST + place}"
        request.page_token = page_token.encode_name(name, request, DEFAULT_TENANT)
    return request


async def measure(count: int) -> None:
    for kind in KINDS:
        with database(kind) as kept_in:
            with memoryd(kept_in):
                pass
            await fill(kept_in, count)
            places = {"first": 0, "middle": count // 2, "last": count - PAGE - 1}
            with memoryd(kept_in) as server:
                async with grpc.aio.insecure_channel(server.address) as channel:
                    stub = SessionServiceStub(channel)
                    await median(stub, [at(0)] * TIMES)  # so that all is warm
                    for number in range(ROUNDS):
                        for where, place in places.items():
                            plain = await median(stub, [at(place)] * TIMES)
                            print(f"{kind:12}{number} {where:8}{plain:8.2f} ms")
                    for where, place in (("first", 0), ("middle", count // 2)):
                        labelled = [at(place, labels={"team": "x"})] * (TIMES // 10)
                        found = await median(stub, labelled)
                        print(f"{kind:12}labels, {where:8}{found:8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(parser.parse_args().sessions))


if __name__ == "__main__":
    main()
