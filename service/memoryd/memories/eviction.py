"""Which memories of a session may have to go, without reading all of a large session.

Effective importances change with time, each memory's at its own pace, so that no index can hold
them. But among memories that were accessed equally often, the order never changes: all fade by the
same factor. In a large session every live memory therefore has a level (how often it was accessed,
as far as that counts) and a rank within it (`fading_rank`). The least important of the session are
among the first few of each of the eleven levels.

A session's ranks hold up to its `ranked_revision`. A server that knows ranks keeps them with every
change; what one that does not has changed lies beyond, and is ranked first by the next store, or
behind it where that is much (`ranker.py`). Until all are ranked, the whole session is read.
Accesses only raise a level. So a level that was not raised, by a server that does not know of it,
puts a memory too early, never too late.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_

from memoryd.database.tables import memories, sessions
from memoryd.domain.importance import MAX_LEVEL, NEVER_ANY, fading_rank
from memoryd.domain.records import Session
from memoryd.memories import lookups, rows
from memoryd.memories.lookups import Lookup
from memoryd.memories.ranks import EvictionKey, Ranks
from memoryd.memories.rows import COLUMNS, PRIMARY_KEY
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Capacity, Memory, Session
    from memoryd.memories.session_changes import SessionWork

UNRANKED_MEMORIES = 1_000
"""A session that may hold no more has no ranks: all of it is read."""

LEAST_HALF_LIFE_DAYS = 0.01
"""Below it ranks would be too coarse; the whole session is read."""

RANKED_AT_ONCE = 1_000
"""Memories that a transaction ranks, and revisions that a store may be behind and rank itself."""


@dataclass(slots=True)
class _Level:
    """How far one level of a session has been read."""

    number: int
    after: tuple[int, int] = (NEVER_ANY - 1, 0)
    """Rank and revision."""
    next_least: EvictionKey | None = None
    """Nothing that is not read yet is less; None: nothing is known."""
    is_read: bool = False


class Ranking:
    """Reads and keeps ranks within one transaction."""

    def __init__(self, connection: Connection, dialect: Dialect, now: datetime) -> None:
        self._connection = connection
        self._dialect = dialect
        self._now = now
        self._before: dict[Session, Ranks] = {}

    def open(self, work: SessionWork) -> None:
        """Begin with a session as it was found."""
        found = work.found
        work.ranks = Ranks(found.ranked_revision, found.ranked_half_life)
        work.is_ranked = work.ranks.revision == found.revision
        self._before[work.session] = work.ranks

    def catch_up(
        self,
        works: Iterable[SessionWork],
        capacities: Mapping[Session, Capacity],
        adding: Mapping[Session, int],
    ) -> dict[Session, float]:
        """Rank what has no rank yet in sessions that are half full or more, where that is little.

        Gives the sessions where it is more, with the half-life of their ranks.
        """
        due: list[SessionWork] = []
        too_far: dict[Session, float] = {}
        for work in works:
            capacity = capacities[work.session]
            if _has_ranks(capacity) and capacity.max_entries < 2 * (
                work.live_count + adding[work.session]
            ):
                work.is_ranked &= work.ranks.half_life_days == capacity.half_life_days
                if not work.is_ranked:
                    if self.begin(work, capacity.half_life_days) <= RANKED_AT_ONCE:
                        due.append(work)
                    else:
                        too_far[work.session] = capacity.half_life_days
        self.rank_next(due)
        return too_far

    def begin(self, work: SessionWork, half_life_days: float) -> int:
        """Begin again where the ranks are for another half-life; give how many may be missing."""
        if work.ranks.revision is None or work.ranks.half_life_days != half_life_days:
            work.ranks = Ranks(-1, half_life_days)
        return work.revision - (work.ranks.revision or 0)

    def rank_next(self, due: Sequence[SessionWork]) -> None:
        """Rank the next of sessions that `begin` was called for."""
        keys = sorted((*work.session, work.ranks.revision) for work in due)
        found = self._fetch(_statements(self._dialect).unranked, keys, most=RANKED_AT_ONCE)
        by_session: defaultdict[Session, list[Memory]] = defaultdict(list)
        for row in found:
            memory = rows.memory_of(row)
            by_session[memory.session].append(memory)
        ranked: list[tuple[Memory, float]] = []
        for work in due:
            some = sorted(by_session[work.session], key=lambda memory: memory.revision)
            work.is_ranked = len(some) < RANKED_AT_ONCE
            revision = work.revision if work.is_ranked else some[-1].revision
            work.ranks = work.ranks._replace(revision=revision)
            ranked += ((memory, work.ranks.half_life_days or 0.0) for memory in some)
        self._write(ranked)

    def least(self, work: SessionWork, count: int) -> list[Memory]:
        """At least `count` live memories of a ranked session, the first of all to go among them."""
        half_life_days = work.ranks.half_life_days
        assert half_life_days is not None  # noqa: S101  for the type checker: it is ranked
        found: dict[str, Memory] = {}
        keys: list[EvictionKey] = []
        misplaced: list[Memory] = []
        levels = [_Level(number) for number in range(MAX_LEVEL + 1)]
        most = max(2, count // 4)
        while levels:
            for memory, level in self._read(work.session, levels, most):
                level.next_least = EvictionKey.of(
                    memory, self._now, half_life_days, accesses=level.number
                )
                if min(memory.access_count, MAX_LEVEL) != level.number:
                    misplaced.append(memory)
                found[memory.memory_id] = memory
                keys.append(EvictionKey.of(memory, self._now, half_life_days))
            keys = sorted(keys)[:count]
            last = keys[-1] if len(keys) == count else None
            levels = [
                level
                for level in levels
                if not level.is_read
                and (last is None or level.next_least is None or level.next_least < last)
            ]
        self._write((memory, half_life_days) for memory in misplaced)
        return [found[key.memory_id] for key in keys]

    def _read(
        self, session: Session, levels: Sequence[_Level], most: int
    ) -> list[tuple[Memory, _Level]]:
        """The next memories of each level, in their order."""
        keys = [(*session, level.number, *level.after) for level in levels]
        found = self._fetch(_statements(self._dialect).ranked, keys, most=most, now=self._now)
        read: list[tuple[Memory, _Level]] = []
        for level in levels:
            own = [(row[-1], rows.memory_of(row[:-2])) for row in found if row[-2] == level.number]
            level.is_read = len(own) < most
            own.sort(key=lambda one: (one[0], one[1].revision))
            if own:
                rank, memory = own[-1]
                level.after = rank, memory.revision
            read += ((memory, level) for _, memory in own)
        return read

    def save(self, works: Iterable[SessionWork]) -> None:
        """Note how far the ranks of sessions are kept by now."""
        changed = []
        for work in works:
            if work.is_ranked:
                work.ranks = work.ranks._replace(revision=work.revision)
            if work.ranks != self._before[work.session]:
                revision, half_life_days = work.ranks
                row = {"ranked_revision": revision, "ranked_half_life": half_life_days}
                changed.append({**work.session._asdict(), **row})
        if changed:
            self._dialect.update_many(self._connection, sessions, SHARD_KEY, changed)

    def _write(self, ranked: Iterable[tuple[Memory, float]]) -> None:
        changed = [
            {**memory.session._asdict(), "id": memory.memory_id, **_columns(memory, half_life_days)}
            for memory, half_life_days in ranked
        ]
        if changed:
            self._dialect.update_many(self._connection, memories, PRIMARY_KEY, changed)

    def _fetch(self, statement: Lookup, keys: Sequence[tuple[Any, ...]], **parameters: Any) -> Any:
        return lookups.fetch(self._connection, self._dialect, statement, keys, **parameters)


def rank_columns(
    works: Mapping[Session, SessionWork],
) -> Callable[[Memory], dict[str, int | None]] | None:
    """What gives the columns of a memory's rank, where it has one; None: no session has ranks."""
    half_lives = {
        work.session: work.ranks.half_life_days for work in works.values() if work.is_ranked
    }
    if not half_lives:
        return None
    return lambda memory: _columns(memory, half_lives.get(memory.session))


