"""Without credentials, with them watched, with them required; and what logs show of them."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
import pytest
from tests.access.guarded import Caller, outcome

from memoryd.access.api_key import new_key
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2, tool_config_pb2

WHO = pb.WhoAmIRequest()


def fields(caplog, method: str) -> list[dict[str, object]]:
    return [
        vars(record) for record in caplog.records if getattr(record, "method", "").endswith(method)
    ]


async def test_while_it_is_off_everybody_is_the_default_tenant(running):
    for credentials in ((), (new_key().text,), ("noise", "noise")):
        caller = Caller(running.channel, *credentials)
        who = await caller.access("WhoAmI", WHO)
        assert (who.tenant, who.method, list(who.sessions)) == ("default", "off", [])
        assert "tools:write" in who.scopes
        assert not {"tenant:admin", "instance:admin"} & set(who.scopes)
        for method in ("CreateApiKey", "ListApiKeys", "RevokeApiKey", "RotateApiKey"):
            found = await outcome(caller.access(method, getattr(pb, f"{method}Request")()))
            assert found is not None
            assert found.reason == "SCOPE_MISSING"
            assert "MEMORYD_AUTH=required" in found.message


async def test_observing_refuses_nothing_and_logs_what_would_be(serve, caplog):
    caplog.set_level(logging.INFO, "memoryd.access")
    key, bootstrap = new_key().text, {"MEMORYD_BOOTSTRAP_KEY": "env://BOOT"}
    required = await serve(MEMORYD_AUTH="required", BOOT=key, **bootstrap)
    admin = Caller(required.channel, key)
    request = pb.CreateApiKeyRequest(
        tenant="acme", name="n", scopes=["memories:read"], sessions=["chat"]
    )
    narrow = (await admin.access("CreateApiKey", request)).key
    running = await serve(MEMORYD_AUTH="observe", BOOT=key, **bootstrap)

    def stored(session: str) -> memory_pb2.StoreMemoryRequest:
        return memory_pb2.StoreMemoryRequest(session_id=session, content="a fact")

    def purge(session: str) -> memory_pb2.PurgeMemoriesRequest:
        return memory_pb2.PurgeMemoriesRequest(session_id=session, force=True)

    def listing(session: str) -> memory_pb2.ListMemoriesRequest:
        return memory_pb2.ListMemoriesRequest(session_id=session)

    for credentials, method, request, refused in (
        ((), "StoreMemory", stored("chat"), "CREDENTIAL_MISSING"),
        ((new_key().text,), "StoreMemory", stored("chat"), "CREDENTIAL_INVALID"),
        ((narrow,), "StoreMemory", stored("chat"), "SCOPE_MISSING"),
        ((narrow,), "ListMemories", listing("user-7"), "SESSION_NOT_ALLOWED"),
        ((narrow,), "PurgeMemories", purge("chat"), "SCOPE_MISSING"),
        ((narrow,), "ListMemories", listing("chat"), None),
    ):
        caplog.clear()
        assert await outcome(Caller(running.channel, *credentials).memory(method, request)) is None
        (line,) = fields(caplog, method)
        assert line.get("would_refuse") == refused
        assert line["code"] == "OK"


async def test_a_line_of_the_log_says_who_called(guarded, caplog):
    caplog.set_level(logging.INFO, "memoryd.access")
    caller = await guarded.caller("acme")
    await caller.memory("ListMemories", memory_pb2.ListMemoriesRequest(session_id="chat"))
    (line,) = fields(caplog, "ListMemories")
    assert (line["tenant"], line["principal"]) == ("acme", "a key")
    caplog.clear()
    await outcome(guarded.with_key().memory("ListMemories", memory_pb2.ListMemoriesRequest()))
    (line,) = fields(caplog, "ListMemories")
    assert (line["code"], "tenant" in line) == ("UNAUTHENTICATED", False)


async def test_a_change_of_a_tool_says_whose_it_was(guarded):
    caller = await guarded.caller("default")
    config = tool_config_pb2.ToolConfig(tool="rag", rag=tool_config_pb2.RagSettings(search_k=7))
    update = tool_config_pb2.UpdateToolConfigRequest(tool_config=config)
    await caller.tools("UpdateToolConfig", update)
    listing = tool_config_pb2.ListToolConfigRevisionsRequest(tool="rag")
    (revision,) = (await caller.tools("ListToolConfigRevisions", listing)).revisions
    assert revision.actor == "a key"


async def test_no_key_is_in_the_database_or_in_the_log(guarded, tables, caplog):
    caplog.set_level(logging.DEBUG)
    keys = [guarded.bootstrap_key, (await guarded.key()).key, (await guarded.key()).key]
    for key in keys:
        await outcome(guarded.with_key(key).access("WhoAmI", WHO))
        await outcome(guarded.with_key(f"{key}x").access("WhoAmI", WHO))
    everything = await tables.everything() + "".join(map(str, map(vars, caplog.records)))
    assert keys[1][4:16] in everything
    for key in keys:
        assert key[17:60] not in everything
        assert key[17:60].encode().hex() not in everything


@pytest.mark.parametrize("seconds", ["0", "300"])
async def test_known_keys_go_on_for_a_while_without_the_database(
    guard, clock, seconds, tables, eventually
):
    guarded = await guard(MEMORYD_AUTH_STALE_SECONDS=seconds)
    caller = await guarded.caller("acme")
    assert await outcome(caller.access("WhoAmI", WHO)) is None
    await tables.execute("ALTER TABLE api_keys RENAME TO away")
    await tables.execute("UPDATE access_head SET revision = revision + 1")

    async def unknown_is_unavailable() -> bool:
        found = await outcome(guarded.with_key(new_key().text).access("WhoAmI", WHO))
        return found is not None and found.code is grpc.StatusCode.UNAVAILABLE

    await eventually(unknown_is_unavailable)
    assert await outcome(guarded.admin.access("WhoAmI", WHO)) is None
    clock.move(timedelta(seconds=float(seconds)))
    assert await outcome(caller.access("WhoAmI", WHO)) is None
    clock.move(timedelta(seconds=1))
    found = await outcome(caller.access("WhoAmI", WHO))
    assert found is not None
    assert (found.code, found.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "ERROR_REASON_DATABASE_UNAVAILABLE",
    )
    await tables.execute("ALTER TABLE away RENAME TO api_keys")

    async def opens_again() -> bool:
        return await outcome(caller.access("WhoAmI", WHO)) is None

    await eventually(opens_again)


async def test_callers_are_counted_by_their_tenants(guard):
    guarded = await guard(MEMORYD_MAX_STREAMS_PER_CLIENT="1")
    acme, colleague, other = [await guarded.caller(name) for name in ("acme", "acme", "other")]
    watch = memory_pb2.WatchMemoriesRequest(session_id="chat")
    watching = acme.memory("WatchMemories", watch)
    await watching.initial_metadata()
    found = await outcome(colleague.memory("WatchMemories", watch))
    assert found is not None
    assert found.reason == "ERROR_REASON_CLIENT_LIMIT_REACHED"
    theirs = other.memory("WatchMemories", watch)
    await theirs.initial_metadata()
    for call in (watching, theirs):
        assert not call.done()
        call.cancel()
