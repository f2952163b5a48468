"""The service against the model: hypothesis makes random calls.

`HYPOTHESIS_PROFILE=long` runs `MODEL_EXAMPLES` examples, with different calls each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.plain_conditions import condition

from memoryd.memories.access import AccessTracker
from memoryd.memories.sweeper import Sweeper
from memoryd.sessions import feed
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb

from .model import DEFAULT_PAGE, MAX_PAGE, Refusal
from .world import World

settings.register_profile(
    "model",
    derandomize=True,
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long",
    settings.get_profile("model"),
    derandomize=False,
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "1000")),
    stateful_step_count=80,
    print_blob=True,
    verbosity=Verbosity.verbose,
)
PROFILE = settings.get_profile(
    "long" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "model"
)

ABSENT = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
LAST_PAGE = 200

# Few, so that they collide: other cases, white space and punctuation, and near misses.
CONTENTS = (
    "Likes tea",
    "likes  tea",
    "LIKES TEA!",
    " likes\ttea?!",
    "likes\n\u3000tea;:",
    "likes tea .",
    "Likes green tea",
    "Straße 5",
    "STRASSE 5",
    "straße 5.",
    "İstanbul",
    "i\u0307stanbul",
    "caf\u00e9",
    "cafe\u0301",
    "x < 5 && y > 3",
    "!!!",
    "...",
    *(f"fact {number}" for number in range(12)),
)
TYPES = (pb.CONTENT_TYPE_UNSPECIFIED, pb.CONTENT_TYPE_CONTEXT, pb.CONTENT_TYPE_FACT)
IMPORTANCES = (0.0, 0.25, 0.5, 0.75, 1.0, 5e-324)
METADATA: tuple[dict[str, Any], ...] = (
    {"a": 1},
    {"a": "1"},
    {"a": True},
    {"a": None},
    {"b": {"c": [1, None, {"d": "x"}]}},
    {"b": {"c": [1, None, {"d": "y"}]}, "a": 1},
    {"speaker": "Ada"},
)
CONDITIONS = tuple(
    condition(path, op, value)
    for path, op, value in (
        (["a"], "EQ", 1),
        (["a"], "NE", "1"),
        (["a"], "GTE", 1),
        (["a"], "LT", "2"),
        (["a"], "IN", [1, True, None]),
        (["a"], "NOT_IN", [{"a": 1}, "1"]),
        (["a"], "EXISTS", True),
        (["b", "c"], "CONTAINS", {"d": "x"}),
        (["b", "c"], "EQ", [1, None, {"d": "y"}]),
        (["b", "c"], "EXISTS", False),
        (["speaker"], "CONTAINS", "da"),
    )
)
LARGE_METADATA: dict[str, dict[str, Any]] = {
    "much": {"p": "x" * 9_000},
    "as much in other letters": {"q": "ü" * 4_500},
}
REQUEST_IDS = (
    *(f"0197d3e2-0000-4000-8000-{number:012x}" for number in range(4)),
    "0197D3E2-0000-4000-8000-000000000000",  # the first one in upper case
)
KEYS = ("k", "k/1", "other")
LIMITS_OF_SESSIONS = (None, 10, 12, 15)
TAGS: tuple[list[str], ...] = (["a"], ["b", "a", "b"], ["\uffee", "🙂", "c"], [])
SPANS = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=59, seconds=59, microseconds=999_999),
    timedelta(hours=1),
    timedelta(hours=24),
    timedelta(hours=25),
    timedelta(days=8),
    timedelta(days=31),
    timedelta(days=400),
    timedelta(seconds=-1),
)
LIFETIMES = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(hours=1),
    timedelta(hours=24),
    timedelta(days=90),
)
NO_LIFETIMES = (timedelta(0), timedelta(seconds=-1))

sessions = st.sampled_from("aaab")
servers = st.sampled_from((0, 0, 1))
numbers = st.integers(0, 40)
picks = st.tuples(st.sampled_from(("live", "live", "live", "deleted", "any")), numbers)
deleted_picks = st.tuples(st.sampled_from(("deleted", "deleted", "deleted", "any")), numbers)
expirations = st.one_of(
    st.tuples(st.sampled_from(("ttl", "expire_time")), st.sampled_from(LIFETIMES)),
    st.tuples(st.just("never_expires"), st.booleans()),
)
stores = st.fixed_dictionaries(
    {"content": st.sampled_from(CONTENTS)},
    optional={
        "content_type": st.sampled_from(TYPES),
        "importance": st.sampled_from(IMPORTANCES),
        "metadata": st.sampled_from(METADATA),
        "expiration": expirations,
        "key": st.sampled_from(KEYS),
        "tags": st.sampled_from(TAGS),
        "request_id": st.sampled_from(REQUEST_IDS),
    },
)
bad_stores = st.one_of(
    st.builds(
        lambda store, bad: store | bad,
        stores,
        st.sampled_from(({"content": " \t\n"}, {"importance": 1.5})),
    ),
    st.builds(
        lambda store, way, span: store | {"expiration": (way, span)},
        stores,
        st.sampled_from(("ttl", "expire_time")),
        st.sampled_from(NO_LIFETIMES),
    ),
)
edits = st.fixed_dictionaries(
    {},
    optional={
        "content": st.sampled_from(CONTENTS),
        "content_type": st.sampled_from(TYPES),
        "importance": st.sampled_from(IMPORTANCES),
        "metadata": st.sampled_from(METADATA),
        "expire_time": st.sampled_from(LIFETIMES + NO_LIFETIMES),
        "tags": st.sampled_from(TAGS),
        "key": st.sampled_from(("", *KEYS)),
    },
)
settings_of_sessions = st.fixed_dictionaries(
    {},
    optional={
        "display_name": st.sampled_from(("", "Ada")),
        "memory_limit": st.sampled_from(LIMITS_OF_SESSIONS),
        "expiration": st.sampled_from(
            (
                {},
                *({"memory_ttl": lifetime} for lifetime in LIFETIMES),
                {"memories_never_expire": True},
            )
        ),
    },
).filter(bool)
filters = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "content_types": st.lists(st.sampled_from(TYPES[1:]), max_size=2),
        "min_importance": st.sampled_from((0.0, 0.11, 0.33, 0.61)),
        "metadata": st.sampled_from(METADATA),
        "conditions": st.lists(st.sampled_from(CONDITIONS), max_size=2),
        "created_after": st.sampled_from(SPANS),
        "created_before": st.sampled_from(SPANS),
        "tags_any": st.sampled_from(TAGS),
        "tags_all": st.sampled_from(TAGS),
        "key_prefix": st.sampled_from(("k", "k/", "x")),
    },
)


@dataclass
class Notes:
    """What the machine knows of one tenant."""

    known: dict[str, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    retries: list[pb.StoreMemoryRequest] = field(default_factory=list)
    merges: list[spb.MergeSessionsRequest] = field(default_factory=list)
    bookmarks: list[tuple[pb.ListMemoriesRequest, int]] = field(default_factory=list)
    markers: int = 0


class MemoryMachine(RuleBasedStateMachine):
    """Random calls; after each change all state and all events of the service are compared."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        world.begin()
        self.notes_of = [Notes() for _ in world.tenants]
        self.take_turn(0)

    def take_turn(self, place: int) -> None:
        """Be one of the tenants."""
        self.world.tenant, self.notes = self.world.tenants[place], self.notes_of[place]
        self.model = self.world.model

    def teardown(self) -> None:
        self.world.end()

    # Helpers of the rules

    def call(self, via: int, method: str, request: Any) -> Any:
        """Return the answer, or None if the call was refused as it had to be."""
        expected = self.model.refusal(request)
        answer = self.world.call(via, method, request)
        if expected is not None or isinstance(answer, Refusal):
            assert answer == expected
            return None
        return answer

    def settle(self, via: int, *names: str) -> None:
        """Compare a session's state on the other server, and the events of its watcher."""
        for name in dict.fromkeys(names):
            session_id = self.world.session(name)
            for row in self.model.rows(session_id):
                if row.memory_id not in self.notes.known[name]:
                    self.notes.known[name].append(row.memory_id)
            request = pb.PurgeMemoriesRequest(session_id=session_id)
            self.model.purge(request, self.world.call(1 - via, "PurgeMemories", request))
            self.world.check_watcher(session_id)
        self.world.check_sessions(1 - via)

    def memory(self, name: str, pick: tuple[str, int]) -> str:
        """Pick a memory that is live, deleted, present, or has ever existed."""
        kind, number = pick
        session_id = self.world.session(name)
        known = {
            "live": [row.memory_id for row in self.model.live(session_id)],
            "deleted": [r.memory_id for r in self.model.rows(session_id) if r.delete_time],
            "any": self.notes.known[name],
        }[kind]
        return known[-1 - number % len(known)] if known else ABSENT

    def etag(self, memory_id: str, pick: int) -> str:
        """Pick no etag, the current one, or an old one."""
        etags = list(self.model.etags(memory_id).values())
        return ["", *etags[-1:], *etags[-1:], *etags, "other"][pick % (len(etags) + 2)]

    def store_request(self, name: str, fields: dict[str, Any]) -> pb.StoreMemoryRequest:
        fields = dict(fields)
        way, value = fields.pop("expiration", (None, None))
        if way is not None:
            fields[way] = self.model.now + value if way == "expire_time" else value
        return pb.StoreMemoryRequest(session_id=self.world.session(name), **fields)

    def store_one(self, via: int, name: str, request: pb.StoreMemoryRequest) -> None:
        answer = self.call(via, "StoreMemory", request)
        if answer is not None:
            self.model.store(request, answer)
            if request.request_id:
                self.notes.retries.append(request)
        self.settle(via, name)

    def filter(self, fields: dict[str, Any]) -> pb.MemoryFilter:
        moments = {
            name: self.model.now - fields[name]
            for name in ("created_after", "created_before")
            if name in fields
        }
        return pb.MemoryFilter(**{**fields, **moments})

    # Changes

    @initialize(count=st.integers(0, 12))
    def begin(self, count: int) -> None:
        self.batch(0, [("a", {"content": f"fact {number}"}) for number in range(count)])

    @rule(via=servers, name=sessions, fields=stores)
    def store(self, *, via: int, name: str, fields: dict[str, Any]) -> None:
        self.store_one(via, name, self.store_request(name, fields))

    @rule(via=servers, name=sessions, fields=bad_stores)
    def store_badly(self, *, via: int, name: str, fields: dict[str, Any]) -> None:
        self.store_one(via, name, self.store_request(name, fields))

    @rule(
        via=servers,
        name=sessions,
        content=st.sampled_from(CONTENTS[:3]),
        large=st.sampled_from(list(LARGE_METADATA)),
    )
    def store_much(self, *, via: int, name: str, content: str, large: str) -> None:
        fields = {"content": content, "metadata": LARGE_METADATA[large]}
        self.store_one(via, name, self.store_request(name, fields))

    @precondition(lambda self: self.notes.retries)
    @rule(via=servers, pick=numbers)
    def retry(self, *, via: int, pick: int) -> None:
        request = self.notes.retries[-1 - pick % len(self.notes.retries)]
        self.store_one(via, request.session_id[-1], request)

    @rule(
        via=servers,
        items=st.lists(
            st.tuples(sessions, st.one_of(stores, stores, stores, bad_stores)), max_size=6
        ),
    )
    def store_batch(self, *, via: int, items: list[tuple[str, dict[str, Any]]]) -> None:
        self.batch(via, items)

    @rule(
        via=servers,
        name=sessions,
        first=st.integers(0, 11),
        count=st.integers(5, 12),
        importance=st.sampled_from(IMPORTANCES),
    )
    def fill(self, *, via: int, name: str, first: int, count: int, importance: float) -> None:
        facts = range(first, first + count)
        self.batch(
            via, [(name, {"content": f"Fact {n % 12}", "importance": importance}) for n in facts]
        )

    def batch(self, via: int, items: list[tuple[str, dict[str, Any]]]) -> None:
        request = pb.BatchStoreMemoriesRequest(
            requests=[self.store_request(name, fields) for name, fields in items]
        )
        answer = self.call(via, "BatchStoreMemories", request)
        if answer is not None:
            self.model.batch(request, answer)
        self.settle(via, "a", "b")

    @rule(
        via=servers,
        name=sessions,
        pick=picks,
        fields=edits,
        mask=st.sampled_from(("populated", "named", "all")),
        etag=numbers,
        ttl=st.none() | st.sampled_from(LIFETIMES + NO_LIFETIMES[:1]),
    )
    def update(
        self,
        *,
        via: int,
        name: str,
        pick: tuple[str, int],
        fields: dict[str, Any],
        mask: str,
        etag: int,
        ttl: timedelta | None,
    ) -> None:
        memory_id = self.memory(name, pick)
        paths = {"populated": None, "named": list(fields), "all": ["*"]}[mask]
        if "expire_time" in fields:
            fields = {**fields, "expire_time": self.model.now + fields["expire_time"]}
        request = pb.UpdateMemoryRequest(
            memory=pb.Memory(
                session_id=self.world.session(name),
                memory_id=memory_id,
                etag=self.etag(memory_id, etag),
                **fields,
            ),
            update_mask=None if paths is None else FieldMask(paths=paths),
            ttl=ttl,
        )
        answer = self.call(via, "UpdateMemory", request)
        if answer is not None:
            self.model.update(request, answer)
        self.settle(via, name)

    @rule(via=servers, name=sessions, pick=picks, etag=numbers)
    def delete(self, *, via: int, name: str, pick: tuple[str, int], etag: int) -> None:
        memory_id = self.memory(name, pick)
        request = pb.DeleteMemoryRequest(
            session_id=self.world.session(name),
            memory_id=memory_id,
            etag=self.etag(memory_id, etag),
        )
        answer = self.call(via, "DeleteMemory", request)
        if answer is not None:
            self.model.delete(request, answer)
        self.settle(via, name)

    @rule(via=servers, name=sessions, key=st.sampled_from(KEYS), etag=numbers)
    def delete_by_key(self, *, via: int, name: str, key: str, etag: int) -> None:
        request = pb.DeleteMemoryRequest(session_id=self.world.session(name), key=key)
        if self.model.refusal(request) is None:
            request.etag = self.etag(self.model.named(request).memory_id, etag)
        answer = self.call(via, "DeleteMemory", request)
        if answer is not None:
            self.model.delete(request, answer)
        self.settle(via, name)

    @rule(via=servers, name=sessions, pick=picks, version=numbers)
    def rollback(self, *, via: int, name: str, pick: tuple[str, int], version: int) -> None:
        """Go back to a version, or ask for one of another memory."""
        session_id, memory_id = self.world.session(name), self.memory(name, pick)
        session = self.model.sessions.get(session_id)
        versions = [] if session is None else session.versions(memory_id)
        # The first revision is most often that of another one.
        revisions = [*(row.revision for _, row in versions), 1]
        request = pb.RollbackMemoryRequest(
            session_id=session_id,
            memory_id=memory_id,
            revision=revisions[version % len(revisions)],
        )
        answer = self.call(via, "RollbackMemory", request)
        if answer is not None:
            self.model.rollback(request, answer)
        self.settle(via, name)

    @rule(via=servers, name=sessions, pick=deleted_picks)
    def undelete(self, *, via: int, name: str, pick: tuple[str, int]) -> None:
        request = pb.UndeleteMemoryRequest(
            session_id=self.world.session(name), memory_id=self.memory(name, pick)
        )
        answer = self.call(via, "UndeleteMemory", request)
        if answer is not None:
            self.model.undelete(request, answer)
        self.settle(via, name)

    @rule(via=servers, name=sessions, wanted=filters, force=st.booleans())
    def purge(self, *, via: int, name: str, wanted: dict[str, Any], force: bool) -> None:
        request = pb.PurgeMemoriesRequest(
            session_id=self.world.session(name), filter=self.filter(wanted), force=force
        )
        self.model.purge(request, self.call(via, "PurgeMemories", request))
        self.settle(via, name)

    @precondition(lambda self: self.model.has_past(10))
    @rule(via=servers, name=sessions)
    def erase(self, *, via: int, name: str) -> None:
        session_id = self.world.session(name)
        request = pb.EraseSessionRequest(session_id=session_id)
        self.model.erase(request, self.call(via, "EraseSession", request))
        self.world.check_watcher_of_erased(session_id)
        self.settle(via, name)

    @rule(via=servers, name=sessions, fields=settings_of_sessions, allow_missing=st.booleans())
    def update_session(
        self, *, via: int, name: str, fields: dict[str, Any], allow_missing: bool
    ) -> None:
        self.set(via, name, fields, allow_missing=allow_missing)

    def set(self, via: int, name: str, fields: dict[str, Any], *, allow_missing: bool) -> None:
        values = dict(fields)
        paths = [path for path in fields if path != "expiration"]
        if "expiration" in fields:
            values |= values.pop("expiration")
            paths += ["memory_ttl", "memories_never_expire"]
        request = spb.UpdateSessionRequest(
            session=spb.Session(session_id=self.world.session(name), **values),
            update_mask=FieldMask(paths=paths),
            allow_missing=allow_missing,
        )
        answer = self.call(via, "UpdateSession", request)
        if answer is not None:
            self.model.update_session(request, answer)
        self.settle(via, name)

    @rule(
        via=servers,
        items=st.lists(stores, min_size=1, max_size=4),
        again=st.lists(st.tuples(picks, st.sampled_from(CONTENTS)), max_size=3),
        settings=st.none() | settings_of_sessions,
        request_id=st.just("") | st.sampled_from(REQUEST_IDS),
    )
    def visit_and_sign_in(
        self,
        *,
        via: int,
        items: list[dict[str, Any]],
        again: list[tuple[tuple[str, int], str]],
        settings: dict[str, Any] | None,
        request_id: str,
    ) -> None:
        """Fill one session, change what it has, and merge it into the other."""
        for fields in items:
            self.store_one(via, "b", self.store_request("b", fields))
        for pick, content in again:
            memory = pb.Memory(
                session_id=self.world.session("b"),
                memory_id=self.memory("b", pick),
                content=content,
            )
            request = pb.UpdateMemoryRequest(memory=memory)
            answer = self.call(via, "UpdateMemory", request)
            if answer is not None:
                self.model.update(request, answer)
        self.settle(via, "b")
        if settings is not None:
            self.set(via, "b", settings, allow_missing=True)
        self.merge(via, "b", request_id)

    @precondition(lambda self: self.model.has_past(3))
    @rule(
        via=servers,
        source=st.sampled_from("ab"),
        request_id=st.just("") | st.sampled_from(REQUEST_IDS),
    )
    def merge_sessions(self, *, via: int, source: str, request_id: str) -> None:
        self.merge(via, source, request_id)

    def merge(self, via: int, source: str, request_id: str) -> None:
        request = spb.MergeSessionsRequest(
            source_session_id=self.world.session(source),
            target_session_id=self.world.session("b" if source == "a" else "a"),
            request_id=request_id,
        )
        self.merge_once(via, request)

    @precondition(lambda self: self.notes.merges)
    @rule(via=servers, pick=numbers)
    def merge_again(self, *, via: int, pick: int) -> None:
        self.merge_once(via, self.notes.merges[-1 - pick % len(self.notes.merges)])

    def merge_once(self, via: int, request: spb.MergeSessionsRequest) -> None:
        answer = self.call(via, "MergeSessions", request)
        if answer is not None:
            name = spb.GetSessionRequest(session_id=request.target_session_id)
            target = self.world.call(1 - via, "GetSession", name)
            if self.model.merge(request, answer, target.revision):
                self.world.check_watcher_of_erased(request.source_session_id)
            if request.request_id:
                self.notes.merges.append(request)
            for row in self.model.rows(request.target_session_id):
                if not row.is_expired(self.model.now):
                    self.all_revisions(via, row.session_id, row.memory_id)
        self.settle(via, "a", "b")

    @rule(span=st.sampled_from(SPANS))
    def move_time(self, *, span: timedelta) -> None:
        self.world.clock.now += span

    @rule(via=servers)
    def sweep(self, *, via: int) -> None:
        self.world.sweep(via)

        def next_events(session_id: str, count: int) -> list[tuple[int, str]]:
            place = len(self.model.sessions[session_id].events)
            events = self.world.watchers[session_id].events[place : place + count]
            return [(event.change, event.memory.memory_id) for event in events]

        for place in reversed(range(len(self.world.tenants))):
            self.take_turn(place)
            self.world.follow_sweep(via)
            self.model.sweep(next_events)
            self.settle(via, "a", "b")

    @rule(via=servers)
    def restart(self, *, via: int) -> None:
        self.world.restart(via)

    # Reads

    @rule(via=servers, name=sessions, pick=picks)
    def get(self, *, via: int, name: str, pick: tuple[str, int]) -> None:
        session_id, memory_id = self.world.session(name), self.memory(name, pick)
        request = pb.GetMemoryRequest(session_id=session_id, memory_id=memory_id)
        answer = self.call(via, "GetMemory", request)
        if answer is not None:
            self.model.check_memory(answer, self.model.sessions[session_id].rows[memory_id])

    @rule(via=servers, name=sessions, key=st.sampled_from(KEYS))
    def get_by_key(self, *, via: int, name: str, key: str) -> None:
        request = pb.GetMemoryRequest(session_id=self.world.session(name), key=key)
        answer = self.call(via, "GetMemory", request)
        if answer is not None:
            self.model.check_memory(answer, self.model.named(request))

    @rule(via=servers, name=sessions, pick=picks, size=st.sampled_from((1, 2, 0)))
    def list_revisions(self, *, via: int, name: str, pick: tuple[str, int], size: int) -> None:
        self.all_revisions(via, self.world.session(name), self.memory(name, pick), size)

    def all_revisions(self, via: int, session_id: str, memory_id: str, size: int = 0) -> None:
        request = pb.ListMemoryRevisionsRequest(
            session_id=session_id, memory_id=memory_id, page_size=size
        )
        answer = self.call(via, "ListMemoryRevisions", request)
        if answer is None:
            return
        found = [*answer.revisions]
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = self.call(via, "ListMemoryRevisions", request)
            found += answer.revisions
        self.model.check_revisions(request, found)

    @rule(
        via=servers,
        name=sessions,
        wanted=filters,
        show_deleted=st.booleans(),
        sizes=st.lists(st.sampled_from((1, 2, 5, 0, 5000)), min_size=1, max_size=3),
    )
    def list_all(
        self, *, via: int, name: str, wanted: dict[str, Any], show_deleted: bool, sizes: list[int]
    ) -> None:
        request = pb.ListMemoriesRequest(
            session_id=self.world.session(name),
            filter=self.filter(wanted),
            show_deleted=show_deleted,
        )
        position = 0
        for place in range(LAST_PAGE):
            request.page_size = sizes[min(place, len(sizes) - 1)]
            position = self.page(via, request, position)
            if not request.page_token:
                break
            self.notes.bookmarks.append((copy_of(request), position))
        export = pb.ExportMemoriesRequest(
            session_id=request.session_id, filter=request.filter, show_deleted=show_deleted
        )
        exported = self.world.stream(via, "ExportMemories", export)
        rows = self.model.listed(request.session_id, request.filter, show_deleted=show_deleted)
        self.model.check_memories(exported, rows)

    def page(self, via: int, request: pb.ListMemoriesRequest, after: int) -> int:
        """Ask for the page after a position; set the next token and return its position."""
        answer = self.call(via, "ListMemories", request)
        rows = self.model.listed(
            request.session_id, request.filter, show_deleted=request.show_deleted, after=after
        )
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        self.model.check_memories(answer.memories, rows[:size])
        assert bool(answer.next_page_token) == (len(rows) > size)
        request.page_token = answer.next_page_token
        return rows[:size][-1].created_revision if rows else after

    @precondition(lambda self: self.notes.bookmarks)
    @rule(via=servers, pick=numbers)
    def list_on(self, *, via: int, pick: int) -> None:
        """Continue from an old token, whatever has changed since."""
        request, after = self.notes.bookmarks[-1 - pick % len(self.notes.bookmarks)]
        self.page(via, copy_of(request), after)

    @rule(
        via=servers,
        name=sessions,
        wanted=filters,
        limit=st.sampled_from((0, 0, 1, 3, 5000)),
        max_chars=st.sampled_from((0, 0, 1, 30)),
        excluded=st.sets(st.integers(0, 20), max_size=3),
        peek=st.booleans(),
    )
    def retrieve(
        self,
        *,
        via: int,
        name: str,
        wanted: dict[str, Any],
        limit: int,
        max_chars: int,
        excluded: set[int],
        peek: bool,
    ) -> None:
        session_id = self.world.session(name)
        rows = self.model.rows(session_id)
        request = pb.RetrieveMemoriesRequest(
            session_id=session_id,
            filter=self.filter(wanted),
            limit=limit,
            max_chars=max_chars,
            exclude_memory_ids=[rows[i % len(rows)].memory_id for i in excluded if rows],
            peek=peek,
        )
        ids = self.model.retrieved(request, self.call(via, "RetrieveMemories", request))
        if ids and not peek:
            self.model.access(session_id, ids)
            self.world.flush(via, self.model.sessions[session_id].rows[ids[-1]])
            self.settle(via, name)

    @rule(
        via=servers,
        name=sessions,
        content=st.none() | st.sampled_from(CONTENTS),
        pick=picks,
        limits=st.fixed_dictionaries(
            {},
            optional={
                "max_distance": st.sampled_from((0, 3, 10, 30, 64)),
                "limit": st.sampled_from((0, 1, 3, 5000)),
            },
        ),
    )
    def find_similar(
        self,
        *,
        via: int,
        name: str,
        content: str | None,
        pick: tuple[str, int],
        limits: dict[str, int],
    ) -> None:
        target = {"memory_id": self.memory(name, pick)} if content is None else {"content": content}
        request = pb.FindSimilarMemoriesRequest(
            session_id=self.world.session(name), **target, **limits
        )
        answer = self.call(via, "FindSimilarMemories", request)
        if answer is not None:
            self.model.similar(request, answer)

    @rule(via=servers, name=sessions, start=st.integers(0, 60))
    def follow_from(self, *, via: int, name: str, start: int) -> None:
        """Resume from any past revision: the events bring the state of then up to date.

        A new memory marks the end of the events.
        """
        session_id = self.world.session(name)
        session = self.model.sessions.get(session_id)
        if session is None:
            return
        revisions = [0, *(event.revision for event in session.events)]
        start = revisions[start % len(revisions)]
        watcher = self.world.watch(via, session_id, start)
        self.notes.markers += 1
        self.store_one(
            via, name, self.store_request(name, {"content": f"marker {self.notes.markers}"})
        )
        self.world.check_resumed(watcher, session, start)

    @rule(via=servers, name=sessions, back=st.integers(0, 3))
    def follow_erased(self, *, via: int, name: str, back: int) -> None:
        """Resume from a revision of a session that has been erased."""
        session_id = self.world.session(name)
        last = self.model.erased.get(session_id, 0)
        if last > back:
            self.world.check_refused(self.world.watch(via, session_id, last - back))


