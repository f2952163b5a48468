"""Locks on the database, past the service."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import make_url

from .roles import as_superuser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def writes_blocked(url: str) -> AsyncIterator[None]:
    """Block all writes to existing sessions until the end of the block."""
    if url.startswith("sqlite"):
        file = make_url(url).database or ""
        connection = sqlite3.connect(file, check_same_thread=False, timeout=30)
        with contextlib.closing(connection):
            # In a thread: the service in this process may need the loop to release the file.
            await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
            yield
            await asyncio.to_thread(connection.rollback)
        return
    async with postgres(url) as connection, connection.transaction():
        await connection.execute("SELECT FROM sessions FOR UPDATE")
        yield


@contextlib.asynccontextmanager
async def postgres(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(as_superuser(url).replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()
