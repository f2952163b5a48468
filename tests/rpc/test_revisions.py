"""ListMemoryRevisions and RollbackMemory."""

from __future__ import annotations

from datetime import UTC, timedelta

import grpc
import pytest
from tests.rpc.test_change import ABSENT, delete, get, remember, undelete, update
from tests.rpc.test_keys import KEY, SESSION, listed, stored

from memoryd.memories.versions import READ_LIMIT
from memoryd.v1 import memory_pb2 as pb


async def revisions(memory, memory_id: str, **fields: object) -> list[pb.MemoryRevision]:
    request = pb.ListMemoryRevisionsRequest(session_id=SESSION, memory_id=memory_id, **fields)
    found: list[pb.MemoryRevision] = []
    while True:
        page = await memory.ListMemoryRevisions(request)
        found += page.revisions
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def rollback(memory, memory_id: str, revision: int) -> pb.Memory:
    return await memory.RollbackMemory(
        pb.RollbackMemoryRequest(session_id=SESSION, memory_id=memory_id, revision=revision)
    )


# Listing


async def test_every_version_is_listed_newest_first(memory, clock):
    first = await remember(memory, tags=["a"], metadata={"n": 1})
    times = [clock.now]
    seen = [first]
    for change in (
        lambda: update(memory, first.memory_id, content="prefers phone", tags=["b"]),
        lambda: delete(memory, first.memory_id),
        lambda: undelete(memory, first.memory_id),
    ):
        clock.move(timedelta(minutes=1))
        times.append(clock.now)
        seen.append(await change())
    await remember(memory, "another memory")
    found = await revisions(memory, first.memory_id)
    for one in (*(version.memory for version in found), *seen):
        one.ClearField("effective_importance")
    assert [version.memory for version in found] == seen[::-1]
    assert [version.revision for version in found] == [4, 3, 2, 1]
    assert [version.change for version in found] == [
        pb.MEMORY_CHANGE_RESTORED,
        pb.MEMORY_CHANGE_DELETED,
        pb.MEMORY_CHANGE_UPDATED,
        pb.MEMORY_CHANGE_CREATED,
    ]
    assert [version.record_time.ToDatetime(UTC) for version in found] == times[::-1]


@pytest.mark.parametrize("page_size", [1, 7, READ_LIMIT, 1000])
async def test_pages_hold_every_version_once(memory, page_size):
    first = await remember(memory, importance=0.0)
    count = 2 * READ_LIMIT + 3
    for number in range(1, count):
        await update(memory, first.memory_id, importance=number / count)
    found = await revisions(memory, first.memory_id, page_size=page_size)
    assert [version.revision for version in found] == list(range(count, 0, -1))


async def test_large_versions_come_in_pages_that_a_client_can_receive(memory):
    first = await remember(memory)
    for number in range(100):
        content = f"{number} " + "🙂" * 16_000
        await update(memory, first.memory_id, content=content)
    request = pb.ListMemoryRevisionsRequest(
        session_id=SESSION, memory_id=first.memory_id, page_size=1000
    )
    page = await memory.ListMemoryRevisions(request)
    assert page.next_page_token
    found = await revisions(memory, first.memory_id, page_size=1000)
    assert len(found) == 101


async def test_versions_end_with_the_memory(memory, clock, refused):
    gone = await remember(memory, "gone")
    purge = pb.PurgeMemoriesRequest(session_id=SESSION, force=True)
    await memory.PurgeMemories(purge)
    expired = await remember(memory, "expired", ttl=timedelta(hours=1))
    clock.move(timedelta(hours=2))
    for memory_id in (gone.memory_id, expired.memory_id, ABSENT):
        refusal = await refused(revisions(memory, memory_id))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert refusal.resource.resource_name == memory_id
    refusal = await refused(
        memory.ListMemoryRevisions(
            pb.ListMemoryRevisionsRequest(session_id="elsewhere", memory_id=ABSENT)
        )
    )
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_purging_takes_the_versions_along(memory, tables):
    first = await remember(memory, "a secret")
    await update(memory, first.memory_id, content="nothing")
    assert "a secret" in await tables.everything()
    await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id=SESSION, force=True))
    assert "a secret" not in await tables.everything()


async def test_versions_are_dropped_a_day_after_they_were_superseded(running, clock, refused):
    memory = running.memory
    first = await remember(memory, never_expires=True)
    await update(memory, first.memory_id, importance=0.1)
    clock.move(timedelta(hours=23))
    await update(memory, first.memory_id, importance=0.2)
    clock.move(timedelta(hours=1, seconds=1))
    await running.server.sweeper.run_once()
    assert [one.revision for one in await revisions(memory, first.memory_id)] == [3, 2]
    refusal = await refused(rollback(memory, first.memory_id, 1))
    assert refusal.code is grpc.StatusCode.OUT_OF_RANGE
    assert (await rollback(memory, first.memory_id, 2)).importance == 0.1


async def test_an_erasure_takes_the_versions_along(memory, tables, refused):
    first = await remember(memory, "a secret")
    await update(memory, first.memory_id, content="nothing")
    await memory.EraseSession(pb.EraseSessionRequest(session_id=SESSION))
    assert "a secret" not in await tables.everything()
    assert (await refused(revisions(memory, first.memory_id))).code is grpc.StatusCode.NOT_FOUND


