"""Fit how sure recall is that a memory bears on a query, and measure it on held-out conversations.

make bench-relevance LOCOMO=locomo-dev.json BEAM=beam-dev.json FRIENDS=friends-dev.json

LoCoMo is in its authors' format; the others are lists of {turns: [{id, text, speaker, episode,
occurred_at}], questions: [{question, evidence: [id]}]}. The facts are those of recall_facts.py.

Every question is put to its own conversation, to another of its collection ("near") and to one of
another collection ("far"), and of each conversation to parts of several sizes, each a session of
its own. What answers a question bears on it; the ten best results of a foreign conversation do not,
and neither do ten memories of its own that are neither among its best results nor near an answer.
Weights are those of a logistic regression, in which what bears on a query counts as much as what
does not, and each collection alike; each conversation is judged with weights fitted on those of the
other folds. The weights printed at the end are fitted on all.

LoCoMo's adversarial questions are about what was said, but by the other speaker: they show that
relevance tells what a memory is about, and not whether it answers.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import locomo
import numpy as np
import recall_facts

from memoryd.recall.certainty import TERMS, evidence
from memoryd.recall.embedders.embedder import load as load_embedder
from memoryd.recall.fusion import Speaking, highest, weights_for
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import meaning_of, signals, understand
from memoryd.recall.weights import CertaintyWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from memoryd.recall.embedders.embedder import Embedder

    Floats = NDArray[np.float64]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEED = 1
FOLDS = 3
SIZES = (20, 60, 200, 0)
"""Memories of a session; 0: the whole conversation."""
RESULTS = 10
NEIGHBOURHOOD = range(-3, 4)
FACTS_A_BLOCK = 16
MOST_QUESTIONS = {"whole": 60, "part": 12, "adversarial": 40}
COLLECTION_WEIGHTS = {"facts": 0.25}
"""Of what the others count, in fitting: facts have far fewer questions."""
PENALTY = 0.1
NEWTON_STEPS = 30
COLLECTIONS = ("locomo", "beam", "friends", "facts")
FOREIGN = ("near", "far")
NOT_BEARING = (*FOREIGN, "others")
WEIGHT_OF_ALL = 1000
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


class Turn(NamedTuple):
    content: str
    speaker: str = ""
    occurred_at: datetime | None = None
    episode: str = ""


class Question(NamedTuple):
    text: str
    evidence: frozenset[int]
    """Places of turns; none for an adversarial one."""


class Talk(NamedTuple):
    collection: str
    fold: int
    turns: list[Turn]
    questions: list[Question]


class Asked(NamedTuple):
    """A query put to a session."""

    collection: str
    fold: int
    size: int
    kind: str
    """own, near, far or adversarial."""
    rows: Floats
    """The signals of all memories, as `evidence` has them. Shape (signals, memories)."""
    best: NDArray[np.int64]
    """Where the best results stand."""
    answers: NDArray[np.int64]
    """Where what answers the query stands."""
    others: NDArray[np.int64]
    """Where some of what has nothing to do with it stands."""


class Judged(NamedTuple):
    """Memories that do or do not bear on a query."""

    rows: Floats
    bears: NDArray[np.bool_]
    weights: Floats


def talks(paths: dict[str, Path]) -> list[Talk]:
    """Every conversation of every collection."""
    found = [*_of_locomo(paths["locomo"])]
    for collection in ("beam", "friends"):
        for place, raw in enumerate(json.loads(paths[collection].read_text(encoding="utf-8"))):
            number = {turn["id"]: n for n, turn in enumerate(raw["turns"])}
            questions = [
                Question(asked["question"], frozenset(number[i] for i in asked["evidence"]))
                for asked in raw["questions"]
            ]
            found.append(Talk(collection, place % FOLDS, [*map(_turn, raw["turns"])], questions))
    return [*found, *_of_facts()]


def _turn(raw: dict[str, Any]) -> Turn:
    moment = raw.get("occurred_at")
    occurred_at = datetime.fromisoformat(moment) if moment else None
    return Turn(raw["text"], raw["speaker"], occurred_at, raw["episode"])


def _of_locomo(path: Path) -> Iterator[Talk]:
    every = json.loads(path.read_text(encoding="utf-8"))
    for place, (raw, known) in enumerate(zip(every, locomo.load(path), strict=True)):
        number = {turn.turn_id: n for n, turn in enumerate(known.turns)}
        questions = [
            Question(asked.text, frozenset(number[i] for i in asked.evidence))
            for asked in known.questions
        ]
        questions += [
            Question(asked["question"], frozenset())
            for asked in raw["qa"]
            if asked["category"] == locomo.ADVERSARIAL
        ]
        turns = [Turn(t.content, t.speaker, t.occurred_at, t.episode) for t in known.turns]
        yield Talk("locomo", place % FOLDS, turns, questions)


def _of_facts() -> Iterator[Talk]:
    """Two halves of the facts, in alternating blocks."""
    facts, questions = recall_facts.collection()
    for half in range(2):
        places = [n for n in range(len(facts)) if n // FACTS_A_BLOCK % 2 == half]
        number = {n: place for place, n in enumerate(places)}
        own = [
            Question(asked.text, frozenset(number[n] for n in asked.evidence))
            for asked in questions
            if asked.evidence <= number.keys()
        ]
        yield Talk("facts", half, [Turn(facts[n]) for n in places], own)


def ask(every: Sequence[Talk], embedder: Embedder | None) -> Iterator[Asked]:
    """Put questions to the sessions that the conversations make."""
    chosen = random.Random(SEED)  # noqa: S311  no secret
    answerable = [[q for q in talk.questions if q.evidence] for talk in every]
    for place, talk in enumerate(every):
        contents = [turn.content for turn in talk.turns]
        vectors = embedder.embed(contents).astype(np.float16) if embedder else None
        others = [n for n in range(len(every)) if n != place]
        near = [q for n in others if every[n].collection == talk.collection for q in answerable[n]]
        of_others = [n for n in others if every[n].collection != talk.collection]
        for size in SIZES:
            step = size or len(talk.turns)
            for start in range(0, len(talk.turns) - step // 2, step):
                span = range(start, min(start + step, len(talk.turns)))
                index = _index(talk, vectors, span)
                own = [
                    Question(q.text, frozenset(i - start for i in q.evidence))
                    for q in answerable[place]
                    if all(i in span for i in q.evidence)
                ]
                most = MOST_QUESTIONS["part" if size else "whole"]
                own = chosen.sample(own, min(most, len(own)))
                asked = [("own", q) for q in own]
                asked += [("near", q) for q in chosen.sample(near, min(len(own), len(near)))]
                asked += [("far", chosen.choice(answerable[chosen.choice(of_others)])) for _ in own]
                if not size:
                    unanswerable = [("adversarial", q) for q in talk.questions if not q.evidence]
                    most = MOST_QUESTIONS["adversarial"]
                    asked += chosen.sample(unanswerable, min(most, len(unanswerable)))
                for kind, question in asked:
                    answers = sorted(question.evidence) if kind == "own" else []
                    rows, best = _seen(question.text, index, embedder)
                    close = {*best.tolist(), *(n + d for n in answers for d in NEIGHBOURHOOD)}
                    rest = [n for n in range(len(index)) if n not in close]
                    others = chosen.sample(rest, min(RESULTS, len(rest))) if answers else []
                    yield Asked(
                        *(talk.collection, talk.fold, size, kind, rows, best),
                        *(np.array(answers, np.int64), np.array(others, np.int64)),
                    )


def _index(talk: Talk, vectors: NDArray[np.float16] | None, span: range) -> SessionIndex:
    documents = [
        Document(
            str(n), content, n, NOW, speaker, occurred_at, episode,
            None if vectors is None else vectors[n],
        )
        for n, (content, speaker, occurred_at, episode) in zip(
            span, talk.turns[span.start : span.stop], strict=True
        )
    ]  # fmt: skip
    return SessionIndex(documents, dimensions=0 if vectors is None else vectors.shape[1])


def _seen(
    text: str, index: SessionIndex, embedder: Embedder | None
) -> tuple[Floats, NDArray[np.int64]]:
    query = understand(text, [index])
    meaning = None if embedder is None else meaning_of(query, embedder)
    found = signals(query, [index], now=NOW, meaning=meaning)
    scores = np.zeros(len(index))
    if found.matched:
        scores = Speaking(found, weights_for(meaning if found.embedded else None)).total
    rows = evidence(found, scores, np.arange(len(index)))
    return rows, highest(scores, None, RESULTS)[0]


def judged(every: Sequence[Asked], *, embedded: bool) -> Judged:
    """What bears on a query, and what does not: each query counts alike, and each collection."""
    parts = [(one, *part) for one in every for part in _parts(one, embedded=embedded)]
    queries = Counter((one.collection, kind) for one, kind, _ in parts)
    rows = [one.rows[:, places] for one, _, places in parts]
    bears = [np.full(len(places), kind == "own") for _, kind, places in parts]
    weights = []
    for one, kind, places in parts:
        share = COLLECTION_WEIGHTS.get(one.collection, 1.0) / queries[one.collection, kind]
        share /= 1 if kind == "own" else len(NOT_BEARING)
        weights.append(np.full(len(places), share / len(places)))
    every_weight = np.concatenate(weights)
    scale = WEIGHT_OF_ALL / every_weight.sum()
    return Judged(np.hstack(rows), np.concatenate(bears), every_weight * scale)


def _parts(one: Asked, *, embedded: bool) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """What is judged of the memories, by what kind they are."""
    answers = one.answers
    if not embedded:
        # Nothing speaks for an answer that shares no word with its question.
        answers = answers[one.rows[0, answers] > 0]
    of_kind = {"own": answers, "others": one.others}
    if one.kind in FOREIGN:
        of_kind = {one.kind: one.best}
    return ((kind, places) for kind, places in of_kind.items() if len(places))


def fit(given: Judged, *, embedded: bool) -> Floats:
    """Bias and weights, as `CertaintyWeights` has them, by Newton's method."""
    used = np.ones(len(given.rows), np.bool_)
    used[TERMS:] = embedded
    table = np.vstack([np.ones(given.rows.shape[1]), given.rows[used]])
    ridge = PENALTY * np.eye(len(table))
    ridge[0, 0] = 0.0
    weights = np.zeros(len(table))
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-weights @ table))
        gradient = table @ (given.weights * (chances - given.bears)) + ridge @ weights
        curvature = (table * (given.weights * chances * (1 - chances))) @ table.T + ridge
        weights -= np.linalg.solve(curvature, gradient)
    solved = np.zeros(1 + len(used))
    solved[np.flatnonzero(np.append([True], used))] = weights
    return solved


