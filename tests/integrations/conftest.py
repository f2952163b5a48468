"""Frameworks in an environment of their own, against servers that run in another."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integrations.wires import Wire

ROOT = Path(__file__).parents[2]
SERVING_PYTHON = os.environ.get("MEMORYD_SERVING_PYTHON", str(ROOT / ".venv/bin/python"))
"""A Python that has the server."""


class Addresses(NamedTuple):
    grpc: str
    http: str


@contextmanager
def serving(kind: str, **variables: str) -> Iterator[Addresses]:
    """A server with a new database of a kind."""
    command = [SERVING_PYTHON, "-m", "tests.integrations.serve", kind]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(  # noqa: S603  our own
        command,
        cwd=ROOT,
        env=environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        found = [server.stdout.readline().rpartition(" on ")[2].strip() for _ in Addresses._fields]
        assert all(found), "the server did not start"
        yield Addresses(*found)
        server.stdin.close()


@pytest.fixture
def served() -> Callable[..., AbstractContextManager[Addresses]]:
    """Start a server of a test's own, on a kind of database and with variables."""
    return serving


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def addresses(request: pytest.FixtureRequest) -> Iterator[Addresses]:
    """A server on each database, for all tests; each test has sessions of its own."""
    with serving(request.param) as found:
        yield found


@pytest.fixture(scope="session")
def address(addresses: Addresses) -> str:
    return addresses.grpc


@pytest.fixture
async def wire(address: str) -> AsyncIterator[Wire]:
    """A wire to the server."""
    async with Wire(address) as wire:
        yield wire


@pytest.fixture
def name() -> str:
    """What no other test uses, as the beginning of session ids."""
    return f"t{uuid.uuid4().hex[:12]}"
