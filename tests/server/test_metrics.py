"""What a scrape tells, compared with work that is known."""

from __future__ import annotations

import asyncio
import threading
import uuid
from datetime import timedelta

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as of_text
from tests.http_client import ask, call, get
from tests.locks import writes_blocked
from tests.scrapes import scrape

from memoryd.telemetry.metrics import METRICS
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

CALLS = "rpc_server_call_duration_seconds"
STORE = "memoryd.v1.MemoryService/StoreMemory"
WATCH = "memoryd.v1.MemoryService/WatchMemories"

CONTRACT = {
    "rpc_server_call_duration_seconds": (
        "histogram",
        {"rpc_method", "rpc_response_status_code"},
    ),
    "memoryd_stores": ("counter", {"outcome", "tenant"}),
    "memoryd_write_queue_items": ("gauge", set()),
    "memoryd_write_transaction_seconds": ("histogram", set()),
    "memoryd_write_transaction_items": ("histogram", set()),
    "memoryd_database_up": ("gauge", set()),
    "memoryd_database_connections": ("gauge", {"state"}),
    "memoryd_session_cache_bytes": ("gauge", set()),
    "memoryd_session_cache_requests": ("counter", {"result"}),
    "memoryd_embedding_backlog_items": ("gauge", set()),
    "memoryd_streams": ("gauge", {"method"}),
    "memoryd_swept": ("counter", {"kind"}),
    "memoryd_refusals": ("counter", {"reason", "tenant"}),
    "memoryd_audit_lag_seconds": ("gauge", set()),
    "process_cpu_seconds": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "python_gc_collections": ("counter", {"generation"}),
    "python_info": ("gauge", {"version", "implementation", "major", "minor", "patchlevel"}),
}


class Held:
    """An embedder that waits until it is let go."""

    name, dimensions = "held", 2
    go = threading.Event()

    def embed(self, texts):
        assert self.go.wait(60)
        return np.ones((len(texts), 2), np.float32)


def store(content: str, **fields: object) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-123", content=content, **fields)


async def refused(work) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await work


async def test_every_metric_has_its_name_type_and_labels(running):
    http = running.server.http_address
    await running.memory.StoreMemory(store("prefers e-mail"))
    await refused(running.memory.StoreMemory(store("")))
    watch = running.memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    await watch.read()
    found = (await scrape(http)).families
    for name, (kind, labels) in CONTRACT.items():
        family = found[name]
        assert family.type == kind, name
        assert family.samples, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == labels, sample
    # Nothing that the table lacks, and nothing of it is missing.
    own = {name for name in found if not name.startswith(("process_", "python_"))}
    assert own == {metric.name for metric in METRICS}
    watch.cancel()


async def test_stores_are_counted_by_outcome_whatever_way_they_come(running):
    http, memory = running.server.http_address, running.memory
    for content in ("a", "b", "c", "a", "b"):
        await memory.StoreMemory(store(content))
    await memory.StoreMemory(store("d", key="phone"))
    await memory.StoreMemory(store("e", key="phone"))
    requests = [store(f"batch {number}", request_id=str(uuid.uuid4())) for number in range(4)]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    answer = await call(http, "StoreMemory", {"sessionId": "user-123", "content": "over HTTP"})
    assert answer.status == 200
    await refused(memory.StoreMemory(store("")))

    found = await scrape(http)
    outcomes = {
        outcome: found.value("memoryd_stores_total", outcome=outcome)
        for outcome in ("created", "merged", "replaced")
    }
    assert outcomes == {"created": 9, "merged": 2, "replaced": 1}
    assert found.value("memoryd_stores_total", tenant="default") == 12
    # One caller after the other: each write had its own transaction.
    assert found.value("memoryd_write_transaction_seconds_count") == 9
    assert found.value("memoryd_write_transaction_items_sum") == 12
    assert found.value("memoryd_write_transaction_items_bucket", le="1.0") == 8
    assert 0 < found.value("memoryd_write_transaction_seconds_sum") < 60


async def test_a_retry_is_no_further_store(running):
    http, memory = running.server.http_address, running.memory
    first = [store(f"{number}", request_id=str(uuid.uuid4())) for number in range(3)]
    first += [
        store("0", request_id=str(uuid.uuid4())),
        store("k", key="phone", request_id=str(uuid.uuid4())),
    ]
    for request in (*first, *first):
        await memory.StoreMemory(request)
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=first))
    twice = store("twice", request_id=str(uuid.uuid4()))
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=[twice, twice]))
    found = await scrape(http)
    assert found.value("memoryd_stores_total", outcome="created") == 5
    assert found.value("memoryd_stores_total", outcome="merged") == 1


