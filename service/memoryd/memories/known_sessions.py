"""Which contents a session may hold live, and which requests it may have answered.

What is new to a session need not be looked up. Whatever changes a session raises its revision: what
is known holds for as long as the session is at the revision that it was known at. The unique
indexes stand behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.domain.records import ContentType, Session

MAX_SESSIONS = 1_000
"""Sessions that are known; that not stored to for longest goes."""

MAX_HASHES = 2_000
"""Of contents and requests of a session; beyond them it is taken for unknown."""


class KnownSession:
    """Contents and requests of one session, and perhaps some that are gone. It keeps no text."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def may_hold(self, content_type: ContentType, content_hash: str) -> bool:
        return hash((content_type, content_hash)) in self._hashes

    def may_have_answered(self, request_id: str) -> bool:
        return hash(request_id) in self._hashes

    def add_contents(self, contents: Iterable[tuple[ContentType, str]]) -> None:
        self._hashes.update(map(hash, contents))

    def add_request(self, request_id: str) -> None:
        self._hashes.add(hash(request_id))

    def __len__(self) -> int:
        return len(self._hashes)


class KnownSessions:
    def __init__(self) -> None:
        self._known: OrderedDict[Session, tuple[int, KnownSession]] = OrderedDict()

    def get(self, session: Session, revision: int) -> KnownSession | None:
        """What the session may have; None where that is unknown."""
        at, known = self._known.get(session, (None, None))
        return known if at == revision else None

    def put(self, session: Session, revision: int, known: KnownSession) -> None:
        """Remember it, as committed."""
        if len(known) > MAX_HASHES:
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