class TwoTenants(MemoryMachine):
    """Two tenants in turns, with the same sessions, contents and request ids.

    Each is compared with a model that knows of no other.
    """

    @rule()
    def turn(self) -> None:
        self.take_turn(1 - self.world.tenants.index(self.world.tenant))

    @rule(via=servers, fields=stores)
    def store_the_same(self, *, via: int, fields: dict[str, Any]) -> None:
        """Both store one content, with one request id if there is any."""
        for place in (0, 1):
            self.take_turn(place)
            self.store_one(via, "a", self.store_request("a", fields))

    @rule(via=servers, name=sessions, pick=picks)
    def name_the_others(self, *, via: int, name: str, pick: tuple[str, int]) -> None:
        """Ask for a memory of the other tenant by its id."""
        memory_id = self.memory(name, pick)
        self.turn()
        request = pb.GetMemoryRequest(session_id=self.world.session(name), memory_id=memory_id)
        self.call(via, "GetMemory", request)

    @precondition(lambda self: self.notes.bookmarks)
    @rule(via=servers, pick=numbers)
    def list_on_with_the_others_token(self, *, via: int, pick: int) -> None:
        request, _ = self.notes.bookmarks[-1 - pick % len(self.notes.bookmarks)]
        self.turn()
        refusal = self.world.call(via, "ListMemories", copy_of(request))
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ("page_token",))


def copy_of(request: pb.ListMemoriesRequest) -> pb.ListMemoriesRequest:
    copy = pb.ListMemoriesRequest()
    copy.CopyFrom(request)
    return copy


@pytest.fixture
def make_world(
    database_url: str, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    async def never(_sweeper: Sweeper, _interval_seconds: float) -> None:
        """Leave sweeping to the rule."""

    # So that no rule waits a second for a background task.
    monkeypatch.setitem(AccessTracker.__init__.__kwdefaults__, "flush_seconds", 0.0)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Sweeper, "run", never)
    made = []

    def make(*tenants: str) -> World:
        made.append(World(database_url, clock, *tenants))
        return made[-1]

    yield make
    for world in made:
        world.close()


def test_the_service_matches_the_model(make_world: Callable[..., World]) -> None:
    run_state_machine_as_test(partial(MemoryMachine, make_world()), settings=PROFILE)


def test_two_tenants_see_what_each_would_see_alone(make_world: Callable[..., World]) -> None:
    world = make_world("acme", "other")
    run_state_machine_as_test(partial(TwoTenants, world), settings=PROFILE)