def area(given: Judged) -> float:
    """The chance that what bears on a query is given more than what does not (AUC)."""
    _, place = np.unique(given.rows[-1], return_inverse=True)
    good = np.bincount(place, given.weights * given.bears)
    bad = np.bincount(place, given.weights * ~given.bears)
    below = np.cumsum(bad) - bad
    return float((good * (below + bad / 2)).sum() / good.sum() / bad.sum())


class Outcome(NamedTuple):
    """A query, and how sure recall is of each memory, by weights of the other folds."""

    asked: Asked
    """With that as the last row."""
    sure: Floats


def outcome(asked: Asked, weights: Floats) -> Outcome:
    """Judge the memories of a query."""
    found = 1 / (1 + np.exp(-weights[0] - weights[1:] @ asked.rows))
    return Outcome(asked._replace(rows=np.vstack([asked.rows, found])), found)


def show_separation(outcomes: Sequence[Outcome], *, embedded: bool) -> None:
    """Print AUC, and what a threshold keeps, by collection and by size."""
    print(f"{'':10}{'AUC':>6}" + "".join(f"{f'≥ {least}':>21}" for least in THRESHOLDS))
    print(f"{'':10}{'':6}" + f"{'kept near far adv.':>21}" * len(THRESHOLDS))
    groups: list[tuple[str, Callable[[Asked], bool]]] = [
        (name, lambda one, name=name: one.collection == name and not one.size)  # type: ignore[misc]
        for name in COLLECTIONS
    ]
    groups += [
        (str(size or "whole"), lambda one, size=size: one.size == size)  # type: ignore[misc]
        for size in SIZES
    ]
    for name, belongs in groups:
        of_group = [one for one in outcomes if belongs(one.asked)]
        given = judged([one.asked for one in of_group], embedded=embedded)
        cells = "".join(_cell(of_group, least) for least in THRESHOLDS)
        print(f"{name:10}{area(given):6.3f}{cells}")


