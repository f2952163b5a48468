"""SessionClient against a server."""

from __future__ import annotations

from datetime import timedelta

import pytest

from memoryd.client import EtagMismatch, MemoryClient, NotFound, SessionClient


async def test_sessions_are_set_read_and_listed(running):
    async with SessionClient(running.address) as sessions, MemoryClient(running.address) as memory:
        await memory.store("user-1", "prefers e-mail")
        with pytest.raises(NotFound):
            await sessions.get("user-2")
        made = await sessions.update(
            "user-2",
            display_name="Ada",
            labels={"team": "x"},
            state={"step": 3},
            memory_limit=20,
            memory_ttl=timedelta(days=7),
            allow_missing=True,
        )
        assert await sessions.get("user-2") == made
        assert (made.display_name, made.memory_limit, made.state["step"]) == ("Ada", 20, 3)
        assert made.memory_ttl == timedelta(days=7)
        assert [s.session_id async for s in sessions.list(page_size=1)] == ["user-1", "user-2"]
        assert [s.session_id async for s in sessions.list(labels={"team": "x"})] == ["user-2"]
        assert [s.session_id async for s in sessions.list("user-1")] == ["user-1"]
        changed = await sessions.update(
            "user-2", labels={}, clear=["memory_limit", "memory_ttl"], etag=made.etag
        )
        assert (changed.display_name, dict(changed.labels)) == ("Ada", {})
        assert changed.memory_limit is None
        assert (changed.memory_ttl, changed.memories_never_expire) == (None, False)
        merged = await sessions.merge("user-1", "user-2")
        assert merged.moved_memories == 1
        assert (await sessions.get("user-2")).memory_count == 1
        assert (await sessions.update("user-2", memories_never_expire=True)).memories_never_expire
        with pytest.raises(EtagMismatch):
            await sessions.update("user-2", display_name="Eve", etag=made.etag)
        with pytest.raises(ValueError, match="exclude each other"):
            await sessions.update(
                "user-2", memory_ttl=timedelta(days=1), memories_never_expire=True
            )
