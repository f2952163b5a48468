"""Measure how long the migrations take with data, on both databases.

python benchmarks/migrations.py [--rows N]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import command
from embedded_postgres import postgres_server
from sqlalchemy.ext.asyncio import create_async_engine

from memoryd.database.migrate import HEAD, REVISIONS, alembic_config, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST = REVISIONS[0]
SEED = 7
WORDS = 20
SHARE_OF_DUPLICATES = 0.05
SHARE_OF_ODD_IDS = 0.05


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Make rows of an early system: some differ only in case, some have odd ids."""
    chance = random.Random(SEED)  # noqa: S311 - data, no secret
    vocabulary = [f"word{number}" for number in range(5_000)]
    content = ""
    for number in range(count):
        if number and chance.random() < SHARE_OF_DUPLICATES:
            content = content.upper() + "!"
        else:
            content = " ".join(chance.choices(vocabulary, k=WORDS))
        odd = chance.random() < SHARE_OF_ODD_IDS
        yield {
            "id": f"mem-{number}" if odd else str(uuid.UUID(int=chance.getrandbits(128))),
            "session_id": f"user-{number // 100}",
            "content": content,
            "metadata": {"speaker": "user"},
        }


async def fill(url: str, count: int) -> None:
    engine = create_async_engine(url)
    names = ("id", "session_id", "content")
    memories = sa.table("memories", *map(sa.column, names), sa.column("metadata", sa.JSON))
    async with engine.begin() as connection:
        await connection.execute(sa.insert(memories), list(rows(count)))
    await engine.dispose()


async def measure(name: str, url: str, count: int) -> None:
    config = alembic_config(url)
    await migrate(url, target=FIRST)
    await fill(url, count)
    steps = (
        (f"up {FIRST} → {HEAD}", command.upgrade, "head"),
        (f"down {HEAD} → {FIRST}", command.downgrade, FIRST),
        ("up again", command.upgrade, "head"),
    )
    for label, run, target in steps:
        start = time.perf_counter()
        await asyncio.to_thread(run, config, target)
        seconds = time.perf_counter() - start
        print(f"{name:<12} {count:>9,} rows  {seconds:>6.1f} s  {label}")


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        await measure("SQLite", f"sqlite+aiosqlite:///{folder}/memories.db", count)
        server = postgres_server.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            socket_folder = server.get_postmaster_info().socket_dir
            url = f"postgresql+asyncpg://postgres@/postgres?host={socket_folder}"
            await measure("PostgreSQL", url, count)
        finally:
            server.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    asyncio.run(main(parser.parse_args().rows))
