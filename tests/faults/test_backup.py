"""`memoryd backup` copies a busy SQLite database, and a server continues from the copy."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from .checker import find_faults
from .harness import ServerProcess, acknowledgements, is_whole, open_channel
from .history import History, up_to
from .load import Load, connected
from .restored import assert_continues
from .scale import SCALE
from .stored import read_stored

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


@only_sqlite
async def test_a_backup_under_load_is_one_state_and_a_server_continues_from_it(
    command_line, database_url, tmp_path, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    await server.start()
    copy = tmp_path / "backup.db"
    async with connected(server.address, SCALE.writers) as channels:
        async with Load(history, channels) as load:
            await acknowledgements(history, 200)
            started = history.now()
            done = await asyncio.to_thread(
                command_line.run, "backup", str(copy), MEMORYD_DATABASE_URL=database_url
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"backed up {copy.stat().st_size:,} bytes to {copy}\n"
            await acknowledgements(history, 50)
        await load.stored(database_url)
    await server.stop()
    assert {file.name for file in tmp_path.glob("backup*")} == {"backup.db"}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    # It has everything acknowledged before, and each later call either entirely or not at all.
    url = f"sqlite+aiosqlite:///{copy}"
    assert is_whole(url)
    backed_up = await read_stored(url)
    faults = find_faults(up_to(history, started), backed_up)
    fault_report("backup under load, sqlite", 1, history, faults)
    assert not faults

    # Restored as docs/backup.md describes.
    database = make_url(database_url).database
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{database}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, database)
    await server.start()
    async with open_channel(server.address) as channel:
        await assert_continues(backed_up, channel)
    await server.stop()
    assert is_whole(database_url)


@only_sqlite
def test_a_backup_never_replaces_a_file(command_line, database_url, tmp_path):
    there = tmp_path / "there.db"
    there.write_text("mine")
    done = command_line.run("backup", str(there), "--database-url", database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"memoryd: {there} exists; name another file, or remove it\n"
    assert there.read_text() == "mine"


def text(file: Path) -> None:
    file.write_text("something else")


def foreign(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a TEXT PRIMARY KEY)")


def broken(file: Path) -> None:
    """A database of memoryd with an index that lacks its rows."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.executescript("CREATE TABLE t (a TEXT PRIMARY KEY); INSERT INTO t VALUES ('x')")
        found = connection.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'")
        root = found.fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(file.read_bytes())
    # A leaf of an index, without a cell: https://www.sqlite.org/fileformat.html#b_tree_pages
    leaf = b"\x0a\x00\x00\x00\x00" + size.to_bytes(2, "big") + b"\x00"
    content[(root - 1) * size : (root - 1) * size + 8] = leaf
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (None, "there is no database"),
        (Path.touch, "has no tables of memoryd in it"),
        (foreign, "has no tables of memoryd in it"),
        (text, "could not be made: file is not a database"),
        (broken, "the database is broken: row 1 missing from index"),
    ],
)
def test_a_failed_backup_is_reported_and_leaves_nothing(command_line, tmp_path, make, words):
    file, copy = tmp_path / "source.db", tmp_path / "copy.db"
    if make is not None:
        make(file)
    before = set(tmp_path.iterdir())
    done = command_line.run("backup", str(copy), MEMORYD_DATABASE_URL=f"sqlite+aiosqlite:///{file}")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_postgresql_is_backed_up_by_its_own_tools(command_line, database_url, tmp_path):
    done = command_line.run("backup", str(tmp_path / "copy.db"), "--database-url", database_url)
    assert done.returncode == 1
    assert "use pg_dump" in done.stderr
