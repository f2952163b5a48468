"""`memoryd export` and `memoryd import`: a database, from one kind to the other and back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from memoryd.storage.database import Database
from memoryd.storage.tables import schema
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb


@pytest.fixture
def other_url(database_kind, request, tmp_path):
    """An empty database of the other kind."""
    if database_kind == "sqlite":
        template = request.getfixturevalue("migrated_postgres")
        return request.getfixturevalue("postgres_server").create_database(template)
    file = tmp_path / "other.db"
    file.write_bytes(request.getfixturevalue("migrated_sqlite").read_bytes())
    return f"sqlite+aiosqlite:///{file}"


def memoryd(command: str, file: Path, url: str, *options: str, succeeds: bool = True) -> str:
    done = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, "-m", "memoryd", command, str(file), "--database-url", url, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is succeeds, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


async def rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    database = Database(url)
    found = {}
    for table in schema.sorted_tables:
        key = list(table.primary_key)
        statement = select(table).order_by(*key)
        result = await database.read(lambda c, s=statement: c.execute(s).all())
        found[table.name] = [tuple(row) for row in result]
    await database.close()
    return found


@pytest.fixture
async def filled(running, memory, clock, database_url):
    """A database with something of everything in it; its server is still running."""
    for n in range(40):
        await memory.StoreMemory(
            pb.StoreMemoryRequest(
                session_id=f"user-{n % 3}",
                content=f"fact {n} – größer, 数, 🙂",
                importance=n / 40,
                metadata={"n": n, "deep": {"list": [1, 2.5, None, True]}},
                never_expires=n % 2 == 0,
                request_id=str(uuid.uuid4()),
            )
        )
        clock.move(timedelta(seconds=1.000001))
    listed = (await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-0"))).memories
    one, two, three = (m.memory_id for m in listed[:3])
    await memory.DeleteMemory(pb.DeleteMemoryRequest(session_id="user-0", memory_id=one))
    change = pb.Memory(session_id="user-0", memory_id=two, content="changed")
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=change))
    wanted = pb.MemoryFilter(metadata={"n": 6})
    await memory.PurgeMemories(
        pb.PurgeMemoriesRequest(session_id="user-0", filter=wanted, force=True)
    )
    await memory.EraseSession(pb.EraseSessionRequest(session_id="user-2"))
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="user-0", limit=100))
    await running.server.flush_accesses()
    for search_k in (6, 7):
        await running.tools.UpdateToolConfig(
            tool_pb.UpdateToolConfigRequest(
                tool_config=tool_pb.ToolConfig(tool="rag", rag={"search_k": search_k})
            )
        )
    assert three
    return database_url


async def test_there_and_back_without_loss(filled, other_url, tmp_path):
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl"
    memoryd("export", there, filled, "--deleted")
    memoryd("import", there, other_url)
    assert await rows(other_url) == await rows(filled)
    memoryd("export", back, other_url, "--deleted")
    assert back.read_text() == there.read_text()


async def test_a_copy_goes_on_where_the_first_was(filled, other_url, tmp_path, running, serve):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    memoryd("import", file, other_url)
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    request = pb.RetrieveMemoriesRequest(session_id="user-0", query="changed fact", peek=True)
    assert await copy.memory.RetrieveMemories(request) == await running.memory.RetrieveMemories(
        request
    )
    before = await running.memory.RetrieveMemories(request)
    stored = await copy.memory.StoreMemory(
        pb.StoreMemoryRequest(session_id="user-0", content="something new")
    )
    assert stored.memory.revision == before.revision + 1
    config = tool_pb.ToolConfig(tool="rag", rag={"search_k": 8})
    changed = await copy.tools.UpdateToolConfig(tool_pb.UpdateToolConfigRequest(tool_config=config))
    assert (changed.revision, changed.rag.search_k) == (3, 8)


async def test_revisions_of_tools_go_on_beyond_those_that_were_imported(
    filled, other_url, tmp_path, serve
):
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    request = tool_pb.UpdateToolConfigRequest(
        tool_config=tool_pb.ToolConfig(tool="crm", crm={"timeout": 3})
    )
    assert (await copy.tools.UpdateToolConfig(request)).revision == 1
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    # In a thread: the server of this process may hold the lock, and needs the loop to end.
    await asyncio.to_thread(memoryd, "import", file, other_url)
    request.tool_config.crm.timeout = 4
    assert (await copy.tools.UpdateToolConfig(request)).revision == 3


async def test_tombstones_come_along_only_where_asked(filled, other_url, tmp_path):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled)
    memoryd("import", file, other_url)
    copied = await rows(other_url)
    original = await rows(filled)
    deleted_at = [c.name for c in schema.tables["memories"].c].index("deleted_at")
    live = [row for row in original["memories"] if row[deleted_at] is None]
    assert len(live) < len(original["memories"])
    assert copied["memories"] == live


async def test_an_import_is_begun_again_after_it_was_cut_off(filled, other_url, tmp_path):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    memoryd("export", whole, filled, "--deleted")
    lines = whole.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]) + lines[20][:30])
    assert "line 21" in memoryd("import", part, other_url, succeeds=False)
    memoryd("import", whole, other_url)
    assert await rows(other_url) == await rows(filled)
    assert "imported 0 rows" in memoryd("import", whole, other_url)


async def test_what_stands_against_other_memories_is_told_and_left_out(filled, tmp_path):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line.get("table") == "memories":
            line["row"]["id"] = str(uuid.uuid4())  # other memories, with the same contents
    file.write_text("\n".join(json.dumps(line) for line in lines))
    before = await rows(filled)
    assert "stand against others" in memoryd("import", file, filled, succeeds=False)
    assert await rows(filled) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        '{"format": "something else"}',
        '{"format": "memoryd-export", "version": 1, "schema": "000_of_old"}',
    ],
)
async def test_another_file_is_refused_with_a_sentence(database_url, tmp_path, text):
    file = tmp_path / "other.txt"
    file.write_text(text)
    assert "line 1" in memoryd("import", file, database_url, succeeds=False)


async def test_an_existing_file_is_not_overwritten(database_url, tmp_path):
    file = tmp_path / "export.jsonl"
    file.write_text("precious")
    assert "exists" in memoryd("export", file, database_url, succeeds=False)
    assert file.read_text() == "precious"
