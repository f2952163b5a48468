"""Clients of a real server are as patient as the server."""

from __future__ import annotations

import pytest

from memoryd.client import channel, sync

TIMEOUT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def patient_clients(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test does not say how long a call may take: a busy machine takes seconds."""
    if "serve" in request.fixturenames:
        for kind in (channel.Client, sync.MemoryClient):
            monkeypatch.setitem(kind.__init__.__kwdefaults__, "timeout", TIMEOUT_SECONDS)
