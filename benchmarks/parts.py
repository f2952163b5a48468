"""What the parts of a call cost, each alone.

python benchmarks/parts.py
"""

from __future__ import annotations

import random
import string
import timeit
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from memoryd.content import clean, hashes_of, normalise, simhash
from memoryd.model import ContentPolicy
from memoryd.rpc.requests import Requests
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 7
ROUNDS = 9
SECONDS_A_ROUND = 0.05


def words(count: int) -> str:
    """Distinct words of two to ten letters."""
    rng = random.Random(SEED)  # noqa: S311  repeatable, not secret
    return " ".join(
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(count)
    )


def microseconds(work: Callable[[], object]) -> float:
    """Of one call, the best of several rounds."""
    timer = timeit.Timer(work)
    once = max(timer.timeit(1), 1e-6)
    number = max(1, int(SECONDS_A_ROUND / once))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def judging(content: str) -> Callable[[], object]:
    """Build what a request to store goes through between decoding and hashing."""
    message = memory_pb2.StoreMemoryRequest(
        session_id="user-123",
        content=content,
        content_type=memory_pb2.CONTENT_TYPE_FACT,
        importance=0.5,
    )
    requests = Requests(
        ContentPolicy.SANITIZE, lambda: datetime.now(UTC), lambda: timedelta(hours=24)
    )

    def judge() -> None:
        requests.check(message)
        clean(message.content, ContentPolicy.SANITIZE)

    return judge


def main() -> None:
    short, long = words(12), words(2000)
    plain, largest = words(18)[:100], words(3000)[:16_384]
    parts: list[tuple[str, Callable[[], object], float | None]] = [
        ("SimHash of 12 words", lambda: simhash(short), 15.0),
        ("SimHash of 2,000 words", lambda: simhash(long), 1000.0),
        ("sanitising 100 characters", lambda: clean(plain, ContentPolicy.SANITIZE), None),
        ("sanitising 16,384 characters", lambda: clean(largest, ContentPolicy.SANITIZE), None),
        ("checking and sanitising 100", judging(plain), 25.0),
        ("checking and sanitising 16,384", judging(largest), 250.0),
        ("normalising 100 characters", lambda: normalise(plain), None),
        ("both hashes of 100 characters", lambda: hashes_of(plain), None),
    ]
    print(f"{'part':32}{'µs':>10}{'target':>10}")
    for name, work, target in parts:
        wanted = "" if target is None else f"{target:,.0f}"
        print(f"{name:32}{microseconds(work):10,.1f}{wanted:>10}")


if __name__ == "__main__":
    main()
