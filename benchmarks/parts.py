"""Measure the parts of a call, each alone.

python benchmarks/parts.py
"""

from __future__ import annotations

import asyncio
import random
import statistics
import string
import time
import timeit
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from harness import KINDS, database

from memoryd.database.engine import Database
from memoryd.domain.content import clean, hashes_of, normalise, simhash
from memoryd.domain.ids import uuid7
from memoryd.domain.records import Capacity, ContentPolicy, ContentType, Memory, NewMemory, Session
from memoryd.memories.store import MemoryStore
from memoryd.rpc.call import Call
from memoryd.rpc.memories.messages import memory_message
from memoryd.rpc.memories.requests import RequestParser
from memoryd.rpc.methods import Method, validated
from memoryd.rpc.sizes import check_store
from memoryd.tools.settings import MemorySettings
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 7
ROUNDS = 9
SECONDS_PER_ROUND = 0.05
COMMITS = 50
SESSION = Session("default", "user-123")


def words(count: int) -> str:
    """Distinct words of two to ten letters."""
    rng = random.Random(SEED)  # noqa: S311  repeatable, not secret
    return " ".join(
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(count)
    )


def microseconds(work: Callable[[], object]) -> float:
    """Microseconds of one call, the best of several rounds."""
    timer = timeit.Timer(work)
    once = max(timer.timeit(1), 1e-6)
    number = max(1, int(SECONDS_PER_ROUND / once))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def validating(content: str) -> Callable[[], object]:
    """Build the steps of a store request between decoding and the store."""
    message = memory_pb2.StoreMemoryRequest(
        session_id="user-123",
        content=content,
        content_type=memory_pb2.CONTENT_TYPE_FACT,
        importance=0.5,
    )
    parser = RequestParser(
        ContentPolicy.SANITIZE, lambda: datetime.now(UTC), MemorySettings, max_batch=1000
    )
    method = Method(parser.new_memory, None, check_size=check_store)
    call = Call("StoreMemory", "request", lambda: None, "ipv4:127.0.0.1")
    return lambda: validated(method, message, call)


def new_memory(content: str) -> NewMemory:
    hashes = hashes_of(content)
    return NewMemory(
        session=SESSION,
        content=content,
        content_type=ContentType.FACT,
        importance=0.5,
        metadata={"source": "chat", "turn": 17},
        content_hash=hashes.content_hash,
        semantic_hash=hashes.semantic_hash,
        expires_at=None,
    )


def converting(content: str) -> Callable[[], object]:
    """Build the steps of a memory between the store and the wire."""
    now, new = datetime.now(UTC), new_memory(content)
    memory = Memory(
        session=new.session,
        memory_id=uuid7(),
        content=new.content,
        content_type=new.content_type,
        importance=new.importance,
        metadata=new.metadata,
        content_hash=new.content_hash,
        semantic_hash=new.semantic_hash,
        created_at=now,
        updated_at=now,
        expires_at=now + timedelta(hours=24),
        revision=7,
        created_revision=7,
    )
    return lambda: memory_message(memory, now=now, half_life_days=30).SerializeToString()


async def committing(url: str, size: int) -> float:
    """The median microseconds of a group commit of this many new memories."""
    kept_in = Database(url)
    await kept_in.migrate()
    await kept_in.check()
    store = MemoryStore(
        kept_in,
        lambda: datetime.now(UTC),
        lambda _: None,
        standby=None,
        queue_limit=10_000,
        batch_limit=500,
        cache_bytes=0,
    )
    plenty = Capacity(max_entries=10**9, half_life_days=30)
    waits = []
    for number in range(COMMITS):
        items = [new_memory(f"{number} {place} {words(15)[:90]}") for place in range(size)]
        start = time.perf_counter()
        await store.store(items, plenty)
        waits.append(time.perf_counter() - start)
    await store.close()
    await kept_in.close()
    return statistics.median(waits) * 1e6


def main() -> None:
    short, long = words(12), words(2000)
    plain, largest = words(18)[:100], words(3000)[:16_384]
    parts: list[tuple[str, Callable[[], object], float | None]] = [
        ("SimHash of 12 words", lambda: simhash(short), 15.0),
        ("SimHash of 2,000 words", lambda: simhash(long), 1000.0),
        ("sanitising 100 characters", lambda: clean(plain, ContentPolicy.SANITIZE), None),
        ("sanitising 16,384 characters", lambda: clean(largest, ContentPolicy.SANITIZE), None),
        ("validating a store of 100", validating(plain), 25.0),
        ("validating a store of 16,384", validating(largest), 250.0),
        ("normalising 100 characters", lambda: normalise(plain), None),
        ("both hashes of 100 characters", lambda: hashes_of(plain), None),
        ("a memory as a message, encoded", converting(plain), None),
    ]
    print(f"{'part':32}{'µs':>10}{'target':>10}")
    for name, work, target in parts:
        wanted = "" if target is None else f"{target:,.0f}"
        print(f"{name:32}{microseconds(work):10,.1f}{wanted:>10}")
    for kind in KINDS:
        for size in (1, 100):
            with database(kind) as new:
                took = asyncio.run(committing(new.url, size))
            print(f"{f'group commit of {size}, {kind}':32}{took:10,.1f}")


if __name__ == "__main__":
    main()
