"""Fit the weights of recall, and measure them on what they were not fitted on.

python benchmarks/fit_recall.py FILE… [--embedder multilingual] [--without-facts]

FILEs are collections as `dialogues.py` reads them; the facts of `recall_facts.py` that are for
fitting make another one. Every fourth dialogue of each collection is ranked with weights fitted on
the others, and each collection with weights fitted on the other ones; the weights printed at the
end are fitted on everything. Every collection counts as much as any other (`SHARES`), whatever its
size.

The loss is the cross-entropy of the evidence under a softmax over all memories (ListNet's top-one
probability; Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", 2007) with
an L2 penalty, by Newton's method: in turns for the weights that neighbours count with, and for all
others. At last all but the neighbours' weights are fitted once more, on the 50 memories that the
weights found so far rank first, together with what MaxSim counts for where the embedder has tokens.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dialogues
import numpy as np
import recall_facts
from locomo import ndcg, recall

from memoryd.recall.by_tokens import by_tokens
from memoryd.recall.embedders.embedder import load as load_embedder
from memoryd.recall.fusion import Speaking, highest
from memoryd.recall.index import Document
from memoryd.recall.signals import (
    CUES,
    NEIGHBOURS,
    RELEVANCE,
    SHARES,
    meaning_of,
    neighbourhood,
    signals,
    understand,
)
from memoryd.recall.weights import COMPARED_BY_TOKENS, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from memoryd.recall.embedders.embedder import Embedder, QueryTokens
    from memoryd.recall.signals import Query, Signals

    Floats = NDArray[np.float64]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = "facts"
COUNTS = {"locomo-dev": 4.0, "locomo10": 4.0, FACTS: 0.5}
"""Of what another collection counts: facts have few memories to be found among."""
FOLDS = 4
PENALTY = 0.03
ROUNDS = 3
TOP = 50
"""Memories of a query that the last fit looks at: further down no weight is worth bending for."""
NEWTON_STEPS = 8
SMALLEST_STEP = 1e-3
ENOUGH_GAIN = 1e-6
OTHERS = ("alone", *SHARES, *CUES)
"""The weights that neighbours have no part in."""
MEASURES = ("R@5", "R@10", "R@25", "nDCG@10")


class Case(NamedTuple):
    """A question with the signals of each memory."""

    collection: str
    fold: int
    gold: NDArray[np.int64]
    seen: Signals
    own: Floats
    """Shape (relevance signals, memories)."""
    near: Floats
    """Shape (relevance signals, neighbours, memories)."""
    others: Floats
    """Shape (`OTHERS`, memories)."""
    query: Query
    tokens: QueryTokens | None

    def best(self, scores: Floats) -> tuple[NDArray[np.int64], Floats | None]:
        """Those memories whose tokens are compared, best first, and the z-scores of MaxSim."""
        best, _ = highest(scores, None, COMPARED_BY_TOKENS)
        if self.tokens is None:
            return best, None
        return best, by_tokens(self.query, self.tokens, self.seen.corpus, best, best)


def cases(path: Path, embedder: Embedder | None) -> list[Case]:
    """Every question of a collection of dialogues."""
    found = []
    for place, dialogue in enumerate(dialogues.load(path)):
        documents = [
            Document(str(n), turn.content, n, NOW, turn.speaker, turn.occurred_at, turn.episode)
            for n, turn in enumerate(dialogue.turns)
        ]
        asked = [(q.text, q.evidence) for q in dialogue.questions]
        found += _cases(path.stem, place % FOLDS, documents, asked, embedder)
    return found


def cases_of_facts(embedder: Embedder | None) -> list[Case]:
    """Questions about facts without episodes."""
    found = []
    for place, part in enumerate(recall_facts.parts()):
        if part.half == "fit" and part.label.startswith(("facts", "newcomers", "same language")):
            asked = [(question.text, question.evidence) for question in part.questions]
            found += _cases(FACTS, place % FOLDS, part.documents, asked, embedder)
    return found


def _cases(
    collection: str,
    fold: int,
    documents: Sequence[Document],
    asked: Sequence[tuple[str, frozenset[int]]],
    embedder: Embedder | None,
) -> list[Case]:
    index = recall_facts.Finder(embedder, [d.content for d in documents]).index(documents)
    found = []
    for text, evidence in asked:
        query = understand(text, [index])
        meaning = None if embedder is None else meaning_of(query, embedder)
        seen = signals(query, [index], now=NOW, meaning=meaning)
        near = np.stack([neighbourhood(index.corpus, row) for row in seen.relevance])
        gold = np.array(sorted(index.place(str(place)) for place in evidence))
        alone = seen.relevance[-1] * ~index.corpus.is_told
        others = np.vstack([alone, seen.shares, *(seen.cue(name) for name in CUES)])
        tokens = None if meaning is None else meaning.tokens
        found.append(
            Case(collection, fold, gold, seen, seen.relevance, near, others, query, tokens)
        )
    return found


def fit(training: list[Case]) -> Weights:
    """The weights that best rank the evidence first."""
    counts = shares(training)
    own = np.full(len(RELEVANCE), 0.2)
    near = np.full(len(NEIGHBOURS), 0.3)
    others = np.zeros(len(OTHERS))
    for _ in range(ROUNDS):
        tables = [
            np.vstack([own @ case.own, np.einsum("r,rnm->nm", own, case.near), case.others])
            for case in training
        ]
        start = np.concatenate([[1.0], near, others])
        solved = newton(tables, training, counts, start)
        size, near, others = np.split(solved, (1, 1 + len(NEIGHBOURS)))
        own, near = own * size, near / size
        tables = [
            np.vstack([case.own + np.einsum("n,rnm->rm", near, case.near), case.others])
            for case in training
        ]
        solved = newton(tables, training, counts, np.concatenate([own, others]))
        own, others = np.split(solved, (len(RELEVANCE),))
    names = (*RELEVANCE, *NEIGHBOURS, *OTHERS)
    values = dict(zip(names, (*own, *near, *others), strict=True))
    weights = Weights(**values, tokens=0.0)
    return rounded(at_the_top(training, weights, near))


def rounded(weights: Weights) -> Weights:
    """To the decimals that `weights.py` has."""
    return Weights(**{name: round(float(value), 3) for name, value in asdict(weights).items()})


def shares(training: list[Case]) -> Floats:
    """What each case counts for; they add up to 1."""
    sizes = Counter(case.collection for case in training)
    counts = np.array([COUNTS.get(c.collection, 1.0) / sizes[c.collection] for c in training])
    found: Floats = counts / counts.sum()
    return found


def at_the_top(training: list[Case], weights: Weights, near: Floats) -> Weights:
    """Weights that better rank what these rank first, and of MaxSim where there are tokens.

    `near` has those of neighbours, which stay as they are, relative to their signals.
    """
    tables, compared = [], []
    for case in training:
        best, alike = case.best(Speaking(case.seen, weights).total)
        top = best[:TOP]
        gold = np.flatnonzero(np.isin(top, case.gold))
        if len(gold):
            own = case.own + np.einsum("n,rnm->rm", near, case.near)
            of_tokens = np.zeros(len(top)) if alike is None else alike[:TOP]
            tables.append(np.vstack([own[:, top], case.others[:, top], of_tokens]))
            compared.append(case._replace(gold=gold))
    names = (*RELEVANCE, *OTHERS, "tokens")
    start = np.array([getattr(weights, name) for name in names])
    solved = newton(tables, compared, shares(compared), start)
    return replace(weights, **dict(zip(names, solved.tolist(), strict=True)))


def newton(tables: list[Floats], training: list[Case], counts: Floats, start: Floats) -> Floats:
    """The weights of the tables' rows that minimise the loss. Shape (rows,)."""
    every = np.hstack(tables)
    scale: Floats = every.std(axis=1)
    scale[scale == 0] = 1.0
    parts = [(table / scale[:, np.newaxis]).T for table in tables]
    weights = start * scale
    before = loss(parts, training, counts, weights)
    for _ in range(NEWTON_STEPS):
        gradient, curvature = derivatives(parts, training, counts, weights)
        step = np.linalg.solve(curvature, gradient)
        # Far from the minimum a full step may lead further away.
        size = 1.0
        while (now := loss(parts, training, counts, weights - size * step)) > before:
            size /= 2
            if size < SMALLEST_STEP:
                return weights / scale
        weights -= size * step
        if before - now < ENOUGH_GAIN:
            break
        before = now
    return weights / scale


