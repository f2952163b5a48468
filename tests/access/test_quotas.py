"""How much of the service a tenant may use."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tests.access.guarded import conversation, outcome

from memoryd.domain.errors import QuotaExceeded
from memoryd.domain.quotas import BURST_SECONDS, CallBuckets
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

GET = memory_pb2.GetMemoryRequest(
    session_id="chat", memory_id="01a20070-f57b-74ff-b4d3-bc9f1dcae1d7"
)
LIST = memory_pb2.ListMemoriesRequest(session_id="chat")


def quotas(**values: int) -> pb.UpdateTenantRequest:
    return pb.UpdateTenantRequest(tenant="acme", quotas=pb.Quotas(**values))


async def details_of(call) -> tuple[str, float | None]:
    """The subject of a refusal, and when to retry."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    packed = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    seconds = None
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(failure)
        if detail.Unpack(retry):
            seconds = retry.retry_delay.ToTimedelta().total_seconds()
    (violation,) = failure.violations
    return violation.subject, seconds


def test_a_bucket_fills_by_the_rate_up_to_a_burst():
    now = 0.0
    buckets = CallBuckets(lambda: now)
    for _ in range(int(10 * BURST_SECONDS)):
        buckets.take("acme", 10, 1)
    with pytest.raises(QuotaExceeded) as refused:
        buckets.take("acme", 10, 1)
    assert refused.value.retry_after == pytest.approx(0.1)
    buckets.take("other", 10, 20)
    now += 0.1
    buckets.take("acme", 10, 1)
    with pytest.raises(QuotaExceeded):
        buckets.take("acme", 10, 1)
    now += 1000
    buckets.take("acme", 10, 20)
    with pytest.raises(QuotaExceeded):
        buckets.take("acme", 10, 1)


def test_what_weighs_more_than_a_bucket_has_its_turn_and_is_paid_for():
    now = 0.0
    buckets = CallBuckets(lambda: now)
    buckets.take("acme", 1, 20)
    with pytest.raises(QuotaExceeded) as refused:
        buckets.take("acme", 1, 1)
    assert refused.value.retry_after == pytest.approx(19)
    now += 19
    buckets.take("acme", 1, 1)


async def test_calls_beyond_the_quota_are_refused_until_it_is_raised(guarded):
    caller, other = await guarded.caller("acme"), await guarded.caller("other")
    tenant = await guarded.admin.access("UpdateTenant", quotas(calls_per_second=1))
    assert tenant.quotas == pb.Quotas(calls_per_second=1)
    found = [await outcome(caller.memory("ListMemories", LIST)) for _ in range(2)]
    assert found[0] is None  # more than the burst, with a full bucket
    assert found[1] is not None
    assert found[1].reason == "QUOTA_EXCEEDED"
    subject, seconds = await details_of(caller.memory("ListMemories", LIST))
    assert subject == "tenants/acme/quotas/calls_per_second"
    assert seconds is not None
    assert 0 < seconds <= 5
    assert await outcome(other.memory("ListMemories", LIST)) is None
    store = memory_pb2.StoreMemoryRequest(session_id="chat", content="a fact")
    message = memory_pb2.StreamStoreMemoriesRequest(requests=[store] * 2)
    found = await conversation(caller.memory("StreamStoreMemories", None), message)
    assert found is not None
    await guarded.admin.access("UpdateTenant", quotas(calls_per_second=0, keys=7))
    for _ in range(5):
        assert await outcome(caller.memory("ListMemories", LIST)) is None
    tenant = await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme"))
    assert tenant.quotas == pb.Quotas(calls_per_second=0, keys=7)


async def test_stores_over_a_stream_count_as_calls(guarded):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(calls_per_second=5))
    requests = [
        memory_pb2.StoreMemoryRequest(session_id="chat", content=f"fact {n}") for n in range(20)
    ]
    call = caller.memory("StreamStoreMemories", None)
    await call.initial_metadata()
    await call.write(memory_pb2.StreamStoreMemoriesRequest(requests=requests))
    await call.done_writing()
    results = (await call.read()).results
    refused = [r for r in results if r.HasField("status")]
    assert len(results) == 20
    assert 15 <= len(refused) < 20
    assert {r.status.code for r in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}


async def test_streams_and_keys_have_quotas(guarded):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(streams=2, keys=2))
    watch = memory_pb2.WatchMemoriesRequest(session_id="chat")
    watches = [caller.memory("WatchMemories", watch) for _ in range(2)]
    await asyncio.gather(*(call.initial_metadata() for call in watches))
    found = await outcome(caller.memory("WatchMemories", watch))
    assert found is not None
    assert found.reason == "QUOTA_EXCEEDED"
    create = pb.CreateApiKeyRequest(name="n", scopes=["reader"])
    made = await caller.access("CreateApiKey", create)
    assert await details_of(caller.access("CreateApiKey", create)) == (
        "tenants/acme/quotas/keys",
        None,
    )
    rotation = pb.RotateApiKeyRequest(key_id=made.key_id, overlap=Duration(seconds=60))
    found = await outcome(caller.access("RotateApiKey", rotation))
    assert found is not None
    assert found.reason == "QUOTA_EXCEEDED"
    rotation.ClearField("overlap")
    rotated = await caller.access("RotateApiKey", rotation)
    await caller.access("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=rotated.key_id))
    await caller.access("CreateApiKey", create)
    for call in watches:
        call.cancel()


async def test_the_services_own_quotas_hold_where_a_tenant_has_none(guard):
    guarded = await guard(MEMORYD_QUOTA_STREAMS="1", MEMORYD_QUOTA_KEYS="1")
    caller = await guarded.caller("acme")
    create = pb.CreateApiKeyRequest(tenant="acme", name="n", scopes=["reader"])
    subject, _ = await details_of(guarded.admin.access("CreateApiKey", create))
    assert subject == "tenants/acme/quotas/keys"
    await guarded.admin.access("UpdateTenant", quotas(keys=2))
    await guarded.admin.access("CreateApiKey", create)
    watch = memory_pb2.WatchMemoriesRequest(session_id="chat")
    watching = caller.memory("WatchMemories", watch)
    await watching.initial_metadata()
    found = await outcome(caller.memory("WatchMemories", watch))
    assert found is not None
    assert found.reason == "QUOTA_EXCEEDED"
    watching.cancel()


async def test_a_quota_below_nothing_is_refused_by_its_field(guarded):
    found = await outcome(guarded.admin.access("UpdateTenant", quotas(streams=-1)))
    assert found is not None
    assert found.message.startswith("quotas.streams: ")
