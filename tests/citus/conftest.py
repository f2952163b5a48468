"""Tests on a real Citus; collected only where TEST_CITUS_URL names one."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.conftest import CITUS_URL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Tables

collect_ignore_glob = [] if CITUS_URL else ["test_*.py"]

_PLACES = """
SELECT s, p.groupid
FROM unnest(CAST(:sessions AS TEXT[])) AS s
JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('sessions', s)
"""
_LIVING = """
SELECT n.groupid FROM run_command_on_workers('SELECT 1') AS answers
JOIN pg_dist_node n ON n.nodename = answers.nodename AND n.nodeport = answers.nodeport
WHERE answers.success
"""
_OTHERS_OF_WORKERS = """
SELECT run_command_on_workers(
    'SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity'
    ' WHERE datname = current_database() AND pid <> pg_backend_pid()'
    ' AND backend_type = ''client backend'''
)
"""
_SERVERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND backend_type = 'client backend' AND application_name NOT LIKE 'citus%'
"""
SESSIONS = tuple(f"session-{number}" for number in range(32))
"""So many that each worker has some."""


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


class Worker:
    """One of the machines, which the commands TEST_CITUS_STOP and TEST_CITUS_START are about."""

    def stop(self) -> None:
        """Have it end at once, as if it had failed."""
        self._run("TEST_CITUS_STOP")

    def start(self) -> None:
        """Have it serve again; returns when it does."""
        self._run("TEST_CITUS_START")

    def _run(self, variable: str) -> None:
        command = os.environ.get(variable)
        assert command, f"{variable} has to name a shell command"
        subprocess.run(command, shell=True, check=True, timeout=60)  # noqa: S602  the operator's


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.start()


class Cluster:
    """What the coordinator says of its workers, and what fails besides one of them."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def apart(self, session_ids: Sequence[str] = SESSIONS) -> tuple[list[str], list[str]]:
        """Give those sessions that are on workers that answer, and the others."""
        found = await self._tables.rows(_PLACES, sessions=[*session_ids])
        living = {row[0] for row in await self._tables.rows(_LIVING)}
        places = dict(map(tuple, found))
        here = [s for s in session_ids if places[s] in living]
        return here, [s for s in session_ids if places[s] not in living]

    async def by_place(self) -> list[list[str]]:
        """The sessions of each worker."""
        found = await self._tables.rows(_PLACES, sessions=[*SESSIONS])
        places = dict(map(tuple, found))
        return [[s for s in SESSIONS if places[s] == place] for place in {*places.values()}]

    async def cut_workers(self) -> None:
        """End every connection that a worker has."""
        await self._tables.rows(_OTHERS_OF_WORKERS)

    async def cut_servers(self) -> None:
        """End every connection that a server has."""
        await self._tables.rows(_SERVERS)

    async def fail(self, worker: Worker) -> None:
        """Have a worker end, and come back."""
        await asyncio.to_thread(worker.stop)
        await asyncio.to_thread(worker.start)


@pytest.fixture
def cluster(tables: Tables) -> Cluster:
    return Cluster(tables)
