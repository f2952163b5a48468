"""Documents in as few calls as take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.client import Put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from memoryd.client import Remove
    from memoryd.client.answers import BatchGetDocumentsResponse, DocumentEntry

MAX_BATCH = 1_000
"""Documents in one call."""

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""Of bodies and search texts in one call of several writes; a call takes 4 MiB in all."""


def batches(writes: Iterable[Put | Remove]) -> Iterator[list[Put | Remove]]:
    batch: list[Put | Remove] = []
    nbytes = 0
    for write in writes:
        size = _size(write)
        if batch and (len(batch) == MAX_BATCH or nbytes + size > MAX_BATCH_BYTES):
            yield batch
            batch, nbytes = [], 0
        batch.append(write)
        nbytes += size
    if batch:
        yield batch


def whole(answer: BatchGetDocumentsResponse) -> Sequence[DocumentEntry]:
    """The first entries of an answer, as far as none lacks a body for want of room."""
    for place, entry in enumerate(answer.entries if answer.truncated else ()):
        document = entry.document
        if document and (document.json, document.text, document.data) == (None, None, None):
            return answer.entries[:place]
    return answer.entries


def _size(write: Put | Remove) -> int:
    if not isinstance(write, Put):
        return 0
    texts = (write.json or "", write.text or "", *write.search_texts)
    return len(write.data or b"") + sum(len(text.encode(errors="replace")) for text in texts)
