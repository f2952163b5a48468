"""Which sessions stay in memory: those asked for last, as far as there is room for each caller."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memoryd.domain.records import Session
    from memoryd.memories.cached_session import CachedSession

CALL_SHARE = 0.75
"""Of the room, at most: the sessions that one call brings in. What is beyond is answered and not
kept, so that one call does not drive all other sessions out."""


class RecentSessions:
    """Room is made by the caller whose sessions take most of it, the longest unused first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sessions: dict[Session, CachedSession] = {}
        self._bytes: dict[Session, int] = {}
        """What each takes, once it is settled."""
        self._caller: dict[Session, str] = {}
        """Who asked for each last."""
        self._of: dict[str, OrderedDict[Session, None]] = {}
        """Those of each caller, the longest unused first."""
        self._taken: Counter[str] = Counter()
        """What those of each caller take."""

    def __iter__(self) -> Iterator[Session]:
        return iter([*self._sessions])

    @property
    def nbytes(self) -> int:
        """About what all of them take."""
        return self._taken.total()

    def get(self, session: Session) -> CachedSession | None:
        return self._sessions.get(session)

    def add(self, cached: CachedSession) -> None:
        """Keep one at least until a call that uses it is settled."""
        self._sessions[cached.session] = cached

    def forget(self, session: Session) -> None:
        """Keep nothing of a session."""
        self._sessions.pop(session, None)
        self._leave(session)

    def settle(self, sessions: Iterable[Session], caller: str) -> None:
        """Note that a call used sessions, and make room for what they take by now."""
        room = most = int(self._max_bytes * CALL_SHARE)
        for session in sessions:
            cached = self._sessions.get(session)
            if cached is None:
                continue  # forgotten meanwhile
            size = cached.nbytes
            room -= size
            if size > most or (room < 0 and session not in self._bytes):
                self.forget(session)
                continue
            self._leave(session)
            self._bytes[session] = size
            self._caller[session] = caller
            self._of.setdefault(caller, OrderedDict())[session] = None
            self._taken[caller] += size
        while self.nbytes > self._max_bytes:
            ((heaviest, _),) = self._taken.most_common(1)
            self.forget(next(iter(self._of[heaviest])))

    def _leave(self, session: Session) -> None:
        caller = self._caller.pop(session, None)
        if caller is None:
            return
        self._taken[caller] -= self._bytes.pop(session)
        del self._of[caller][session]
        if not self._of[caller]:
            del self._of[caller], self._taken[caller]
