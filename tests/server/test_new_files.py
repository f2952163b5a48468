"""Exports and backups leave a complete file that only its owner may read, or nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

COMMANDS = ("export", "backup")

SIGTERM_EXIT = 143

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])
"""SQLite only: the files are the same from either database, and only SQLite has backups."""


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def large_url(database_url) -> str:
    """A database that takes a while to copy."""
    with closing(sqlite3.connect(make_url(database_url).database)) as connection:
        connection.execute(
            "INSERT INTO tool_config_revisions"
            " (revision, tool, change_time, actor, reason, before, after, overrides)"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)"
            " SELECT i, 'rag', '2026-03-01 12:00:00.000000', 'default', printf('%.1000c', 'x'),"
            " '{}', '{}', '{}' FROM n"
        )
        connection.commit()
    return database_url


@only_sqlite
@pytest.mark.parametrize("command", COMMANDS)
def test_only_its_owner_may_read_it(command_line, database_url, folder, command):
    before = os.umask(0)  # which would let everyone read and write
    try:
        done = command_line.run(command, str(folder / "x"), "--database-url", database_url)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    assert made.name == "x"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


@only_sqlite
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("target", ["there", "not there"])
def test_no_link_is_followed(command_line, database_url, folder, command, target):
    """Neither at the file's own name, nor where earlier releases kept unfinished files."""
    other = folder.parent / "other"
    if target == "there":
        other.write_text("precious")
    (folder / "x").symlink_to(other)
    (folder / "y.part").symlink_to(other)
    done = command_line.run(command, str(folder / "x"), "--database-url", database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{folder / 'x'} exists" in done.stderr
    done = command_line.run(command, str(folder / "y"), "--database-url", database_url)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in folder.iterdir()} == {"x", "y", "y.part"}
    assert other.exists() is (target == "there")
    if target == "there":
        assert other.read_text() == "precious"


@only_sqlite
@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_folder_is_reported(command_line, database_url, folder, command):
    file = folder / "none" / "x"
    done = command_line.run(command, str(file), "--database-url", database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"memoryd: cannot write {file}: No such file or directory\n"


@only_sqlite
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_reported_and_leaves_nothing(command_line, large_url, folder, command):
    """Simulated by a limit on file size."""
    done = subprocess.run(  # noqa: S603  our own command
        [
            *("/bin/sh", "-c", 'ulimit -f 200; exec "$@"', "sh"),
            *(sys.executable, "-m", "memoryd", command, str(folder / "x")),
            *("--database-url", large_url),
        ],
        env=command_line.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "the database does not answer" not in done.stderr
    assert list(folder.iterdir()) == []


@only_sqlite
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_terminated_leaves_nothing(command_line, large_url, folder, command):
    process = subprocess.Popen(  # noqa: S603  our own command
        [
            *(sys.executable, "-m", "memoryd", command, str(folder / "x")),
            *("--database-url", large_url),
        ],
        env=command_line.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not (made := list(folder.glob("x.*.part"))):
        assert time.monotonic() < end
        time.sleep(0.001)
    (unfinished,) = made
    assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == SIGTERM_EXIT, errors
    assert "Traceback" not in errors
    assert list(folder.iterdir()) == []