async def test_calls_over_both_doors_are_counted_by_the_same_names(running):
    http, memory = running.server.http_address, running.memory
    for number in range(3):
        await memory.StoreMemory(store(f"grpc {number}"))
    for number in range(2):
        await call(http, "StoreMemory", {"sessionId": "user-123", "content": f"http {number}"})
    await refused(memory.StoreMemory(store("")))
    await call(http, "StoreMemory", {"sessionId": "../x", "content": "y"})
    for path in ("/memoryd.v1.MemoryService/Nothing", "/secret.Place/Hidden"):
        await refused(running.channel.unary_unary(path)(b""))
        await call(http, path, {})

    found = await scrape(http)
    count = f"{CALLS}_count"
    assert found.value(count, rpc_method=STORE, rpc_response_status_code="OK") == 5
    assert found.value(count, rpc_method=STORE, rpc_response_status_code="INVALID_ARGUMENT") == 2
    assert found.value(f"{CALLS}_bucket", rpc_method=STORE, le="+Inf") == 7
    assert found.value(count, rpc_method="_OTHER", rpc_response_status_code="UNIMPLEMENTED") == 4
    assert found.value(f"{CALLS}_sum", rpc_method=STORE) > 0
    assert "Hidden" not in found.text
    # There before the first defect, which an alert would miss as the beginning of a series.
    defects = {"rpc_method": STORE, "rpc_response_status_code": "INTERNAL"}
    assert defects in found.labels(count)
    assert found.value(count, **defects) == 0
    refusals = {
        labels["reason"]: found.value("memoryd_refusals_total", **labels)
        for labels in found.labels("memoryd_refusals_total")
    }
    assert refusals == {"ERROR_REASON_INVALID_REQUEST": 2, "ERROR_REASON_NOT_IMPLEMENTED": 4}


async def test_items_of_a_stream_are_counted_where_they_are_refused(running):
    http = running.server.http_address
    stream = running.memory.StreamStoreMemories()
    items = [store(content) for content in ("a", "", "b")]
    await stream.write(pb.StreamStoreMemoriesRequest(requests=items))
    await stream.done_writing()
    (answer,) = [answer async for answer in stream]
    assert len(answer.results) == 3
    found = await scrape(http)
    assert found.value("memoryd_stores_total", outcome="created") == 2
    assert found.value("memoryd_refusals_total", reason="ERROR_REASON_INVALID_REQUEST") == 1


async def test_streams_are_told_while_they_are_open(running, eventually):
    http = running.server.http_address
    request = pb.WatchMemoriesRequest(session_id="user-123")
    await running.memory.StoreMemory(store("a"))
    watches = [running.memory.WatchMemories(request) for _ in range(3)]
    for watch in watches:
        await watch.read()
    assert (await scrape(http)).value("memoryd_streams", method=WATCH) == 3
    for watch in watches:
        watch.cancel()

    async def closed() -> bool:
        return (await scrape(http)).value("memoryd_streams", method=WATCH) == 0

    await eventually(closed)
    found = await scrape(http)
    cancelled = {"rpc_method": WATCH, "rpc_response_status_code": "CANCELLED"}
    assert found.value(f"{CALLS}_count", **cancelled) == 3


async def test_what_is_swept_is_counted_by_kind(running, clock):
    http, memory = running.server.http_address, running.memory
    for content in ("a", "b"):
        await memory.StoreMemory(store(content, ttl=timedelta(hours=1)))
    kept = (await memory.StoreMemory(store("c", never_expires=True))).memory
    clock.move(timedelta(hours=2))
    await running.server.sweeper.run_once()
    swept = "memoryd_swept_total"
    assert (await scrape(http)).value(swept, kind="expired_memory") == 2
    request = pb.DeleteMemoryRequest(session_id="user-123", memory_id=kept.memory_id)
    await memory.DeleteMemory(request)
    clock.move(timedelta(days=90))
    await running.server.sweeper.run_once()
    found = await scrape(http)
    assert found.value(swept, kind="purged_memory") == 3  # what had expired was kept for a while
    clock.move(timedelta(days=2))
    await running.server.sweeper.run_once()
    found = await scrape(http)
    assert found.value(swept, kind="history") >= 3
    assert found.value(swept, kind="expired_document") == 0


async def test_the_cache_tells_what_it_holds_and_how_sessions_were_found(running):
    http, memory = running.server.http_address, running.memory
    request = pb.RetrieveMemoriesRequest(session_id="user-123", query="letters")
    await memory.StoreMemory(store("prefers letters"))
    for _ in range(3):
        await memory.RetrieveMemories(request)
    await running.server.flush_accesses()
    found = await scrape(http)
    requests = "memoryd_session_cache_requests_total"
    assert found.value(requests, result="miss") == 1
    assert found.value(requests, result="hit") == 2
    assert found.value("memoryd_session_cache_bytes") == running.server.kept_bytes > 0