async def test_a_page_token_is_bound_to_its_memory(memory, refused):
    first, other = await remember(memory), await remember(memory, "another")
    await update(memory, first.memory_id, importance=0.1)
    request = pb.ListMemoryRevisionsRequest(
        session_id=SESSION, memory_id=first.memory_id, page_size=1
    )
    request.page_token = (await memory.ListMemoryRevisions(request)).next_page_token
    assert request.page_token
    request.memory_id = other.memory_id
    refusal = await refused(memory.ListMemoryRevisions(request))
    assert set(refusal.violations) == {"page_token"}


# Rolling back


async def test_a_rollback_is_a_new_revision_with_what_the_version_had(memory, clock):
    first = await remember(
        memory,
        content_type=pb.CONTENT_TYPE_FACT,
        importance=0.9,
        metadata={"n": 1},
        tags=["a", "b"],
        ttl=timedelta(days=2),
    )
    clock.move(timedelta(minutes=1))
    await update(
        memory,
        first.memory_id,
        content="something else",
        content_type=pb.CONTENT_TYPE_CONTEXT,
        importance=0.1,
        metadata={"n": 2},
        tags=["c"],
        expire_time={"seconds": 4_000_000_000},
    )
    clock.move(timedelta(minutes=1))
    back = await rollback(memory, first.memory_id, first.revision)
    assert back.revision == 3
    assert back.update_time.ToDatetime(UTC) == clock.now
    assert await get(memory, first.memory_id) == back
    (found,) = await listed(memory, filter=pb.MemoryFilter(tags_all=["a", "b"]))
    assert found == back
    versions = await revisions(memory, first.memory_id)
    assert [version.change for version in versions[:2]] == [pb.MEMORY_CHANGE_UPDATED] * 2
    for one in (first, back):
        for name in ("revision", "etag", "update_time", "effective_importance"):
            one.ClearField(name)
    assert back == first


async def test_the_current_version_can_be_gone_back_to(memory):
    first = await remember(memory)
    back = await rollback(memory, first.memory_id, first.revision)
    assert (back.revision, back.content) == (2, first.content)


async def test_what_the_memory_never_had_is_out_of_range(memory, refused, tables):
    first, other = await remember(memory), await remember(memory, "another")
    await update(memory, first.memory_id, importance=0.1)
    for revision in (other.revision, 99, 2**63 - 1):
        refusal = await refused(rollback(memory, first.memory_id, revision))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.OUT_OF_RANGE,
            "REVISION_OUT_OF_RANGE",
        )
    await tables.execute("DELETE FROM memory_history")  # as the sweeper does after a while
    refusal = await refused(rollback(memory, first.memory_id, first.revision))
    assert refusal.code is grpc.StatusCode.OUT_OF_RANGE
    refusal = await refused(rollback(memory, first.memory_id, 0))
    assert set(refusal.violations) == {"revision"}


async def test_a_version_that_has_expired_since_is_refused(memory, clock, refused):
    first = await remember(memory, ttl=timedelta(hours=1))
    await update(memory, first.memory_id, ttl=timedelta(hours=5))
    clock.move(timedelta(hours=2))
    refusal = await refused(rollback(memory, first.memory_id, first.revision))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERSION_EXPIRED",
    )


async def test_what_is_not_live_cannot_go_back(memory, clock, refused):
    deleted = await remember(memory)
    await delete(memory, deleted.memory_id)
    expired = await remember(memory, "expired", ttl=timedelta(hours=1))
    clock.move(timedelta(hours=2))
    for memory_id, revision in (
        (deleted.memory_id, 1),
        (expired.memory_id, expired.revision),
        (ABSENT, 1),
    ):
        refusal = await refused(rollback(memory, memory_id, revision))
        assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_content_that_another_memory_has_by_now_is_refused(memory, refused):
    first = await remember(memory)
    await update(memory, first.memory_id, content="something else")
    holder = await remember(memory)
    refusal = await refused(rollback(memory, first.memory_id, first.revision))
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.resource.resource_name == holder.memory_id
    await delete(memory, holder.memory_id)
    assert (await rollback(memory, first.memory_id, first.revision)).content == first.content


async def test_a_memory_with_a_key_goes_back_whatever_others_hold(memory):
    first = (await stored(memory, "lives in Bern")).memory
    await update(memory, first.memory_id, content="lives in Rome")
    await stored(memory, "lives in Bern", "")
    back = await rollback(memory, first.memory_id, first.revision)
    assert (back.content, back.key, back.content_hash) == (
        "lives in Bern",
        KEY,
        first.content_hash,
    )
    merged = await stored(memory, "lives in Bern")
    assert merged.memory.memory_id == first.memory_id


async def test_a_version_that_an_earlier_release_kept_has_neither_key_nor_tags(memory, tables):
    first = (await stored(memory, "lives in Bern", tags=["a"])).memory
    await update(memory, first.memory_id, content="lives in Rome")
    (row,) = await tables.rows("SELECT CAST(state AS TEXT) FROM memory_history")
    state = row[0].replace(f'"key":"{KEY}"', '"other":"x"').replace('"tags":["a"]', '"more":[]')
    assert state != row[0]
    state = state.replace(":", r"\:")  # no parameter
    await tables.execute(f"UPDATE memory_history SET state = '{state}'")  # noqa: S608  ours
    current, old = await revisions(memory, first.memory_id)
    assert (list(current.memory.tags), list(old.memory.tags)) == (["a"], [])
    assert old.memory.key == KEY
    back = await rollback(memory, first.memory_id, first.revision)
    assert (back.content, back.key, list(back.tags)) == ("lives in Bern", KEY, [])
    assert (await stored(memory, "lives in Bern")).outcome == pb.STORE_OUTCOME_MERGED
