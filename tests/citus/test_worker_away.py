"""A worker that is away: calls about its sessions are refused, all others go on."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.citus.calls import (
    CALLS,
    READS,
    REFUSALS,
    WRITES,
    call,
    is_refused,
    prepare,
    state_of,
    stored,
)
from tests.citus.conftest import SESSIONS

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as session_pb


@pytest.fixture
async def running(serve):
    running = await serve()
    await asyncio.gather(*(prepare(running, session_id) for session_id in SESSIONS))
    return running


@pytest.fixture
async def apart(running, worker, cluster):  # noqa: ARG001  it prepares the sessions
    """Stop a worker; give sessions on the others, and its own."""
    await asyncio.to_thread(worker.stop)
    living, lost = await cluster.apart()
    assert living
    assert lost
    return living, lost


def refused_or_not(running, method, session_id):
    async def done():
        return not await is_refused(running, method, session_id)

    return done


@pytest.mark.parametrize("method", CALLS)
async def test_a_call_about_a_living_worker_is_answered(running, apart, method):
    living, lost = apart
    # The other way round, so that a connection that has seen the failure is used again.
    await is_refused(running, method, lost[0])
    assert await call(running, method, living[0]) is not None


@pytest.mark.parametrize("method", READS)
async def test_a_read_is_refused_until_its_worker_is_back(
    running, apart, worker, eventually, method
):
    _, lost = apart
    assert await is_refused(running, method, lost[0])
    await asyncio.to_thread(worker.start)
    await eventually(refused_or_not(running, method, lost[0]))


@pytest.mark.parametrize("method", WRITES)
async def test_a_write_is_refused_and_then_done_once(running, apart, worker, eventually, method):
    living, lost = apart
    await call(running, method, living[0])
    assert await is_refused(running, method, lost[0])
    await asyncio.to_thread(worker.start)
    await eventually(refused_or_not(running, method, lost[0]))
    assert await state_of(running, lost[0]) == await state_of(running, living[0])


async def test_a_batch_over_a_worker_that_is_away_leaves_nothing(running, apart):
    living, lost = apart
    requests = [stored(session_id, "all or nothing") for session_id in (living[0], lost[0])]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert refused.value.code() in REFUSALS
    assert (await state_of(running, living[0]))[0] == ["a fact"]


async def test_a_merge_over_a_worker_that_is_away_leaves_nothing(running, apart):
    living, lost = apart
    before = await state_of(running, living[0])
    merge = session_pb.MergeSessionsRequest(source_session_id=living[0], target_session_id=lost[0])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.sessions.MergeSessions(merge)
    assert refused.value.code() in REFUSALS
    assert await state_of(running, living[0]) == before


@pytest.mark.usefixtures("apart")
async def test_a_list_of_all_sessions_is_refused(running):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.sessions.ListSessions(session_pb.ListSessionsRequest())
    assert refused.value.code() in REFUSALS
