"""Which documents a filter selects."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.documents import BodyKind
from memoryd.domain.json_text import parsed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from memoryd.domain.conditions import Conditions
    from memoryd.domain.documents import Document, DocumentName
    from memoryd.domain.records import Session

INLINE_BYTES = 16 * 1024
"""Of bodies that are looked into on the event loop; more are in a thread."""

SCAN_BYTES = 8 * 1024 * 1024
"""Of bodies that are looked into for conditions at once, unless one is larger."""


class DocumentFilter(NamedTuple):
    """All conditions given must hold."""

    labels: Mapping[str, str]
    conditions: Conditions

    @property
    def is_empty(self) -> bool:
        return not self.labels and not self.conditions

    def fits_labels(self, document: Document) -> bool:
        return self.labels.items() <= document.labels.items()


def within_reach(outlines: Sequence[Document], wanted: DocumentFilter) -> Sequence[Document]:
    """The first ones, as many as have bodies that can be read for conditions at once."""
    room = SCAN_BYTES if wanted.conditions else None
    for place, document in enumerate(outlines):
        if room is None:
            break
        room -= document.size
        if room < 0 and place:
            return outlines[:place]
    return outlines


async def matching(
    outlines: Sequence[Document],
    wanted: DocumentFilter,
    complete: Callable[[Sequence[Document]], Awaitable[Sequence[Document]]],
) -> Sequence[Document]:
    """Those that a filter selects; `complete` reads documents with their bodies."""
    labelled = [document for document in outlines if wanted.fits_labels(document)]
    if not wanted.conditions:
        return labelled
    full = await complete([one for one in labelled if one.kind is BodyKind.JSON])
    holding = partial(_holding, full, wanted.conditions)
    if sum(document.size for document in full) > INLINE_BYTES:
        held = await asyncio.to_thread(holding)
    else:
        held = holding()
    if wanted.conditions.hold_for(None):  # what is no JSON has nothing at any path
        held |= {place_of(document) for document in labelled if document.kind is not BodyKind.JSON}
    return [document for document in labelled if place_of(document) in held]


def place_of(document: Document) -> tuple[Session, DocumentName]:
    return document.session, document.name


def _holding(
    found: Sequence[Document], conditions: Conditions
) -> set[tuple[Session, DocumentName]]:
    """Those whose bodies meet conditions."""
    return {
        place_of(document)
        for document in found
        if document.body is not None and conditions.hold_for(parsed(document.body))
    }
