"""Sessions that adapters make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.client import NotFound

if TYPE_CHECKING:
    from memoryd.client import SessionClient

MEMORY_LIMIT = 100_000
"""Of a session that an adapter makes, so that nothing in it is evicted: the most that one may
hold."""


async def require_session(sessions: SessionClient, session_id: str) -> None:
    """Make a session where there is none, so that what it holds neither expires nor is evicted.

    What is set for one that is there is its owner's.
    """
    try:
        await sessions.get(session_id)
    except NotFound:
        await sessions.update(
            session_id, memories_never_expire=True, memory_limit=MEMORY_LIMIT, allow_missing=True
        )
