"""Erasures in an SQLite file when its server is killed or stopped before the file is clean."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from sqlalchemy.engine import make_url

from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import find_faults
from .harness import ServerProcess, acknowledgements, is_whole, open_channel, until
from .history import History
from .load import Load, connected
from .scale import SCALE

FILLED = (
    *("memories", "documents", "document_history"),
    *("conversations", "messages", "conversation_requests"),
)

LOOK = """
import re, sys
print(sum(len(re.findall(b"ERAS|SEME|CANA|NARY", open(f, "rb").read())) for f in sys.argv[1:]))
"""


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def file(database_url: str) -> Path:
    return Path(make_url(database_url).database or "")


def pieces_in(file: Path) -> int:
    """The number of pieces of planted and stored content in the files."""
    files = map(str, file.parent.glob(f"{file.name}*"))
    return int(subprocess.check_output([sys.executable, "-c", LOOK, *files]))  # noqa: S603  our own command


def is_owed(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0] % 2)


def plant(file: Path) -> None:
    """Leave contents in free pages, as programs do that do not overwrite deleted rows."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE others (content TEXT)")
        rows = [("@ERASEME@CANARY@" * 200,) for _ in range(500)]
        connection.executemany("INSERT INTO others VALUES (?)", rows)
        connection.execute("DROP TABLE others")


def put_request(number: int, content: str) -> document_pb2.PutDocumentRequest:
    document = document_pb2.Document(
        namespace=["@ERASEME@"],
        key=f"@CANARY@{number}",
        labels={"content": "@CANARY@"},
        data=content.encode() * 10,
    )
    return document_pb2.PutDocumentRequest(document=document, search_texts=[content])


async def fill(channel: grpc.aio.Channel, session_id: str) -> None:
    dice = random.Random(session_id)  # noqa: S311  repeatable
    contents = [f"{n} " + "@ERASEME@CANARY@" * dice.randrange(1, 60) for n in range(60)]
    requests = [pb.StoreMemoryRequest(session_id=session_id, content=each) for each in contents]
    memory, documents = MemoryServiceStub(channel), DocumentServiceStub(channel)
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    for _ in range(2):  # so that there are earlier versions, too
        puts = [put_request(n, content) for n, content in enumerate(contents)]
        writes = [document_pb2.DocumentWrite(put=put) for put in puts]
        await documents.BatchWriteDocuments(
            document_pb2.BatchWriteDocumentsRequest(session_id=session_id, writes=writes)
        )
    await converse(ConversationServiceStub(channel), session_id, contents)


async def converse(
    conversations: ConversationServiceStub, session_id: str, contents: Sequence[str]
) -> None:
    """With another branch, and with the answer of a pop that is kept for a retry."""
    named = {"session_id": session_id, "conversation_id": "CANARY"}
    said = [
        conversation_pb2.Message(author="@CANARY@", parts=[{"text": content}])
        for content in contents
    ]
    await conversations.AppendMessages(
        conversation_pb2.AppendMessagesRequest(
            **named, messages=said, state_patch={"last": "@ERASEME@"}, request_id=str(uuid.uuid4())
        )
    )
    await conversations.RewriteMessages(
        conversation_pb2.RewriteMessagesRequest(**named, messages=said[:3])
    )
    await conversations.PopMessages(
        conversation_pb2.PopMessagesRequest(**named, count=2, request_id=str(uuid.uuid4()))
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_the_next_server_finishes_what_one_left_undone(command_line, database_url, file, end):
    plant(file)
    server = ServerProcess(command_line, database_url, MEMORYD_DATABASE_TIMEOUT_SECONDS="60")
    async with open_channel(await server.start()) as channel:
        memory = MemoryServiceStub(channel)
        await fill(channel, "user-123")
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            for table in FILLED:
                assert reader.execute(f"SELECT count(*) FROM {table}").fetchone() > (0,)  # noqa: S608  constant names
            request = pb.EraseSessionRequest(session_id="user-123")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await memory.EraseSession(request, timeout=1)
            assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED, server.process.log
            assert is_owed(file)
            if end == signal.SIGKILL:
                await server.kill()
            else:
                await server.stop()
        assert pieces_in(file)
    async with open_channel(await server.start()) as channel:
        await until(lambda: not is_owed(file))
        assert pieces_in(file) == 0
        listing = pb.ListMemoriesRequest(session_id="user-123")
        assert not (await MemoryServiceStub(channel).ListMemories(listing)).memories
        shown = document_pb2.ListDocumentsRequest(session_id="user-123")
        assert not (await DocumentServiceStub(channel).ListDocuments(shown)).documents
        held = conversation_pb2.ListConversationsRequest(session_id="user-123")
        listed = await ConversationServiceStub(channel).ListConversations(held)
        assert not listed.conversations
    await server.stop()
    assert is_whole(database_url)


async def test_callers_lose_nothing_while_sessions_are_erased(
    command_line, database_url, file, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    await server.start()
    async with connected(server.address, SCALE.writers) as channels:
        async with Load(history, channels) as load:
            memory = MemoryServiceStub(channels[0])
            await acknowledgements(history, 100)
            for n in range(SCALE.erasures):
                await fill(channels[0], f"erased-{n}")
                assert pieces_in(file)
                await asyncio.wait_for(
                    memory.EraseSession(pb.EraseSessionRequest(session_id=f"erased-{n}")), 60
                )
                assert pieces_in(file) == 0
                await acknowledgements(history, 50)
                assert pieces_in(file) == 0
        stored = await load.stored(database_url)
    faults = find_faults(history, stored)
    await server.stop()
    assert is_whole(database_url)
    fault_report("erasures, sqlite", SCALE.erasures, history, faults)
    assert not faults
    assert not history.refusals_besides({"UNAVAILABLE", "NOT_FOUND"})
