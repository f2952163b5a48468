"""Fit the weights of recall, and measure them on held-out conversations.

python benchmarks/fit_recall.py locomo-dev.json [--embedder static]

Each conversation is ranked with weights fitted on the others; the weights printed at the end are
fitted on all of them. The loss is the cross-entropy of the evidence under a softmax over all
memories (ListNet's top-one probability; Cao et al., "Learning to Rank: From Pairwise Approach to
Listwise Approach", 2007) with an L2 penalty, by Newton's method.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from locomo import CATEGORIES, load, ndcg, recall

from memoryd.recall.embedders.embedder import load as load_embedder
from memoryd.recall.fusion import relevance_parts
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import (
    CUES,
    NEIGHBOURS,
    RELEVANCE,
    meaning_of,
    neighbourhood,
    signals,
    understand,
)
from memoryd.recall.weights import Weights

if TYPE_CHECKING:
    from locomo import Conversation, Question
    from numpy.typing import NDArray

    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.recall.signals import Signals

    Floats = NDArray[np.float64]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PENALTY = 0.01
ROUNDS = 4
NEWTON_STEPS = 8
SMALLEST_STEP = 1e-3
"""More than enough, since the loss is convex in each half of the weights."""


class Case(NamedTuple):
    """A question with the signals of each memory."""

    question: Question
    index: SessionIndex
    gold: NDArray[np.int64]
    seen: Signals
    near: Floats
    """Shape (relevance signals, neighbours, memories)."""


def cases(conversation: Conversation, embedder: Embedder | None) -> list[Case]:
    """Every question of a conversation."""
    texts = [turn.content for turn in conversation.turns]
    vectors = embedder.embed(texts).astype(np.float16) if embedder else [None] * len(texts)
    documents = [
        Document(
            turn.turn_id, turn.content, place, NOW, turn.speaker, turn.occurred_at,
            turn.episode, vector,
        )
        for place, (turn, vector) in enumerate(zip(conversation.turns, vectors, strict=True))
    ]  # fmt: skip
    index = SessionIndex(documents, dimensions=embedder.dimensions if embedder else 0)
    found = []
    for question in conversation.questions:
        query = understand(question.text, [index])
        meaning = None if embedder is None else meaning_of(query, embedder)
        seen = signals(query, [index], now=NOW, meaning=meaning)
        near = np.stack([neighbourhood(index.corpus, row) for row in seen.relevance])
        gold = np.array(sorted(index.place(turn) for turn in question.evidence))
        found.append(Case(question, index, gold, seen, near))
    return found


def cues(seen: Signals) -> Floats:
    """Shape (cues, memories), in the order of `CUES`."""
    return np.array([seen.cues.get(name, np.zeros(len(seen.corpus))) for name in CUES])


def fit(training: list[Case]) -> Weights:
    """The weights that best rank the evidence first."""
    own = np.ones(len(RELEVANCE))
    near = np.array([0.3, 0.5, 0.2, 0.5, 0.3])
    others = np.zeros(len(CUES))
    for _ in range(ROUNDS):
        tables = []
        for case in training:
            relevance = own @ case.seen.relevance
            tables.append(
                np.vstack([relevance, neighbourhood(case.index.corpus, relevance), cues(case.seen)])
            )
        size, near, others = np.split(newton(tables, training), (1, 1 + len(NEIGHBOURS)))
        own, near = own * size, near / size
        tables = [
            np.vstack(
                [case.seen.relevance + np.einsum("n,rnm->rm", near, case.near), cues(case.seen)]
            )
            for case in training
        ]
        solved = newton(tables, training)
        own, others = solved[: len(RELEVANCE)], solved[len(RELEVANCE) :]
    values = dict(zip((*RELEVANCE, *NEIGHBOURS, *CUES), (*own, *near, *others), strict=True))
    return Weights(**{field.name: round(float(values[field.name]), 3) for field in fields(Weights)})


def newton(tables: list[Floats], training: list[Case]) -> Floats:
    """The weights of the tables' rows that minimise the loss. Shape (rows,)."""
    every = np.hstack(tables)
    scale = every.std(axis=1)
    scale[scale == 0] = 1.0
    features = (every / scale[:, np.newaxis]).T
    ends = np.cumsum([table.shape[1] for table in tables])
    parts = np.split(features, ends[:-1])
    weights = np.zeros(features.shape[1])
    for _ in range(NEWTON_STEPS):
        gradient, curvature = derivatives(parts, training, weights)
        step = np.linalg.solve(curvature, gradient)
        # Far from the minimum a full step may lead further away.
        size, before = 1.0, loss(parts, training, weights)
        while size > SMALLEST_STEP and loss(parts, training, weights - size * step) > before:
            size /= 2
        weights -= size * step
    return weights / scale