def _cell(outcomes: Sequence[Outcome], least: float) -> str:
    """Answers among the best results that stay, and queries that get nothing, in per cent."""
    kept = [
        one.sure[place] >= least
        for one in outcomes
        for place in np.intersect1d(one.asked.answers, one.asked.best)
    ]
    shares = [f"{100 * np.mean(kept):.0f}" if kept else ""]
    for kind in (*FOREIGN, "adversarial"):
        nothing = [one.sure.max() < least for one in outcomes if one.asked.kind == kind]
        shares.append(f"{100 * np.mean(nothing):.0f}" if nothing else "")
    return f"{shares[0]:>8}{shares[1]:>5}{shares[2]:>4}{shares[3]:>4}"


def show_calibration(outcomes: Sequence[Outcome], *, embedded: bool) -> None:
    """Print for each tenth of relevance which share bears on the query."""
    given = judged([one.asked for one in outcomes], embedded=embedded)
    values = given.rows[-1]
    tenths = np.minimum((values * 10).astype(int), 9)
    weight = np.bincount(tenths, given.weights, minlength=10)
    mean = np.bincount(tenths, given.weights * values, minlength=10) / weight
    bears = np.bincount(tenths, given.weights * given.bears, minlength=10) / weight
    error = calibration_error(values, given.bears, given.weights)
    print(f"calibration error of memories {error:.3f}")
    print("relevance  " + "".join(f"{100 * one:6.0f}" for one in mean))
    print("bears on it" + "".join(f"{100 * one:6.0f}" for one in bears))


