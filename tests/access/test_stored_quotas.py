"""How much a tenant may store, and what GetUsage says of it."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tests.access.guarded import Caller, Guarded, outcome, refusal_of
from tests.usage import stored_and_counted

from memoryd.memories.sweeper import THOROUGH_SECONDS
from memoryd.sessions.accounts import COUNTED_AT_ONCE, SETTLED_AFTER
from memoryd.sessions.usage import RECOUNT_AFTER
from memoryd.v1 import access_pb2 as access
from memoryd.v1 import memory_pb2 as pb

CALLERS = 64
ROUNDS = 12
OPERATIONS = 40
SESSIONS = [f"chat-{number}" for number in range(4)]
WORDS = ["tea", "coffee", "Grüße", "日本", "🙂", "a longer text about nothing much"]


UNCOUNTED = """
INSERT INTO memories (tenant, session_id, id, content_type, content, created_at, updated_at,
    content_hash, semantic_hash, revision, created_revision)
SELECT tenant, session_id, '{id}', content_type, content, created_at, updated_at,
    '{number}', semantic_hash, {number}, {number}
FROM memories WHERE revision = 1
"""
"""A memory that nobody counts: a copy of the first one."""

MANY_SESSIONS = """
INSERT INTO sessions (tenant, session_id, revision)
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {})
SELECT 'acme', 'old-' || n, 1 FROM n
"""


def quotas(tenant: str = "acme", **values: int) -> access.UpdateTenantRequest:
    return access.UpdateTenantRequest(tenant=tenant, quotas=access.Quotas(**values))


def store(content: str, session_id: str = "chat", **fields: Any) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: Any, memory: pb.Memory, **fields: Any) -> Any:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id, **fields)


def edit(memory: pb.Memory, content: str, **fields: Any) -> pb.UpdateMemoryRequest:
    changed = pb.Memory(
        session_id=memory.session_id, memory_id=memory.memory_id, content=content, **fields
    )
    return pb.UpdateMemoryRequest(memory=changed)


def erased(session_id: str) -> pb.EraseSessionRequest:
    return pb.EraseSessionRequest(session_id=session_id)


async def stored(caller: Caller, content: str, session_id: str = "chat", **fields: Any) -> Any:
    return (await caller.memory("StoreMemory", store(content, session_id, **fields))).memory


async def refusal(call: Any) -> str:
    """The quota that a call is refused for, which time does not help."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    packed = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info)
        detail.Unpack(failure)
        assert not detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    assert info.reason == "QUOTA_EXCEEDED"
    (violation,) = failure.violations
    return str(violation.subject)


async def usage(caller: Caller, tenant: str = "") -> tuple[int, int, int]:
    """Memories, sessions and bytes."""
    answer = await caller.access("GetUsage", access.GetUsageRequest(tenant=tenant))
    return answer.usage.memories, answer.usage.sessions, answer.usage.bytes


async def is_known(server: Guarded, quota: str, limit: int) -> bool:
    """Whether a server knows of a quota."""
    answer = await server.admin.access("GetUsage", access.GetUsageRequest(tenant="acme"))
    return bool(getattr(answer.quotas, quota) == limit)


async def test_a_write_beyond_each_quota_is_refused_alone(guarded, tables):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(memories=3, sessions=2, bytes=100))
    first = await stored(caller, "one")
    await stored(caller, "two", "other")
    subject = await refusal(caller.memory("StoreMemory", store("x", "third")))
    assert subject == "tenants/acme/quotas/sessions"
    assert not any((await tables.naming("third")).values())
    subject = await refusal(caller.memory("StoreMemory", store("x" * 91)))
    assert subject == "tenants/acme/quotas/bytes"
    await stored(caller, "three")
    assert await usage(caller) == (3, 2, 3 + 3 + 5 + 3 * len("{}"))
    subject = await refusal(caller.memory("StoreMemory", store("four")))
    assert subject == "tenants/acme/quotas/memories"
    # Nothing is used up by what was refused.
    assert await usage(caller) == (3, 2, 17)
    await caller.memory("DeleteMemory", named(pb.DeleteMemoryRequest, first))
    await stored(caller, "four")
    await caller.memory("EraseSession", erased("other"))
    await stored(caller, "five", "third")
    other = await guarded.caller("other")
    for n in range(5):
        await stored(other, f"fact {n}", f"chat-{n}")


