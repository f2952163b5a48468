"""Servers restarted one after the other, behind one client; one may be of an earlier release."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import CommandLine, Tables

from memoryd.client import open_channel
from memoryd.v1 import conversation_pb2, document_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import find_faults
from .harness import ServerProcess, acknowledgements
from .harness import open_channel as grpc_channel
from .history import History
from .load import Load
from .scale import SCALE

NOT_REPEATED = {"UpdateMemory", "DeleteMemory"}
"""These calls may have taken effect, so their caller has to check; few are hit."""

EARLIER_PYTHON = os.environ.get("TEST_EARLIER_PYTHON")
"""An interpreter with an earlier release, which the other server is of; None: both are of this."""

NO_ROW_SECURITY = """
DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT relname FROM pg_class WHERE relrowsecurity LOOP
        EXECUTE format(
            'ALTER TABLE %I DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', t
        );
    END LOOP;
END $$
"""
"""As in a database that servers of an earlier release have served."""


@pytest.fixture
async def other_command_line(tmp_path: Path, tables: Tables) -> AsyncIterator[CommandLine]:
    if EARLIER_PYTHON:
        await tables.execute(NO_ROW_SECURITY)
    folder = tmp_path / "other"
    folder.mkdir()
    command_line = CommandLine(folder, EARLIER_PYTHON or sys.executable)
    yield command_line
    command_line.close()


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_servers_restarted_in_turn_fail_no_call(
    command_line, other_command_line, database_url, fault_report
):
    releases = (command_line, other_command_line)
    servers = [ServerProcess(release, database_url) for release in releases]
    addresses = [await server.start() for server in servers]
    history = History()
    # The client library's own channel: it balances, and retries what is safe to retry. An earlier
    # release knows nothing but memories.
    of_this_release = addresses[:1] if EARLIER_PYTHON else addresses
    async with (
        open_channel(f"ipv4:{','.join(addresses)}") as channel,
        open_channel(f"ipv4:{','.join(of_this_release)}") as others,
    ):
        async with Load(history, [channel] * 4, other_channels=[others]) as load:
            for server in servers * SCALE.restarts:
                await acknowledgements(history, 50)
                await server.stop()
                await acknowledgements(history, 50)
                await server.start()
            await acknowledgements(history, 50)
        stored = await load.stored(database_url)
        faults = find_faults(history, stored.with_every_key() if EARLIER_PYTHON else stored)
    for server in servers:
        await server.stop()
    fault_report("restarts in turn", 2 * SCALE.restarts, history, faults)
    assert not faults
    refused = {(call.method, call.code) for call in history.calls if call.code != "NOT_FOUND"}
    assert {method for method, code in refused if code} <= NOT_REPEATED


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_what_the_other_server_erases_is_gone_with_what_it_does_not_know(
    serve, other_command_line, database_url
):
    running = await serve()
    other = ServerProcess(other_command_line, database_url)
    session = {"session_id": "user-123"}
    store = pb.StoreMemoryRequest(**session, content="prefers e-mail")
    search = document_pb2.SearchDocumentsRequest(**session, query="report")

    async def put(key: str) -> document_pb2.Document:
        document = document_pb2.Document(**session, key=key, text=f"a report: {key}")
        return await running.documents.PutDocument(
            document_pb2.PutDocumentRequest(document=document, search_texts=[document.text])
        )

    async def append(text: str) -> conversation_pb2.Conversation:
        message = conversation_pb2.Message(parts=[{"text": text}])
        request = conversation_pb2.AppendMessagesRequest(
            **session, conversation_id="talk", messages=[message], request_id=str(uuid.uuid4())
        )
        return (await running.conversations.AppendMessages(request)).conversation

    async def found() -> list[str]:
        results = (await running.documents.SearchDocuments(search)).results
        return [result.document.key for result in results]

    async with grpc_channel(await other.start()) as channel:
        memory = MemoryServiceStub(channel)
        await put("before")
        last = await append("before")
        assert (await memory.StoreMemory(store)).memory.revision == last.revision + 1
        last = await put("later")
        assert sorted(await found()) == ["before", "later"]
        await memory.EraseSession(pb.EraseSessionRequest(**session))
        assert await found() == []
        listed = await running.documents.ListDocuments(document_pb2.ListDocumentsRequest(**session))
        assert not listed.documents
        held = conversation_pb2.ListConversationsRequest(**session)
        assert not (await running.conversations.ListConversations(held)).conversations
        last_again = await put("again")
        assert last_again.revision > last.revision
        assert await found() == ["again"]
        assert (await append("again")).message_count == 1
        there = await running.sessions.GetSession(session_pb2.GetSessionRequest(**session))
        counts = (there.document_count, there.memory_count, there.conversation_count)
        assert counts == (1, 0, 1)
    await other.stop()
