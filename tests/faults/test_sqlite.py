"""An SQLite file that is full, read-only or locked, or has its migration killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy.engine import make_url

from memoryd.database.migrate import HEAD, REVISIONS, migrate
from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .harness import SESSIONS, ServerProcess, acknowledgements, is_whole, open_channel
from .history import History
from .load import Load, connected
from .scale import SCALE

BLOCK = 4096


def store_request(content: str) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id="user-0", content=content, never_expires=True)


def put_request(text: str) -> document_pb2.PutDocumentRequest:
    document = document_pb2.Document(session_id="user-0", key="plan", text=text)
    return document_pb2.PutDocumentRequest(document=document, search_texts=[text])


def append_request(text: str) -> conversation_pb2.AppendMessagesRequest:
    return conversation_pb2.AppendMessagesRequest(
        session_id="user-0",
        conversation_id="talk",
        messages=[conversation_pb2.Message(parts=[{"text": text}])],
    )


async def assert_message(channel: grpc.aio.Channel, text: str) -> None:
    """Fail unless the message of `append_request` is read."""
    listed = await ConversationServiceStub(channel).ListMessages(
        conversation_pb2.ListMessagesRequest(session_id="user-0", conversation_id="talk")
    )
    assert [message.parts[0].text for message in listed.messages] == [text]


async def assert_document(channel: grpc.aio.Channel, text: str) -> None:
    """Fail unless the document of `put_request` is read and found."""
    documents = DocumentServiceStub(channel)
    shown = await documents.GetDocument(
        document_pb2.GetDocumentRequest(session_id="user-0", key="plan")
    )
    assert shown.text == text
    found = await documents.SearchDocuments(
        document_pb2.SearchDocumentsRequest(session_id="user-0", query=text)
    )
    assert [each.document.text for each in found.results] == [text]


async def refused_with(call) -> tuple[str, str]:
    """The code and the message of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code().name, refused.value.details()


# A full disk


