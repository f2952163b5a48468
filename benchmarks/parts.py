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
from texts import Texts
from work import store_request

from memoryd.database.engine import Database
from memoryd.domain.audit import Audited
from memoryd.domain.content import clean, hashes_of, normalise, simhash
from memoryd.domain.ids import uuid7
from memoryd.domain.principals import NO_ONE, Scope
from memoryd.domain.records import Capacity, ContentPolicy, Memory
from memoryd.memories.store import MemoryStore
from memoryd.rpc.call import Call
from memoryd.rpc.memories.messages import memory_message
from memoryd.rpc.memories.plain import is_plain_store
from memoryd.rpc.memories.requests import RequestParser
from memoryd.rpc.methods import Method, validated
from memoryd.rpc.sizes import check_store
from memoryd.tools.settings import MemorySettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.domain.records import NewMemory
    from memoryd.v1 import memory_pb2 as pb

SEED = 7
ROUNDS = 9
SECONDS_PER_ROUND = 0.05
COMMITS = 50
SESSION_ID = "user-123"
TEXTS = Texts()


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


def request_with(content: str) -> pb.StoreMemoryRequest:
    request = store_request(TEXTS, SESSION_ID)
    request.content = content
    return request


def validating() -> Callable[[pb.StoreMemoryRequest], NewMemory]:
    """Build the steps of a store request between decoding and the store, hashes among them."""
    settings = MemorySettings()
    parser = RequestParser(
        ContentPolicy.SANITIZE, lambda: datetime.now(UTC), lambda _: settings, max_batch=1000
    )
    method = Method(
        parser.new_memory,
        lambda _new, _call: None,  # nothing is stored
        Scope.MEMORIES_WRITE,
        Audited.IN_ALL,
        check_size=check_store,
        is_plain=is_plain_store,
    )
    call = Call("StoreMemory", "request", lambda: None, "ipv4:127.0.0.1", NO_ONE)
    return lambda request: validated(method, request, call)


def converting(content: str) -> Callable[[], object]:
    """Build the steps of a memory between the store and the wire."""
    now, new = datetime.now(UTC), validating()(request_with(content))
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
    validate = validating()
    waits = []
    for _ in range(COMMITS):
        items = [validate(store_request(TEXTS, SESSION_ID)) for _ in range(size)]
        start = time.perf_counter()
        await store.store(items, plenty)
        waits.append(time.perf_counter() - start)
    await store.close()
    await kept_in.close()
    return statistics.median(waits) * 1e6


def main() -> None:
    short, long = words(12), words(2000)
    plain, largest = words(18)[:100], words(3000)[:16_384]
    validate, small, large = validating(), request_with(plain), request_with(largest)
    parts: list[tuple[str, Callable[[], object], float | None]] = [
        ("SimHash of 12 words", lambda: simhash(short), 15.0),
        ("SimHash of 2,000 words", lambda: simhash(long), 1000.0),
        ("sanitising 100 characters", lambda: clean(plain, ContentPolicy.SANITIZE), None),
        ("sanitising 16,384 characters", lambda: clean(largest, ContentPolicy.SANITIZE), None),
        ("validating a store of 100", lambda: validate(small), 25.0),
        ("validating a store of 16,384", lambda: validate(large), 250.0),
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
