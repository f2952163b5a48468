"""Servers restarted one after the other, behind one client."""

from __future__ import annotations

import pytest

from memoryd.client import open_channel

from .checker import History
from .harness import ServerProcess, acknowledgements
from .load import Load
from .scale import SCALE

NOT_REPEATED = {"UpdateMemory", "DeleteMemory"}
"""These calls may have taken effect, so their caller has to check; few are hit."""


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_servers_restarted_in_turn_fail_no_call(command_line, database_url, fault_report):
    servers = [ServerProcess(command_line, database_url) for _ in range(2)]
    addresses = [await server.start() for server in servers]
    history = History()
    # The client library's own channel: it balances, and retries what is safe to retry.
    async with open_channel(f"ipv4:{','.join(addresses)}") as channel:
        async with Load(history, [channel] * 4) as load:
            for server in servers * SCALE.restarts:
                await acknowledgements(history, 50)
                await server.stop()
                await acknowledgements(history, 50)
                await server.start()
            await acknowledgements(history, 50)
        faults = await load.faults(database_url)
    for server in servers:
        await server.stop()
    fault_report("restarts in turn", 2 * SCALE.restarts, history, faults)
    assert not faults
    refused = {(call.method, call.code) for call in history.calls if call.code != "NOT_FOUND"}
    assert {method for method, code in refused if code} <= NOT_REPEATED