def loss(parts: list[Floats], training: list[Case], counts: Floats, weights: Floats) -> float:
    """What `newton` minimises, for weights of shape (rows,)."""
    total = PENALTY * float(weights @ weights)
    for part, case, count in zip(parts, training, counts, strict=True):
        scores = part @ weights
        top = scores.max()
        total += count * (top + np.log(np.exp(scores - top).sum()) - scores[case.gold].mean())
    return total


def derivatives(
    parts: list[Floats], training: list[Case], counts: Floats, weights: Floats
) -> tuple[Floats, Floats]:
    """The gradient of `loss`, of shape (rows,), and its curvature, of shape (rows, rows)."""
    gradient = 2 * PENALTY * weights
    curvature = 2 * PENALTY * np.eye(len(weights))
    for part, case, count in zip(parts, training, counts, strict=True):
        scores = part @ weights
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        mean = chances @ part
        gradient += count * (mean - part[case.gold].mean(axis=0))
        spread = (part * chances[:, np.newaxis]).T @ part - np.outer(mean, mean)
        curvature += count * spread
    return gradient, curvature


def measured(every: list[Case], weights: Weights) -> Floats:
    """`MEASURES` of each case, in per cent. Shape (cases, measures)."""
    rows = []
    for case in every:
        scores = Speaking(case.seen, weights).total
        best, near = case.best(scores)
        sums = scores[best] if near is None else scores[best] + weights.tokens * near
        order = best[np.argsort(-sums, kind="stable")][:25].tolist()
        gold = frozenset(case.gold.tolist())
        shares = [recall(order, gold, k) for k in (5, 10, 25)]
        rows.append([*shares, ndcg(order, gold, 10)])
    return 100 * np.array(rows)


