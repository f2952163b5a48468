"""What calls leave in the audit."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.access.audit_lines import is_chain, lines_of
from tests.access.guarded import Caller, end_of, outcome
from tests.access.test_matrix import METHODS, refused, request_for

from memoryd.access.api_key import new_key
from memoryd.audit.refusals import DISTINCT
from memoryd.rpc.access import Anyone
from memoryd.rpc.methods import Method, as_it_is
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2, tool_config_pb2

SESSION = "user-7.a-canary-session"
ERASE = memory_pb2.EraseSessionRequest(session_id=SESSION)
EXPORT = memory_pb2.ExportMemoriesRequest(session_id=SESSION)
WHO = pb.WhoAmIRequest()
RAG = tool_config_pb2.UpdateToolConfigRequest(
    tool_config=tool_config_pb2.ToolConfig(tool="rag", rag={"search_k": 7})
)


async def store(caller: Caller, count: int = 1) -> None:
    for number in range(count):
        request = memory_pb2.StoreMemoryRequest(session_id=SESSION, content=f"a fact {number}")
        await caller.memory("StoreMemory", request)


async def lines_once(
    tables: Any, eventually: Any, count: int, method: str = ""
) -> list[dict[str, Any]]:
    """The lines of a method, once there are so many: last ones are written behind the answer."""

    async def are_there() -> bool:
        return len(await lines_of(tables, method)) >= count

    await eventually(are_there)
    return await lines_of(tables, method)


CHANGES = {
    *("EraseSession", "ExportMemories", "PurgeMemories", "MergeSessions"),
    *("ExportDocuments", "DeleteDocuments", "DeleteConversation"),
    "ExportMessages",
    *("UpdateToolConfig", "ResetToolConfig", "RollbackToolConfig"),
    *("CreateApiKey", "RevokeApiKey", "RotateApiKey", "UpdateTenant"),
}
"""By the contract."""


def test_no_method_is_without_a_decision():
    row: Any = Method
    with pytest.raises(TypeError, match="audited"):
        row(as_it_is, as_it_is, Anyone.KNOWN)


@pytest.mark.parametrize("mode", ["changes", "all"])
async def test_each_method_leaves_lines_by_its_decision(guard, tables, mode):
    """Every method there is, called by one who may call all."""
    guarded = await guard(MEMORYD_AUDIT=mode)
    caller = await guarded.caller("default", scopes=["operator", "tenant:admin", "instance:admin"])
    for method in METHODS:
        request: Any = request_for(method, "user-7.a")
        if method.name in {"PurgeMemories", "DeleteDocuments"}:
            request.force = True
        if method.name == "MergeSessions":
            request.target_session_id = "user-7.b"
        await refused(caller, method, request)
    every = {method.name for method in METHODS}
    expected = CHANGES if mode == "changes" else every
    await guarded.server.stop()
    assert {line["method"].rpartition("/")[2] for line in await lines_of(tables)} == expected


async def test_an_erasure_leaves_two_lines_and_a_receipt(guarded, tables, eventually):
    made = await guarded.key("acme")
    caller = guarded.with_key(made.key)
    await store(caller, 3)
    call = caller.memory("EraseSession", ERASE)
    receipt = await call
    request_id = dict(await call.trailing_metadata())["x-request-id"]
    begun, ended = await lines_once(tables, eventually, 2, "EraseSession")
    assert receipt.receipt_id
    assert {begun["receipt_id"], ended["receipt_id"]} == {receipt.receipt_id}
    assert (begun["kind"], ended["kind"]) == ("begun", "ended")
    assert (ended["code"], ended["counts"]) == ("OK", {"erased_memories": 3})
    assert "counts" not in begun
    for line in (begun, ended):
        assert (line["tenant"], line["principal"], line["key_id"]) == ("acme", "a key", made.key_id)
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert line["method"] == "/memoryd.v1.MemoryService/EraseSession"
        assert line["request_id"] == request_id
        (ref,) = line["session_refs"]
        assert len(ref) == 64
        assert "principal_tenant" not in line
    again = await caller.memory("EraseSession", ERASE)
    assert again.receipt_id not in {"", receipt.receipt_id}
    assert is_chain(await lines_of(tables))


async def test_references_tell_sessions_apart_by_tenant(guarded, tables, eventually):
    for tenant in ("acme", "acme", "other"):
        await (await guarded.caller(tenant)).memory("EraseSession", ERASE)
    found = await lines_once(tables, eventually, 6, "EraseSession")
    refs = [line["session_refs"][0] for line in found if line["kind"] == "begun"]
    assert refs[0] == refs[1] != refs[2]


async def test_an_export_leaves_two_lines(guarded, tables, eventually):
    caller = await guarded.caller("acme")
    await store(caller, 3)
    assert await outcome(caller.memory("ExportMemories", EXPORT)) is None
    begun, ended = await lines_once(tables, eventually, 2, "ExportMemories")
    assert (begun["kind"], ended["kind"]) == ("begun", "ended")
    assert (ended["code"], ended["counts"]) == ("OK", {"exported_memories": 3})


async def test_a_purge_leaves_a_line_and_counting_leaves_none(guarded, tables, eventually):
    caller = await guarded.caller("acme")
    await store(caller, 3)
    for force in (False, True):
        request = memory_pb2.PurgeMemoriesRequest(session_id=SESSION, force=force)
        await caller.memory("PurgeMemories", request)
    await caller.memory("EraseSession", ERASE)
    await lines_once(tables, eventually, 2, "EraseSession")
    (line,) = await lines_of(tables, "PurgeMemories")
    assert (line["kind"], line["code"]) == ("ended", "OK")
    assert line["counts"] == {"purged_memories": 3}
    assert len(line["session_refs"]) == 1


async def test_changes_of_tools_leave_lines_and_trials_none(guarded, tables, eventually):
    caller = await guarded.caller("default")
    trial = tool_config_pb2.UpdateToolConfigRequest()
    trial.CopyFrom(RAG)
    trial.validate_only = True
    await caller.tools("UpdateToolConfig", trial)
    config = await caller.tools("UpdateToolConfig", RAG)
    await caller.tools("ResetToolConfig", tool_config_pb2.ResetToolConfigRequest(tool="rag"))
    rollback = tool_config_pb2.RollbackToolConfigRequest(tool="rag", revision=config.revision)
    await caller.tools("RollbackToolConfig", rollback)
    wrong = tool_config_pb2.RollbackToolConfigRequest(tool="rag", revision=10**9)
    assert await outcome(caller.tools("RollbackToolConfig", wrong))
    await lines_once(tables, eventually, 2, "RollbackToolConfig")
    lines = [line for line in await lines_of(tables) if line.get("target") == "tools/rag"]
    assert [(line["method"].rpartition("/")[2], line["code"]) for line in lines] == [
        ("UpdateToolConfig", "OK"),
        ("ResetToolConfig", "OK"),
        ("RollbackToolConfig", "OK"),
        ("RollbackToolConfig", "NOT_FOUND"),
    ]
    assert lines[-1]["reason"] == "ERROR_REASON_TOOL_CONFIG_REVISION_NOT_FOUND"


async def test_changes_of_keys_and_tenants_leave_lines_of_the_tenant(guarded, tables, eventually):
    made = await guarded.key("acme")
    revoke = {"tenant": "acme", "key_id": made.key_id}
    rotated = await guarded.admin.access("RotateApiKey", pb.RotateApiKeyRequest(**revoke))
    await guarded.admin.access("RevokeApiKey", pb.RevokeApiKeyRequest(**revoke))
    await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme"))
    lines = await lines_once(tables, eventually, 8)
    for line in lines:
        assert (line["tenant"], line["principal_tenant"]) == ("acme", "default")
        assert line["principal"] == "bootstrap"
    assert [
        (line["method"].rpartition("/")[2], line["kind"], line.get("target", "")) for line in lines
    ] == [
        ("CreateApiKey", "begun", ""),
        ("CreateApiKey", "ended", f"api_keys/{made.key_id}"),
        ("RotateApiKey", "begun", f"api_keys/{made.key_id}"),
        ("RotateApiKey", "ended", f"api_keys/{rotated.key_id}"),
        ("RevokeApiKey", "begun", f"api_keys/{made.key_id}"),
        ("RevokeApiKey", "ended", f"api_keys/{made.key_id}"),
        ("UpdateTenant", "begun", ""),
        ("UpdateTenant", "ended", ""),
    ]


async def test_what_is_refused_before_its_work_leaves_no_line_of_its_own(guarded, tables):
    caller = await guarded.caller("acme")
    before = await lines_of(tables)
    wrong = memory_pb2.EraseSessionRequest(session_id="../x")
    assert await outcome(caller.memory("EraseSession", wrong))
    await guarded.caller("acme")
    assert {line["method"].rpartition("/")[2] for line in await lines_of(tables)} == {
        "CreateApiKey"
    }
    assert len(before) in {1, 2}


async def test_reads_and_stores_leave_no_line_in_changes(guarded, tables, eventually):
    caller = await guarded.caller("acme")
    await store(caller)
    await caller.access("WhoAmI", WHO)
    await caller.memory("ListMemories", memory_pb2.ListMemoriesRequest(session_id=SESSION))
    await caller.access("ListAuditEvents", pb.ListAuditEventsRequest())
    await caller.memory("EraseSession", ERASE)
    await lines_once(tables, eventually, 2, "EraseSession")
    assert {line["method"].rpartition("/")[2] for line in await lines_of(tables)} == {
        *("CreateApiKey", "EraseSession")
    }


async def test_every_call_leaves_a_line_in_all(guard, tables, eventually):
    guarded = await guard(MEMORYD_AUDIT="all")
    caller = await guarded.caller("acme")
    await store(caller)
    await caller.access("WhoAmI", WHO)
    wrong = memory_pb2.ListMemoriesRequest(session_id="../x")
    assert await outcome(caller.memory("ListMemories", wrong))
    retrieval = memory_pb2.RetrieveMemoriesRequest(
        session_id="user-7.0", session_ids=[f"user-7.{n}" for n in range(1, 16)]
    )
    await caller.memory("RetrieveMemories", retrieval)
    counting = memory_pb2.PurgeMemoriesRequest(session_id=SESSION)
    await caller.memory("PurgeMemories", counting)
    check = health_pb2.HealthCheckRequest()
    await caller.call(health_pb2_grpc.HealthStub, "Check", check)
    watching = caller.memory("WatchMemories", memory_pb2.WatchMemoriesRequest(session_id=SESSION))
    await watching.read()
    watching.cancel()
    await lines_once(tables, eventually, 1, "WatchMemories")
    lines = {line["method"].rpartition("/")[2]: line for line in await lines_of(tables)}
    assert {name: line["code"] for name, line in lines.items()} == {
        "CreateApiKey": "OK",
        "StoreMemory": "OK",
        "WhoAmI": "OK",
        "ListMemories": "INVALID_ARGUMENT",
        "RetrieveMemories": "OK",
        "PurgeMemories": "OK",
        "WatchMemories": "CANCELLED",
    }
    assert len(lines["RetrieveMemories"]["session_refs"]) == 16
    assert lines["RetrieveMemories"]["counts"] == {"sessions": 16}
    assert is_chain(await lines_of(tables))


@pytest.mark.parametrize("mode", ["off", "changes"])
async def test_the_audit_while_authentication_is_off(serve, tables, mode, eventually):
    """By default there is none."""
    running = await serve(**({"MEMORYD_AUDIT": mode} if mode == "changes" else {}))
    receipt = await running.memory.EraseSession(ERASE)
    if mode == "off":
        assert receipt.receipt_id == ""
        assert await tables.rows("SELECT * FROM audit_head") == []
        return
    _, ended = await lines_once(tables, eventually, 2)
    assert (ended["tenant"], ended["principal"]) == ("default", "unauthenticated")


# Refusals


async def test_refusals_are_gathered_by_the_minute(guarded, tables, clock, eventually):
    made = await guarded.key("acme", scopes=["memories:read"])
    caller, stranger = guarded.with_key(made.key), guarded.with_key()
    for _ in range(3):
        await outcome(caller.memory("EraseSession", ERASE))
        await outcome(stranger.memory("EraseSession", ERASE))
    await outcome(guarded.with_key(new_key().text).access("WhoAmI", WHO))
    clock.move(timedelta(minutes=1))

    async def are_written() -> bool:
        return any(line["kind"] == "refused" for line in await lines_of(tables))

    await eventually(are_written)
    lines = [line for line in await lines_of(tables) if line["kind"] == "refused"]
    found = {
        (line["method"].rpartition("/")[2], line["code"], line["reason"]): line for line in lines
    }
    assert len(found) == len(lines) == 3
    missing = found["EraseSession", "UNAUTHENTICATED", "CREDENTIAL_MISSING"]
    assert missing["counts"] == {"calls": 3}
    assert "tenant" not in missing
    denied = found["EraseSession", "PERMISSION_DENIED", "SCOPE_MISSING"]
    assert (denied["counts"], denied["tenant"]) == ({"calls": 3}, "acme")
    assert (denied["key_id"], denied["peer"]) == (made.key_id, "ipv4:127.0.0.1")
    assert found["WhoAmI", "UNAUTHENTICATED", "CREDENTIAL_INVALID"]["counts"] == {"calls": 1}


async def test_every_refusal_of_a_known_credential_names_it(guarded, tables, clock, eventually):
    confined = await guarded.key("acme", sessions=["chat"])
    revoked, expired = await guarded.key("acme"), await guarded.key("acme", ttl={"seconds": 60})
    disabled = await guarded.key("off")
    revoke = pb.RevokeApiKeyRequest(tenant="acme", key_id=revoked.key_id)
    await guarded.admin.access("RevokeApiKey", revoke)
    await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="off", disabled=True))
    clock.move(timedelta(minutes=2))
    for made in (confined, revoked, expired, disabled):
        caller = guarded.with_key(made.key)
        await outcome(caller.memory("EraseSession", ERASE))
    item = memory_pb2.StoreMemoryRequest(session_id=SESSION, content="x")
    stream = memory_pb2.StreamStoreMemoriesRequest(requests=[item] * 2)
    call = guarded.with_key(confined.key).memory("StreamStoreMemories", iter([stream]))
    assert [len(answer.results) async for answer in call]
    clock.move(timedelta(minutes=2))

    async def are_written() -> bool:
        return any(line["kind"] == "refused" for line in await lines_of(tables))

    await eventually(are_written)
    lines = [line for line in await lines_of(tables) if line["kind"] == "refused"]
    assert {(line["key_id"], line["tenant"], line["reason"]) for line in lines} == {
        (confined.key_id, "acme", "SESSION_NOT_ALLOWED"),
        (revoked.key_id, "acme", "CREDENTIAL_REVOKED"),
        (expired.key_id, "acme", "CREDENTIAL_EXPIRED"),
        (disabled.key_id, "off", "TENANT_DISABLED"),
    }
    (of_items,) = (line for line in lines if line["method"].endswith("/StreamStoreMemories"))
    assert of_items["counts"] == {"calls": 2}


async def test_a_flood_of_different_refusals_is_bounded(
    guard, tables, clock, monkeypatch, eventually
):
    monkeypatch.setattr("memoryd.audit.refusals.DISTINCT", 2)
    assert DISTINCT > 2
    guarded = await guard()
    stranger = guarded.with_key()
    for method in ("GetMemory", "ListMemories", "EraseSession", "DeleteMemory"):
        request = getattr(memory_pb2, f"{method}Request")()
        assert await outcome(stranger.memory(method, request))
    clock.move(timedelta(minutes=1))
    lines = await lines_once(tables, eventually, 3)
    assert sorted(line["counts"]["calls"] for line in lines) == [1, 1, 2]
    (rest,) = (line for line in lines if line["counts"] == {"calls": 2})
    assert "method" not in rest
    assert (rest["code"], rest["reason"]) == ("UNAUTHENTICATED", "CREDENTIAL_MISSING")


async def test_refusals_are_written_at_the_end(guard, tables):
    guarded = await guard()
    assert await outcome(guarded.with_key().access("WhoAmI", WHO))
    await guarded.server.stop()
    (line,) = await lines_of(tables)
    assert (line["kind"], line["counts"]) == ("refused", {"calls": 1})


async def test_a_stream_that_its_credential_ends_is_a_refusal(guarded, tables, clock, eventually):
    made = await guarded.key("acme")
    watching = guarded.with_key(made.key).memory(
        "WatchMemories", memory_pb2.WatchMemoriesRequest(session_id=SESSION)
    )
    await watching.initial_metadata()
    revoke = pb.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
    await guarded.admin.access("RevokeApiKey", revoke)
    found = await end_of(watching)
    assert found is not None
    assert found.reason == "CREDENTIAL_REVOKED"
    clock.move(timedelta(minutes=1))
    (line,) = await lines_once(tables, eventually, 1, "WatchMemories")
    assert (line["kind"], line["key_id"]) == ("refused", made.key_id)


async def test_what_would_be_refused_is_written_as_such(serve, tables, clock, eventually):
    running = await serve(MEMORYD_AUTH="observe", MEMORYD_AUDIT="changes")
    stranger = Caller(running.channel)
    await store(stranger, 2)
    await stranger.memory("EraseSession", ERASE)
    clock.move(timedelta(minutes=1))
    lines = await lines_once(tables, eventually, 4)
    gathered = [line for line in lines if line["kind"] == "would_refuse"]
    assert {(line["reason"], line["counts"]["calls"]) for line in gathered} == {
        ("CREDENTIAL_MISSING", 2),
        ("CREDENTIAL_MISSING", 1),
    }
    assert {line["code"] for line in gathered} == {"UNAUTHENTICATED"}


# Many at once


async def test_replicas_write_one_chain_under_load(guard, tables, eventually):
    servers = [await guard(), await guard()]
    made = await servers[0].key("acme")
    callers = [server.with_key(made.key) for server in servers]

    for caller in callers:

        async def opens(caller: Caller = caller) -> bool:
            return await outcome(caller.access("WhoAmI", WHO)) is None

        await eventually(opens)
    sessions = itertools.count()

    async def erase(caller: Caller) -> None:
        for _ in range(10):
            request = memory_pb2.EraseSessionRequest(session_id=f"user-7.{next(sessions)}")
            await caller.memory("EraseSession", request)

    await asyncio.gather(*(erase(caller) for caller in callers for _ in range(8)))
    for server in servers:
        await server.server.stop()
    lines = await lines_of(tables)
    assert is_chain(lines)
    kinds = [line["kind"] for line in lines if line["method"].endswith("/EraseSession")]
    assert (kinds.count("begun"), kinds.count("ended")) == (160, 160)


async def test_a_caller_that_goes_leaves_how_its_call_ended(guarded, tables, eventually):
    caller = await guarded.caller("acme")
    # More than gRPC takes in before it is read.
    large = memory_pb2.BatchStoreMemoriesRequest(
        requests=[{"session_id": SESSION, "content": f"{n} " * 5_000} for n in range(10, 99)]
    )
    await caller.memory("BatchStoreMemories", large)
    exporting = caller.memory("ExportMemories", EXPORT)
    await exporting.read()
    exporting.cancel()
    begun, ended = await lines_once(tables, eventually, 2, "ExportMemories")
    assert begun["receipt_id"] == ended["receipt_id"]
    assert ended["code"] == "CANCELLED"


async def test_many_lines_share_a_transaction(guarded, tables, monkeypatch):
    caller = await guarded.caller("acme")
    write, transactions = guarded.server.database.write_apart, []

    async def counted(body: Any, **named: Any) -> Any:
        transactions.append(body)
        return await write(body, **named)

    monkeypatch.setattr(guarded.server.database, "write_apart", counted)
    erasures = [memory_pb2.EraseSessionRequest(session_id=f"user-7.{n}") for n in range(100)]
    await asyncio.gather(*(caller.memory("EraseSession", request) for request in erasures))
    await guarded.server.stop()
    lines = await lines_of(tables, "EraseSession")
    assert len(lines) == 200
    assert len(transactions) < 100


async def test_a_server_that_is_killed_has_recorded_what_it_has_done(
    command_line, database_url, tables
):
    url = {"MEMORYD_DATABASE_URL": database_url}
    options = ("--tenant", "acme", "--name", "n", "--scope", "operator")
    made = await asyncio.to_thread(command_line.run, "keys", "create", *options, **url)
    server = command_line.serve(**url, MEMORYD_AUTH="required")
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        receipt = await Caller(channel, made.stdout.strip()).memory("EraseSession", ERASE)
        server.kill()
    begun, *_ = await lines_of(tables, "EraseSession")
    assert (begun["kind"], begun["receipt_id"]) == ("begun", receipt.receipt_id)
    assert is_chain(await lines_of(tables))
