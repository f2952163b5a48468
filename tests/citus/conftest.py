"""Tests on a real Citus; collected only where TEST_CITUS_URL names one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.conftest import CITUS_URL

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = [] if CITUS_URL else ["test_*.py"]


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
