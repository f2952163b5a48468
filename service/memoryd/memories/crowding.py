"""Sessions that a write may bring over their limit, and which of their memories may have to go."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from memoryd.domain.records import Session
from memoryd.memories.eviction import Ranking
from memoryd.memories.lookups import lookups_of
from memoryd.memories.writes import Store, Undelete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Capacity
    from memoryd.memories.reader import Reader
    from memoryd.memories.session_changes import SessionWork
    from memoryd.memories.writes import Write

MAX_SHRINK = 10_000
"""Memories that one transaction evicts of a session because its limit was lowered, beyond what it
adds. What is over the limit still goes with the next stores."""


class Crowding:
    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        reader: Reader,
        *,
        on_unranked: Callable[[Mapping[Session, float]], None],
    ) -> None:
        """`reader`: of the sessions that are locked.

        `on_unranked` is called with sessions of which many memories have no rank, and with the
        half-life of their ranks; what comes of this transaction does not matter to it.
        """
        self._lookups = lookups_of(dialect)
        self._now = now
        self._works = reader.works
        self._reader = reader
        self._on_unranked = on_unranked
        self._ranking = Ranking(connection, dialect, now)

    def open(self, work: SessionWork) -> None:
        """Begin with a session as it was found."""
        self._ranking.open(work)

    def save(self) -> None:
        """Note how far the ranks of sessions are kept by now."""
        self._ranking.save(self._works.values())

    def read(self, writes: Sequence[Write]) -> None:
        """Count live memories where a write adds some, and read those that may have to go."""
        adding: defaultdict[Session, int] = defaultdict(int)
        capacities: dict[Session, Capacity] = {}
        for write in writes:
            match write:
                case Store(items, capacity):
                    for item in items:
                        adding[item.session] += 1
                        capacities[item.session] = _tighter(capacities.get(item.session), capacity)
                case Undelete(session, _, capacity) if session in self._works:
                    adding[session] += 1
                    capacities[session] = _tighter(capacities.get(session), capacity)
        self._count(adding)
        capacities = {s: self._works[s].own(capacity) for s, capacity in capacities.items()}
        works = [self._works[session] for session in adding]
        self._on_unranked(self._ranking.catch_up(works, capacities, adding))
        crowded = self._crowded(adding, capacities)
        unranked: defaultdict[float, list[tuple[str, str, int]]] = defaultdict(list)
        for session, least in sorted(crowded.items()):
            work = self._works[session]
            if work.is_ranked:
                work.load(self._ranking.least(work, least))
            else:
                unranked[capacities[session].half_life_days].append((*session, least))
        for half_life_days, keys in unranked.items():
            self._reader.take_in(
                self._lookups.least_important, keys, now=self._now, half_life_days=half_life_days
            )
        for session in crowded:
            self._works[session].rank_for_eviction(capacities[session].half_life_days)

    def _crowded(
        self, adding: Mapping[Session, int], capacities: Mapping[Session, Capacity]
    ) -> dict[Session, int]:
        """How many memories have to be looked at in sessions out of which some may have to go."""
        full = {
            session
            for session, count in adding.items()
            if self._works[session].live_count + count > capacities[session].max_entries
        }
        # Of what is kept, some may have expired.
        overdue = self._lookups.overdue_counts
        for tenant, session_id, count in self._reader.fetch(overdue, full, now=self._now):
            self._works[Session(tenant, session_id)].live_count -= count
        crowded: dict[Session, int] = {}
        for session in full:
            work = self._works[session]
            over = work.live_count + adding[session] - capacities[session].max_entries
            over = min(over, adding[session] + MAX_SHRINK)
            if over > 0:
                # Rows read before may be changed and so outrank what they were; read as many more.
                crowded[session] = over + adding[session] + len(work.rows)
        return crowded

    def _count(self, sessions: Iterable[Session]) -> None:
        """Count what is kept where the row does not say; of what is live, it is an upper bound."""
        unknown = [session for session in sessions if self._works[session].kept_count is None]
        for tenant, session_id, count in self._reader.fetch(self._lookups.kept_counts, unknown):
            work = self._works[Session(tenant, session_id)]
            work.live_count = work.kept_count = count


def _tighter(one: Capacity | None, other: Capacity) -> Capacity:
    """The settings may change between two writes; the lower limit says how many may have to go."""
    return one if one is not None and one.max_entries < other.max_entries else other
