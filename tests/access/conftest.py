"""A server that asks for credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.access.guarded import Caller, Guarded

from memoryd.access.api_key import new_key


@pytest.fixture
def guard(
    serve: Callable[..., Awaitable[Any]],
) -> Callable[..., Awaitable[Guarded]]:
    """Start servers that require credentials; keyword arguments are variables."""

    async def start(**variables: str) -> Guarded:
        key = new_key().text
        required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
        running = await serve(**{**required, "BOOTSTRAP": key, **variables})
        return Guarded(running.channel, running.server, Caller(running.channel, key), key)

    return start


@pytest.fixture
async def guarded(guard: Callable[..., Awaitable[Guarded]]) -> Guarded:
    """A server that requires credentials."""
    return await guard()
