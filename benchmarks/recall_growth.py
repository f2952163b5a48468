"""What a query and a new memory cost in sessions of 1,000, 10,000 and 100,000 memories.

OPENBLAS_NUM_THREADS=1 python benchmarks/recall_growth.py [--embedder static] [--repeating]

Processor time in microseconds, with one thread as a server has it: of understanding and ranking a
query that shares a word with some memory, of appending one memory (both without embedding), and of
the first query after that, when what is kept with a session is made again. Of queries, each the
least of several rounds, and of appending it is the median; of the first query after it the least.
The memories are made of words of `facts.txt` at random, in episodes of two speakers; with
`--repeating` most are near duplicates of others, so that results are compared with each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import recall_facts

from memoryd.recall.embedders.embedder import embed_contents
from memoryd.recall.embedders.embedder import load as load_embedder
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import meaning_of, understand

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.recall.signals import Meaning

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (1_000, 10_000, 100_000)
QUERIES = 40
ROUNDS = 7
APPENDED = 40
EPISODE = 20
SPEAKERS = ("Ann", "Ben")
SEED = 1
WORDS = (4, 40)
"""Of a memory, at least and below."""


def contents(count: int, *, repeating: bool) -> list[str]:
    facts, _ = recall_facts.collection()
    if repeating:
        return [f"{facts[number % len(facts)]} {number}" for number in range(count)]
    random = np.random.default_rng(SEED)
    words = " ".join(facts).split()
    return [" ".join(random.choice(words, random.integers(*WORDS))) for _ in range(count)]


def documents(texts: list[str], embedder: Embedder | None) -> list[Document]:
    unknown: tuple[None, None] = None, None
    embeddings = embed_contents(embedder, texts) if embedder else [unknown] * len(texts)
    return [
        Document(
            str(number), text, number, NOW, SPEAKERS[number % len(SPEAKERS)],
            episode=str(number // EPISODE), vector=vector, token_vectors=tokens,
        )
        for number, (text, (vector, tokens)) in enumerate(zip(texts, embeddings, strict=True))
    ]  # fmt: skip


def microseconds(work: Callable[[], object]) -> float:
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e3


def costs(size: int, embedder: Embedder | None, *, repeating: bool) -> list[float]:
    """Of a query, of appending a memory, of the first query after that."""
    every = documents(contents(size + 2 * APPENDED, repeating=repeating), embedder)
    index = SessionIndex(every[:size], dimensions=embedder.dimensions if embedder else 0)
    _, questions = recall_facts.collection()

    def answer(text: str, meaning: Meaning | None) -> None:
        importances = [np.full(len(index), 0.5)]
        query = understand(text, [index])
        rank(query, [index], importances, now=NOW, limit=10, meaning=meaning)

    # Those that share a word with any memory: others have less to be computed.
    understood = [understand(question.text, [index]) for question in questions]
    asked = [query for query in understood if query.known][:QUERIES]
    meanings = [meaning_of(query, embedder) if embedder else None for query in asked]
    queries = []
    for query, meaning in zip(asked, meanings, strict=True):
        rounds = [microseconds(lambda: answer(query.text, meaning)) for _ in range(ROUNDS)]  # noqa: B023  called at once
        queries.append(min(rounds))
    appends = [
        microseconds(lambda: index.update([document]))  # noqa: B023  called at once
        for document in every[size : size + APPENDED]
    ]
    afterwards = []
    for document in every[size + APPENDED :]:
        index.update([document])
        afterwards.append(microseconds(lambda: answer(asked[0].text, meanings[0])))
    return [statistics.median(queries), statistics.median(appends), min(afterwards)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--embedder", default="none", help="none, static, minilm or package:Class")
    parser.add_argument(
        "--most", type=int, default=SIZES[-1], help="memories of the largest session"
    )
    parser.add_argument("--repeating", action="store_true", help="have near duplicates")
    given = parser.parse_args()
    embedder = load_embedder(given.embedder)
    print(f"{'memories':>9}{'query':>9}{'append':>9}{'query after it':>16}  µs")
    for size in SIZES:
        if size <= given.most:
            query, append, after = costs(size, embedder, repeating=given.repeating)
            print(f"{size:9,}{query:9.0f}{append:9.0f}{after:16.0f}", flush=True)


if __name__ == "__main__":
    main()
