"""The tools' settings as flags: of each tenant, to whom may read them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests import flags
from tests.access.guarded import Caller, Guarded, end_of, outcome

from memoryd.v1 import access_pb2
from memoryd.v1 import tool_config_pb2 as pb

TIMEOUT_SECONDS = 60


async def search_k(caller: Caller) -> tuple[int, str]:
    request = flags.v2.ResolveIntRequest(flag_key="rag.search_k")
    answer = await caller.call(flags.v2_grpc.ServiceStub, "ResolveInt", request)
    return answer.value, answer.variant


async def listening(caller: Caller) -> Any:
    """A stream of events, once it has said what it says first."""
    request = flags.v2.EventStreamRequest()
    events = caller.call(flags.v2_grpc.ServiceStub, "EventStream", request)
    assert [(await events.read()).type for _ in range(2)] == [
        "configuration_change",
        "provider_ready",
    ]
    return events


async def change(caller: Caller, layer: pb.Layer.ValueType, tool: str, **fields: Any) -> None:
    config = pb.ToolConfig(tool=tool, **{tool: fields})
    request = pb.UpdateToolConfigRequest(tool_config=config, layer=layer)
    await caller.tools("UpdateToolConfig", request)


async def changed(events: Any) -> set[str]:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return {*(await events.read()).data["flags"]}


async def instance_of(guarded: Guarded) -> Caller:
    return await guarded.caller("ops", scopes=["operator", "instance:admin"])


async def test_each_tenant_has_flags_of_its_own_above_the_instances(guarded):
    acme, umbra = await guarded.caller("acme"), await guarded.caller("umbra")
    instance = await instance_of(guarded)
    streams = [await listening(caller) for caller in (acme, umbra)]
    await change(acme, pb.LAYER_TENANT, "rag", search_k=7)
    assert await changed(streams[0]) == {"rag", "rag.search_k"}
    assert (await search_k(acme), await search_k(umbra)) == ((7, "OVERRIDE"), (5, "DEFAULT"))
    # The instance's is told to those for whom it holds, and to them alone.
    await change(instance, pb.LAYER_INSTANCE, "rag", search_k=9)
    assert await changed(streams[1]) == {"rag", "rag.search_k"}
    assert (await search_k(acme), await search_k(umbra)) == ((7, "OVERRIDE"), (9, "INSTANCE"))
    await change(instance, pb.LAYER_INSTANCE, "crm", timeout=3)
    for events in streams:
        assert await changed(events) == {"crm", "crm.timeout"}
        events.cancel()


async def test_a_key_that_is_revoked_hears_no_more(guarded):
    made = await guarded.key("acme")
    caller = guarded.with_key(made.key)
    events = await listening(caller)
    revoke = access_pb2.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
    await guarded.admin.access("RevokeApiKey", revoke)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        ended = await end_of(events)
    assert ended is not None
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")


@pytest.mark.parametrize("method", ["ResolveInt", "EventStream"])
async def test_the_secrets_of_a_stranger_open_nothing(guarded, method):
    request = getattr(flags.v1, f"{method}Request")()
    for caller in (guarded.with_key(), guarded.with_key("mdk_noise")):
        found = await outcome(caller.call(flags.v1_grpc.ServiceStub, method, request))
        assert found is not None
        assert found.code == grpc.StatusCode.UNAUTHENTICATED
