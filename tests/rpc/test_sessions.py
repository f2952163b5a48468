"""ListSessions, GetSession and UpdateSession, and what a session's settings do to its memories."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb

SESSION = "user-123"
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def store(content: str = "prefers e-mail", session_id: str = SESSION, **fields: object):
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def update(
    *paths: str, session_id: str = SESSION, allow_missing: bool = False, **fields: object
) -> spb.UpdateSessionRequest:
    return spb.UpdateSessionRequest(
        session=spb.Session(session_id=session_id, **fields),
        update_mask=FieldMask(paths=paths),
        allow_missing=allow_missing,
    )


def get(session_id: str = SESSION) -> spb.GetSessionRequest:
    return spb.GetSessionRequest(session_id=session_id)


async def every(sessions, **arguments: object) -> list[spb.Session]:
    request = spb.ListSessionsRequest(**arguments)
    found = []
    while True:
        page = await sessions.ListSessions(request)
        found += page.sessions
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def ids(sessions, **arguments: object) -> list[str]:
    return [session.session_id for session in await every(sessions, **arguments)]


async def many(memory, names) -> None:
    await memory.BatchStoreMemories(
        pb.BatchStoreMemoriesRequest(requests=[store(session_id=name) for name in names])
    )


# Reading


async def test_a_session_tells_what_it_holds_and_since_when(memory, sessions, clock):
    first = (await memory.StoreMemory(store("fact 1"))).memory
    clock.move(MINUTE)
    second = (await memory.StoreMemory(store("fact 2"))).memory
    session = await sessions.GetSession(get())
    assert (session.memory_count, session.document_count, session.conversation_count) == (2, 0, 0)
    assert session.create_time == first.create_time
    assert session.update_time == second.create_time
    assert session.revision == second.revision
    assert session.etag
    assert not session.HasField("memory_limit")
    assert session.WhichOneof("memory_expiration") is None
    assert not session.HasField("state")
    assert await every(sessions) == [session]


async def test_the_count_follows_every_change_of_memories(memory, sessions, clock, running):
    async def count() -> int:
        return (await sessions.GetSession(get())).memory_count

    stored = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(4)]
    await memory.StoreMemory(store("fact 0"))  # merged
    assert await count() == 4
    name = {"session_id": SESSION, "memory_id": stored[0].memory_id}
    await memory.DeleteMemory(pb.DeleteMemoryRequest(**name))
    assert await count() == 3
    await memory.UndeleteMemory(pb.UndeleteMemoryRequest(**name))
    assert await count() == 4
    await memory.UpdateMemory(
        pb.UpdateMemoryRequest(memory=pb.Memory(**name, content="another fact"))
    )
    assert await count() == 4
    await memory.StoreMemory(store("soon gone", ttl=Duration(seconds=60)))
    assert await count() == 5
    clock.move(2 * MINUTE)
    assert await count() == 4  # expired, not swept
    await running.server.sweeper.run_once()
    assert await count() == 4
    purge = pb.PurgeMemoriesRequest(session_id=SESSION, force=True)
    await memory.PurgeMemories(purge)
    assert await count() == 0
    assert (await sessions.GetSession(get())).update_time.ToDatetime() == clock().replace(
        tzinfo=None
    )


async def test_an_access_is_no_change(memory, sessions, clock, running):
    await memory.StoreMemory(store())
    before = await sessions.GetSession(get())
    clock.move(MINUTE)
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=SESSION))
    await running.server.flush_accesses()
    assert await sessions.GetSession(get()) == before


async def test_what_never_was_or_is_erased_is_not_found(memory, sessions, refused):
    absent = await refused(sessions.GetSession(get()))
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert (absent.resource.resource_type, absent.resource.resource_name) == (
        "memoryd.v1.Session",
        SESSION,
    )
    await memory.StoreMemory(store())
    await sessions.UpdateSession(update(display_name="Ada", labels={"a": "b"}))
    await memory.EraseSession(pb.EraseSessionRequest(session_id=SESSION))
    assert (await refused(sessions.GetSession(get()))).reason == "SESSION_NOT_FOUND"
    assert await every(sessions) == []
    await memory.StoreMemory(store())
    again = await sessions.GetSession(get())
    assert (again.display_name, dict(again.labels), again.memory_count) == ("", {}, 1)


async def test_a_session_whose_memories_are_purged_stays(memory, sessions):
    await memory.StoreMemory(store())
    await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id=SESSION, force=True))
    assert (await sessions.GetSession(get())).memory_count == 0


async def test_a_refused_store_makes_no_session(memory, sessions, refused):
    request = store(metadata={"a": "x" * 20_000})
    await refused(memory.StoreMemory(request))
    assert await every(sessions) == []


# Listing

NAMES = ["A", "B", "Z9", "a", "a-", "a.", "a0", "a:b", "a@", "aZ", "a_", "aa", "b", "user-1"]
"""By code point; collations for people have another order."""


async def test_sessions_are_listed_by_code_point_in_pages_of_any_size(memory, sessions):
    names = ["9", *NAMES]
    await many(memory, names[::-1])
    assert names == sorted(names)
    for size in (1, 2, 5, len(names) - 1, len(names), 1000):
        assert await ids(sessions, page_size=size) == names


async def test_a_prefix_is_the_beginning_of_ids(memory, sessions):
    await many(memory, NAMES)
    for prefix in ("a", "a.", "A", "user", "b", "x"):
        wanted = [name for name in NAMES if name.startswith(prefix)]
        for size in (1, 1000):
            assert await ids(sessions, session_id_prefix=prefix, page_size=size) == wanted


async def test_every_label_given_must_be_equal(memory, sessions):
    await many(memory, NAMES)
    labels = {
        "A": {"team": "x"},
        "a": {"team": "x", "tier": "1"},
        "b": {"team": "y", "tier": "1"},
        "user-1": {"team": "x", "tier": ""},
    }
    for name, own in labels.items():
        await sessions.UpdateSession(update(session_id=name, labels=own))
    for wanted in (
        {"team": "x"},
        {"tier": "1"},
        {"team": "x", "tier": "1"},
        {"tier": ""},
        {"x": ""},
    ):
        matching = [name for name, own in labels.items() if wanted.items() <= own.items()]
        for size in (1, 1000):
            assert await ids(sessions, labels=wanted, page_size=size) == matching
    assert await ids(sessions, labels={"team": "x"}, session_id_prefix="a") == ["a"]


async def test_pages_are_stable_while_sessions_come_and_go(memory, sessions):
    await many(memory, ["b", "d", "f"])
    page = await sessions.ListSessions(spb.ListSessionsRequest(page_size=2))
    assert [s.session_id for s in page.sessions] == ["b", "d"]
    await many(memory, ["a", "c", "e"])
    await memory.EraseSession(pb.EraseSessionRequest(session_id="d"))
    rest = spb.ListSessionsRequest(page_size=2, page_token=page.next_page_token)
    assert [s.session_id for s in (await sessions.ListSessions(rest)).sessions] == ["e", "f"]


async def test_a_token_belongs_to_its_arguments(memory, sessions, refused):
    await many(memory, ["a", "b"])
    page = await sessions.ListSessions(spb.ListSessionsRequest(page_size=1))
    for other in ({"session_id_prefix": "a"}, {"labels": {"a": "b"}}):
        request = spb.ListSessionsRequest(page_token=page.next_page_token, **other)
        assert set((await refused(sessions.ListSessions(request))).violations) == {"page_token"}


async def test_a_page_ends_early_rather_than_grow_too_large(sessions):
    names = [f"user-{n:03}" for n in range(120)]
    state = Struct()
    state.update({"notes": "x" * 16_000})
    labels = {f"label-{n}": "ü" * 255 for n in range(64)}
    for name in names:
        request = update(session_id=name, allow_missing=True, state=state, labels=labels)
        await sessions.UpdateSession(request)
    page = await sessions.ListSessions(spb.ListSessionsRequest(page_size=1000))
    assert page.next_page_token
    assert page.ByteSize() < 4 * 1024 * 1024
    assert await ids(sessions, page_size=1000) == names
    assert await ids(sessions, page_size=1000, labels={"label-0": "ü" * 255}) == names


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id_prefix", "a/b"),
        ("session_id_prefix", "-a"),
        ("session_id_prefix", "a..b"),
        ("labels", {f"l{n}": "" for n in range(65)}),
        ("page_size", -1),
        ("page_token", "x"),
    ],
)
async def test_arguments_of_a_listing_are_checked(sessions, refused, field, value):
    refusal = await refused(sessions.ListSessions(spb.ListSessionsRequest(**{field: value})))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {field}


# Setting


async def test_what_is_set_comes_back(sessions):
    state = Struct()
    state.update({"step": 3, "nested": {"a": [1, None, "x"]}})
    ttl = Duration(seconds=3, nanos=1001)
    made = await sessions.UpdateSession(
        update(
            allow_missing=True,
            display_name="Ada",
            labels={"team/x": "1", "a.b_c-d": ""},
            state=state,
            memory_limit=10,
            memory_ttl=ttl,
        )
    )
    assert (made.display_name, made.memory_limit) == ("Ada", 10)
    assert dict(made.labels) == {"team/x": "1", "a.b_c-d": ""}
    assert made.state == state
    assert made.memory_ttl == Duration(seconds=3, nanos=2000)
    assert (made.memory_count, made.revision) == (0, 1)
    assert made.create_time == made.update_time
    assert await sessions.GetSession(get()) == made


async def test_only_what_the_mask_names_is_changed(sessions, clock):
    fields = {"display_name": "Ada", "labels": {"a": "b"}, "memory_limit": 20}
    made = await sessions.UpdateSession(update(allow_missing=True, **fields))
    clock.move(MINUTE)
    changed = await sessions.UpdateSession(
        update("display_name", "memory_limit", display_name="Eve", labels={"c": "d"})
    )
    assert (changed.display_name, dict(changed.labels)) == ("Eve", {"a": "b"})
    assert not changed.HasField("memory_limit")
    assert changed.etag != made.etag
    assert changed.revision == made.revision + 1
    assert changed.update_time.seconds == made.update_time.seconds + 60
    assert changed.create_time == made.create_time
    # Without a mask, what is populated; with `*`, everything.
    populated = await sessions.UpdateSession(update(labels={"e": "f"}))
    assert (populated.display_name, dict(populated.labels)) == ("Eve", {"e": "f"})
    cleared = await sessions.UpdateSession(update("*", memory_limit=30))
    assert (cleared.display_name, dict(cleared.labels), cleared.memory_limit) == ("", {}, 30)
    # Nothing named is no change; output fields are ignored.
    assert await sessions.UpdateSession(update()) == cleared
    assert await sessions.UpdateSession(update("memory_count", memory_count=7)) == cleared


async def test_a_ttl_and_never_take_each_others_place(sessions):
    async def after(*paths: str, **fields: object) -> str | None:
        session = await sessions.UpdateSession(update(*paths, allow_missing=True, **fields))
        return session.WhichOneof("memory_expiration")

    ttl = Duration(seconds=60)
    assert await after(memory_ttl=ttl) == "memory_ttl"
    assert await after(memories_never_expire=True) == "memories_never_expire"
    assert await after("memory_ttl") == "memories_never_expire"
    assert await after(memory_ttl=ttl) == "memory_ttl"
    assert await after("memories_never_expire", memories_never_expire=False) == "memory_ttl"
    assert await after("memory_ttl") is None
    assert await after("memories_never_expire", memories_never_expire=True) is not None
    assert await after("memories_never_expire") is None
    assert await after("memory_ttl", "memories_never_expire", memory_ttl=ttl) == "memory_ttl"
    assert await after("*") is None


async def test_an_etag_is_of_what_a_caller_has_set(memory, sessions, refused):
    made = await sessions.UpdateSession(update(allow_missing=True, display_name="Ada"))
    await memory.StoreMemory(store())
    assert (await sessions.GetSession(get())).etag == made.etag
    changed = await sessions.UpdateSession(update(display_name="Eve", etag=made.etag))
    assert changed.etag != made.etag
    stale = await refused(sessions.UpdateSession(update(display_name="Bob", etag=made.etag)))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await sessions.GetSession(get())).display_name == "Eve"
    # Made again, it is another session.
    await memory.EraseSession(pb.EraseSessionRequest(session_id=SESSION))
    gone = await refused(
        sessions.UpdateSession(update(display_name="x", etag=changed.etag, allow_missing=True))
    )
    assert gone.code is grpc.StatusCode.ABORTED
    assert await every(sessions) == []
    again = await sessions.UpdateSession(update(display_name="Ada", allow_missing=True))
    assert again.etag not in {made.etag, changed.etag}


async def test_a_session_that_is_not_there_is_made_only_if_allowed(sessions, refused):
    absent = await refused(sessions.UpdateSession(update(display_name="Ada")))
    assert absent.reason == "SESSION_NOT_FOUND"
    assert await every(sessions) == []
    made = await sessions.UpdateSession(update(allow_missing=True))
    assert await every(sessions) == [made]


async def test_updates_at_once_are_each_made(sessions):
    await asyncio.gather(
        *(
            sessions.UpdateSession(update("labels", allow_missing=True, labels={"n": str(n)}))
            for n in range(20)
        )
    )
    assert (await sessions.GetSession(get())).revision == 20


async def test_a_refused_store_does_not_harm_what_is_set(memory, sessions, refused):
    made = await sessions.UpdateSession(update(allow_missing=True, display_name="Ada"))
    await memory.StoreMemory(store(metadata={"a": "x" * 9_000}))
    await refused(memory.StoreMemory(store(metadata={"b": "x" * 9_000})))
    assert (await sessions.GetSession(get())).display_name == made.display_name


async def test_watchers_of_memories_see_no_event_of_settings(memory, sessions):
    await memory.StoreMemory(store("first"))
    await sessions.UpdateSession(update(display_name="Ada"))
    await memory.StoreMemory(store("second"))
    watch = memory.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION))
    seen = [await watch.read() for _ in range(2)]
    watch.cancel()
    assert [(e.memory.content, e.revision) for e in seen] == [("first", 1), ("second", 3)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session.display_name", {"display_name": "x" * 256}),
        ("session.display_name", {"display_name": "a\0b"}),
        ("session.labels", {"labels": {f"l{n}": "" for n in range(65)}}),
        ('session.labels["A"]', {"labels": {"A": ""}}),
        ('session.labels[""]', {"labels": {"": ""}}),
        (f'session.labels["{"x" * 64}"]', {"labels": {"x" * 64: ""}}),
        (f'session.labels["{"x" * 100}…"]', {"labels": {"x" * 100_000: ""}}),
        ('session.labels["a"]', {"labels": {"a": "x" * 256}}),
        ("session.state", {"state": {"a": "x" * 20_000}}),
        ("session.memory_limit", {"memory_limit": 9}),
        ("session.memory_limit", {"memory_limit": 100_001}),
        ("session.memory_ttl", {"memory_ttl": Duration(seconds=0)}),
        ("session.memory_ttl", {"memory_ttl": Duration(seconds=-1)}),
        ("session.memory_ttl", {"memory_ttl": Duration(seconds=2**60)}),
        ("session.session_id", {"session_id": "a/b"}),
    ],
)
async def test_what_is_set_is_checked(sessions, refused, field, value):
    refusal = await refused(sessions.UpdateSession(update(allow_missing=True, **value)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {field}
    assert await every(sessions) == []


async def test_an_unknown_path_is_refused(sessions, refused):
    refusal = await refused(sessions.UpdateSession(update("labels.a", allow_missing=True)))
    assert set(refusal.violations) == {"update_mask"}


# What it does to memories


async def live(memory) -> list[str]:
    request = pb.ListMemoriesRequest(session_id=SESSION, page_size=1000)
    return [m.content for m in (await memory.ListMemories(request)).memories]


async def test_a_limit_takes_the_place_of_that_of_the_tool(memory, sessions, refused):
    await sessions.UpdateSession(update(allow_missing=True, memory_limit=10))
    evicted = []
    for n in range(12):
        answer = await memory.StoreMemory(store(f"fact {n}", importance=n / 100))
        evicted += answer.evicted_memory_ids
    assert await live(memory) == [f"fact {n}" for n in range(2, 12)]
    full = await refused(
        memory.UndeleteMemory(pb.UndeleteMemoryRequest(session_id=SESSION, memory_id=evicted[0]))
    )
    assert full.reason == "SESSION_FULL"
    # More than `memory.max_entries`, 100.
    await sessions.UpdateSession(update(memory_limit=150))
    batch = [store(f"other {n}") for n in range(135)]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    assert len(await live(memory)) == 145
    await memory.UndeleteMemory(pb.UndeleteMemoryRequest(session_id=SESSION, memory_id=evicted[0]))
    # A lower limit acts at the next store.
    await sessions.UpdateSession(update(memory_limit=12))
    assert len(await live(memory)) == 146
    answer = await memory.StoreMemory(store("last"))
    assert len(answer.evicted_memory_ids) == 135
    assert len(await live(memory)) == 12
    assert (await sessions.GetSession(get())).memory_count == 12


async def test_what_has_expired_makes_room_before_anything_is_evicted(memory, sessions, clock):
    await sessions.UpdateSession(update(allow_missing=True, memory_limit=10))
    for n in range(5):
        await memory.StoreMemory(store(f"short {n}", ttl=Duration(seconds=60)))
    for n in range(5):
        await memory.StoreMemory(store(f"long {n}", importance=0.0))
    clock.move(2 * MINUTE)
    for n in range(5):
        answer = await memory.StoreMemory(store(f"new {n}"))
        assert not answer.evicted_memory_ids
    assert len((await memory.StoreMemory(store("one more"))).evicted_memory_ids) == 1
    assert (await sessions.GetSession(get())).memory_count == 10


@pytest.mark.parametrize("how", ["store", "batch", "stream"])
async def test_expiry_is_decided_by_the_session(memory, sessions, how):
    async def stored(content: str, **fields: object) -> pb.Memory:
        request = store(content, **fields)
        match how:
            case "store":
                return (await memory.StoreMemory(request)).memory
            case "batch":
                batch = pb.BatchStoreMemoriesRequest(requests=[request])
                return (await memory.BatchStoreMemories(batch)).responses[0].memory
            case _:
                message = pb.StreamStoreMemoriesRequest(requests=[request])
                stream = memory.StreamStoreMemories(iter([message]))
                return (await stream.read()).results[0].response.memory

    async def lifetime(content: str, **fields: object) -> timedelta | None:
        made = await stored(content, **fields)
        if not made.HasField("expire_time"):
            return None
        return made.expire_time.ToDatetime() - made.create_time.ToDatetime()

    assert await lifetime("by the tool") == DAY
    await sessions.UpdateSession(update(memory_ttl=Duration(seconds=90)))
    assert await lifetime("by the session") == timedelta(seconds=90)
    assert await lifetime("its own", ttl=Duration(seconds=5)) == timedelta(seconds=5)
    assert await lifetime("for ever", never_expires=True) is None
    assert await lifetime("unset", never_expires=False) == timedelta(seconds=90)
    # A merge takes the later one; the default counts as one.
    assert await lifetime("its own") == timedelta(seconds=90)
    await sessions.UpdateSession(update(memories_never_expire=True))
    assert await lifetime("never") is None
    assert await lifetime("but its own", ttl=Duration(seconds=5)) == timedelta(seconds=5)
    await sessions.UpdateSession(update("memories_never_expire"))
    assert await lifetime("by the tool again") == DAY
    longest = Duration(seconds=315_576_000_000)
    await sessions.UpdateSession(update(memory_ttl=longest))
    assert (await stored("to the end")).expire_time.ToDatetime().year == 9999


async def test_a_retry_gets_its_first_answer_whatever_was_set_since(memory, sessions):
    request = store(request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    await sessions.UpdateSession(update(memories_never_expire=True))
    assert await memory.StoreMemory(request) == first
