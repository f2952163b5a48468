"""Frameworks in an environment of their own, against servers that run in another."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVING_PYTHON = os.environ.get("MEMORYD_SERVING_PYTHON", str(ROOT / ".venv/bin/python"))
"""A Python that has the server."""

READY = "memoryd ready on "


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server on each database, for all tests; each test has sessions of its own."""
    command = [SERVING_PYTHON, "-m", "tests.integrations.serve", request.param]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(  # noqa: S603  our own
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        line = server.stdout.readline()
        assert line.startswith(READY), "the server did not start"
        yield line.removeprefix(READY).strip()
        server.stdin.close()


@pytest.fixture
def name() -> str:
    """What no other test uses, as the beginning of session ids."""
    return f"t{uuid.uuid4().hex[:12]}"
