"""What has changed between two versions of a memory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from typing import Any

    from memoryd.client import Memory
    from memoryd.client.answers import MemoryRevision

_words = re.compile(r"\w+\s*|[^\w\s]\s*|\s+").findall

MOST_WORDS = 240
"""Of what differs between two texts, to be compared word by word: it may take the cube of them."""


class Piece(NamedTuple):
    """A piece of a text: in both, or only in the one before or after."""

    kind: str
    """`same`, `removed` or `added`."""
    text: str


def compared(before: str, after: str) -> list[Piece]:
    """What of a text was removed and added, word by word."""
    if before == after:
        return [Piece("same", before)]
    old, new = _words(before), _words(after)
    most = min(len(old), len(new))
    begin = next((n for n in range(most) if old[n] != new[n]), most)
    most -= begin
    end = next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)
    middle = _compared_words(old[begin : len(old) - end], new[begin : len(new) - end])
    pieces = [
        Piece("same", "".join(old[:begin])),
        *middle,
        Piece("same", "".join(old[len(old) - end :])),
    ]
    runs = groupby((piece for piece in pieces if piece.text), key=attrgetter("kind"))
    return [Piece(kind, "".join(piece.text for piece in run)) for kind, run in runs]


def _compared_words(old: list[str], new: list[str]) -> list[Piece]:
    # The space after a word is no part of it here.
    old_keys, new_keys = [each.strip() for each in old], [each.strip() for each in new]
    if len(old) + len(new) > MOST_WORDS or old_keys == new_keys:
        return [Piece("removed", "".join(old)), Piece("added", "".join(new))]
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, old_keys, new_keys, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            last = max(old[j - 1], new[m - 1], key=len)  # with the space before what was removed
            pieces.append(Piece("same", "".join([*new[k : m - 1], last])))
            continue
        pieces += [Piece("removed", "".join(old[i:j])), Piece("added", "".join(new[k:m]))]
    return pieces


@dataclass(frozen=True)
class Changed:
    """A field, and what it was before and after."""

    name: str
    before: Any
    after: Any
    pieces: Sequence[Piece] = ()
    """Of texts and lists: what was removed and added."""

    @property
    def is_time(self) -> bool:
        return self.name == "expiry"


class Version(NamedTuple):
    """A version of a memory, and how it differs from the one before."""

    made: MemoryRevision
    changes: list[Changed]
    is_first: bool
    """Whether there is none before it, or none that is kept."""

    @property
    def can_return(self) -> bool:
        """Whether it has something to go back to."""
        return self.made.memory.delete_time is None


def as_json(metadata: dict[str, Any]) -> str:
    """Metadata as people read and edit it."""
    return json.dumps(metadata, indent=2, ensure_ascii=False, sort_keys=True) if metadata else ""


def changes(before: Memory, after: Memory) -> list[Changed]:
    """The fields that differ, of those that callers change."""
    return [change for change in _compared_fields(before, after) if change.before != change.after]


def _compared_fields(before: Memory, after: Memory) -> Iterator[Changed]:
    yield Changed("content", before.content, after.content, compared(before.content, after.content))
    yield Changed("type", before.content_type, after.content_type)
    yield Changed("importance", _number(before.importance), _number(after.importance))
    yield Changed("tags", before.tags, after.tags, _tags(before.tags, after.tags))
    old, new = as_json(before.metadata), as_json(after.metadata)
    yield Changed("metadata", old, new, compared(old, new))
    yield Changed("expiry", before.expire_time, after.expire_time)


def _number(importance: float | None) -> str:
    return f"{importance or 0.0:g}"


def _tags(before: tuple[str, ...], after: tuple[str, ...]) -> list[Piece]:
    kinds = {tag: "same" for tag in before if tag in after}
    kinds |= {tag: "removed" for tag in before if tag not in after}
    kinds |= {tag: "added" for tag in after if tag not in before}
    return [Piece(kinds[tag], tag) for tag in sorted(kinds)]


def versions_of(made: Sequence[MemoryRevision], older: MemoryRevision | None) -> list[Version]:
    """Of a page of versions, newest first; `older`: the one that comes after the page."""
    befores = [*made[1:], older]
    return [
        Version(one, [] if before is None else changes(before.memory, one.memory), before is None)
        for one, before in zip(made, befores, strict=True)
    ]


def exact(time: datetime | None) -> str:
    """As a form has it: to the second, in UTC."""
    return "" if time is None else f"{time:%Y-%m-%dT%H:%M:%S}"
