"""The search texts of one session's documents, as recall ranks them; apart from all memories."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from memoryd.documents.search_texts import Texts
from memoryd.domain.documents import MAX_SEARCH_TEXTS, DocumentName
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import understand
from memoryd.retrieval.heavy import no_check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from memoryd.retrieval.heavy import Check

NAME_BYTES = 400
"""Of a document's name and its places, about, without the characters of the name."""


class DocumentIndex:
    """Not safe for use by several threads while it is updated."""

    def __init__(self, language: str) -> None:
        self.index = SessionIndex(language=language)
        self.characters = 0
        """Of search texts."""
        self._bytes = 0
        """Of search texts and names."""
        self._held: dict[DocumentName, Texts] = {}
        """The documents that have search texts."""
        self._by_revision: dict[int, DocumentName] = {}

    @property
    def nbytes(self) -> int:
        """About what it takes."""
        return self.index.nbytes + self._bytes

    def take(self, changes: Iterable[Texts]) -> None:
        """Take in documents as they are now, in the order of their revisions."""
        removed: list[str] = []
        fresh: dict[DocumentName, Texts] = {}
        for change in changes:
            before = self._held.pop(change.name, None)
            if before is not None:
                removed += _ids(before)
                del self._by_revision[before.revision]
                self._count(before, -1)
            fresh.pop(change.name, None)
            if change.texts:
                self._held[change.name] = fresh[change.name] = change
                self._by_revision[change.revision] = change.name
                self._count(change, 1)
        added = [document for change in fresh.values() for document in _documents(change)]
        self.index.update(added, removed)

    def _count(self, texts: Texts, sign: int) -> None:
        self.characters += sign * sum(map(len, texts.texts))
        size = sum(map(sys.getsizeof, (*texts.texts, *texts.name)))
        self._bytes += sign * (size + NAME_BYTES)

    def name(self, place: str) -> DocumentName:
        """The document that a text is of, by its id in the index."""
        return self._by_revision[int(place.partition(".")[0])]

    def below(self, prefix: str) -> NDArray[np.bool_] | None:
        """Which texts are of documents at or below a namespace; None: all."""
        if not prefix:
            return None
        ids = self.index.ids
        inside = (self.name(place).namespace.startswith(prefix) for place in ids)
        return np.fromiter(inside, np.bool_, len(ids))


def best_documents(
    query: str,
    indexes: Sequence[DocumentIndex],
    prefix: str,
    *,
    limit: int,
    now: datetime,
    check: Check = no_check,
) -> tuple[list[tuple[int, DocumentName, float]], bool]:
    """The documents that hold anything of a query by their best text, best first.

    Each with which of the indexes it is of, and its score; and whether these are all. They are
    those of the best `limit` texts.
    """
    of_texts = [one.index for one in indexes]
    allowed = [one.below(prefix) for one in indexes]
    check()
    ranked = rank(
        understand(query, of_texts),
        of_texts,
        [np.zeros(len(one)) for one in of_texts],
        now=now,
        limit=limit,
        allowed=allowed,
        diverse=False,
        matching=True,
    )
    best: dict[tuple[int, DocumentName], float] = {}
    for found in ranked:
        place = found.session, indexes[found.session].name(found.memory_id)
        best.setdefault(place, found.score)
    return [(*place, score) for place, score in best.items()], len(ranked) < limit


def _ids(texts: Texts) -> list[str]:
    return [f"{texts.revision}.{number}" for number in range(len(texts.texts))]


def _documents(texts: Texts) -> list[Document]:
    assert texts.updated_at is not None  # noqa: S101  for the type checker
    return [
        Document(
            place,
            text,
            created=texts.revision * MAX_SEARCH_TEXTS + number,
            created_at=texts.updated_at,
        )
        for number, (place, text) in enumerate(zip(_ids(texts), texts.texts, strict=True))
    ]


def try_out(language: str) -> None:
    """Rank once, so that what is loaded for that is there."""
    index, moment = DocumentIndex(language), datetime.now(UTC)
    index.take([Texts(DocumentName("", "k"), 1, moment, ["word"])])
    best_documents("word last week", [index], "", limit=1, now=moment)
