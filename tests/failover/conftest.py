"""Collected by `make test-failover` alone, which gets what the tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import fault_report, pytest_terminal_summary

from .cluster import PASSWORD, Cluster

collect_ignore_glob = [] if os.environ.get("TEST_FAILOVER") else ["test_*.py"]

__all__ = ["fault_report", "pytest_terminal_summary"]


@pytest.fixture
def cluster(postgres_server, monkeypatch) -> Iterator[Cluster]:
    """Started, with a database of memoryd's that has no rows."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with tempfile.TemporaryDirectory(prefix="patroni-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder), postgres_server.system_user)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
