"""Memories stored as a server of an earlier release stores them."""

from __future__ import annotations

import uuid
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser

from memoryd.domain.content import hashes_of
from memoryd.v1 import memory_pb2 as pb

from .history import Call, History

MAKE = text(
    "INSERT INTO sessions (tenant, session_id, revision) VALUES ('default', :session_id, 0)"
    " ON CONFLICT DO NOTHING"
)
LOCK = text(
    "SELECT revision FROM sessions WHERE tenant = 'default' AND session_id = :session_id FOR UPDATE"
)
STORE = text(
    "INSERT INTO memories (tenant, session_id, id, content_type, content, created_at, updated_at,"
    " content_hash, semantic_hash, revision, created_revision) VALUES ('default', :session_id, :id,"
    " 'fact', :content, :now, :now, :content_hash, :semantic_hash, :revision, :revision)"
)
RAISE = text(
    "UPDATE sessions SET revision = :revision WHERE tenant = 'default' AND session_id = :session_id"
)


class EarlierRelease(AbstractAsyncContextManager):
    """A writer on PostgreSQL with the statements of revision 006 of the schema."""

    def __init__(self, database_url: str, history: History) -> None:
        # Row-level security is off where an earlier release serves; a superuser is past it.
        self._engine = create_async_engine(as_superuser(database_url))
        self._history = history

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    async def store(self, session_id: str, content: str) -> None:
        """Store a memory, and record the call."""
        request = pb.StoreMemoryRequest(session_id=session_id, content=content)
        call = Call("earlier release", "StoreMemory", request, self._history.now())
        self._history.calls.append(call)
        key = {"session_id": session_id}
        memory_id, hashes = str(uuid.uuid4()), hashes_of(content)
        async with self._engine.begin() as connection:
            await connection.execute(MAKE, key)
            revision = (await connection.execute(LOCK, key)).scalar_one() + 1
            row = {
                **key,
                "id": memory_id,
                "content": content,
                "now": datetime.now(UTC),
                "content_hash": hashes.content_hash,
                "semantic_hash": hashes.semantic_hash,
                "revision": revision,
            }
            await connection.execute(STORE, row)
            await connection.execute(RAISE, {**key, "revision": revision})
        memory = pb.Memory(**key, memory_id=memory_id, content=content, revision=revision)
        self._history.end(call, answer=pb.StoreMemoryResponse(memory=memory))