async def test_what_adds_nothing_is_allowed_at_the_limit(guard):
    guarded = await guard(MEMORY_MAX_ENTRIES="10")
    caller = await guarded.caller("acme")
    request_id = str(uuid.uuid4())
    kept = [await stored(caller, f"fact {n}", importance=0.1 * n) for n in range(9)]
    last = await stored(caller, "fact 9", request_id=request_id)
    size = (await usage(caller))[2]
    await guarded.admin.access("UpdateTenant", quotas(memories=10, sessions=1, bytes=size))
    merged = await caller.memory("StoreMemory", store("Fact 3"))
    assert merged.outcome == pb.STORE_OUTCOME_MERGED
    subject = await refusal(caller.memory("StoreMemory", store("fact 3", metadata={"a": 1})))
    assert subject == "tenants/acme/quotas/bytes"
    again = await caller.memory("StoreMemory", store("fact 9", request_id=request_id))
    assert again.memory.memory_id == last.memory_id
    # The session is full: what goes makes room for what comes, if that is no longer.
    subject = await refusal(caller.memory("StoreMemory", store("fact 10")))
    assert subject == "tenants/acme/quotas/bytes"
    answer = await caller.memory("StoreMemory", store("news!!"))
    assert list(answer.evicted_memory_ids) == [kept[0].memory_id]
    assert await usage(caller) == (10, 1, size)
    subject = await refusal(caller.memory("UpdateMemory", edit(last, "fact 9 or so")))
    assert subject == "tenants/acme/quotas/bytes"
    await caller.memory("UpdateMemory", edit(last, "fact"))
    await caller.memory("UpdateMemory", edit(last, "fact 9"))
    await caller.memory("DeleteMemory", named(pb.DeleteMemoryRequest, last))
    await stored(caller, "fact!", "chat")
    undeleting = named(pb.UndeleteMemoryRequest, last)
    found = await outcome(caller.memory("UndeleteMemory", undeleting))
    assert found is not None
    assert found.reason.endswith("SESSION_FULL")


async def test_the_room_of_what_is_replaced_counts_for_what_replaces_it(
    guarded, tables, database_kind
):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(memories=2, sessions=1, bytes=20))
    first = await stored(caller, "0123456789", key="k")
    other = await stored(caller, "one")
    for content in ("01234567890", "x", "0123456789"):
        answer = await caller.memory("StoreMemory", store(content, key="k"))
        assert answer.outcome == pb.STORE_OUTCOME_REPLACED
    holder = answer.memory
    subject = await refusal(caller.memory("StoreMemory", store("y" * 14, key="k")))
    assert subject == "tenants/acme/quotas/bytes"
    subject = await refusal(caller.memory("StoreMemory", store("z", key="another")))
    assert subject == "tenants/acme/quotas/memories"
    # Nothing is deleted for what is refused.
    found = await caller.memory("GetMemory", pb.GetMemoryRequest(session_id="chat", key="k"))
    assert found.memory_id == holder.memory_id != first.memory_id
    await caller.memory("GetMemory", named(pb.GetMemoryRequest, other))
    assert await usage(caller) == (2, 1, 10 + 3 + 2 * len("{}"))
    stored_now, counted = await stored_and_counted(tables, database_kind, "acme")
    assert stored_now == counted


async def test_an_undelete_counts(guarded):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(memories=1))
    first = await stored(caller, "one")
    await caller.memory("DeleteMemory", named(pb.DeleteMemoryRequest, first))
    second = await stored(caller, "two")
    subject = await refusal(caller.memory("UndeleteMemory", named(pb.UndeleteMemoryRequest, first)))
    assert subject == "tenants/acme/quotas/memories"
    await caller.memory("DeleteMemory", named(pb.DeleteMemoryRequest, second))
    await caller.memory("UndeleteMemory", named(pb.UndeleteMemoryRequest, first))
    assert (await usage(caller))[:2] == (1, 1)