def show(label: str, rows: Floats) -> None:
    print(f"{label:40}{len(rows):6}" + "".join(f"{v:8.1f}" for v in rows.mean(axis=0)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="collections, as JSON")
    parser.add_argument("--embedder", default="none", help="of a name, or package:Class")
    parser.add_argument("--without-facts", action="store_true")
    given = parser.parse_args()
    embedder = load_embedder(given.embedder)
    every = [case for path in given.paths for case in cases(path, embedder)]
    every += [] if given.without_facts else cases_of_facts(embedder)
    names = list(dict.fromkeys(case.collection for case in every))
    print(f"{'left out':40}{'n':>6}" + "".join(f"{m:>8}" for m in MEASURES))
    rows = np.zeros((len(every), len(MEASURES)))
    for fold in range(FOLDS):
        held_out = [place for place, case in enumerate(every) if case.fold == fold]
        weights = fit([case for case in every if case.fold != fold])
        rows[held_out] = measured([every[place] for place in held_out], weights)
    for name in names:
        show(f"{name}: dialogues", rows[[case.collection == name for case in every]])
    for name in names if len(names) > 1 else ():
        weights = fit([case for case in every if case.collection != name])
        show(
            f"{name}: the collection", measured([c for c in every if c.collection == name], weights)
        )
    print(fit(every))


if __name__ == "__main__":
    main()
