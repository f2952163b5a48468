"""Recall of memories without speaker, date or episode: facts and preferences about a user.

python benchmarks/recall_facts.py [--embedders none static …] [--languages]

`facts.txt` has sessions, each under a line `= kind language name`, one memory a line:

- `fact`: what is stored first;
- `+ fact`: stored later, and corrects the fact before it;
- `& fact`: stored later, and corrects nothing, however alike it is;
- `? query`: asks for the fact before it, `?2 query` for the two before it.

Sessions of a kind that have the same name in several languages say the same line by line.

| kind | what |
|---|---|
| facts | one user, 122 facts; weights have been fitted on it |
| newcomers | sessions of 5 to 40 facts, most questions in other words than the fact's |
| updates | what is stored later corrects something, or looks as if it did |
| languages | the same two sessions in 15 languages, asked for in other words |
| inflections | two in ten languages, asked for by other forms of their words and many small ones |

Of every kind but the first, the sessions under every other name, beginning with the first, are for
fitting weights and for development ("fit"), those under the rest for measuring only ("kept").

Updates are asked for twice: what comes later does so a month later, or in the same batch. Each
language is asked in itself; in English for facts in each other one, and the other way round; and in
itself in a session where each fact has another language than the one before ("mixed"). Comparing
with BM25 alone shows whether signals fitted on conversations do harm here.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from locomo import ndcg, recall

from memoryd.recall.embedders.embedder import KNOWN, EmbedderUnavailable, embed_contents, load
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.languages import DEFAULT_LANGUAGE, language_of
from memoryd.recall.signals import meaning_of, signals, understand
from memoryd.recall.text import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memoryd.recall.embedders.embedder import Embedder

    Rows = dict[str, dict[str, list[list[float]]]]
    """`MEASURES` of each question, by part and half."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = timedelta(days=30)
K = 10
HALVES = ("kept", "fit")
MEASURES = ("hit@1", "R@3", "R@5", "nDCG@10")


class Fact(NamedTuple):
    text: str
    mark: str = ""
    """`+`: a correction of the fact before it; `&`: stored later, too; else empty."""


class Asked(NamedTuple):
    text: str
    evidence: frozenset[int]
    """Places of the facts in their session."""


@dataclass(frozen=True, slots=True)
class Session:
    kind: str
    language: str
    """ISO 639-1."""
    name: str
    half: str
    """Of `HALVES`."""
    facts: list[Fact] = field(default_factory=list)
    questions: list[Asked] = field(default_factory=list)

    def documents(self, *, apart: timedelta = timedelta()) -> list[Document]:
        """As memories, with the places of facts as ids; what is later comes last."""
        order = sorted(range(len(self.facts)), key=lambda place: bool(self.facts[place].mark))
        return [
            Document(
                str(place),
                self.facts[place].text,
                created,
                NOW - (timedelta() if self.facts[place].mark else apart),
            )
            for created, place in enumerate(order)
        ]


class Part(NamedTuple):
    """Questions that are reported together, asked in one session."""

    label: str
    half: str
    """Of `HALVES`."""
    documents: list[Document]
    questions: list[Asked]


