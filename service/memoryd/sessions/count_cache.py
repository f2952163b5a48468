"""How many memories of a session are kept, counted on from commit to commit.

Every change of that number raises the session's revision, whoever makes it. A number is therefore
right for as long as the session is at the revision that it was counted at.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memoryd.domain.records import Session

MAX_SESSIONS = 10_000
"""Numbers in memory; that of the session not stored to for longest goes."""


class CountCache:
    def __init__(self) -> None:
        self._counts: OrderedDict[Session, tuple[int, int]] = OrderedDict()

    def get(self, session: Session, revision: int) -> int | None:
        """Rows that are not deleted, expired ones included; None where it has to be counted."""
        at, count = self._counts.get(session, (None, None))
        return count if at == revision else None

    def put(self, session: Session, revision: int, count: int) -> None:
        """Remember it, as committed."""
        self._counts[session] = revision, count
        self._counts.move_to_end(session)
        if len(self._counts) > MAX_SESSIONS:
            self._counts.popitem(last=False)