class Disk:
    """A folder on a small file system that can be full, with room for a log.

    If none can be mounted, a limit on the size of the server's files replaces it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount = shutil.which("mount")
        self._is_mounted = mount is not None and not subprocess.call(  # noqa: S603  our own command
            [mount, "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], stderr=subprocess.DEVNULL
        )
        self._ballast = folder / "ballast"

    def fill(self, server: ServerProcess) -> None:
        """Leave no room for further writes."""
        if self._is_mounted:
            with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(BLOCK))
        else:
            self._limit(server, 16 * BLOCK)

    def clear(self, server: ServerProcess) -> None:
        """Make room again."""
        if self._is_mounted:
            self._ballast.unlink()
        else:
            self._limit(server, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(server: ServerProcess, size: int) -> None:
        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)

    def close(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)  # noqa: S603, S607  ours


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder)
    yield disk
    disk.close()


async def test_a_full_disk_refuses_writes_until_there_is_room_and_breaks_nothing(
    command_line, disk, fault_report
):
    url = f"sqlite+aiosqlite:///{disk.folder}/memoryd.db"
    history = History()
    server = ServerProcess(command_line, url)
    await server.start()
    async with connected(server.address, SCALE.writers) as channels:
        async with Load(history, channels) as load:
            for _ in range(SCALE.full_disks):
                await acknowledgements(history, 100)
                disk.fill(server)
                await load.refusals(20)
                memory = MemoryServiceStub(channels[0])
                await memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSIONS[0]))
                await DocumentServiceStub(channels[0]).ListDocuments(
                    document_pb2.ListDocumentsRequest(session_id=SESSIONS[-1])
                )
                await ConversationServiceStub(channels[0]).ListConversations(
                    conversation_pb2.ListConversationsRequest(session_id=SESSIONS[-1])
                )
                assert is_whole(url)
                disk.clear(server)
            await acknowledgements(history, 100)
        faults = await load.faults(url)
    await server.stop()
    assert is_whole(url)
    fault_report("full disk, sqlite", SCALE.full_disks, history, faults)
    assert not faults
    assert not history.refusals_besides({"UNAVAILABLE", "NOT_FOUND"})
    assert "nothing can be written: " in server.process.log


# A read-only file


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def database_path(database_url: str) -> Path:
    return Path(make_url(database_url).database or "")


async def test_a_read_only_file_is_read_and_its_writes_are_refused(
    command_line, database_path, database_url
):
    server = ServerProcess(command_line, database_url)
    async with open_channel(await server.start()) as channel:
        stored = await MemoryServiceStub(channel).StoreMemory(store_request("prefers e-mail"))
        await DocumentServiceStub(channel).PutDocument(put_request("a letter"))
        await ConversationServiceStub(channel).AppendMessages(append_request("hello"))
    await server.stop()
    # For root no file is read-only, so SQLite opens it in read-only mode.
    only_read = f"sqlite+aiosqlite:///file:{database_path}?mode=ro&uri=true"
    server = ServerProcess(command_line, only_read)
    async with open_channel(await server.start()) as channel:
        memory = MemoryServiceStub(channel)
        listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-0"))
        assert [found.memory_id for found in listed.memories] == [stored.memory.memory_id]
        found = await memory.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id="user-0", query="mail")
        )
        assert [each.memory.memory_id for each in found.results] == [stored.memory.memory_id]
        await assert_document(channel, "a letter")
        await assert_message(channel, "hello")
        documents = DocumentServiceStub(channel)
        for call in (
            memory.StoreMemory(store_request("likes tea")),
            documents.PutDocument(put_request("an invoice")),
            ConversationServiceStub(channel).AppendMessages(append_request("goodbye")),
        ):
            code, _ = await refused_with(call)
            assert code == "UNAVAILABLE"
        health = HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
    await server.stop()
    assert "nothing can be written: " in server.process.log
    assert "attempt to write a readonly database" in server.process.log
    assert is_whole(database_url)


# A file that another process writes


async def test_the_service_waits_for_another_writer_and_survives_its_death(
    command_line, database_path, database_url
):
    server = ServerProcess(command_line, database_url, MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="0.5")
    script = (
        "import sqlite3, sys, time\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute(\"INSERT INTO revision_floors VALUES ('other', 1)\")\n"
        "print('writing', flush=True)\n"
        "time.sleep(600)\n"
    )
    async with open_channel(await server.start()) as channel:
        memory = MemoryServiceStub(channel)
        documents = DocumentServiceStub(channel)
        conversations = ConversationServiceStub(channel)
        await memory.StoreMemory(store_request("prefers e-mail"))
        await documents.PutDocument(put_request("a letter"))
        await conversations.AppendMessages(append_request("hello"))
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(database_path), stdout=asyncio.subprocess.PIPE
        )
        assert await other.stdout.readline() == b"writing\n"
        for call in (
            memory.StoreMemory(store_request("likes tea")),
            documents.PutDocument(put_request("an invoice")),
            conversations.AppendMessages(append_request("goodbye")),
        ):
            code, _ = await refused_with(call)
            assert code == "UNAVAILABLE"
        await assert_document(channel, "a letter")
        await assert_message(channel, "hello")
        listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-0"))
        assert [found.content for found in listed.memories] == ["prefers e-mail"]
        other.kill()
        await other.wait()
        stored = await memory.StoreMemory(store_request("likes tea"))
        assert stored.memory.revision == 4
        assert (await documents.PutDocument(put_request("an invoice"))).revision == 5
        appended = await conversations.AppendMessages(append_request("goodbye"))
        assert appended.conversation.revision == 6
        assert appended.conversation.message_count == 2
    await server.stop()
    assert "nothing can be written: " in server.process.log
    assert "database is locked" in server.process.log
    assert is_whole(database_url)
    with contextlib.closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("SELECT * FROM revision_floors").fetchall() == []


# A migration


def versions_and_count(file: Path) -> tuple[list[str], int]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        count = connection.execute("SELECT count(*) FROM memories").fetchone()[0]
    return [version for (version,) in versions], count


async def test_a_killed_migration_leaves_a_revision_and_can_be_repeated(
    command_line, tmp_path, fault_report
):
    file = tmp_path / "old.db"
    url = f"sqlite+aiosqlite:///{file}"
    await migrate(url, target=REVISIONS[0])
    begin = datetime(2025, 3, 1, tzinfo=UTC)
    rows = [
        (
            str(uuid.UUID(int=n)),
            f"user-{n % 50}",
            f"fact {n}",
            (begin + timedelta(seconds=n)).isoformat(),
        )
        for n in range(SCALE.migrated_rows)
    ]
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executemany(
            "INSERT INTO memories (id, session_id, content, content_type, importance, metadata,"
            " access_count, created_at, updated_at)"
            " VALUES (?1, ?2, ?3, 'fact', 0.5, '{}', 0, ?4, ?4)",
            rows,
        )
        connection.commit()
    moments = random.Random(4711)  # noqa: S311  no secret
    seen = set()
    for _ in range(SCALE.migration_kills):
        process = command_line.serve(MEMORYD_DATABASE_URL=url, MEMORYD_EMBEDDER="none")
        journals = [Path(f"{file}-wal"), Path(f"{file}-journal")]
        end = time.monotonic() + 60
        while not any(journal.exists() for journal in journals):
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
        await asyncio.sleep(moments.uniform(0, 0.3))
        await asyncio.to_thread(process.kill)
        assert is_whole(url)
        (version,), count = versions_and_count(file)
        seen.add(version)
        assert version in REVISIONS
        assert count == SCALE.migrated_rows
    server = ServerProcess(command_line, url)
    await server.start()
    await server.stop()
    assert versions_and_count(file) == ([HEAD], SCALE.migrated_rows)
    assert is_whole(url)
    fault_report(
        f"killed migration, sqlite, {len(seen)} seen", SCALE.migration_kills, History(), []
    )
