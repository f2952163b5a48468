"""Fill a database through the public API, for every test that moves data.

Every method is used, so that every table has rows and every column values of every sort.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
from sqlalchemy import func, select, update

from memoryd.database.dialect import columns_of
from memoryd.database.tables import (
    memory_vectors,
    revision_floors,
    sessions,
    store_requests,
    tool_config_revisions,
)
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.server import tool_configs_of
from memoryd.tools.configs import Change
from memoryd.tools.settings import load_configuration
from memoryd.tools.stored import INSTANCE
from memoryd.v1 import conversation_pb2 as conversation_pb
from memoryd.v1 import document_pb2 as document_pb
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2
from memoryd.v1 import tool_config_pb2 as tool_pb

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from tests.conftest import Clock, Running

TIMEOUT_SECONDS = 60


async def live(running: Running, clock: Clock, *, name: str = "user") -> None:
    """Use every feature on sessions whose names start with `name`.

    Searched (with vectors), repeated by `request_id`, updated, deleted, restored, expired, swept,
    watched, exported, purged, erased; documents put, replaced, deleted, read and listed;
    conversations held, rewritten, forked, summarised, popped, listed and promoted; tools
    overridden, validated, reset, rolled back, for all tenants and for one of them.
    """
    first_revision = await _remember(running, clock, name)
    await _change(running, clock, name)
    await _keep_documents(running, f"{name}-1")
    await _converse(running, f"{name}-1")
    await _search(running, f"{name}-0")
    await _follow(running, f"{name}-0", first_revision)
    await _configure(running)
    await _configure_tenants(running, clock)


async def _remember(running: Running, clock: Clock, name: str) -> int:
    """Return the first revision of the first session."""
    memory, first_revision = running.memory, 0
    for n in range(30):
        request = pb.StoreMemoryRequest(
            session_id=f"{name}-{n % 3}",
            content=f"fact {n} – größer, 数, 🙂",
            content_type=pb.CONTENT_TYPE_FACT if n % 5 else pb.CONTENT_TYPE_PREFERENCE,
            importance=n / 30,
            metadata={"n": n, "deep": {"list": [1, 2.5, None, True]}},
            never_expires=n % 2 == 0,
            request_id=str(uuid.uuid4()),
            key=f"facts/{n}" if n % 2 else "",
            tags=["größer", f"rest {n % 3}"] if n % 5 else [],
        )
        first = await memory.StoreMemory(request)
        first_revision = first_revision or first.memory.revision
        if n % 3 == 0:
            assert await memory.StoreMemory(request) == first  # as a client that retries
        clock.move(timedelta(seconds=1.000001))
    brief = [
        pb.StoreMemoryRequest(session_id=f"{name}-0", content=f"soon over {n}", ttl={"seconds": 60})
        for n in range(2)
    ]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=brief))
    return first_revision


async def _change(running: Running, clock: Clock, name: str) -> None:
    memory, session_id = running.memory, f"{name}-0"

    def named(kind: type, memory_id: str) -> object:
        return kind(session_id=session_id, memory_id=memory_id)

    listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id=session_id))
    deleted, restored, changed = (one.memory_id for one in listed.memories[:3])
    for memory_id in (deleted, restored):
        await memory.DeleteMemory(named(pb.DeleteMemoryRequest, memory_id))
    await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, restored))
    change = pb.Memory(session_id=session_id, memory_id=changed, content="changed")
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=change))
    assert (await memory.GetMemory(named(pb.GetMemoryRequest, changed))).content == "changed"
    await _set(running, name)
    versions = await memory.ListMemoryRevisions(named(pb.ListMemoryRevisionsRequest, restored))
    back = named(pb.RollbackMemoryRequest, restored)
    back.revision = versions.revisions[-1].revision
    await memory.RollbackMemory(back)
    replacing = pb.StoreMemoryRequest(
        session_id=session_id,
        content="in its place",
        key="facts/9",
        never_expires=True,
        request_id=str(uuid.uuid4()),
    )
    assert (await memory.StoreMemory(replacing)).replaced_memory_id
    wanted = pb.MemoryFilter(metadata={"n": 6})
    purge = pb.PurgeMemoriesRequest(session_id=session_id, filter=wanted, force=True)
    assert (await memory.PurgeMemories(purge)).purge_count == 1
    erased = await memory.EraseSession(pb.EraseSessionRequest(session_id=f"{name}-2"))
    assert erased.erased_memories == 10
    clock.move(timedelta(minutes=2))
    assert (await running.server.sweeper.run_once()).expired == 2


async def _set(running: Running, name: str) -> None:
    stub = running.sessions
    for settings in (
        session_pb2.Session(
            session_id=f"{name}-0",
            display_name="größer, 数, 🙂",
            labels={"team/x": "größer"},
            state={"deep": {"list": [1, 2.5, None, True]}},
            memory_limit=200,
            memory_ttl={"seconds": 90, "nanos": 1000},
        ),
        session_pb2.Session(session_id=f"{name}-1", memories_never_expire=True),
    ):
        request = session_pb2.UpdateSessionRequest(session=settings)
        named = session_pb2.GetSessionRequest(session_id=settings.session_id)
        assert await stub.UpdateSession(request) == await stub.GetSession(named)
    listing = session_pb2.ListSessionsRequest(session_id_prefix=f"{name}-")
    assert len((await stub.ListSessions(listing)).sessions) == 3


async def _keep_documents(running: Running, session_id: str) -> None:
    documents, namespace = running.documents, ["files", "größer"]
    first = document_pb.PutDocumentRequest(
        document=document_pb.Document(
            session_id=session_id,
            namespace=namespace,
            key="draft",
            json='{"n": 9007199254740993}',
            labels={"kind": "数"},
            ttl={"seconds": 86_400},
        ),
        search_texts=["what the draft is about"],
        request_id=str(uuid.uuid4()),
    )
    made = await documents.PutDocument(first)
    await documents.PutDocument(first)
    first.request_id = ""
    await documents.PutDocument(first)
    first.document.ClearField("ttl")
    first.document.key = "note"
    del first.search_texts[:]
    gone = document_pb.DeleteDocumentRequest(session_id=session_id, key="gone")
    writes = [
        document_pb.DocumentWrite(put=first),
        document_pb.DocumentWrite(put=first),
        document_pb.DocumentWrite(
            put=document_pb.PutDocumentRequest(document={"key": "gone", "data": b"gone"})
        ),
        document_pb.DocumentWrite(delete=gone),
    ]
    await documents.BatchWriteDocuments(
        document_pb.BatchWriteDocumentsRequest(session_id=session_id, writes=writes)
    )
    await documents.MoveDocuments(
        document_pb.MoveDocumentsRequest(
            session_id=session_id,
            to=document_pb.DocumentName(namespace=["moved"]),
            **{"from": document_pb.DocumentName(namespace=namespace)},
        )
    )
    namespace = ["moved"]
    names = {"session_id": session_id, "namespace": namespace, "key": "draft"}
    await documents.GetDocument(document_pb.GetDocumentRequest(**names, refresh_ttl=True))
    await documents.ListDocumentRevisions(document_pb.ListDocumentRevisionsRequest(**names))
    await documents.DeleteDocument(
        document_pb.DeleteDocumentRequest(session_id=session_id, key="none", allow_missing=True)
    )
    await documents.BatchGetDocuments(
        document_pb.BatchGetDocumentsRequest(session_id=session_id, names=[{"key": "none"}])
    )
    await documents.ListDocuments(document_pb.ListDocumentsRequest(session_id=session_id))
    await documents.ListNamespaces(document_pb.ListNamespacesRequest(session_id_prefix=session_id))
    for query in ("", "draft"):
        search = document_pb.SearchDocumentsRequest(session_id_prefix=session_id, query=query)
        assert len((await documents.SearchDocuments(search)).results) == 2
    counting = document_pb.DeleteDocumentsRequest(session_id=session_id)
    assert (await documents.DeleteDocuments(counting)).delete_count == 2
    export = document_pb.ExportDocumentsRequest(session_id=session_id)
    assert [one async for one in documents.ExportDocuments(export)]
    watch = document_pb.WatchDocumentsRequest(session_id=session_id, start_revision=made.revision)
    stream = documents.WatchDocuments(watch)
    assert await stream.read() is not grpc.aio.EOF
    stream.cancel()


async def _converse(running: Running, session_id: str) -> None:
    stub, names = running.conversations, {"session_id": session_id, "conversation_id": "talk"}
    await stub.CreateConversation(
        conversation_pb.CreateConversationRequest(
            conversation=conversation_pb.Conversation(
                **names,
                display_name="A täglicher talk",
                labels={"kind": "数"},
                ttl={"seconds": 900},
            )
        )
    )
    messages = [
        conversation_pb.Message(message_id="1", turn_id="t", parts=[{"text": "grüß dich"}]),
        conversation_pb.Message(message_id="2", raw_json='{"n": 9007199254740993}'),
        conversation_pb.Message(parts=[{"blob": {"mime_type": "a/b", "data": b"\0\xff"}}]),
    ]
    request = conversation_pb.AppendMessagesRequest(
        **names, messages=messages, state_patch={"a": 1}, request_id=str(uuid.uuid4())
    )
    assert await stub.AppendMessages(request) == await stub.AppendMessages(request)
    again = [conversation_pb.Message(message_id="2b", parts=[{"thinking": "hm"}])]
    await stub.RewriteMessages(
        conversation_pb.RewriteMessagesRequest(**names, after_message_id="1", messages=again)
    )
    await stub.ForkConversation(
        conversation_pb.ForkConversationRequest(**names, new_conversation_id="fork")
    )
    empty = conversation_pb.Conversation(session_id=session_id, conversation_id="empty")
    await stub.CreateConversation(conversation_pb.CreateConversationRequest(conversation=empty))
    await stub.SetSummary(
        conversation_pb.SetSummaryRequest(
            **names, summary={"text": "so far", "through_message_id": "1"}
        )
    )
    pop = conversation_pb.PopMessagesRequest(**names, request_id=str(uuid.uuid4()))
    assert await stub.PopMessages(pop) == await stub.PopMessages(pop)
    await stub.SetHead(conversation_pb.SetHeadRequest(**names, message_id="2"))
    await stub.UpdateConversation(
        conversation_pb.UpdateConversationRequest(
            conversation=conversation_pb.Conversation(
                session_id=session_id, conversation_id="fork", expire_time={"seconds": 2**33}
            )
        )
    )
    await stub.AppendMessages(
        conversation_pb.AppendMessagesRequest(
            session_id=session_id, conversation_id="gone", messages=again
        )
    )
    await stub.DeleteConversation(
        conversation_pb.DeleteConversationRequest(session_id=session_id, conversation_id="gone")
    )
    for scope in ({"session_id": session_id}, {"session_id_prefix": session_id}):
        listing = conversation_pb.ListConversationsRequest(**scope)
        assert len((await stub.ListConversations(listing)).conversations) == 3
    reading = conversation_pb.ListMessagesRequest(**names, last=1, with_summary=True)
    assert len((await stub.ListMessages(reading)).messages) == 1
    export = conversation_pb.ExportMessagesRequest(session_id=session_id)
    assert [one async for one in stub.ExportMessages(export)]
    promotion = conversation_pb.PromoteMessagesRequest(**names, since_last=True)
    promoted = await stub.PromoteMessages(promotion)
    assert [memory.content for memory in promoted.memories] == ["grüß dich"]
    named = conversation_pb.GetConversationRequest(**names)
    assert (await stub.GetConversation(named)).head_message_id == "2"


async def _search(running: Running, session_id: str) -> None:
    before = await _vectors(running)
    for query in ("changed fact", ""):
        answer = await running.memory.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id=session_id, query=query, limit=5)
        )
        assert len(answer.results) == 5
    await running.memory.FindSimilarMemories(
        pb.FindSimilarMemoriesRequest(session_id=session_id, content="fact")
    )
    await running.server.flush_accesses()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await _vectors(running) == before:  # noqa: ASYNC110  vectors are made in the background
            await asyncio.sleep(0.02)


async def _vectors(running: Running) -> int:
    statement = select(func.count()).select_from(memory_vectors)
    return await running.server.database.read(
        lambda c: c.execute(statement).scalar_one(), tenants=EVERY_TENANT
    )


async def _follow(running: Running, session_id: str, first_revision: int) -> None:
    whole = pb.ExportMemoriesRequest(session_id=session_id, show_deleted=True)
    assert [one async for one in running.memory.ExportMemories(whole)]
    for stream in (
        running.memory.WatchMemories(
            pb.WatchMemoriesRequest(session_id=session_id, start_revision=first_revision)
        ),
        running.tools.WatchToolConfigs(tool_pb.WatchToolConfigsRequest()),
    ):
        assert await stream.read() is not grpc.aio.EOF
        stream.cancel()


async def _configure(running: Running) -> None:
    tools = running.tools
    answers = []
    for search_k in (6, 7):
        config = tool_pb.ToolConfig(tool="rag", rag={"search_k": search_k})
        request = tool_pb.UpdateToolConfigRequest(tool_config=config, reason="größer, 数, 🙂")
        answers.append(await tools.UpdateToolConfig(request))
    await tools.ValidateToolConfig(tool_pb.ValidateToolConfigRequest(tool_config=config))
    rollback = tool_pb.RollbackToolConfigRequest(tool="rag", revision=answers[0].revision)
    assert (await tools.RollbackToolConfig(rollback)).rag.search_k == 6
    crm = tool_pb.ToolConfig(tool="crm", crm={"timeout": 3})
    await tools.UpdateToolConfig(tool_pb.UpdateToolConfigRequest(tool_config=crm))
    await tools.ResetToolConfig(tool_pb.ResetToolConfigRequest(tool="crm"))
    await tools.ListToolConfigRevisions(tool_pb.ListToolConfigRevisionsRequest(tool="rag"))
    await tools.GetToolConfig(tool_pb.GetToolConfigRequest(tool="rag"))
    await tools.ListTools(tool_pb.ListToolsRequest())


async def _configure_tenants(running: Running, clock: Clock) -> None:
    """As callers with credentials may, whom this server does not ask for any."""
    settings, base = load_configuration(environ={}, dotenv=None, flags={})
    tools = tool_configs_of(running.server.database, settings, base, clock=clock)
    for owner, chunk_size in (("acme", 600), (INSTANCE, 700), ("acme", 800), ("globex", 900)):
        change = Change(owner, "someone", "größer, 数, 🙂")
        async with tools.holding(owner, None):
            await tools.update("rag", {"chunk_size": chunk_size}, change, validate_only=False)
    await tools.update(
        "rag", {"search_k": 8}, Change(INSTANCE, "someone", "fewer"), validate_only=False
    )
    async with tools.holding("acme", None):
        await tools.rollback("rag", 2, Change("acme", "someone", "as before"))
    # As an earlier release writes it.
    earliest = tool_config_revisions.c.revision == 1
    statement = update(tool_config_revisions).where(earliest).values(instance_overrides=None)
    floor = columns_of([{"tenant": "acme", "revision": 7}])  # what an erasure by one leaves
    session = {"tenant": "acme", "session_id": "earlier"}
    earlier = columns_of([{**session, "revision": 7}])
    answered = {
        **session,
        "request_id": str(uuid.UUID(int=0)),
        "memory_id": str(uuid.UUID(int=1)),
        "fingerprint": "0" * 64,
        "answer": {"revision": 7},
        "created_at": clock.now,
    }

    def write(connection: Connection) -> None:
        connection.execute(statement)
        running.server.database.dialect.insert_many(
            connection, revision_floors, floor, ignore_existing=True
        )
        running.server.database.dialect.insert_many(
            connection, sessions, earlier, ignore_existing=True
        )
        running.server.database.dialect.insert_many(
            connection, store_requests, columns_of([answered]), ignore_existing=True
        )

    await running.server.database.write(write, tenants=EVERY_TENANT)
