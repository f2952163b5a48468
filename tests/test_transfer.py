"""`memoryd export` and `memoryd import` move a database from one kind to the other and back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import JSON, select
from tests.patience import PATIENT_DATABASE
from tests.rpc.test_conversation_branches import fork, pop, rewrite
from tests.rpc.test_conversations import append, listed, said
from tests.rpc.test_conversations import get as conversation
from tests.rpc.test_documents import delete, get, put

from memoryd.database.engine import Database
from memoryd.database.migrate import HEAD
from memoryd.database.tables import DERIVED, UNMOVED, schema
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.database.transfer import FORMAT, VERSION
from memoryd.v1 import conversation_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb

from .life import live

OF_SESSIONS_AND_TOOLS = {n for n, table in schema.tables.items() if not table.info.get(UNMOVED)}
MOVED = {n for n in OF_SESSIONS_AND_TOOLS if not schema.tables[n].info.get(DERIVED)}
"""The tables in an export."""


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
    database = Database(url, PATIENT_DATABASE)
    found = {}
    for table in schema.sorted_tables:
        key = list(table.primary_key)
        statement = select(table).order_by(*key)
        result = await database.read(
            lambda c, s=statement: c.execute(s).all(), tenants=EVERY_TENANT
        )
        found[table.name] = [tuple(row) for row in result]
    await database.close()
    return found


OF_LARGE_SESSIONS = {"eviction_level", "eviction_rank", "ranked_revision", "ranked_half_life"}
"""Columns that are set where a session may have more than 1,000 memories."""


def moved(found: dict[str, list[tuple[object, ...]]]) -> dict[str, list[tuple[object, ...]]]:
    """The exported part of every row."""
    return {name: found[name] for name in MOVED}


@pytest.fixture
async def filled(running, clock, database_url):
    """A database with every sort of data; its server is still running."""
    await live(running, clock)
    return database_url


async def test_a_life_leaves_every_sort_of_value_in_every_table(filled):
    """Otherwise the tests of moving data would miss a new table or column."""
    found = await rows(filled)
    for name in OF_SESSIONS_AND_TOOLS:
        table = schema.tables[name]
        assert found[name], name
        for place, column in enumerate(table.c):
            values = [row[place] for row in found[name]]
            if column.name in OF_LARGE_SESSIONS:
                continue
            assert any(value is not None for value in values), column
            if column.nullable:
                assert any(value is None for value in values), column
            if isinstance(column.type, JSON):
                assert any(value for value in values), column


async def test_there_and_back_without_loss(filled, other_url, tmp_path):
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl"
    memoryd("export", there, filled, "--deleted")
    memoryd("import", there, other_url)
    assert moved(await rows(other_url)) == moved(await rows(filled))
    assert (await rows(other_url))["memory_tags"] == (await rows(filled))["memory_tags"]
    memoryd("export", back, other_url, "--deleted")
    assert back.read_text() == there.read_text()


async def test_an_export_of_an_earlier_schema_is_read(filled, other_url, tmp_path):
    """Its memories have neither key nor tags."""
    file = tmp_path / "earlier.jsonl"
    memoryd("export", file, filled, "--deleted")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["schema"] = "012_add_row_security_since_006"
    expected = []
    for line in lines[1:]:
        if line["table"] == "memories":
            expected.append((line["row"]["id"], line["row"]["content"]))
            del line["row"]["key"], line["row"]["tags"]
    file.write_text("\n".join(map(json.dumps, lines)))
    memoryd("import", file, other_url)
    found = await rows(other_url)
    names = [c.name for c in schema.tables["memories"].c]
    copied = [dict(zip(names, row, strict=True)) for row in found["memories"]]
    assert sorted((row["id"], row["content"]) for row in copied) == sorted(expected)
    assert {(row["key"], *row["tags"]) for row in copied} == {(None,)}
    assert found["memory_tags"] == []


async def test_a_copy_continues_after_the_original(filled, other_url, tmp_path, running, serve):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    memoryd("import", file, other_url)
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    request = pb.RetrieveMemoriesRequest(session_id="user-0", query="changed fact", peek=True)
    before = await running.memory.RetrieveMemories(request)
    async with asyncio.timeout(60):  # the first call makes the missing vectors
        while await copy.memory.RetrieveMemories(request) != before:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)
    stored = await copy.memory.StoreMemory(
        pb.StoreMemoryRequest(session_id="user-0", content="something new")
    )
    assert stored.memory.revision == before.revision + 1
    config = tool_pb.ToolConfig(tool="rag", rag={"search_k": 9})
    changed = await copy.tools.UpdateToolConfig(tool_pb.UpdateToolConfigRequest(tool_config=config))
    assert (changed.revision, changed.rag.search_k) == (8, 9)


async def test_revisions_of_tools_continue_after_the_imported_ones(
    filled, other_url, tmp_path, serve
):
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    request = tool_pb.UpdateToolConfigRequest(
        tool_config=tool_pb.ToolConfig(tool="crm", crm={"timeout": 3})
    )
    assert (await copy.tools.UpdateToolConfig(request)).revision == 1
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    # In a thread: the server in this process may need the loop to release the lock.
    await asyncio.to_thread(memoryd, "import", file, other_url)
    request.tool_config.crm.timeout = 4
    assert (await copy.tools.UpdateToolConfig(request)).revision == 8


async def test_tombstones_are_moved_only_on_request(filled, other_url, tmp_path):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled)
    memoryd("import", file, other_url)
    copied = await rows(other_url)
    original = await rows(filled)
    deleted_at = [c.name for c in schema.tables["memories"].c].index("deleted_at")
    live = [row for row in original["memories"] if row[deleted_at] is None]
    assert len(live) < len(original["memories"])
    assert copied["memories"] == live


async def test_a_copy_without_what_was_deleted_answers_a_retry_as_the_first_time(
    running, database_url, other_url, tmp_path, serve
):
    requests = [
        pb.StoreMemoryRequest(session_id="user-0", content=text, request_id=str(uuid.uuid4()))
        for text in ("kept", "deleted", "purged")
    ]
    first = [await running.memory.StoreMemory(request) for request in requests]
    purge = pb.PurgeMemoriesRequest(session_id="user-0", force=True)
    for answer in first[1:]:
        named = {"session_id": "user-0", "memory_id": answer.memory.memory_id}
        if answer is first[2]:
            change = pb.Memory(**named, importance=1.0)
            await running.memory.UpdateMemory(pb.UpdateMemoryRequest(memory=change))
            purge.filter.min_importance = 0.9
            assert (await running.memory.PurgeMemories(purge)).purge_count == 1
        else:
            await running.memory.DeleteMemory(pb.DeleteMemoryRequest(**named))
    file = tmp_path / "export.jsonl"
    memoryd("export", file, database_url)
    memoryd("import", file, other_url)
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    assert [await copy.memory.StoreMemory(request) for request in requests] == first


async def test_an_interrupted_import_can_be_repeated(filled, other_url, tmp_path):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    memoryd("export", whole, filled, "--deleted")
    lines = whole.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]) + lines[20][:30])
    assert "line 21" in memoryd("import", part, other_url, succeeds=False)
    memoryd("import", whole, other_url)
    assert moved(await rows(other_url)) == moved(await rows(filled))
    assert "imported 0 rows" in memoryd("import", whole, other_url)


ADDED_SINCE = {
    "sessions": (
        *("memory_count", "counted_revision", "document_count", "document_horizon"),
        *("conversation_count", "conversation_horizon"),
        *("created_at", "updated_at", "display_name", "labels", "state", "memory_limit"),
        *("memory_ttl", "memories_never_expire", "settings_revision"),
        *("ranked_revision", "ranked_half_life"),
    ),
    "memories": ("eviction_level", "eviction_rank", "key", "tags"),
}
"""Columns that the schema of the earlier release below does not have."""

LATER_TABLES = {
    name
    for name in MOVED
    if name.startswith(("document", "conversation")) or name in ("messages", "store_receipts")
}
"""Tables that it does not have."""


async def test_an_export_of_an_earlier_release_is_read(filled, other_url, tmp_path, serve):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    head, *lines = [json.loads(line) for line in file.read_text().splitlines()]
    head["schema"] = "012_add_row_security_since_006"
    lines = [line for line in lines if line["table"] not in LATER_TABLES]
    for line in lines:
        for name in ADDED_SINCE.get(line["table"], ()):
            del line["row"][name]
    file.write_text("\n".join(json.dumps(line) for line in [head, *lines]))
    memoryd("import", file, other_url)
    found, original = await rows(other_url), await rows(filled)
    for name in found:
        if name in LATER_TABLES:
            assert not found[name]
        elif name in MOVED and name not in ADDED_SINCE:
            assert found[name] == original[name]
    assert len(found["memories"]) == len(original["memories"])
    assert [row[:5] for row in found["sessions"]] == [row[:5] for row in original["sessions"]]
    running = await serve(MEMORYD_DATABASE_URL=other_url, MEMORYD_RLS="off")
    named = session_pb2.GetSessionRequest(session_id="user-0")
    listing = pb.ListMemoriesRequest(session_id="user-0", page_size=1000)
    live_ones = (await running.memory.ListMemories(listing)).memories
    assert (await running.sessions.GetSession(named)).memory_count == len(live_ones) > 0


async def test_vectors_stay_behind(filled, tmp_path):
    file = tmp_path / "export.jsonl"
    exported = memoryd("export", file, filled, "--deleted")
    found = await rows(filled)
    assert found["memory_vectors"]
    assert f"exported {sum(map(len, moved(found).values())):,} rows" in exported
    assert {json.loads(line).get("table") for line in file.read_text().splitlines()[1:]} == MOVED


async def test_a_backup_has_every_row(database_kind, filled, tmp_path, postgres_server):
    if database_kind == "sqlite":
        memoryd("backup", tmp_path / "copy.db", filled)
        copy = f"sqlite+aiosqlite:///{tmp_path / 'copy.db'}"
    else:
        copy = postgres_server.restore(postgres_server.dump(filled))
    assert await rows(copy) == await rows(filled)


async def test_an_editor_may_have_marked_the_file_and_left_blank_lines(filled, other_url, tmp_path):
    file = tmp_path / "export.jsonl"
    memoryd("export", file, filled, "--deleted")
    text = file.read_text().replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n  \r\n\n")
    memoryd("import", file, other_url)
    assert moved(await rows(other_url)) == moved(await rows(filled))


SESSION = dict.fromkeys(schema.tables["sessions"].c.keys()) | {
    "tenant": "default",
    "session_id": "user-0",
    "revision": 1,
    "horizon": 0,
    "access_revision": 0,
    "document_count": 0,
}
REQUEST = {
    "tenant": "default",
    "session_id": "nowhere",
    "request_id": "r",
    "memory_id": "m",
    "fingerprint": "f",
    "answer": {},
    "created_at": "2026-03-01T12:00:00+00:00",
}


def written(file: Path, entry: object) -> Path:
    """An export with this as its second line."""
    head = json.dumps({"format": FORMAT, "version": VERSION, "schema": HEAD})
    line = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    file.write_bytes(head.encode() + b"\n" + line)
    return file


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"\xff\xfe", "no JSON object in UTF-8"),
        (b"[" * 100_000, "no JSON object in UTF-8"),
        ({"table": ["sessions"], "row": SESSION}, "no row of a table"),
        ({"table": "memory_vectors", "row": {}}, "no row of a table"),
        ({"table": "sessions", "row": {**SESSION, "revision": None}}, "sessions.revision"),
        ({"table": "sessions", "row": {**SESSION, "revision": True}}, "sessions.revision"),
        ({"table": "sessions", "row": {**SESSION, "revision": 2**63}}, "sessions.revision"),
        ({"table": "sessions", "row": {**SESSION, "tenant": "t" * 65}}, "sessions.tenant"),
        ({"table": "sessions", "row": {**SESSION, "extra": 1}}, "sessions.extra"),
        ({"table": "sessions", "row": {"tenant": "default"}}, "sessions.access_revision"),
        (
            {"table": "store_requests", "row": {**REQUEST, "created_at": "noon"}},
            "store_requests.created_at",
        ),
        (
            {"table": "store_requests", "row": {**REQUEST, "created_at": "2026-03-01T12:00:00"}},
            "store_requests.created_at",
        ),
    ],
)
async def test_a_corrupt_line_is_named(database_url, tmp_path, entry, words):
    file = written(tmp_path / "export.jsonl", entry)
    message = memoryd("import", file, database_url, succeeds=False)
    assert "line 2: " in message
    assert words in message


async def test_rows_that_the_database_refuses_are_named(database_url, tmp_path):
    file = written(tmp_path / "export.jsonl", {"table": "store_requests", "row": REQUEST})
    message = memoryd("import", file, database_url, succeeds=False)
    assert "lines up to 2: the database refuses these rows of store_requests" in message


async def test_rows_that_conflict_with_other_memories_are_reported_and_skipped(filled, tmp_path):
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


async def test_documents_come_along_to_the_byte(running, database_url, other_url, tmp_path, serve):
    made = [
        await running.documents.PutDocument(put(f"k{n}", ["n"], **body))
        for n, body in enumerate(
            (
                {"json": '{"n": 9007199254740993}', "labels": {"a": "b"}},
                {"text": "ü", "search_texts": ["found by this"]},
                {"data": bytes(range(256)) * 4096, "ttl": Duration(seconds=60)},
            )
        )
    ]
    made.append(await running.documents.PutDocument(put("k0", ["n"], data=b"second version")))
    await running.documents.DeleteDocument(delete("k1", ["n"]))
    file = tmp_path / "export.jsonl"
    memoryd("export", file, database_url)
    memoryd("import", file, other_url)
    before, after = await rows(database_url), await rows(other_url)
    for name in ("documents", "document_history", "document_requests", "sessions"):
        assert before[name] == after[name], name
    assert len(after["document_history"]) == 2
    copy = await serve(MEMORYD_DATABASE_URL=other_url)
    for document in (made[3], made[2]):
        request = get(document.key, ["n"])
        assert await copy.documents.GetDocument(request) == document


async def test_conversations_come_along_to_the_byte(
    running, database_url, other_url, tmp_path, serve
):
    here = running.conversations
    messages = [
        said("ü", "1", token_count=3),
        conversation_pb2.Message(message_id="2", raw_json='{"n": 9007199254740993}'),
        conversation_pb2.Message(parts=[{"blob": {"data": bytes(range(256)) * 4000}}]),
    ]
    await here.AppendMessages(append(*messages, request_id=str(uuid.uuid4())))
    await here.RewriteMessages(rewrite("1", said("x", "2b")))
    await here.ForkConversation(fork("1"))
    await here.PopMessages(pop(request_id=str(uuid.uuid4())))
    file = tmp_path / "export.jsonl"
    memoryd("export", file, database_url)
    memoryd("import", file, other_url)
    before, after = await rows(database_url), await rows(other_url)
    for name in (*LATER_TABLES, "sessions"):
        assert before[name] == after[name], name
    there = (await serve(MEMORYD_DATABASE_URL=other_url)).conversations
    assert await there.GetConversation(conversation()) == await here.GetConversation(conversation())
    for request in (listed(), listed(branch_head="2"), listed(conversation_id="f")):
        assert await there.ListMessages(request) == await here.ListMessages(request)
    await there.AppendMessages(append(said("goes on", "3")))


async def test_a_row_without_a_column_of_its_schema_is_refused(
    running, database_url, other_url, tmp_path
):
    await running.memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content="a fact"))
    file = tmp_path / "export.jsonl"
    memoryd("export", file, database_url)
    head, *lines = map(json.loads, file.read_text().splitlines())
    for line in lines:
        line["row"].pop("document_horizon", None)
    file.write_text("\n".join(map(json.dumps, [head, *lines])))
    assert "document_horizon" in memoryd("import", file, other_url, succeeds=False)


async def test_credentials_stay_behind(running, database_url, other_url, tmp_path, command_line):
    options = ("--tenant", "acme", "--name", "secret bot", "--scope", "agent")
    url = {"MEMORYD_DATABASE_URL": database_url}
    made = await asyncio.to_thread(command_line.run, "keys", "create", *options, **url)
    assert made.stdout.startswith("mdk_")
    await running.memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content="a fact"))
    file = tmp_path / "export.jsonl"
    memoryd("export", file, database_url, "--deleted")
    assert "secret bot" not in file.read_text()
    memoryd("import", file, other_url)
    found = await rows(other_url)
    assert found["memories"]
    assert not any(found[name] for name in schema.tables if schema.tables[name].info.get(UNMOVED))
