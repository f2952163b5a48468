"""Which contents a session may hold live, so that one that is new to it need not be looked up.

As with the counts of `sessions.count_cache`, whatever changes a session raises its revision: what
is known holds for as long as the session is at the revision that it was known at. The unique index
on live contents stands behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.domain.records import ContentType, Session

MAX_SESSIONS = 1_000
"""Sessions of which contents are known; that not stored to for longest goes."""

MAX_CONTENTS = 2_000
"""Of a session; beyond them it is taken for unknown."""


class KnownContents:
    """Contents of one session, and perhaps some that are no longer live."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def may_hold(self, content_type: ContentType, content_hash: str) -> bool:
        return hash((content_type, content_hash)) in self._hashes

    def add(self, contents: Iterable[tuple[ContentType, str]]) -> None:
        self._hashes.update(map(hash, contents))

    def __len__(self) -> int:
        return len(self._hashes)


class ContentCache:
    def __init__(self) -> None:
        self._known: OrderedDict[Session, tuple[int, KnownContents]] = OrderedDict()

    def get(self, session: Session, revision: int) -> KnownContents | None:
        """What the session may hold; None where that is unknown."""
        at, known = self._known.get(session, (None, None))
        return known if at == revision else None

    def put(self, session: Session, revision: int, known: KnownContents) -> None:
        """Remember it, as committed."""
        if len(known) > MAX_CONTENTS:
            self._known.pop(session, None)
            return
        self._known[session] = revision, known
        self._known.move_to_end(session)
        if len(self._known) > MAX_SESSIONS:
            self._known.popitem(last=False)

    def forget(self, sessions: Iterable[Session]) -> bool:
        """Know nothing of sessions; give whether anything was known of one."""
        forgotten = [self._known.pop(session, None) for session in sessions]
        return any(known is not None for known in forgotten)
