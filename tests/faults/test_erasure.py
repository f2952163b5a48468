"""Erasures in an SQLite file when its server is killed or stopped before the file is clean."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from sqlalchemy.engine import make_url

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import History, find_faults
from .harness import ServerProcess, acknowledgements, is_whole, open_channel
from .load import Load, connected, until
from .scale import SCALE

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


async def fill(memory: MemoryServiceStub, session_id: str) -> None:
    dice = random.Random(session_id)  # noqa: S311  repeatable
    contents = [f"{n} " + "@ERASEME@CANARY@" * dice.randrange(1, 60) for n in range(60)]
    requests = [pb.StoreMemoryRequest(session_id=session_id, content=each) for each in contents]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_the_next_server_finishes_what_one_left_undone(command_line, database_url, file, end):
    plant(file)
    server = ServerProcess(command_line, database_url, MEMORYD_DATABASE_TIMEOUT_SECONDS="60")
    async with open_channel(await server.start()) as channel:
        memory = MemoryServiceStub(channel)
        await fill(memory, "user-123")
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM memories").fetchone() > (0,)
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
    await server.stop()
    assert is_whole(database_url)


async def test_callers_lose_nothing_while_sessions_are_erased(
    command_line, database_url, file, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    await server.start()
    async with connected(server.address, SCALE.writers) as stubs:
        async with Load(history, stubs) as load:
            await acknowledgements(history, 100)
            for n in range(SCALE.erasures):
                await fill(stubs[0], f"erased-{n}")
                assert pieces_in(file)
                await asyncio.wait_for(
                    stubs[0].EraseSession(pb.EraseSessionRequest(session_id=f"erased-{n}")), 60
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
    assert set(history.codes) <= {"UNAVAILABLE", "NOT_FOUND"}