async def test_a_batch_is_stored_within_the_quota_or_not_at_all(guarded):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(memories=4, sessions=2))
    await stored(caller, "one")

    def batch(*requests: pb.StoreMemoryRequest) -> Any:
        message = pb.BatchStoreMemoriesRequest(requests=requests)
        return caller.memory("BatchStoreMemories", message)

    subject = await refusal(batch(*(store(f"fact {n}") for n in range(4))))
    assert subject == "tenants/acme/quotas/memories"
    subject = await refusal(batch(store("fact", "other"), store("fact", "third")))
    assert subject == "tenants/acme/quotas/sessions"
    assert (await usage(caller))[:2] == (1, 1)
    await batch(*(store(f"fact {n % 2}", "other") for n in range(4)), store("fact 3"))
    assert (await usage(caller))[:2] == (4, 2)
    call = caller.memory("StreamStoreMemories", None)
    await call.initial_metadata()
    requests = [store(content) for content in ("one", "fact 4", "fact 3")]
    await call.write(pb.StreamStoreMemoriesRequest(requests=requests))
    await call.done_writing()
    results = (await call.read()).results
    assert [r.HasField("status") for r in results] == [False, True, False]


async def test_a_quota_below_what_is_stored_refuses_only_what_adds(guarded):
    caller = await guarded.caller("acme")
    kept = [await stored(caller, f"fact {n}") for n in range(5)]
    await guarded.admin.access("UpdateTenant", quotas(memories=2, bytes=10))
    assert await refusal(caller.memory("StoreMemory", store("x"))) == (
        "tenants/acme/quotas/memories"
    )
    await stored(caller, "fact 1")
    await caller.memory("UpdateMemory", edit(kept[0], "fact"))
    await caller.memory("DeleteMemory", named(pb.DeleteMemoryRequest, kept[0]))
    await caller.memory("GetMemory", named(pb.GetMemoryRequest, kept[1]))
    await guarded.admin.access("UpdateTenant", quotas(memories=0, bytes=0))
    await stored(caller, "x")


@pytest.mark.parametrize("quota", ["memories", "sessions", "bytes"])
async def test_callers_of_two_servers_race_to_exactly_the_limit(guard, eventually, quota):
    # Each write in a transaction and a session of its own: nothing else puts them in line.
    one, two = [await guard(MEMORYD_WRITE_BATCH_LIMIT="1") for _ in range(2)]
    made = await one.key("acme")
    callers = [one.with_key(made.key), two.with_key(made.key)]
    limit = {"memories": 40, "sessions": 40, "bytes": 40 * len("fact 10{}")}[quota]
    await one.admin.access("UpdateTenant", quotas(**{quota: limit}))

    await eventually(lambda: is_known(two, quota, limit))

    def call(n: int) -> Any:
        request = store(f"fact {n + 10}", f"chat-{n}")
        return callers[n % 2].memory("StoreMemory", request, timeout=60)

    found = await asyncio.gather(*(outcome(call(n)) for n in range(CALLERS)))
    assert [f and f.reason for f in found].count(None) == 40
    assert {f.reason for f in found if f} == {"QUOTA_EXCEEDED"}
    answer = await callers[0].access("GetUsage", access.GetUsageRequest())
    assert getattr(answer.usage, quota) == limit


async def test_a_quota_by_a_setting_holds_without_credentials_too(serve, tables):
    server = await serve(MEMORYD_QUOTA_MEMORIES="2", MEMORYD_QUOTA_SESSIONS="1")
    await server.memory.StoreMemory(store("one"))
    found = await outcome(server.memory.StoreMemory(store("two", "other")))
    assert found is not None
    assert found.reason == "QUOTA_EXCEEDED"
    await server.memory.StoreMemory(store("two"))
    assert await refusal(server.memory.StoreMemory(store("three"))) == (
        "tenants/default/quotas/memories"
    )
    assert len(await tables.rows("SELECT * FROM memories")) == 2


async def test_a_tenant_without_such_a_quota_has_no_account(guarded, tables):
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(calls_per_second=1000))
    await stored(caller, "one")
    assert not await tables.rows("SELECT * FROM tenant_usage")
    await guarded.admin.access("UpdateTenant", quotas(bytes=1000))
    assert len(await tables.rows("SELECT * FROM tenant_usage")) == 1
    await guarded.admin.access("UpdateTenant", quotas(bytes=0))
    assert not await tables.rows("SELECT * FROM tenant_usage")


