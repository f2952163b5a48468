"""Recall of memories without speaker, date or episode: facts and preferences about a user.

python benchmarks/recall_facts.py

`facts.txt` has one fact per line; a line `? query` asks for the fact before it, `?2 query` for the
two before it. Comparing with BM25 alone shows whether signals fitted on conversations do harm here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from locomo import ndcg, recall

from memoryd.recall.embedders.embedder import KNOWN, EmbedderUnavailable, load
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import meaning_of, signals, understand

NOW = datetime(2026, 1, 1, tzinfo=UTC)
K = 10


class Asked(NamedTuple):
    text: str
    evidence: frozenset[str]
    """Ids of the facts: their numbers."""


def collection() -> tuple[list[str], list[Asked]]:
    """The facts and their queries."""
    facts: list[str] = []
    questions: list[Asked] = []
    for line in Path(__file__).with_name("facts.txt").read_text(encoding="utf-8").splitlines():
        if asked := re.match(r"\?(\d?) (.*)", line):
            last = range(len(facts) - int(asked[1] or 1), len(facts))
            questions.append(Asked(asked[2], frozenset(map(str, last))))
        else:
            facts.append(line)
    return facts, questions


def by_bm25(text: str, index: SessionIndex) -> list[str]:
    """The ids of all facts, best first, by this signal alone."""
    scores = signals(understand(text, [index]), [index], now=NOW, meaning=None).relevance[0]
    return [index.ids[place] for place in np.argsort(-scores, kind="stable")]


def show(label: str, found: list[list[str]], questions: list[Asked]) -> None:
    """Print recall at 1, 5 and 10 and nDCG at 10, in per cent."""
    rows = [
        [*(recall(ids, q.evidence, k) for k in (1, 5, K)), ndcg(ids, q.evidence, K)]
        for ids, q in zip(found, questions, strict=True)
    ]
    print(f"{label:24}" + "".join(f"{100 * mean:8.1f}" for mean in np.mean(rows, axis=0)))


def main() -> None:
    facts, questions = collection()
    print(f"{len(facts)} facts, {len(questions)} questions")
    print(f"{'':24}" + "".join(f"{name:>8}" for name in ("R@1", "R@5", "R@10", "nDCG@10")))
    for choice in ("none", *KNOWN):
        try:
            embedder = load(choice)
        except EmbedderUnavailable as error:
            print(error)
            continue
        vectors = embedder.embed(facts).astype(np.float16) if embedder else [None] * len(facts)
        index = SessionIndex(
            (
                Document(str(number), fact, number, NOW, vector=vector)
                for number, (fact, vector) in enumerate(zip(facts, vectors, strict=True))
            ),
            dimensions=embedder.dimensions if embedder else 0,
        )
        if embedder is None:
            show("BM25 alone", [by_bm25(q.text, index) for q in questions], questions)
        found, importances = [], [np.full(len(index), 0.5)]
        for question in questions:
            query = understand(question.text, [index])
            meaning = None if embedder is None else meaning_of(query, embedder)
            found.append(rank(query, [index], importances, now=NOW, limit=K, meaning=meaning))
        show(f"whole, embedder {choice}", [[r.memory_id for r in f] for f in found], questions)


if __name__ == "__main__":
    main()