def calibration_error(sure: Floats, bears: NDArray[np.bool_], weights: Floats) -> float:
    """The expected calibration error over tenths (Naeini et al., 2015), 0 to 1."""
    tenths = np.minimum((sure * 10).astype(int), 9)
    gaps = np.bincount(tenths, weights * (sure - bears), minlength=10)
    return float(np.abs(gaps).sum() / weights.sum())


def show_sessions(outcomes: Sequence[Outcome]) -> None:
    """Print how well the best relevance of an answer tells whether the session has one at all."""
    print(f"{'whether a session can answer':30}{'AUC':>8}{'ECE':>8}")
    whole = [one for one in outcomes if one.asked.kind in ("own", *FOREIGN)]
    groups = {name: [o for o in whole if o.asked.collection == name] for name in COLLECTIONS}
    groups["all"] = whole
    for name, group in groups.items():
        sure = np.array([one.sure[one.asked.best].max() for one in group])
        own = np.array([one.asked.kind == "own" for one in group])
        sizes = Counter((one.asked.collection, one.asked.kind == "own") for one in group)
        weights = [1 / sizes[o.asked.collection, o.asked.kind == "own"] for o in group]
        judged_all = Judged(sure[np.newaxis], own, np.array(weights))
        error = calibration_error(sure, own, judged_all.weights)
        print(f"{name:30}{area(judged_all):8.3f}{error:8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("locomo", "beam", "friends"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--embedder", default="none", help="none, multilingual, static, minilm or package:Class"
    )
    given = parser.parse_args()
    embedder = load_embedder(given.embedder)
    embedded = embedder is not None
    every = [*ask(talks(vars(given)), embedder)]
    outcomes = []
    for fold in range(FOLDS):
        others = judged([one for one in every if one.fold != fold], embedded=embedded)
        weights = fit(others, embedded=embedded)
        outcomes += [outcome(one, weights) for one in every if one.fold == fold]
    print(f"embedder {given.embedder}: {len(every)} queries")
    show_separation(outcomes, embedded=embedded)
    show_sessions(outcomes)
    show_calibration(outcomes, embedded=embedded)
    solved = fit(judged(every, embedded=embedded), embedded=embedded)
    names = [field.name for field in fields(CertaintyWeights)]
    print(CertaintyWeights(**dict(zip(names, np.round(solved, 2).tolist(), strict=True))))


if __name__ == "__main__":
    main()