async def test_writes_that_wait_and_connections_are_told(running, database_url, eventually):
    http, memory = running.server.http_address, running.memory
    await memory.StoreMemory(store("the session is there"))
    async with writes_blocked(database_url):
        stores = []

        async def waiting() -> float:
            return (await scrape(http)).value("memoryd_write_queue_items")

        async def one_more_waits() -> bool:
            stores.append(asyncio.ensure_future(memory.StoreMemory(store(f"{len(stores)}"))))
            return await waiting() > 0

        await eventually(one_more_waits)  # the transaction under way has taken the first ones
        before = await waiting()
        more = [asyncio.ensure_future(memory.StoreMemory(store(f"more {n}"))) for n in range(8)]

        async def all_wait() -> bool:
            return await waiting() >= before + 8

        await eventually(all_wait)
        used = (await scrape(http)).value("memoryd_database_connections", state="used")
        assert used >= 1
    await asyncio.gather(*stores, *more)

    async def is_idle() -> bool:
        found = await scrape(http)
        connections = [
            found.value("memoryd_database_connections", state=state) for state in ("used", "idle")
        ]
        return connections[0] == 0 and connections[1] >= 1

    await eventually(is_idle)
    assert await waiting() == 0


async def test_memories_without_a_vector_are_told(serve, eventually):
    Held.go.set()  # it is tried out first
    running = await serve(MEMORYD_EMBEDDER=f"{__name__}:Held")
    http, memory = running.server.http_address, running.memory
    request = pb.RetrieveMemoriesRequest(session_id="user-123", query="letters")
    await memory.RetrieveMemories(request)
    for number in range(7):
        await memory.StoreMemory(store(f"letter {number}"))
    Held.go.clear()
    retrieving = asyncio.ensure_future(memory.RetrieveMemories(request))

    async def backlog_is(count: int) -> bool:
        return (await scrape(http)).value("memoryd_embedding_backlog_items") == count

    await eventually(lambda: backlog_is(7))
    Held.go.set()
    await retrieving
    await eventually(lambda: backlog_is(0))


async def test_a_database_that_does_not_fit_is_told(running, tables, eventually):
    http = running.server.http_address

    async def is_up(up: int) -> bool:
        return (await scrape(http)).value("memoryd_database_up") == up

    assert await is_up(1)
    ((version,),) = await tables.rows("SELECT version_num FROM alembic_version")
    await tables.execute("UPDATE alembic_version SET version_num = '001'")
    await eventually(lambda: is_up(0))
    await tables.execute(f"UPDATE alembic_version SET version_num = '{version}'")  # noqa: S608  ours
    await eventually(lambda: is_up(1))


async def test_lines_of_the_audit_that_wait_have_an_age(serve, tables, clock, eventually):
    running = await serve(MEMORYD_AUDIT="all")
    http = running.server.http_address
    lag = "memoryd_audit_lag_seconds"

    async def is_written() -> bool:
        return (await scrape(http)).value(lag) == 0

    await running.memory.StoreMemory(store("a"))
    await eventually(is_written)
    await tables.execute("ALTER TABLE audit_events RENAME TO audit_events_away")
    await running.memory.StoreMemory(store("b"))
    clock.move(timedelta(seconds=90))
    assert (await scrape(http)).value(lag) == 90
    await tables.execute("ALTER TABLE audit_events_away RENAME TO audit_events")
    await eventually(is_written)


class TestForms:
    """How a scrape is asked for."""

    @pytest.fixture
    def database_kind(self):
        return "sqlite"

    @pytest.mark.parametrize("accept", [None, "*/*", "application/openmetrics-text;version=1.0.0"])
    async def test_openmetrics_is_the_default(self, running, accept):
        headers = {"accept": accept} if accept else {}
        reply = await get(running.server.http_address, "/metrics", headers=headers)
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        assert reply.body.endswith(b"# EOF\n")

    async def test_the_older_form_is_there_for_who_asks(self, running):
        headers = {"accept": "text/plain"}
        reply = await get(running.server.http_address, "/metrics", headers=headers)
        assert reply.headers["content-type"].startswith("text/plain")
        names = {family.name for family in of_text(reply.body.decode())}
        assert "memoryd_database_up" in names

    async def test_it_is_only_read(self, running):
        reply = await ask(running.server.http_address, "/metrics")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")

    async def test_any_name_of_the_machine_will_do(self, running):
        headers = {"host": "pod-7.cluster.local"}
        reply = await get(running.server.http_address, "/metrics", headers=headers)
        assert reply.status == 200

    async def test_many_scrapes_at_once_are_all_answered(self, running):
        http = running.server.http_address
        found = await asyncio.gather(*(scrape(http) for _ in range(20)))
        assert all(one.value("memoryd_database_up") == 1 for one in found)


async def test_the_numbers_are_those_of_one_server(serve):
    first, second = await serve(), await serve()
    for content in ("a", "b"):
        await MemoryServiceStub(first.channel).StoreMemory(store(content))
    values = [
        (await scrape(one.server.http_address)).value("memoryd_stores_total")
        for one in (first, second)
    ]
    assert values == [2, 0]