async def test_what_was_not_counted_is_counted_again(guarded, tables, clock):
    """As of a server of an earlier release, or one that does not know of the quota yet."""
    caller = await guarded.caller("acme")
    await guarded.admin.access("UpdateTenant", quotas(memories=10, sessions=10))
    await stored(caller, "one")
    sweeper = guarded.server.sweeper
    for wait in (SETTLED_AFTER, RECOUNT_AFTER):
        count = (await usage(caller))[0]
        await tables.execute(UNCOUNTED.format(id=uuid.uuid4(), number=wait.seconds))
        await sweeper.run_once()
        assert (await usage(caller))[0] == count
        clock.move(wait)
        assert (await sweeper.run_once()).recounted == 1
        assert (await usage(caller))[0] == count + 1
    await guarded.admin.access("UpdateTenant", quotas(memories=3))
    assert await refusal(caller.memory("StoreMemory", store("x"))) == (
        "tenants/acme/quotas/memories"
    )


async def test_a_tenant_with_much_is_counted_by_the_sweeper(guard, tables):
    guarded = await guard(MEMORYD_QUOTA_SESSIONS="5")
    caller = await guarded.caller("acme")
    count = COUNTED_AT_ONCE + 1
    await tables.execute(MANY_SESSIONS.format(count))
    await stored(caller, "one")
    assert (await usage(caller))[:2] == (1, count + 1)
    await guarded.server.sweeper.run_once()
    assert (await usage(caller))[:2] == (1, count + 1)
    assert await refusal(caller.memory("StoreMemory", store("x", "new"))) == (
        "tenants/acme/quotas/sessions"
    )
    await stored(caller, "two")


async def test_usage_is_told_to_admins_of_the_tenant_and_of_the_instance(guard):
    guarded = await guard(MEMORYD_QUOTA_STREAMS="7", MEMORYD_QUOTA_KEYS="5")
    caller, other = await guarded.caller("acme"), await guarded.caller("other")
    reader = await guarded.caller("acme", scopes=["reader"])
    await guarded.admin.access("UpdateTenant", quotas(calls_per_second=100, bytes=0))
    await stored(caller, "one", metadata={"a": "b"})
    watch = caller.memory("WatchMemories", pb.WatchMemoriesRequest(session_id="chat"))
    await watch.initial_metadata()
    request = access.GetUsageRequest(tenant="acme")
    expected = access.GetUsageResponse(
        tenant="acme",
        quotas=access.Quotas(
            calls_per_second=100, streams=7, keys=5, memories=0, sessions=0, bytes=0, documents=0
        ),
        usage=access.Usage(streams=1, keys=2, memories=1, sessions=1, bytes=3 + len('{"a":"b"}')),
    )
    assert await caller.access("GetUsage", access.GetUsageRequest()) == expected
    assert await guarded.admin.access("GetUsage", request) == expected
    for refused in (other, reader):
        found = await outcome(refused.access("GetUsage", request))
        assert found is not None
        assert found.reason == "SCOPE_MISSING"
    watch.cancel()
    assert await usage(guarded.admin, "nobody") == (0, 0, 0)