def sessions() -> list[Session]:
    """All of them, in the order of the file."""
    found: list[Session] = []
    names: dict[str, list[str]] = defaultdict(list)
    for line in Path(__file__).with_name("facts.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            kind, language, name = line[2:].split()
            if name not in names[kind]:
                names[kind].append(name)
            half = "kept" if names[kind].index(name) % 2 else "fit"
            found.append(Session(kind, language, name, half))
            continue
        facts, questions = found[-1].facts, found[-1].questions
        if asked := re.match(r"\?(\d?) (.*)", line):
            last = range(len(facts) - int(asked[1] or 1), len(facts))
            questions.append(Asked(asked[2], frozenset(last)))
        elif line.startswith(("+ ", "& ")):
            facts.append(Fact(line[2:], line[0]))
        else:
            facts.append(Fact(line))
    return found


def collection() -> tuple[list[str], list[Asked]]:
    """The facts and the questions of the first session."""
    first = sessions()[0]
    return [fact.text for fact in first.facts], first.questions


def parts() -> Iterator[Part]:
    """What is asked in which session."""
    every = sessions()
    for session in every:
        if session.kind in ("facts", "newcomers"):
            yield Part(session.kind, session.half, session.documents(), session.questions)
        elif session.kind == "updates":
            corrections = [q for q in session.questions if _corrects(session, q)]
            others = [q for q in session.questions if not _corrects(session, q)]
            for manner, apart in (("apart", LATER), ("in a batch", timedelta())):
                documents = session.documents(apart=apart)
                yield Part(f"updates {manner}", session.half, documents, corrections)
                yield Part(f"… what is no update, {manner}", session.half, documents, others)
        elif session.kind == "inflections":
            label = f"inflections: {session.language}"
            yield Part(label, session.half, session.documents(), session.questions)
    yield from _of_languages([session for session in every if session.kind == "languages"])


def _of_languages(every: Sequence[Session]) -> Iterator[Part]:
    for one, other in product(every, every):
        if one.name != other.name:
            continue
        if one is other:
            label = f"same language: {one.language}"
        elif one.language == "en":
            label = f"asked in English, facts in another: {other.language}"
        elif other.language == "en":
            label = f"asked in another, facts in English: {one.language}"
        else:
            continue
        yield Part(label, one.half, other.documents(), one.questions)
    for name in dict.fromkeys(session.name for session in every):
        same = [session for session in every if session.name == name]
        for shift in range(len(same)):
            turns = [same[(n + shift) % len(same)] for n in range(len(same[0].facts))]
            mixed = replace(
                same[0],
                facts=[session.facts[place] for place, session in enumerate(turns)],
                questions=[
                    session.questions[number]
                    for number, (_, evidence) in enumerate(same[0].questions)
                    for session in [turns[min(evidence)]]
                ],
            )
            yield Part("mixed", mixed.half, mixed.documents(), mixed.questions)


def _corrects(session: Session, question: Asked) -> bool:
    return any(session.facts[place].mark == "+" for place in question.evidence)


class Finder:
    """Answers questions with an embedder, or without; texts are embedded once."""

    def __init__(self, embedder: Embedder | None, texts: Sequence[str]) -> None:
        self.embedder = embedder
        distinct = [*dict.fromkeys(texts)]
        self._embeddings = (
            dict(zip(distinct, embed_contents(embedder, distinct), strict=True)) if embedder else {}
        )

    def index(self, documents: Sequence[Document]) -> SessionIndex:
        """A session of some documents."""
        return SessionIndex(
            (
                replace(document, vector=vector, token_vectors=tokens)
                for document in documents
                for vector, tokens in [self._embeddings.get(document.content, (None, None))]
            ),
            dimensions=self.embedder.dimensions if self.embedder else 0,
        )

    def found(self, text: str, index: SessionIndex) -> list[str]:
        """The ids of the best ten."""
        query = understand(text, [index])
        meaning = meaning_of(query, self.embedder) if self.embedder else None
        importances = [np.full(len(index), 0.5)]
        ranked = rank(query, [index], importances, now=NOW, limit=K, meaning=meaning)
        return [one.memory_id for one in ranked]


def by_bm25(text: str, index: SessionIndex) -> list[str]:
    """The ids of all facts, best first, by this signal alone."""
    scores = signals(understand(text, [index]), [index], now=NOW, meaning=None).relevance[0]
    return [index.ids[place] for place in np.argsort(-scores, kind="stable")]


def measures(found: Sequence[str], evidence: frozenset[int]) -> list[float]:
    """`MEASURES` of what was found for a question, each 0 to 1."""
    ids = frozenset(map(str, evidence))
    hit = float(found[0] in ids)
    return [hit, recall(found, ids, 3), recall(found, ids, 5), ndcg(found, ids, K)]


def show(label: str, rows: Rows, *, languages: bool) -> None:
    """Print a table of one way to find: the means in per cent of what was kept, and of the rest."""
    together: Rows = {}
    for name, halves in rows.items():
        whole, _, language = name.partition(": ")
        if language == "en":
            continue  # it is no other language
        for half, values in halves.items():
            together.setdefault(whole, {}).setdefault(half, []).extend(values)
    if languages:
        together |= {name: halves for name, halves in rows.items() if ": " in name}
    print(f"\n{label}")
    print(f"{'':40}" + "".join(f"{half:>38}" for half in HALVES))
    print(f"{'':40}" + len(HALVES) * (f"{'n':>6}" + "".join(f"{name:>8}" for name in MEASURES)))
    for name, halves in together.items():
        print(f"{name:40}", end="")
        for half in HALVES:
            values = halves.get(half, [])
            means = [f"{100 * mean:8.1f}" for mean in np.mean(values, axis=0)] if values else []
            print(f"{len(values):6}" + "".join(means or len(MEASURES) * [f"{'–':>8}"]), end="")
        print()


def show_languages_told() -> None:
    """Print the share of texts whose language they tell, of each language in per cent."""
    told: dict[str, list[bool]] = defaultdict(list)
    for session in sessions():
        for text, _ in (*session.facts, *session.questions):
            told[session.language].append(
                language_of(words_of(text), DEFAULT_LANGUAGE) == session.language
            )
    shares = (f"{language} {100 * np.mean(right):.0f}" for language, right in sorted(told.items()))
    print("texts taken to be in their own language:", ", ".join(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedders", nargs="+", default=("none", *KNOWN))
    parser.add_argument("--languages", action="store_true", help="each language by itself, too")
    arguments = parser.parse_args()
    show_languages_told()
    asked = [*parts()]
    for choice in arguments.embedders:
        try:
            embedder = load(choice)
        except EmbedderUnavailable as error:
            print(error)
            continue
        finder = Finder(embedder, [d.content for part in asked for d in part.documents])
        rows: Rows = {}
        alone: Rows = {}
        for part in asked:
            index = finder.index(part.documents)
            for text, evidence in part.questions:
                for table, ids in (
                    (rows, finder.found(text, index)),
                    *([(alone, by_bm25(text, index))] if embedder is None else []),
                ):
                    of_part = table.setdefault(part.label, {}).setdefault(part.half, [])
                    of_part.append(measures(ids, evidence))
        if embedder is None:
            show("BM25 alone", alone, languages=arguments.languages)
        show(f"whole, embedder {choice}", rows, languages=arguments.languages)


if __name__ == "__main__":
    main()
