from __future__ import annotations

import asyncio
import io
import itertools
import os
import subprocess
import sys
import tomllib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine

from memoryd import progress as progress_module
from memoryd.database.migrate import (
    HEAD,
    REVISIONS,
    SchemaState,
    alembic_config,
    migrate,
    schema_state,
)
from memoryd.domain.content import hashes_of
from memoryd.domain.errors import SchemaMismatch
from memoryd.migrations import legacy
from memoryd.progress import progress
from memoryd.v1 import session_pb2

if TYPE_CHECKING:
    from conftest import Database

ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = REVISIONS[:3]
LOCKED = "another migration is under way; waiting for its end"
ADVISORY_LOCK = int.from_bytes(b"memoryd", "big")
NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
TIMES = ("created_at", "updated_at", "last_accessed", "expires_at", "deleted_at")
CONTENTS = (
    "prefers e-mail",
    "  leading and trailing white space\t\n",
    "Punctuation, then spaces!  ",
    "Punctuation at the end?!...",
    "Straße İstanbul ΣΑΣ",
    "cafe\u0301 and café",
    "no\u00a0break\u2003em\u3000ideographic",
    "日本語のメモ。",
    "👩‍👩‍👧 family",
    "...",
)


def memory(content: str, **values: Any) -> dict[str, Any]:
    """A row of an earlier system, by default of the session `user-1`."""
    return {
        "id": str(uuid.uuid4()),
        "session_id": "user-1",
        "content": content,
        "created_at": NOON,
        "updated_at": NOON,
    } | values


def hashed(content: str, **values: Any) -> dict[str, Any]:
    """A row of the second schema."""
    hashes = hashes_of(content)
    return (
        memory(content, content_hash=hashes.content_hash, semantic_hash=hashes.semantic_hash)
        | values
    )


async def alembic_upgrade(url: str) -> subprocess.CompletedProcess[str]:
    """Upgrade by Alembic's own command line, in a process of its own."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=os.environ | {"MEMORYD_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_head_and_revisions_match_the_tree() -> None:
    tree = ScriptDirectory.from_config(alembic_config("sqlite+aiosqlite:///unused.db"))
    assert tree.get_heads() == [HEAD]
    assert tuple(script.revision for script in tree.walk_revisions())[::-1] == REVISIONS


@pytest.mark.parametrize(
    ("versions", "state"),
    [
        ((), SchemaState.BEHIND),
        ((FIRST,), SchemaState.BEHIND),
        (("002",), SchemaState.BEHIND),
        ((HEAD,), SchemaState.CURRENT),
        (("999_of_a_later_release",), SchemaState.AHEAD),
        (("999_of_a_later_release_since_003",), SchemaState.CURRENT),
        (("999_of_a_later_release_since_998",), SchemaState.AHEAD),
    ],
)
def test_schema_state(versions: tuple[str, ...], state: SchemaState) -> None:
    assert schema_state(versions) is state


def test_every_package_is_named_in_the_build() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(file.relative_to(ROOT / "service").parent.parts)
        for file in (ROOT / "service").rglob("*.py")
    }
    parents = {name.partition(".")[0] for name in folders}
    migrations = {"memoryd.migrations", "memoryd.migrations.versions"}
    assert set(build["packages"]) == folders | parents | migrations
    # A name of another package's would be taken from it.
    assert parents == {"memoryd"}


async def test_models_and_migrations_do_not_differ(database: Database) -> None:
    await database.upgrade()
    await asyncio.to_thread(command.check, alembic_config(database.url))
    await database.downgrade(FIRST)
    await database.upgrade()
    await asyncio.to_thread(command.check, alembic_config(database.url))


async def test_every_step_upgrades_and_downgrades_with_rows(database: Database) -> None:
    await database.upgrade(FIRST)
    await database.insert(
        [
            memory(
                content,
                session_id=f"user-{number % 3}",
                content_type="fact",
                metadata={"number": number, "nested": {"ü": [1, None]}},
                importance=number / 10,
                access_count=number,
                last_accessed=NOON + timedelta(days=number),
                created_at=NOON + timedelta(microseconds=number),
            )
            for number, content in enumerate(CONTENTS)
        ]
    )
    first = await database.rows()
    schemas = {FIRST: await database.schema()}
    for lower, upper in itertools.pairwise(REVISIONS):
        await database.upgrade(upper)
        schemas[upper] = await database.schema()
        there = await database.rows()
        assert [{name: row[name] for name in first[0]} for row in there] == first
        await database.downgrade(lower)
        assert await database.schema() == schemas[lower]
        await database.upgrade(upper)
        assert await database.schema() == schemas[upper]
        assert await database.rows() == there
    await database.downgrade("base")
    assert await database.rows("alembic_version") == []
    await database.upgrade()
    assert await database.schema() == schemas[HEAD]


MANY_ROWS = 100_000
MOMENT = "2026-03-01 12:00:00.000000"

MANY_SESSIONS = """
INSERT INTO sessions (tenant, session_id, revision)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})
SELECT 'default', 'user-' || n, 100 FROM numbers
"""
MANY_MEMORIES = """
INSERT INTO memories (tenant, session_id, id, content, created_at, updated_at, content_hash,
    semantic_hash, revision, created_revision)