def _columns(memory: Memory, half_life_days: float | None) -> dict[str, int | None]:
    if half_life_days is None:
        return {"eviction_level": None, "eviction_rank": None}
    return {
        "eviction_level": min(memory.access_count, MAX_LEVEL),
        "eviction_rank": fading_rank(memory.importance, memory.created_at, half_life_days),
    }


def _has_ranks(capacity: Capacity) -> bool:
    return (
        capacity.max_entries > UNRANKED_MEMORIES and capacity.half_life_days >= LEAST_HALF_LIFE_DAYS
    )


class _Statements(NamedTuple):
    unranked: Lookup
    ranked: Lookup


@cache
def _statements(dialect: Dialect) -> _Statements:
    m = memories.c
    session = (m.tenant, m.session_id)
    level = (*session, m.eviction_level)
    order = (m.eviction_rank, m.revision)
    is_ranked = and_(m.deleted_at.is_(None), m.eviction_rank.is_not(None))
    return _Statements(
        unranked=Lookup(
            (*session, m.revision),
            dialect.look_up_first(session, COLUMNS, m.deleted_at.is_(None), after=(m.revision,)),
        ),
        ranked=Lookup(
            (*level, *order),
            dialect.look_up_first(
                level,
                (*COLUMNS, m.eviction_level, m.eviction_rank),
                is_ranked,
                rows.unexpired(),
                after=order,
            ),
        ),
    )
