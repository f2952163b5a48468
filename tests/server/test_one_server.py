"""An SQLite file has one server, and only the owner may read its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

REQUEST = pb.StoreMemoryRequest(session_id="user-123", content="prefers e-mail")


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def file(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite+aiosqlite:///"))


def store(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        MemoryServiceStub(channel).StoreMemory(REQUEST)


def test_a_second_server_is_refused_under_any_name_of_the_file(command_line, file):
    linked = command_line.folder / "linked.db"
    linked.symlink_to(file)
    server = command_line.serve(MEMORYD_DATABASE_URL=f"sqlite+aiosqlite:///{file}")
    store(server.address())
    for name in (str(file), "memoryd.db", str(linked), f"file:{file}?uri=true"):
        done = command_line.run(
            "serve", MEMORYD_DATABASE_URL=f"sqlite+aiosqlite:///{name}", MEMORYD_PORT="0"
        )
        assert done.returncode == 1
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"memoryd: another memoryd (process {server.pid}) serves {file}")
        assert "stop it first" in last
        assert "PostgreSQL" in last
    store(server.address())
    assert server.stop() == 0


def test_a_server_that_is_killed_leaves_no_lock(command_line, database_url):
    for _ in range(2):
        server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
        store(server.address())
        server.kill()


def test_a_server_waits_for_one_that_is_about_to_end(command_line, database_url):
    before = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    before.address()
    after = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    after.wait_for(lambda: f"another memoryd (process {before.pid}) serves" in after.log)
    assert "waiting for up to 5 seconds" in after.log
    assert before.stop() == 0
    store(after.address())
    assert after.stop() == 0


def test_commands_run_while_a_server_runs(command_line, database_url):
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    address = server.address()
    store(address)
    port = address.rpartition(":")[2]
    for arguments in (
        ("health",),
        ("migrate",),
        ("sweep", "--once"),
        ("backup", "copy.db"),
        ("export", "out.jsonl"),
        ("import", "out.jsonl"),
        ("config", "check"),
    ):
        done = command_line.run(*arguments, MEMORYD_DATABASE_URL=database_url, MEMORYD_PORT=port)
        assert done.returncode == 0, (arguments, done.stderr)
    assert server.stop() == 0


def test_a_lock_that_cannot_be_made_is_reported(command_line, file, database_url):
    lock = file.with_name(f"{file.name}.lock")
    victim = command_line.folder / "victim"
    victim.write_text("kept")
    lock.symlink_to(victim)
    done = command_line.run("serve", MEMORYD_DATABASE_URL=database_url, MEMORYD_PORT="0")
    assert done.returncode == 1
    assert f"cannot make {lock}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "kept"


# Who may read the files


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask for processes started in the test."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(file: Path) -> dict[str, int]:
    return {
        found.name.removeprefix(file.name): stat.S_IMODE(found.stat().st_mode)
        for found in file.parent.glob(f"{file.name}*")
    }


def test_only_the_owner_may_read_any_file_under_any_umask(command_line, tmp_path):
    file = tmp_path / "new.db"
    with umask(0):
        server = command_line.serve(MEMORYD_DATABASE_URL=f"sqlite+aiosqlite:///{file}")
    store(server.address())
    assert modes(file) == {"": 0o600, "-wal": 0o600, "-shm": 0o600, ".lock": 0o600}
    assert server.stop() == 0
    assert "chmod" not in server.log


def test_only_the_owner_may_read_a_file_made_by_migrate(command_line, tmp_path):
    file = tmp_path / "new.db"
    with umask(0):
        done = command_line.run("migrate", MEMORYD_DATABASE_URL=f"sqlite+aiosqlite:///{file}")
    assert done.returncode == 0
    assert modes(file)[""] == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_a_file_that_others_may_read_is_reported_and_left_unchanged(
    command_line, file, database_url, mode
):
    file.chmod(mode)
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    store(server.address())
    assert f"run chmod 600 {file}\n" in server.log
    assert modes(file) == {"": mode, "-wal": mode, "-shm": mode, ".lock": 0o600}
    assert server.stop() == 0