WITH RECURSIVE numbers (n) AS (
    SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}
)
SELECT 'default', 'user-' || (n / 100), 'memory-' || n, 'fact ' || n, {moment}, {moment},
    'hash ' || n, '0', n % 100 + 1, n % 100 + 1
FROM numbers
"""
"""As a server of an earlier release stores them."""

SUMS = """
SELECT count(*), count(DISTINCT content), count(DISTINCT content_hash), sum(revision)
FROM memories
"""


TAGGED = (
    "UPDATE memories SET key = 'a/key', tags = '[\"a\"]' WHERE id = 'memory-100000'",
    """
    INSERT INTO memory_tags (tenant, session_id, tag, id)
    SELECT tenant, session_id, 'a', id FROM memories WHERE id = 'memory-100000'
    """,
    # As a server of an earlier release changes it.
    "UPDATE memories SET content = 'later', revision = 102 WHERE id = 'memory-100000'",
)
LATER = "SELECT content, key, CAST(tags AS TEXT) FROM memories WHERE id = 'memory-100000'"


async def test_keys_and_tags_come_to_a_database_with_many_rows(database: Database) -> None:
    """Servers of the release before serve on: they name none of what is new."""

    async def one(statement: str) -> Any:
        text = sa.text(statement)
        return await database.run(lambda connection: tuple(connection.execute(text).one()))

    before, after = "012_add_row_security_since_006", "013_add_keys_and_tags_since_006"
    moment = f"'{MOMENT}'" if database.is_sqlite else f"CAST('{MOMENT}' AS TIMESTAMPTZ)"
    await database.upgrade(before)
    last = MANY_ROWS - 1
    await database.execute(MANY_SESSIONS.format(last=MANY_ROWS // 100))
    await database.execute(MANY_MEMORIES.format(first=0, last=last, moment=moment))
    sums = await one(SUMS)
    assert sums[0] == MANY_ROWS
    await database.upgrade(after)
    assert await one(SUMS) == sums
    without = "SELECT count(*) FROM memories WHERE key IS NULL AND CAST(tags AS TEXT) = '[]'"
    assert await one(without) == (MANY_ROWS,)
    await database.execute(MANY_MEMORIES.format(first=MANY_ROWS, last=MANY_ROWS, moment=moment))
    assert await one(without) == (MANY_ROWS + 1,)
    for statement in TAGGED:
        await database.execute(statement)
    assert await one(LATER) == ("later", "a/key", '["a"]')
    await database.execute("DELETE FROM memories WHERE id = 'memory-100000'")
    if not database.is_sqlite:  # whose engine here does not keep references
        assert await one("SELECT count(*) FROM memory_tags") == (0,)
    await database.downgrade(before)
    assert await one(SUMS) == sums


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("is_on", [False, True])
async def test_tags_are_kept_to_their_tenants_as_memories_are(
    database: Database, *, is_on: bool
) -> None:
    await database.upgrade("012_add_row_security_since_006")
    if is_on:
        await database.execute("ALTER TABLE memories ENABLE ROW LEVEL SECURITY")
    await database.upgrade("013_add_keys_and_tags_since_006")
    found = await database.run(
        lambda connection: connection.execute(
            sa.text(
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class"
                " WHERE relname = 'memory_tags'"
            )
        ).one()
    )
    assert tuple(found) == (is_on, is_on)


async def test_backfill_hashes_as_the_service_does(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade(FIRST)
    await database.insert([memory(content) for content in CONTENTS])
    await database.upgrade(SECOND)
    for row in await database.rows():
        hashes = hashes_of(row["content"])
        assert row["content_hash"] == hashes.content_hash
        assert row["semantic_hash"] == hashes.semantic_hash
    assert f"hashing contents: {len(CONTENTS)} of {len(CONTENTS)}" in log.messages


async def test_backfill_goes_on_after_a_full_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "BATCH", 3)
    await database.upgrade(FIRST)
    await database.insert([memory(content) for content in CONTENTS])
    await database.upgrade()
    rows = await database.rows()
    assert [row["content_hash"] for row in rows] == [
        hashes_of(content).content_hash for content in sorted(CONTENTS)
    ]


async def test_duplicates_are_merged_and_counted(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade(FIRST)
    first = memory(
        "Likes tea",
        metadata={"a": 1, "b": {"old": True}},
        importance=0.2,
        access_count=3,
        last_accessed=NOON + timedelta(days=3),
    )
    await database.insert(
        [
            memory(
                "likes  tea.",
                metadata={"b": 2, "c": 3},
                importance=0.9,
                access_count=4,
                created_at=NOON + timedelta(hours=1),
                updated_at=NOON + timedelta(hours=5),
            ),
            first,
            memory(
                " LIKES TEA!",
                metadata=None,
                importance=0.4,
                access_count=5,
                last_accessed=NOON + timedelta(days=1),
                created_at=NOON + timedelta(hours=2),
                updated_at=NOON + timedelta(hours=2),
            ),
            memory("likes tea", session_id="user-2"),
            memory("likes tea", content_type="preference"),
            memory("likes coffee"),
        ]
    )
    await database.upgrade(SECOND)
    rows = await database.rows()
    assert len(rows) == 4
    (merged,) = [row for row in rows if row["id"] == first["id"]]
    assert merged["content"] == "Likes tea"
    assert merged["importance"] == 0.9
    assert merged["metadata"] == {"a": 1, "b": 2, "c": 3}
    assert merged["access_count"] == 12
    assert merged["last_accessed"] == NOON + timedelta(days=3)
    assert merged["created_at"] == NOON
    assert merged["updated_at"] == NOON + timedelta(hours=5)
    assert (
        "2 memories were duplicates once contents were normalised: merged into 1 earlier ones"
        in log.messages
    )


async def test_equally_old_duplicates_merge_in_the_order_of_their_ids(database: Database) -> None:
    await database.upgrade(FIRST)
    ids = sorted(str(uuid.uuid4()) for _ in range(2))
    await database.insert(
        [
            memory("later!", id=ids[1], metadata={"by": "later"}),
            memory("LATER", id=ids[0], metadata={"by": "first"}),
        ]
    )
    await database.upgrade(SECOND)
    (row,) = await database.rows()
    assert (row["id"], row["content"], row["metadata"]) == (ids[0], "LATER", {"by": "later"})


async def test_numbers_out_of_range_are_clamped_and_counted(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade(FIRST)
    await database.insert(
        [
            memory("a", importance=7.5, access_count=-3),
            memory("b", importance=-0.1, access_count=None),
            memory("c", importance=None),
            memory("d"),
        ]
    )
    await database.upgrade(SECOND)
    rows = await database.rows()
    assert [row["importance"] for row in rows] == [1.0, 0.0, 0.5, 0.5]
    assert [row["access_count"] for row in rows] == [0, 0, 0, 0]
    assert "importance of 2 memories was out of range: clamped to 0.0 to 1.0" in log.messages
    assert "access count of 2 memories was negative or missing: set to 0" in log.messages


@pytest.mark.parametrize("revision", [FIRST, SECOND])
async def test_rows_of_earlier_systems_survive(
    database: Database, log: pytest.LogCaptureFixture, revision: str
) -> None:
    row = memory if revision == FIRST else hashed
    await database.upgrade(revision)
    kept = str(uuid.uuid4())
    await database.insert(
        [
            row("a kept id", id=kept, metadata=None),
            row("b odd id", id="mem-1", created_at=NOON + timedelta(hours=1)),
            row("c upper case id", id=str(uuid.uuid4()).upper()),
            row("d list", metadata=[1, 2], content_type="PREFERENCE"),
            row("e text", metadata="note", content_type=" Fact "),
            row("f unknown type", content_type="opinion"),
            row("g no type", content_type=None),
            row("h odd session", session_id="../etc passwd"),
        ]
    )
    await database.execute("UPDATE memories SET metadata = 'null' WHERE content LIKE 'h%'")
    await database.upgrade()
    rows = await database.rows()
    assert [r["content"][0] for r in rows] == list("abcdefgh")
    ids = [uuid.UUID(r["id"]) for r in rows]
    assert [str(id_) for id_ in ids] == [r["id"] for r in rows]
    assert rows[0]["id"] == kept
    assert [id_.version for id_ in ids[1:3]] == [7, 7]
    assert ids[1].int >> 80 == (NOON + timedelta(hours=1)).timestamp() * 1000
    assert [r["metadata"] for r in rows[3:5]] == [{"value": [1, 2]}, {"value": "note"}]
    assert all(r["metadata"] == {} for r in rows[:3] + rows[5:])
    assert [r["content_type"] for r in rows[3:7]] == ["preference", "fact", "context", "context"]
    assert {r["tenant"] for r in rows} == {"default"}
    for message in (
        "id of 2 memories was no UUID in lower case: given a new one",
        "content type of 2 memories was missing or unknown: now context",
        "metadata of 2 memories was no JSON object: made one, under the key value",
        "1 sessions have a name that the service refuses: kept, out of its reach",
    ):
        assert message in log.messages


async def test_the_databases_own_defaults_survive(database: Database) -> None:
    await database.upgrade(FIRST)
    await database.execute(
        "INSERT INTO memories (id, session_id, content) VALUES ('mem-1', 'user-1', 'bare')"
    )
    await database.upgrade()
    (row,) = await database.rows()
    assert row["content_type"] == "context"
    assert row["importance"] == 0.5
    assert row["access_count"] == 0
    assert row["metadata"] == {}
    assert datetime.now(UTC) - row["created_at"] < timedelta(minutes=1)


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize(
    ("stored", "meant"),
    [
        ("2025-06-01 12:00:00", "2025-06-01 12:00:00.000000"),
        ("2025-06-01T12:00:00Z", "2025-06-01 12:00:00.000000"),
        ("2025-06-01T14:00:00.5+02:00", "2025-06-01 12:00:00.500000"),
        ("2025-06-01 12:00:00.123", "2025-06-01 12:00:00.123000"),
        ("2025-06-01 12:00:00.123456+00:00", "2025-06-01 12:00:00.123456"),
        ("2025-06-01", "2025-06-01 00:00:00.000000"),
        (1748779200, "2025-06-01 12:00:00.000000"),
        (1748779200.25, "2025-06-01 12:00:00.250000"),
        ("2025-06-01 12:00:00.123456", "2025-06-01 12:00:00.123456"),
    ],
)
async def test_times_of_sqlite_are_rewritten_to_compare(
    database: Database, stored: object, meant: str
) -> None:
    await database.upgrade(SECOND)
    await database.insert([hashed("a")])

    def write(connection: sa.Connection) -> None:
        columns = ", ".join(f"{name} = :stored" for name in TIMES)
        connection.execute(sa.text(f"UPDATE memories SET {columns}"), {"stored": stored})  # noqa: S608 - constant names

    def read(connection: sa.Connection) -> list[str]:
        query = sa.select(*map(sa.column, TIMES)).select_from(sa.table("memories"))
        return list(connection.execute(query).one())

    await database.run(write)
    await database.upgrade()
    assert await database.run(read) == [meant] * len(TIMES)


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_malformed_times_and_json_survive(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade(SECOND)
    await database.insert([hashed("a"), hashed("b", metadata=None)])
    await database.execute(
        "UPDATE memories SET created_at = 'once', last_accessed = '', deleted_at = 'gone',"
        " metadata = '{broken' WHERE content = 'a'"
    )
    await database.execute("UPDATE memories SET metadata = '{\"x\": NaN}' WHERE content = 'b'")
    await database.upgrade()
    first, second = await database.rows()
    assert first["created_at"] == NOON
    assert first["last_accessed"] is None
    assert first["deleted_at"] is not None
    assert first["metadata"] == {"value": "{broken"}
    assert second["metadata"] == {"x": None}
    assert "3 times were no times: replaced by the nearest known, or by none" in log.messages


async def test_revisions_count_up_in_creation_order(database: Database) -> None:
    await database.upgrade(SECOND)
    await database.insert(
        [
            hashed("third", created_at=NOON + timedelta(seconds=2)),
            hashed("first"),
            hashed("second", created_at=NOON + timedelta(seconds=1), deleted_at=NOON),
            hashed("alone", session_id="user-2"),
        ]
    )
    await database.upgrade()
    rows = {row["content"]: row for row in await database.rows()}
    assert [rows[name]["revision"] for name in ("first", "second", "third", "alone")] == [
        1,
        2,
        3,
        1,
    ]
    assert all(row["revision"] == row["created_revision"] for row in rows.values())
    assert {name for name, row in rows.items() if row["change"] == "deleted"} == {"second"}
    assert {row["change"] for row in rows.values()} == {"created", "deleted"}
    sessions = await database.rows("sessions")
    assert {(row["tenant"], row["session_id"], row["revision"]) for row in sessions} == {
        ("default", "user-1", 3),
        ("default", "user-2", 1),
    }


async def test_wrong_hashes_of_an_earlier_system_are_recomputed(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade(SECOND)
    await database.insert(
        [
            hashed("likes tea", content_hash="0" * 64),
            hashed("likes juice", semantic_hash=None),
            hashed("likes coffee"),
        ]
    )
    await database.upgrade()
    for row in await database.rows():
        hashes = hashes_of(row["content"])
        assert row["content_hash"] == hashes.content_hash
        assert row["semantic_hash"] == hashes.semantic_hash
    assert "hashes of 2 memories were missing or wrong: computed" in log.messages


async def test_duplicates_that_arise_from_content_types_are_merged(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    past = NOON + timedelta(days=1)
    await database.upgrade(SECOND)
    first = hashed("never expires", content_type="FACT", expires_at=soon)
    live = hashed("one has expired", content_type="fact", created_at=NOON + timedelta(hours=1))
    deleted = hashed("one is deleted", content_type="FACT", deleted_at=past)
    await database.insert(
        [
            first,
            hashed("never expires", content_type="fact", created_at=NOON + timedelta(hours=1)),
            hashed("one has expired", content_type="FACT", expires_at=past),
            live,
            deleted,
            hashed("one is deleted", content_type="fact"),
        ]
    )
    await database.upgrade()
    rows = await database.rows()
    assert len(rows) == 5
    assert (rows[0]["id"], rows[0]["expires_at"]) == (first["id"], None)
    alive = [row for row in rows if row["deleted_at"] is None]
    assert len(alive) == 3
    assert live["id"] in {row["id"] for row in alive}
    (expired,) = [row for row in rows if row["expires_at"] is not None]
    assert (expired["deleted_at"], expired["change"]) == (past, "deleted")
    assert deleted["id"] not in {row["id"] for row in alive}
    assert "1 expired memories were duplicates of live ones: now deleted" in log.messages


async def test_tombstones_block_no_upgrade_and_yield_in_a_downgrade(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    await database.upgrade()
    await database.insert_session("default", "user-1", revision=4)
    rows = [
        hashed("live", revision=1, created_revision=1, deleted_at=NOON, change="deleted"),
        hashed("live", revision=2, created_revision=2),
        hashed("gone", revision=3, created_revision=3, deleted_at=NOON, change="deleted"),
        hashed("gone", revision=4, created_revision=4, deleted_at=NOON, change="deleted"),
    ]
    await database.insert(rows)
    await database.downgrade(SECOND)
    assert {row["id"] for row in await database.rows()} == {rows[1]["id"], rows[3]["id"]}
    assert "2 deleted memories were removed for good: their content is there again" in log.messages
    await database.upgrade()
    await database.downgrade(FIRST)
    assert {row["id"] for row in await database.rows()} == {rows[1]["id"]}
    assert "1 deleted or expired memories were removed for good" in log.messages


async def test_expired_memories_do_not_come_back_after_a_downgrade(database: Database) -> None:
    await database.upgrade(SECOND)
    await database.insert(
        [
            hashed("expired", expires_at=NOON),
            hashed("expires", expires_at=datetime.now(UTC) + timedelta(days=1)),
        ]
    )
    await database.downgrade(FIRST)
    assert [row["content"] for row in await database.rows()] == ["expires"]


async def test_downgrade_refuses_to_mix_tenants(database: Database) -> None:
    await database.upgrade(THIRD)
    await database.insert_session("acme", "user-1", revision=1)
    await database.insert([hashed("theirs", tenant="acme", revision=1, created_revision=1)])
    before = await database.schema()
    with pytest.raises(CommandError, match="1 memories belong to tenants other than 'default'"):
        await database.downgrade(SECOND)
    assert await database.schema() == before
    assert len(await database.rows()) == 1


async def test_long_contents_survive_downgrade_and_upgrade(database: Database) -> None:
    # So varied that compression cannot make it fit into PostgreSQL's index entries.
    content = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(16_384))
    await database.upgrade()
    await database.insert_session("default", "user-1", revision=1)
    await database.insert([hashed(content, revision=1, created_revision=1)])
    await database.downgrade(FIRST)
    with pytest.raises(sa.exc.IntegrityError):
        await database.insert([memory(content)] * 2)
    await database.upgrade()
    (row,) = await database.rows()
    assert row["content"] == content


@pytest.mark.parametrize("revision", [SECOND, THIRD])
async def test_a_failure_in_the_middle_leaves_the_previous_revision_intact(
    database: Database, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    before = REVISIONS[REVISIONS.index(revision) - 1]
    await database.upgrade(before)
    row = memory if before == FIRST else hashed
    await database.insert([row(content) for content in CONTENTS])
    schema, rows = await database.schema(), await database.rows()

    def fail(_content: str) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(legacy, "normalise" if revision == THIRD else "hashes_of", fail)
        with pytest.raises(RuntimeError):
            await database.upgrade(revision)
    assert await database.schema() == schema
    assert await database.rows() == rows
    assert await database.rows("alembic_version") == [{"version_num": before}]
    await database.upgrade()


async def test_a_failure_at_the_end_leaves_the_previous_revision_intact(database: Database) -> None:
    await database.upgrade(SECOND)
    await database.insert([hashed(content) for content in CONTENTS])
    # The last table that the migration makes already exists.
    await database.execute("CREATE TABLE store_requests (id INTEGER)")
    schema, rows = await database.schema(), await database.rows()
    with pytest.raises(sa.exc.DBAPIError):
        await database.upgrade()
    assert await database.schema() == schema
    assert await database.rows() == rows


async def test_two_migrations_at_once_both_succeed(database: Database) -> None:
    await database.upgrade(FIRST)
    await database.insert([memory(content) for content in CONTENTS])
    runs = await asyncio.gather(
        *(migrate(database.url) for _ in range(2)),
        *(alembic_upgrade(database.url) for _ in range(2)),
    )
    assert [run.returncode for run in runs if run is not None] == [0, 0], runs
    assert await database.rows("alembic_version") == [{"version_num": HEAD}]
    assert len(await database.rows()) == len(CONTENTS)


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_a_migration_waits_for_a_running_one(
    database: Database, log: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(database.url)
    async with engine.begin() as other:
        await other.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        waiting = asyncio.create_task(database.upgrade())
        async with asyncio.timeout(30):
            while LOCKED not in log.messages:  # noqa: ASYNC110 - a log has no event to wait for
                await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting
    await engine.dispose()
    assert await database.rows("alembic_version") == [{"version_num": HEAD}]


@pytest.mark.parametrize(("short", "full"), [("001", FIRST), ("002", SECOND)])
async def test_short_names_of_an_earlier_system_are_known(
    database: Database, short: str, full: str
) -> None:
    await database.upgrade(full)
    row = memory if full == FIRST else hashed
    await database.insert([row("a")])
    await database.execute(f"UPDATE alembic_version SET version_num = '{short}'")  # noqa: S608 - constant names
    await database.upgrade()
    assert await database.rows("alembic_version") == [{"version_num": HEAD}]
    assert len(await database.rows()) == 1


async def test_a_revision_of_a_later_release_is_refused(database: Database) -> None:
    await database.upgrade()
    await database.execute("UPDATE alembic_version SET version_num = '999_of_a_later_release'")
    with pytest.raises(SchemaMismatch, match="999_of_a_later_release"):
        await database.upgrade()


async def test_a_connection_handed_over_keeps_its_transaction(database: Database) -> None:
    def upgrade_and_undo(connection: sa.Connection) -> None:
        config = alembic_config(database.url)
        config.attributes["connection"] = connection
        with connection.begin_nested() as savepoint:
            command.upgrade(config, "head")
            assert sa.inspect(connection).has_table("sessions")
            savepoint.rollback()

    if database.is_sqlite:
        await database.execute("CREATE TABLE other (id INTEGER)")
        engine = create_async_engine(database.url)
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            await connection.run_sync(upgrade_and_undo)
        await engine.dispose()
    else:
        await database.run(upgrade_and_undo)
    assert "sessions" not in await database.schema()


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_a_connection_that_would_cascade_is_refused(database: Database) -> None:
    def upgrade(connection: sa.Connection) -> None:
        config = alembic_config(database.url)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine(database.url)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        await connection.commit()
        with pytest.raises(CommandError, match="foreign_keys"):
            await connection.run_sync(upgrade)
    await engine.dispose()


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_rebuilt_tables_leave_no_contents_behind(database: Database, tmp_path: Path) -> None:
    secrets = [f"secret-{number}-{uuid.uuid4().hex}" for number in range(200)]
    await database.upgrade(FIRST)
    await database.insert([memory(secret) for secret in secrets])
    await database.upgrade()
    held = (tmp_path / "memories.db").read_bytes()
    assert {held.count(secret.encode()) for secret in secrets} == {1}


async def test_the_tools_tables_hold_nothing_of_a_session(database: Database) -> None:
    await database.upgrade()
    schema = await database.schema()
    for table in ("tool_config_head", "tool_configs", "tool_config_revisions"):
        assert await database.rows(table) == []
        assert not {"tenant", "session_id"} & set(schema[table]["columns"])
        assert schema[table]["references"] == []
    await database.downgrade(REVISIONS[3])
    assert not [table for table in await database.schema() if table.startswith("tool_")]


async def test_there_is_no_offline_script(database: Database) -> None:
    config = alembic_config(database.url)
    config.output_buffer = io.StringIO()
    with pytest.raises(CommandError, match="no SQL script"):
        await asyncio.to_thread(command.upgrade, config, "head", sql=True)


async def test_sessions_of_before_are_counted_once_they_are_served(database, serve) -> None:
    await database.upgrade("012_add_row_security_since_006")
    numbers = (
        "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {last})"
        " SELECT 'default', 'user-' || (10000 + n / 100), {columns} FROM n"
    )
    await database.execute(
        "INSERT INTO sessions (tenant, session_id, revision) "
        + numbers.format(last=99_999, columns="100")
        + " WHERE n % 100 = 0"
    )
    # Of a hundred memories ten are deleted, and one has expired.
    await database.execute(
        "INSERT INTO memories (tenant, session_id, id, content, content_hash, semantic_hash,"
        " created_at, updated_at, deleted_at, expires_at, revision, created_revision) "
        + numbers.format(
            last=99_999,
            columns="'id-' || n, 'fact ' || n, 'hash ' || n, '0123456789abcdef', {now}, {now},"
            " CASE WHEN n % 10 = 0 THEN {now} END, CASE WHEN n % 100 = 1 THEN {now} END,"
            " n % 100 + 1, n % 100 + 1".format(
                now="'2026-03-01 11:00:00.000000'"
                if database.is_sqlite
                else "TIMESTAMPTZ '2026-03-01 11:00:00Z'"
            ),
        )
    )
    await database.upgrade()
    running = await serve(MEMORYD_RLS="off")
    page = await running.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=100))
    assert {s.memory_count for s in page.sessions} == {89}
    await running.server.sweeper.run_once()
    rows = await database.rows("sessions")
    assert len(rows) == 1000
    assert all(row["counted_revision"] == row["revision"] for row in rows)
    again = await running.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=100))
    assert {s.memory_count for s in again.sessions} == {89}


async def test_the_alembic_command_line_works_from_the_root(database: Database) -> None:
    done = await alembic_upgrade(database.url)
    assert done.returncode == 0, done.stderr
    assert f"upgraded to {HEAD}" in done.stderr
    assert await database.rows("alembic_version") == [{"version_num": HEAD}]


async def test_migrating_prints_nothing(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    await database.upgrade()
    await database.upgrade()
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_line_every_few_seconds(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 1.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(seconds))
    with progress("hashing contents", 100_000) as advance:
        for _ in range(4):
            advance(25_000)
    assert log.messages == [
        "hashing contents: 50,000 of 100,000",
        "hashing contents: 100,000 of 100,000",
    ]


def test_progress_is_a_bar_on_a_terminal(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("hashing contents", 7) as advance:
        advance(7)
    assert "hashing contents" in terminal.getvalue()
    assert "7/7" in terminal.getvalue()
    assert log.messages == []
