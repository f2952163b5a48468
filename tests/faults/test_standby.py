"""A standby of PostgreSQL replaces the primary, and serves rows for it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import pytest

from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub

from .harness import PAUSE_SECONDS, TIMEOUT_SECONDS, VARIABLES, acknowledgements, until
from .history import History
from .load import Load
from .nodes import Node
from .scale import SCALE
from .test_postgresql import SEEN, assert_all_connections_usable

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"])

CALLERS = 4

SESSION = "user-123"

Answer = TypeVar("Answer")


def store_request(content: str, session_id: str = SESSION) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, never_expires=True)


def put_request(text: str, session_id: str = SESSION) -> document_pb2.PutDocumentRequest:
    document = document_pb2.Document(session_id=session_id, key=text.lower(), text=text)
    return document_pb2.PutDocumentRequest(document=document, search_texts=["kept"])


def append_request(text: str, session_id: str = SESSION) -> conversation_pb2.AppendMessagesRequest:
    return conversation_pb2.AppendMessagesRequest(
        session_id=session_id,
        conversation_id="talk",
        messages=[conversation_pb2.Message(message_id=text.lower(), raw_json=json.dumps(text))],
    )


async def keep(running, text: str, session_id: str = SESSION) -> None:
    """As a memory, as a document and as a message."""
    await running.memory.StoreMemory(store_request(text, session_id))
    await running.documents.PutDocument(put_request(text, session_id))
    await running.conversations.AppendMessages(append_request(text, session_id))


# Failover


async def test_no_acknowledged_write_is_lost_with_the_primary(serve, pair, fault_report):
    database = pair.create_database()
    both = pair.url_of_both(database)
    running = await serve(**VARIABLES, MEMORYD_DATABASE_URL=both)
    history, moments = History(), random.Random(0)  # noqa: S311  no secret
    back = 0.0
    async with Load(history, [running.channel] * CALLERS) as load:
        for number in range(SCALE.failovers):
            lose = (Node.kill, Node.freeze)[number % 2]
            await asyncio.to_thread(pair.replicate, synchronously=True)
            await acknowledgements(history, moments.randrange(20, 100))
            await asyncio.to_thread(lose, pair.primary)
            await until(lambda: not running.server.health.is_serving.is_set())
            # The standby is up, and accepts no writes.
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.memory.StoreMemory(store_request("to a standby", "elsewhere"))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.documents.PutDocument(put_request("to a standby", "elsewhere"))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.conversations.AppendMessages(append_request("lost", "elsewhere"))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            await asyncio.to_thread(pair.promote)
            promoted = time.monotonic()
            await acknowledgements(history, 20)
            back = max(back, load.first_answer(promoted))
            await running.server.health.is_serving.wait()
            await asyncio.to_thread(pair.rejoin)
    await asyncio.to_thread(pair.replicate, synchronously=False)
    faults = await load.faults(pair.primary.url(database))
    fault_report(f"failover: back in {back:.2f} s", SCALE.failovers, history, faults)
    assert not faults
    assert not history.refusals_besides(SEEN)


async def test_a_commit_that_the_standby_does_not_confirm_is_not_acknowledged(serve, pair):
    database = pair.create_database()
    running = await serve(
        MEMORYD_DATABASE_URL=pair.url_of_both(database),
        MEMORYD_DATABASE_TIMEOUT_SECONDS="10",
        MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS="3",
    )
    await asyncio.to_thread(pair.replicate, synchronously=True)
    await keep(running, "confirmed")
    await asyncio.to_thread(pair.standby.freeze)
    refused = await asyncio.gather(
        running.memory.StoreMemory(store_request("not confirmed")),
        running.documents.PutDocument(put_request("not confirmed", "elsewhere")),
        running.conversations.AppendMessages(append_request("not-confirmed", "third")),
        return_exceptions=True,
    )
    for error in refused:
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    await asyncio.to_thread(pair.standby.thaw)
    await keep(running, "confirmed-again")
    await asyncio.to_thread(pair.replicate, synchronously=False)


async def replaced_while_silent(pair, *servers) -> Node:
    """Freeze the primary, and promote the standby; return the frozen one once servers serve."""
    silent = pair.primary
    await asyncio.to_thread(pair.catch_up)
    await asyncio.to_thread(silent.freeze)
    for running in servers:
        await until(lambda running=running: not running.server.health.is_serving.is_set())
    await asyncio.to_thread(pair.promote)
    for running in servers:
        await running.server.health.is_serving.wait()
    return silent


async def answered(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of a call, which is made again while a busy machine takes too long for it."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)


IMPATIENT = {**VARIABLES, "MEMORYD_DATABASE_TIMEOUT_SECONDS": "2"}
"""So that a server notices soon that its database is silent."""


async def test_a_primary_that_was_replaced_while_silent_is_not_read(serve, pair):
    database = pair.create_database()
    running = await serve(**IMPATIENT, MEMORYD_DATABASE_URL=pair.url_of_both(database))
    memory, request = running.memory, pb.ListMemoriesRequest(session_id=SESSION)
    await answered(lambda: memory.StoreMemory(store_request("first")))
    await assert_all_connections_usable(running.server)
    silent = await replaced_while_silent(pair, running)
    await answered(lambda: memory.StoreMemory(store_request("second")))
    await asyncio.to_thread(silent.thaw)
    pages = (answered(lambda: memory.ListMemories(request)) for _ in range(20))
    for listed in await asyncio.gather(*pages):
        assert [memory.content for memory in listed.memories] == ["first", "second"]
    await asyncio.to_thread(pair.rejoin)


async def test_a_primary_that_was_replaced_while_silent_is_not_listened_to(
    serve, pair, monkeypatch
):
    monkeypatch.setattr("memoryd.sessions.feed.LISTENING_POLL_SECONDS", 3600.0)
    both = pair.url_of_both(pair.create_database())
    watched, other = [await serve(**IMPATIENT, MEMORYD_DATABASE_URL=both) for _ in range(2)]
    watch = watched.memory.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION))
    await answered(lambda: other.memory.StoreMemory(store_request("first")))
    assert (await watch.read()).memory.content == "first"
    await replaced_while_silent(pair, watched, other)
    await answered(lambda: other.memory.StoreMemory(store_request("second")))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        assert (await watch.read()).memory.content == "second"
    watch.cancel()
    await asyncio.to_thread(pair.rejoin)


# Reading from the standby


ROWS = ("list", "export", "documents", "sent", "searched", "messages", "sent messages")
"""Of `contents`, what comes from rows each time."""


UPPER_CASE = """
UPDATE messages SET body = convert_to(replace(convert_from(body, 'UTF8'), 'first', 'FIRST'), 'UTF8')
"""


async def said(conversations: ConversationServiceStub, session_id: str) -> dict[str, list[str]]:
    """The messages in the results of calls about conversations."""
    key = {"session_id": session_id}
    talks = await conversations.ListConversations(conversation_pb2.ListConversationsRequest(**key))
    sent = conversations.ExportMessages(conversation_pb2.ExportMessagesRequest(**key))
    messages = [message async for one in sent for message in one.messages]
    shown: list[conversation_pb2.Message] = []
    for talk in talks.conversations:
        named = {**key, "conversation_id": talk.conversation_id}
        there = await conversations.ListMessages(conversation_pb2.ListMessagesRequest(**named))
        assert there.messages[-1].message_id == talk.head_message_id
        shown += there.messages
    return {
        "messages": sorted(json.loads(message.raw_json) for message in shown),
        "sent messages": sorted(json.loads(message.raw_json) for message in messages),
    }


async def contents(running, session_id: str = SESSION) -> dict[str, list[str]]:
    """The results of each call that a standby may answer."""
    key = {"session_id": session_id}
    listed = await running.memory.ListMemories(pb.ListMemoriesRequest(**key))
    exported = running.memory.ExportMemories(pb.ExportMemoriesRequest(**key))
    retrieved = await running.memory.RetrieveMemories(pb.RetrieveMemoriesRequest(**key, peek=True))
    documents = await running.documents.ListDocuments(document_pb2.ListDocumentsRequest(**key))
    sent = running.documents.ExportDocuments(document_pb2.ExportDocumentsRequest(**key))
    searched = await running.documents.SearchDocuments(
        document_pb2.SearchDocumentsRequest(**key, query="kept")
    )
    return {
        **await said(running.conversations, session_id),
        "list": sorted(m.content for m in listed.memories),
        "export": sorted([m.content async for m in exported]),
        "retrieve": sorted(r.memory.content for r in retrieved.results),
        "documents": sorted(one.text for one in documents.documents),
        "sent": sorted([one.text async for one in sent]),
        "searched": sorted(r.document.text for r in searched.results),
    }


def everywhere(*shown: str) -> dict[str, list[str]]:
    return {call: sorted(shown) for call in (*ROWS, "retrieve")}


async def test_a_standby_serves_rows_only_if_it_has_caught_up(serve, pair):
    database = pair.create_database()
    variables = {
        **VARIABLES,
        "MEMORYD_DATABASE_URL": pair.primary.url(database),
        "MEMORYD_DATABASE_READ_URL": pair.standby.url(database),
    }
    here, there = await serve(**variables), await serve(**variables)
    await keep(here, "first")
    await asyncio.to_thread(pair.catch_up)
    # So that connections to the standby are there: to make one may take all the time it has.
    for running in (here, there):
        assert await contents(running) == everywhere("first")
    pair.standby.sql("SELECT pg_wal_replay_pause()")

    # A change that the service does not see shows which server returns the rows.
    pair.primary.sql("UPDATE memories SET content = 'FIRST'", database)
    pair.primary.sql("UPDATE documents SET body = 'FIRST'", database)
    pair.primary.sql(UPPER_CASE, database)
    assert await contents(here) == await contents(there) == everywhere("first")

    # Every caller of any server sees what any server has acknowledged.
    await keep(here, "second")
    shown = await contents(there)
    for call in ROWS:
        assert shown[call] == ["FIRST", "second"], call
    assert shown["retrieve"] == ["first", "second"]  # it already knew the first's revision
    await keep(there, "elsewhere", "user-456")
    assert await contents(here, "user-456") == everywhere("elsewhere")
    await here.memory.EraseSession(pb.EraseSessionRequest(session_id="user-456"))
    assert await contents(there, "user-456") == everywhere()

    await asyncio.to_thread(pair.catch_up)
    shown = await contents(there)
    assert all(shown[call] == ["FIRST", "second"] for call in ROWS)


@pytest.mark.parametrize("loss", ["stop", "freeze"])
async def test_without_its_standby_the_primary_serves_the_rows(serve, pair, loss, monkeypatch):
    monkeypatch.setattr("memoryd.sessions.replica.STANDBY_TIMEOUT_SECONDS", 0.2)
    database = pair.create_database()
    running = await serve(
        **VARIABLES,
        MEMORYD_DATABASE_URL=pair.primary.url(database),
        MEMORYD_DATABASE_READ_URL=pair.standby.url(database),
    )
    await keep(running, "first")
    await asyncio.to_thread(pair.catch_up)
    assert await contents(running) == everywhere("first")
    await asyncio.to_thread(getattr(pair.standby, loss))
    for _ in range(3):
        assert await contents(running) == everywhere("first")
    assert running.server.health.is_serving.is_set()
    await asyncio.to_thread({"stop": pair.standby.start, "freeze": pair.standby.thaw}[loss])


async def test_no_caller_sees_less_than_another_has_seen(serve, pair, fault_report):
    database = pair.create_database()
    url = pair.primary.url(database)
    variables = {
        **VARIABLES,
        "MEMORYD_DATABASE_URL": url,
        "MEMORYD_DATABASE_READ_URL": pair.standby.url(database),
        "MEMORYD_SESSION_CACHE_BYTES": "0",  # retrievals read all rows, each time
    }
    await asyncio.to_thread(pair.catch_up)
    servers = [await serve(**variables) for _ in range(2)]
    history = History()
    async with Load(history, [running.channel for running in servers] * 2) as load:
        for _ in range(SCALE.lags):
            pair.standby.sql("SELECT pg_wal_replay_pause()")
            await acknowledgements(history, 50)
            pair.standby.sql("SELECT pg_wal_replay_resume()")
            await acknowledgements(history, 50)
    faults = await load.faults(url)
    fault_report("lagging standby is read", SCALE.lags, history, faults)
    assert not faults
    assert not history.refusals_besides({"NOT_FOUND", "UNAVAILABLE"})
