"""Connections that end in the middle of writes: each is done as a whole or not at all."""

from __future__ import annotations

import asyncio

import pytest
from tests.citus.calls import WRITES, is_refused, prepare, state_of
from tests.citus.conftest import SESSIONS


@pytest.fixture(params=["workers", "servers", "a worker"])
def cut(request, cluster, worker):
    """What ends connections."""
    kinds = {
        "workers": cluster.cut_workers,
        "servers": cluster.cut_servers,
        "a worker": lambda: cluster.fail(worker),
    }
    return kinds[request.param]


@pytest.mark.parametrize("method", WRITES)
async def test_a_write_that_was_cut_is_done_once(serve, cut, eventually, method):
    running = await serve()
    await asyncio.gather(*(prepare(running, session_id) for session_id in SESSIONS))
    await prepare(running, "whole")
    await is_refused(running, method, "whole")
    writes = [asyncio.create_task(is_refused(running, method, s)) for s in SESSIONS]
    await cut()
    refused = {s for s, was in zip(SESSIONS, await asyncio.gather(*writes), strict=True) if was}

    async def all_are_done():
        for session_id in [*refused]:
            if not await is_refused(running, method, session_id):
                refused.remove(session_id)
        return not refused

    await eventually(all_are_done)
    whole = await state_of(running, "whole")
    for session_id in SESSIONS:
        assert await state_of(running, session_id) == whole
