"""Documents and others in as few calls as take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from memoryd.client import Put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from memoryd.client import Remove
    from memoryd.client.answers import BatchGetDocumentsResponse, DocumentEntry

_Item = TypeVar("_Item")

MAX_BATCH = 1_000
"""Documents in one call, memories or messages."""

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""Of bodies and search texts, or of messages, in one call of several; a call takes 4 MiB in all."""


def batches(writes: Iterable[Put | Remove]) -> Iterator[list[Put | Remove]]:
    return chunks(writes, _size, room=MAX_BATCH_BYTES)


def chunks(
    items: Iterable[_Item], size_of: Callable[[_Item], int], *, room: int
) -> Iterator[list[_Item]]:
    """At most MAX_BATCH items each, and of together `room` unless it is one alone."""
    chunk: list[_Item] = []
    used = 0
    for item in items:
        size = size_of(item)
        if chunk and (len(chunk) == MAX_BATCH or used + size > room):
            yield chunk
            chunk, used = [], 0
        chunk.append(item)
        used += size
    if chunk:
        yield chunk


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
