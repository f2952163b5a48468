"""Which contents and keys a session may hold live, and which requests it may have answered.

What is new to a session need not be looked up. Whatever changes a session raises its revision: what
is known holds for as long as the session is at the revision that it was known at. The unique
indexes stand behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.domain.records import Identity, Session

MAX_SESSIONS = 1_000
"""Sessions that are known; that not stored to for longest goes."""

MAX_HASHES = 2_000
"""Of contents, keys and requests of a session; beyond them it is taken for unknown."""


class KnownSession:
    """Contents, keys and requests of one session, and perhaps some that are gone; no text."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def may_hold(self, identity: Identity) -> bool:
        return hash(identity) in self._hashes

    def may_have_answered(self, request_id: str) -> bool:
        return hash(request_id) in self._hashes

    def add_held(self, identities: Iterable[Identity]) -> None:
        self._hashes.update(map(hash, identities))

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
