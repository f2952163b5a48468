"""What is done where the audit cannot be written."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.access.audit_lines import is_chain, lines_of
from tests.access.guarded import Caller, Refusal, outcome
from tests.roles import as_superuser

from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2, tool_config_pb2

SESSION = "user-7.a"
AWAY = "ALTER TABLE audit_events RENAME TO audit_events_away"
BACK = "ALTER TABLE audit_events_away RENAME TO audit_events"


def guarded_calls(caller: Caller) -> dict[str, Any]:
    """Calls that are recorded before they are done."""
    name = {"session_id": SESSION}
    key = {"tenant": "acme", "key_id": "0123456789AB"}
    return {
        "EraseSession": caller.memory("EraseSession", memory_pb2.EraseSessionRequest(**name)),
        "ExportMemories": caller.memory("ExportMemories", memory_pb2.ExportMemoriesRequest(**name)),
        "CreateApiKey": caller.access(
            "CreateApiKey", pb.CreateApiKeyRequest(name="n", scopes=["reader"])
        ),
        "RevokeApiKey": caller.access("RevokeApiKey", pb.RevokeApiKeyRequest(**key)),
        "RotateApiKey": caller.access("RotateApiKey", pb.RotateApiKeyRequest(**key)),
        "UpdateTenant": caller.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme")),
    }


async def other_calls(caller: Caller) -> None:
    """Calls that go on."""
    store = memory_pb2.StoreMemoryRequest(session_id=SESSION, content="another fact")
    await caller.memory("StoreMemory", store)
    await caller.memory("ListMemories", memory_pb2.ListMemoriesRequest(session_id=SESSION))
    await caller.access("WhoAmI", pb.WhoAmIRequest())
    await caller.access("ListApiKeys", pb.ListApiKeysRequest())
    purge = memory_pb2.PurgeMemoriesRequest(session_id=SESSION, force=True)
    await caller.memory("PurgeMemories", purge)
    await caller.tools("ResetToolConfig", tool_config_pb2.ResetToolConfigRequest(tool="rag"))


async def admin_of_all(guarded: Any) -> Caller:
    caller: Caller = await guarded.caller(
        "default", scopes=["operator", "tenant:admin", "instance:admin"]
    )
    store = memory_pb2.StoreMemoryRequest(session_id=SESSION, content="a fact")
    await caller.memory("StoreMemory", store)
    return caller


def is_refused(found: Refusal | None) -> bool:
    return found is not None and (found.code, found.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "AUDIT_UNAVAILABLE",
    )


@pytest.fixture
async def unwritable(tables):
    """Take the table away until the end of the block."""

    @asynccontextmanager
    async def away():
        await tables.execute(AWAY)
        try:
            yield
        finally:
            await tables.execute(BACK)

    return away


async def test_without_the_table_what_must_be_recorded_is_refused(
    guarded, tables, unwritable, caplog, eventually
):
    caller = await admin_of_all(guarded)
    keys = await tables.rows("SELECT key_id FROM api_keys")
    with caplog.at_level(logging.WARNING):
        async with unwritable():
            for name, call in guarded_calls(caller).items():
                found = await outcome(call)
                assert is_refused(found), (name, found)
                assert "audit" in found.message
            assert await tables.rows("SELECT key_id FROM api_keys") == keys
            listing = memory_pb2.ListMemoriesRequest(session_id=SESSION)
            assert len((await caller.memory("ListMemories", listing)).memories) == 1
            await other_calls(caller)

    async def is_written() -> bool:
        return any(line["code"] == "OK" for line in await lines_of(tables, "ResetToolConfig"))

    await eventually(is_written)  # what could not be written is written now
    assert "the audit cannot be written" in caplog.text
    assert "the audit is written again" in caplog.text
    erase = memory_pb2.EraseSessionRequest(session_id=SESSION)
    assert await outcome(caller.memory("EraseSession", erase)) is None
    await guarded.server.stop()
    lines = await lines_of(tables)
    assert is_chain(lines)
    ends = {line["receipt_id"]: line for line in lines if line["kind"] == "ended"}
    refused = [line for line in ends.values() if line.get("reason") == "AUDIT_UNAVAILABLE"]
    assert len(refused) == len(guarded_calls(caller))
    for line in lines:
        if line["kind"] == "begun":
            assert ends[line["receipt_id"]]["code"] == "OK"


async def test_a_locked_audit_refuses_and_lets_other_calls_go_on(guard, postgres_server):
    """On PostgreSQL, where a lock on the audit is none on anything else."""
    url = postgres_server.create_database("migrated")
    guarded = await guard(
        MEMORYD_DATABASE_URL=url,
        MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="0.2",
    )
    caller = await admin_of_all(guarded)
    engine = create_async_engine(as_superuser(url))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT * FROM audit_head FOR UPDATE"))
        waiting = [asyncio.ensure_future(outcome(call)) for call in guarded_calls(caller).values()]
        await other_calls(caller)
        assert all(map(is_refused, await asyncio.gather(*waiting)))
        await connection.rollback()
    await engine.dispose()
    assert await outcome(guarded_calls(caller)["EraseSession"]) is None


async def test_too_many_lines_that_cannot_be_written_are_counted(
    guard, tables, unwritable, monkeypatch, caplog
):
    monkeypatch.setattr("memoryd.audit.writer.QUEUE_LIMIT", 3)
    guarded = await guard()
    caller = await admin_of_all(guarded)
    with caplog.at_level(logging.WARNING):
        async with unwritable():
            for _ in range(8):
                reset = tool_config_pb2.ResetToolConfigRequest(tool="rag")
                await caller.tools("ResetToolConfig", reset)
        await guarded.server.stop()
    (lost,) = (r for r in caplog.records if "written again" in r.message)
    assert lost.lost_lines >= 1
    assert len(await lines_of(tables, "ResetToolConfig")) == 8 - lost.lost_lines
    assert "lines of the audit are lost" in caplog.text
    assert is_chain(await lines_of(tables))


async def test_a_commit_that_seemed_to_fail_is_not_written_twice(
    guarded, tables, monkeypatch, eventually
):
    caller = await admin_of_all(guarded)
    write = guarded.server.database.write_apart
    failed = []

    async def losing(body: Any, **named: Any) -> Any:
        answer = await write(body, **named)
        if not failed:
            failed.append(answer)
            raise ConnectionResetError("the answer to COMMIT is lost")
        return answer

    monkeypatch.setattr(guarded.server.database, "write_apart", losing)
    for _ in range(2):
        reset = tool_config_pb2.ResetToolConfigRequest(tool="rag")
        await caller.tools("ResetToolConfig", reset)

    async def are_written() -> bool:
        return len(await lines_of(tables, "ResetToolConfig")) >= 2

    await eventually(are_written)
    await guarded.server.stop()
    assert failed
    assert len(await lines_of(tables, "ResetToolConfig")) == 2
    assert is_chain(await lines_of(tables))