def loss(parts: list[Floats], training: list[Case], weights: Floats) -> float:
    """What `newton` minimises, for weights of shape (rows,)."""
    total = 0.0
    for part, case in zip(parts, training, strict=True):
        scores = part @ weights
        top = scores.max()
        total += top + np.log(np.exp(scores - top).sum()) - scores[case.gold].mean()
    return total / len(training) + PENALTY * float(weights @ weights)


def derivatives(
    parts: list[Floats], training: list[Case], weights: Floats
) -> tuple[Floats, Floats]:
    """The gradient of `loss`, of shape (rows,), and its curvature, of shape (rows, rows)."""
    gradient = 2 * PENALTY * weights
    curvature = 2 * PENALTY * np.eye(len(weights))
    for part, case in zip(parts, training, strict=True):
        scores = part @ weights
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        mean = chances @ part
        gradient += (mean - part[case.gold].mean(axis=0)) / len(training)
        spread = (part * chances[:, np.newaxis]).T @ part - np.outer(mean, mean)
        curvature += spread / len(training)
    return gradient, curvature


def measures(case: Case, weights: Weights) -> list[float]:
    """Recall at 5, 10, 25 and 50 and nDCG at 10, in per cent."""
    scores = np.sum([*relevance_parts(case.seen, weights).values()], axis=0)
    found = [case.index.ids[place] for place in np.argsort(-scores, kind="stable")[:50]]
    evidence = case.question.evidence
    shares = [recall(found, evidence, k) for k in (5, 10, 25, 50)]
    return [100 * share for share in (*shares, ndcg(found, evidence, 10))]


def show(label: str, rows: Floats) -> None:
    print(f"{label:24}{len(rows):5}" + "".join(f"{value:8.1f}" for value in rows.mean(axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("path", type=Path, help="LoCoMo's conversations, as JSON")
    parser.add_argument(
        "--embedder", default="none", help="none, multilingual, static, minilm or package:Class"
    )
    given = parser.parse_args()
    embedder = load_embedder(given.embedder)
    conversations = load(given.path)
    by_conversation = [cases(conversation, embedder) for conversation in conversations]
    print(
        f"{'left out':24}{'n':>5}"
        + "".join(f"{m:>8}" for m in ("R@5", "R@10", "R@25", "R@50", "nDCG@10"))
    )
    every: list[list[float]] = []
    for place, (conversation, held_out) in enumerate(
        zip(conversations, by_conversation, strict=True)
    ):
        weights = fit(
            [case for other, cs in enumerate(by_conversation) if other != place for case in cs]
        )
        rows = [measures(case, weights) for case in held_out]
        show(conversation.name, np.array(rows))
        every += rows
    total = np.array(every)
    categories = np.array(
        [case.question.category for held_out in by_conversation for case in held_out]
    )
    for category, name in CATEGORIES.items():
        show(name, total[categories == category])
    show("all", total)
    print(fit([case for held_out in by_conversation for case in held_out]))


if __name__ == "__main__":
    main()
