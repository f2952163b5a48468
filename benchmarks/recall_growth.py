"""What a query costs in sessions of 1,000, 10,000 and 100,000 memories: no more than in proportion.

python benchmarks/recall_growth.py

Processor time of ranking alone, without an embedder; the least of several rounds of each query.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

import numpy as np
import recall_facts

from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import understand

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (1_000, 10_000, 100_000)
QUERIES = 20
ROUNDS = 5
EPISODE = 20


def milliseconds(size: int) -> float:
    """The median over queries."""
    facts, questions = recall_facts.collection()
    index = SessionIndex(
        Document(
            str(number),
            f"{facts[number % len(facts)]} {number}",
            number,
            NOW,
            episode=str(number // EPISODE),
        )
        for number in range(size)
    )
    importances = [np.full(size, 0.5)]
    least = []
    for question in questions[:QUERIES]:
        times = []
        for _ in range(ROUNDS):
            began = time.process_time()
            rank(understand(question.text, [index]), [index], importances, now=NOW, limit=10)
            times.append(time.process_time() - began)
        least.append(min(times))
    return statistics.median(least) * 1e3


def main() -> None:
    before = 0.0
    for size in SIZES:
        now = milliseconds(size)
        ratio = f", × {now / before:.1f}" if before else ""
        print(f"{size:9,} memories: {now:7.2f} ms a query{ratio}", flush=True)
        before = now


if __name__ == "__main__":
    main()