class Operations:
    """Random calls of a tenant on two servers, with a seed."""

    def __init__(self, callers: list[Caller], dice: random.Random) -> None:
        self._callers = callers
        self._dice = dice
        self.memories: list[pb.Memory] = []
        self.refusals: Counter[str] = Counter()
        """By the quota."""

    def next(self) -> Coroutine[Any, Any, None]:
        operations: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *(self._store,) * 6,
            *(self._batch, self._update, self._delete, self._undelete, self._purge, self._erase),
            self._rollback,
        ]
        return self._dice.choice(operations)()

    async def _call(self, method: str, request: Any) -> Any:
        """The answer; None for a refusal, which is part of it."""
        try:
            return await self._dice.choice(self._callers).memory(method, request, timeout=60)
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE}:
                raise
            found = refusal_of(error)
            if found.reason == "QUOTA_EXCEEDED":
                self.refusals[found.message.partition(" of ")[0].rpartition(" ")[2]] += 1
            return None

    def _request(self) -> pb.StoreMemoryRequest:
        dice = self._dice
        fields: dict[str, Any] = {"metadata": dice.choice([{}, {"é": 1.5}, {"list": [1, None]}])}
        if dice.random() < 0.3:
            fields["ttl"] = Duration(seconds=dice.randrange(1, 100))
        if dice.random() < 0.4:
            fields["key"] = f"key/{dice.randrange(3)}"
        text = " ".join(dice.choices(WORDS, k=2))
        return store(text, dice.choice(SESSIONS), **fields)

    async def _store(self) -> None:
        answer = await self._call("StoreMemory", self._request())
        if answer is not None:
            self.memories.append(answer.memory)

    async def _batch(self) -> None:
        requests = [self._request() for _ in range(self._dice.randrange(2, 12))]
        await self._call("BatchStoreMemories", pb.BatchStoreMemoriesRequest(requests=requests))

    async def _update(self) -> None:
        if self.memories:
            memory, text = self._dice.choice(self.memories), " ".join(self._dice.choices(WORDS))
            metadata = self._dice.choice([{}, {"b": "ü"}])
            await self._call("UpdateMemory", edit(memory, text, metadata=metadata))

    async def _delete(self) -> None:
        if self.memories:
            memory = self._dice.choice(self.memories)
            await self._call("DeleteMemory", named(pb.DeleteMemoryRequest, memory))

    async def _rollback(self) -> None:
        if self.memories:
            memory = self._dice.choice(self.memories)
            request = named(pb.RollbackMemoryRequest, memory, revision=memory.revision)
            await self._call("RollbackMemory", request)

    async def _undelete(self) -> None:
        if self.memories:
            memory = self._dice.choice(self.memories)
            await self._call("UndeleteMemory", named(pb.UndeleteMemoryRequest, memory))

    async def _purge(self) -> None:
        kind = self._dice.choice([pb.CONTENT_TYPE_CONTEXT, pb.CONTENT_TYPE_FACT])
        request = pb.PurgeMemoriesRequest(
            session_id=self._dice.choice(SESSIONS),
            filter=pb.MemoryFilter(content_types=[kind], metadata={"é": 1.5}),
            force=True,
        )
        await self._call("PurgeMemories", request)

    async def _erase(self) -> None:
        if self._dice.random() < 0.3:
            await self._call("EraseSession", erased(self._dice.choice(SESSIONS)))


async def test_what_is_counted_is_what_is_stored_whatever_is_done(
    guard, tables, database_kind, clock, eventually
):
    variables = {"MEMORY_MAX_ENTRIES": "10", "MEMORYD_DELETED_RETENTION_HOURS": "1"}
    servers: list[Guarded] = [await guard(**variables), await guard(**variables)]
    made = await servers[0].key()
    callers = [server.with_key(made.key) for server in servers]
    limits = (18, 3, 450)
    memories, sessions, size = limits
    await servers[0].admin.access(
        "UpdateTenant", quotas(memories=memories, sessions=sessions, bytes=size)
    )
    # Nothing is corrected meanwhile.
    await tables.execute("UPDATE tenant_usage SET recount_at = '9999-01-01 00:00:00+00:00'")
    await eventually(lambda: is_known(servers[1], "bytes", size))
    dice = random.Random(f"stored quotas, {database_kind}")  # noqa: S311  no secret
    operations = Operations(callers, dice)
    for number in range(ROUNDS):
        await asyncio.gather(*(operations.next() for _ in range(OPERATIONS)))
        clock.move(timedelta(seconds=10))
        if number % 3 == 2:
            await servers[0].server.sweeper.run_once()
        found = (await stored_and_counted(tables, database_kind, "acme"))[0][:3]
        assert await usage(callers[number % 2]) == found
        assert all(a <= b for a, b in zip(found, limits, strict=True))
    assert operations.refusals.keys() == {"memories", "sessions", "bytes"}
    clock.move(timedelta(seconds=2 * THOROUGH_SECONDS))
    await servers[0].server.sweeper.run_once()  # purges what is deleted
    found = (await stored_and_counted(tables, database_kind, "acme"))[0][:3]
    assert await usage(callers[0]) == found
    assert await tables.rows("SELECT recounts FROM tenant_usage") == [(1,)]
