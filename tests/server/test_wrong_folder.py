"""Commands that read say that a database is missing, and leave no files behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

COMMANDS = {
    "export": ("export", "out.jsonl"),
    "import": ("import", "in.jsonl"),
    "sweep": ("sweep",),
    "sweep --once": ("sweep", "--once"),
    "reindex": ("reindex",),
    "backup": ("backup", "copy.db"),
}


def absent(_file: Path) -> None:
    """A missing file."""


def another(file: Path) -> None:
    """Another program's database."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE mine (a TEXT)")


THERE = {
    "nothing": (absent, "there is no database {file}; "),
    "an empty file": (Path.touch, "{file} has no tables of memoryd in it; "),
    "another program's": (another, "{file} has no tables of memoryd in it; "),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("there", THERE)
def test_commands_that_need_a_database_make_none(command_line, tmp_path, command, there):
    make, words = THERE[there]
    file = tmp_path / "memoryd.db"
    make(file)
    (tmp_path / "in.jsonl").write_text("{}")
    before = contents(tmp_path)
    done = command_line.run(*COMMANDS[command])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"memoryd: {words.format(file=file)}")
    assert "MEMORYD_DATABASE_URL or --database-url" in done.stderr
    assert "\n" not in done.stderr.rstrip("\n")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("there", THERE)
def test_the_configuration_is_shown_without_a_database(command_line, tmp_path, command, there):
    THERE[there][0](tmp_path / "memoryd.db")
    before = contents(tmp_path)
    done = command_line.run("config", command)
    assert done.returncode == 0, done.stderr
    assert "overrides: not known" in done.stdout
    assert contents(tmp_path) == before


def test_health_makes_no_database(command_line, tmp_path):
    assert command_line.run("health", "--port", "1").returncode == 1
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["ünïcode #1?.db", "50%41 & more.db"])
def test_a_file_of_any_name_is_found(command_line, tmp_path, name):
    file = tmp_path / name
    url = f"sqlite+aiosqlite:///{quote(str(file))}"
    assert command_line.run("migrate", "--database-url", url).returncode == 0
    assert file.is_file()
    done = command_line.run("export", "out.jsonl", "--database-url", url)
    assert done.returncode == 0, done.stderr
    uri = f"sqlite+aiosqlite:///file:{quote(quote(str(file)))}?uri=true"
    for each in (url, uri):
        done = command_line.run("config", "show", "--database-url", each)
        assert "overrides: at revision 0" in done.stdout
