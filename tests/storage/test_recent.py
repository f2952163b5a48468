"""Which sessions stay in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memoryd.domain.records import Session
from memoryd.memories.cache import CALL_SHARE, RecentSessions
from memoryd.memories.cached_session import CachedSession

ROOM = 1000


def use(kept: RecentSessions, caller: str, sizes: dict[str, int]) -> None:
    """One call of `caller` that uses sessions of these sizes."""
    sessions = [Session("default", name) for name in sizes]
    for session, size in zip(sessions, sizes.values(), strict=True):
        snapshot = kept.get(session)
        if snapshot is None:
            snapshot = CachedSession(session)
            kept.add(snapshot)
        snapshot.content_bytes = size
    kept.settle(sessions, caller)


def names(kept: RecentSessions) -> set[str]:
    return {session.session_id for session in kept}


def test_the_least_recently_used_sessions_make_room():
    kept = RecentSessions(ROOM)
    for name in ("a", "b", "c"):
        use(kept, "one", {name: 300})
    use(kept, "one", {"a": 300})
    use(kept, "one", {"d": 300})
    assert names(kept) == {"a", "c", "d"}


def test_one_call_does_not_evict_all_other_sessions():
    kept = RecentSessions(ROOM)
    use(kept, "one", {"a": 100, "b": 100})
    use(kept, "one", {f"large-{n}": 200 for n in range(17)})
    assert {"a", "b"} <= names(kept)
    assert {"large-0", "large-1", "large-2"} <= names(kept)
    use(kept, "one", {"larger than the share of a call": 900})
    assert {"a", "b"} <= names(kept)


def test_a_session_that_outgrows_the_share_of_a_call_is_evicted():
    kept = RecentSessions(ROOM)
    use(kept, "one", {"a": 100})
    use(kept, "one", {"b": 100})
    use(kept, "one", {"b": 800})
    assert names(kept) == {"a"}


def test_no_caller_evicts_sessions_of_one_who_has_less():
    kept = RecentSessions(ROOM)
    use(kept, "small", {"a": 100, "b": 200})
    for number in range(50):
        use(kept, "large", {f"large-{number}-{n}": 150 for n in range(4)})
    assert {"a", "b"} <= names(kept)
    assert kept.nbytes <= ROOM


def test_a_forgotten_session_takes_no_room():
    kept = RecentSessions(ROOM)
    use(kept, "one", {"a": 100, "b": 200})
    kept.forget(Session("default", "a"))
    kept.forget(Session("default", "unknown"))
    assert kept.nbytes == 200
    assert names(kept) == {"b"}


def test_without_room_nothing_is_kept():
    kept = RecentSessions(0)
    use(kept, "one", {"a": 100, "b": 200})
    assert names(kept) == set()
    assert kept.nbytes == 0


calls = st.tuples(
    st.sampled_from("xyz"),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 1200), min_size=1, max_size=4),
)


@given(st.lists(calls, max_size=30))
def test_the_kept_sessions_always_fit(planned):
    kept = RecentSessions(ROOM)
    for caller, sizes in planned:
        use(kept, caller, sizes)
        assert kept.nbytes <= ROOM
        found = [kept.get(session) for session in kept]
        assert kept.nbytes == sum(snapshot.nbytes for snapshot in found if snapshot)
        if len(sizes) == 1 and next(iter(sizes.values())) <= ROOM / 4:
            # Of three callers, the largest has more than a third.
            assert names(kept) >= sizes.keys()
        assert all(snapshot.nbytes <= ROOM * CALL_SHARE for snapshot in found if snapshot)
