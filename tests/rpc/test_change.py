"""UpdateMemory, DeleteMemory and UndeleteMemory."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"
ABSENT = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
TRIES = 100


@pytest.fixture
async def memory(serve) -> MemoryServiceStub:
    """A server that never deletes unused memories, so that time can move by months."""
    return (await serve(MEMORY_CLEANUP_DAYS="365")).memory


async def remember(
    memory: MemoryServiceStub, content: str = "prefers e-mail", **fields: object
) -> pb.Memory:
    fields = {"session_id": SESSION, **fields}
    answer = await memory.StoreMemory(pb.StoreMemoryRequest(content=content, **fields))
    return answer.memory


async def get(memory: MemoryServiceStub, memory_id: str) -> pb.Memory:
    return await memory.GetMemory(pb.GetMemoryRequest(session_id=SESSION, memory_id=memory_id))


async def update(
    memory: MemoryServiceStub,
    memory_id: str,
    mask: list[str] | None = None,
    ttl: timedelta | None = None,
    **fields: object,
) -> pb.Memory:
    return await memory.UpdateMemory(
        pb.UpdateMemoryRequest(
            memory=pb.Memory(session_id=SESSION, memory_id=memory_id, **fields),
            update_mask=None if mask is None else FieldMask(paths=mask),
            ttl=ttl,
        )
    )


async def delete(memory: MemoryServiceStub, memory_id: str, etag: str = "") -> pb.Memory:
    return await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id=SESSION, memory_id=memory_id, etag=etag)
    )


async def undelete(memory: MemoryServiceStub, memory_id: str) -> pb.Memory:
    return await memory.UndeleteMemory(
        pb.UndeleteMemoryRequest(session_id=SESSION, memory_id=memory_id)
    )


async def revision(memory: MemoryServiceStub) -> int:
    request = pb.RetrieveMemoriesRequest(session_id=SESSION, peek=True)
    return (await memory.RetrieveMemories(request)).revision


def rich() -> dict[str, object]:
    """A memory in which no field that callers set has its default."""
    return {
        "content_type": pb.CONTENT_TYPE_PREFERENCE,
        "importance": 0.9,
        "metadata": {"speaker": "Ada"},
        "ttl": timedelta(hours=2),
    }


# Masks


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("content", "Prefers phone."),
        ("content_type", pb.CONTENT_TYPE_FACT),
        ("importance", 0.25),
        ("metadata", {"a": 1}),
        ("expire_time", {"seconds": 4_000_000_000}),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "populated"])
async def test_a_change_of_one_field_leaves_the_others(memory, clock, path, value, named):
    stored = await remember(memory, **rich())
    clock.move(timedelta(minutes=1))
    changed = await update(memory, stored.memory_id, [path] if named else None, **{path: value})
    assert getattr(changed, path) == getattr(pb.Memory(**{path: value}), path)
    assert changed.update_time.ToDatetime(UTC) == clock.now
    assert changed.revision == stored.revision + 1
    assert changed.etag != stored.etag
    assert await get(memory, stored.memory_id) == changed
    consequences = {"content": ["content_hash", "semantic_hash"]}
    for name in (path, "update_time", "revision", "etag", *consequences.get(path, ())):
        changed.ClearField(name)
        stored.ClearField(name)
    changed.ClearField("effective_importance")
    stored.ClearField("effective_importance")
    assert changed == stored


async def test_only_the_named_of_the_given_fields_change(memory):
    stored = await remember(memory, **rich())
    changed = await update(
        memory, stored.memory_id, ["importance"], content="other", importance=0.1
    )
    assert (changed.content, changed.importance) == ("prefers e-mail", 0.1)


async def test_importance_zero_is_populated(memory):
    stored = await remember(memory, importance=0.9)
    changed = await update(memory, stored.memory_id, importance=0)
    assert (changed.importance, changed.HasField("importance")) == (0, True)
    assert changed.content == "prefers e-mail"


async def test_an_unset_field_that_the_mask_names_takes_its_default(memory, clock):
    stored = await remember(memory, **rich())
    mask = ["content_type", "importance", "metadata", "expire_time"]
    changed = await update(memory, stored.memory_id, mask)
    assert changed.content == "prefers e-mail"
    assert changed.content_type == pb.CONTENT_TYPE_CONTEXT
    assert changed.importance == 0.5
    assert not changed.metadata.fields
    assert not changed.HasField("expire_time")
    clock.move(timedelta(days=300))
    assert (await get(memory, stored.memory_id)).content == "prefers e-mail"


async def test_a_star_replaces_all_changeable_fields(memory):
    stored = await remember(memory, **rich())
    changed = await update(memory, stored.memory_id, ["*"], content="prefers phone")
    assert changed.content == "prefers phone"
    assert changed.content_type == pb.CONTENT_TYPE_CONTEXT
    assert changed.importance == 0.5
    assert not changed.metadata.fields
    assert not changed.HasField("expire_time")
    assert changed.create_time == stored.create_time


@pytest.mark.parametrize("mask", [["content"], ["*"], ["importance", "content"]])
async def test_a_content_that_the_mask_names_is_required(memory, refused, mask):
    stored = await remember(memory)
    refusal = await refused(update(memory, stored.memory_id, mask))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["memory.content"]
    assert await get(memory, stored.memory_id) == stored


async def test_fields_that_only_the_service_sets_are_ignored(memory, clock):
    stored = await remember(memory)
    clock.move(timedelta(minutes=1))
    output = {
        "effective_importance": 1.0,
        "content_hash": "0" * 64,
        "semantic_hash": "0" * 16,
        "access_count": 7,
        "last_access_time": clock.now,
        "create_time": datetime(2020, 1, 1, tzinfo=UTC),
        "update_time": datetime(2020, 1, 1, tzinfo=UTC),
        "delete_time": datetime(2020, 1, 1, tzinfo=UTC),
        "revision": 99,
    }
    paths = [*output, "session_id", "memory_id", "etag"]
    for mask in (None, paths):
        unchanged = await update(memory, stored.memory_id, mask, **output)
        unchanged.effective_importance = stored.effective_importance
        assert unchanged == stored
    changed = await update(memory, stored.memory_id, [*paths, "importance"], importance=0.7)
    assert changed.importance == 0.7
    assert changed.create_time == stored.create_time
    assert (changed.revision, changed.access_count) == (2, 0)


async def test_a_memory_that_was_read_can_be_sent_back_changed(memory):
    stored = await remember(memory, **rich())
    read = await get(memory, stored.memory_id)
    read.content = "prefers phone"
    changed = await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=read))
    assert changed.content == "prefers phone"
    for name in ("content_type", "importance", "metadata", "expire_time", "create_time"):
        assert getattr(changed, name) == getattr(stored, name)


@pytest.mark.parametrize(
    "path", ["contents", "metadata.speaker", "memory.content", "Content", "", " ", "**", "ttl"]
)
async def test_an_unknown_path_is_refused_with_the_known_ones(memory, refused, path):
    stored = await remember(memory)
    refusal = await refused(update(memory, stored.memory_id, ["importance", path], importance=1))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["update_mask"]
    for known in ("content", "content_type", "importance", "metadata", "expire_time"):
        assert known in refusal.violations["update_mask"]
    assert await get(memory, stored.memory_id) == stored


# Expiration


async def test_expire_time_is_extended_and_cleared(memory, clock):
    stored = await remember(memory, ttl=timedelta(hours=1))
    later = clock.now + timedelta(days=30)
    changed = await update(memory, stored.memory_id, expire_time=later)
    assert changed.expire_time.ToDatetime(UTC) == later
    clock.move(timedelta(days=29))
    cleared = await update(memory, stored.memory_id, ["expire_time"])
    assert not cleared.HasField("expire_time")
    clock.move(timedelta(days=300))
    assert not (await get(memory, stored.memory_id)).HasField("expire_time")


async def test_expire_time_is_shortened(memory, clock, refused):
    stored = await remember(memory, never_expires=True)
    await update(memory, stored.memory_id, expire_time=clock.now + timedelta(seconds=1))
    clock.move(timedelta(seconds=1))
    assert (await refused(get(memory, stored.memory_id))).code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(microseconds=1), timedelta(days=365)])
async def test_an_expire_time_that_has_passed_is_refused(memory, clock, refused, ago):
    stored = await remember(memory)
    refusal = await refused(update(memory, stored.memory_id, expire_time=clock.now - ago))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["memory.expire_time"]
    assert await get(memory, stored.memory_id) == stored


@pytest.mark.parametrize(
    "mask",
    [None, ["content"], ["expire_time"], ["access_count"], ["*"]],
    ids=["omitted", "another", "expire_time", "ignored", "all"],
)
async def test_a_ttl_works_with_any_mask(memory, clock, mask):
    stored = await remember(memory)
    clock.move(timedelta(hours=1))
    changed = await update(
        memory,
        stored.memory_id,
        mask,
        ttl=timedelta(hours=3),
        content="prefers phone",
        expire_time=clock.now + timedelta(days=300),
    )
    assert changed.expire_time.ToDatetime(UTC) == clock.now + timedelta(hours=3)
    assert changed.revision == 2


async def test_a_ttl_alone_is_a_change(memory, clock):
    stored = await remember(memory, **rich())
    changed = await update(memory, stored.memory_id, ttl=timedelta(hours=48))
    assert changed.expire_time.ToDatetime(UTC) == clock.now + timedelta(hours=48)
    assert (changed.content, changed.importance) == (stored.content, stored.importance)
    assert changed.etag != stored.etag


# Etags


async def test_a_change_with_a_wrong_etag_is_aborted(memory, refused):
    stored = await remember(memory)
    changed = await update(memory, stored.memory_id, importance=0.6, etag=stored.etag)
    assert changed.importance == 0.6
    for wrong in (stored.etag, "made up", changed.etag + " "):
        for call in (
            update(memory, stored.memory_id, importance=0.7, etag=wrong),
            update(memory, stored.memory_id, ["access_count"], etag=wrong),
            delete(memory, stored.memory_id, wrong),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.ABORTED
            assert refusal.reason == "ETAG_MISMATCH"
    assert await get(memory, stored.memory_id) == changed
    assert (await delete(memory, stored.memory_id, changed.etag)).HasField("delete_time")


async def test_one_of_concurrent_changes_with_one_etag_succeeds(memory):
    stored = await remember(memory)
    outcomes = await asyncio.gather(
        *(update(memory, stored.memory_id, importance=n / 16, etag=stored.etag) for n in range(16)),
        return_exceptions=True,
    )
    (made,) = [outcome for outcome in outcomes if isinstance(outcome, pb.Memory)]
    codes = {o.code() for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
    assert codes == {grpc.StatusCode.ABORTED}
    assert await get(memory, stored.memory_id) == made


async def test_every_change_gives_another_etag(memory):
    stored = await remember(memory)
    etags = [stored.etag, (await remember(memory, "Prefers e-mail!", importance=0.8)).etag]
    etags.append((await update(memory, stored.memory_id, importance=0.5)).etag)
    etags.append((await delete(memory, stored.memory_id)).etag)
    etags.append((await undelete(memory, stored.memory_id)).etag)
    assert len(set(etags)) == 5
    assert all(etags)
    assert (await get(memory, stored.memory_id)).etag == etags[-1]


async def test_counting_an_access_is_not_a_change(memory, clock):
    stored = await remember(memory)
    clock.move(timedelta(minutes=1))
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=SESSION))
    for _ in range(TRIES):
        found = await get(memory, stored.memory_id)
        if found.access_count:
            break
        await asyncio.sleep(0.05)
    assert found.access_count == 1
    for name in ("etag", "revision", "update_time"):
        assert getattr(found, name) == getattr(stored, name)
    assert await revision(memory) == stored.revision
    changed = await update(memory, stored.memory_id, importance=0.9, etag=stored.etag)
    assert changed.access_count == 1
    assert changed.last_access_time == found.last_access_time


# Contents


async def test_a_new_content_has_new_hashes_and_the_old_create_time(memory, clock):
    stored = await remember(memory)
    clock.move(timedelta(days=1, microseconds=-1))
    changed = await update(memory, stored.memory_id, content="  Prefers PHONE!  ")
    assert changed.content == "Prefers PHONE!"
    assert changed.content_hash == hashlib.sha256(b"prefers phone").hexdigest()
    other = await remember(memory, "prefers phone", content_type=pb.CONTENT_TYPE_FACT)
    assert changed.semantic_hash == other.semantic_hash != stored.semantic_hash
    assert changed.create_time == stored.create_time
    assert changed.update_time.ToDatetime(UTC) == clock.now


async def test_the_old_content_is_free_and_the_new_one_taken(memory):
    stored = await remember(memory)
    await update(memory, stored.memory_id, content="prefers phone")
    merged = await remember(memory, "Prefers phone.")
    assert merged.memory_id == stored.memory_id
    again = await remember(memory, "prefers e-mail")
    assert again.memory_id != stored.memory_id


async def test_content_that_would_duplicate_another_is_refused(memory, refused):
    other = await remember(memory, "prefers phone")
    stored = await remember(memory)
    refusal = await refused(update(memory, stored.memory_id, content="Prefers  PHONE!"))
    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "MEMORY_ALREADY_EXISTS"
    assert refusal.resource.resource_type == "memoryd.v1.Memory"
    assert refusal.resource.resource_name == other.memory_id
    assert await get(memory, stored.memory_id) == stored
    assert await get(memory, other.memory_id) == other


async def test_a_type_that_would_make_a_duplicate_is_refused(memory, refused):
    other = await remember(memory, content_type=pb.CONTENT_TYPE_FACT)
    stored = await remember(memory, content_type=pb.CONTENT_TYPE_PREFERENCE)
    refusal = await refused(
        update(memory, stored.memory_id, content_type=pb.CONTENT_TYPE_FACT, importance=1)
    )
    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.resource.resource_name == other.memory_id
    both = await update(
        memory, stored.memory_id, content_type=pb.CONTENT_TYPE_FACT, content="prefers phone"
    )
    assert (both.content_type, both.content) == (pb.CONTENT_TYPE_FACT, "prefers phone")


async def test_a_memory_does_not_duplicate_itself(memory):
    stored = await remember(memory)
    changed = await update(memory, stored.memory_id, content="Prefers E-MAIL.")
    assert changed.memory_id == stored.memory_id
    assert changed.content == "Prefers E-MAIL."
    assert changed.content_hash == stored.content_hash


@pytest.mark.parametrize("gone", ["deleted", "expired"])
async def test_deleted_and_expired_memories_are_not_duplicated(memory, clock, gone):
    other = await remember(memory, "prefers phone", ttl=timedelta(minutes=1))
    stored = await remember(memory)
    if gone == "deleted":
        await delete(memory, other.memory_id)
    else:
        clock.move(timedelta(minutes=1))
    changed = await update(memory, stored.memory_id, content="prefers phone")
    assert changed.content == "prefers phone"


async def test_one_of_concurrent_changes_to_one_content_succeeds(memory):
    stored = [await remember(memory, f"fact {n}") for n in range(8)]
    outcomes = await asyncio.gather(
        *(update(memory, m.memory_id, content="the truth") for m in stored),
        return_exceptions=True,
    )
    made = [outcome for outcome in outcomes if isinstance(outcome, pb.Memory)]
    codes = [o.code() for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert len(made) == 1
    assert codes == [grpc.StatusCode.ALREADY_EXISTS] * 7


# What is not there


@pytest.mark.parametrize("gone", ["deleted", "expired", "absent", "elsewhere"])
async def test_absent_memories_cannot_be_changed_or_deleted(running, clock, refused, gone):
    memory = running.memory
    stored = await remember(memory, ttl=timedelta(hours=1))
    memory_id = stored.memory_id
    match gone:
        case "deleted":
            await delete(memory, memory_id)
        case "expired":
            clock.move(timedelta(hours=1))
            await running.server.sweeper.run_once()  # which is a change itself
        case "absent":
            memory_id = ABSENT
        case "elsewhere":
            memory_id = (await remember(memory, session_id="user-124")).memory_id
    before = await revision(memory)
    for call in (
        update(memory, memory_id, importance=1),
        update(memory, memory_id, importance=1, etag=stored.etag),
        update(memory, memory_id, ["access_count"]),
        delete(memory, memory_id),
        delete(memory, memory_id, "wrong"),
    ):
        refusal = await refused(call)
        assert refusal.code == grpc.StatusCode.NOT_FOUND
        assert refusal.reason == "MEMORY_NOT_FOUND"
        assert refusal.resource.resource_name == memory_id
    assert await revision(memory) == before


async def test_an_absent_session_is_not_created(memory, refused):
    for call in (
        update(memory, ABSENT, importance=1),
        delete(memory, ABSENT),
        undelete(memory, ABSENT),
    ):
        assert (await refused(call)).code == grpc.StatusCode.NOT_FOUND
    assert await revision(memory) == 0


# Deleting and restoring


async def test_delete_answers_the_memory_as_deleted(memory, clock):
    stored = await remember(memory, **rich())
    clock.move(timedelta(minutes=1))
    deleted = await delete(memory, stored.memory_id)
    assert deleted.delete_time.ToDatetime(UTC) == clock.now
    assert deleted.revision == stored.revision + 1
    for name in ("content", "content_type", "importance", "metadata", "expire_time"):
        assert getattr(deleted, name) == getattr(stored, name)


async def test_one_of_concurrent_deletes_succeeds(memory):
    stored = await remember(memory)
    outcomes = await asyncio.gather(
        *(delete(memory, stored.memory_id) for _ in range(8)), return_exceptions=True
    )
    codes = [o.code() for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert codes == [grpc.StatusCode.NOT_FOUND] * 7
    assert await revision(memory) == 2


async def test_undelete_restores_the_memory_as_it_was(memory, clock):
    stored = await remember(memory, **rich())
    await delete(memory, stored.memory_id)
    clock.move(timedelta(minutes=1))
    restored = await undelete(memory, stored.memory_id)
    assert restored.revision == 3
    assert not restored.HasField("delete_time")
    assert await get(memory, stored.memory_id) == restored
    for name in ("content", "content_type", "importance", "metadata", "expire_time", "create_time"):
        assert getattr(restored, name) == getattr(stored, name)
    merged = await remember(memory, **rich())
    assert merged.memory_id == stored.memory_id


async def test_undelete_is_refused_if_the_content_was_stored_again(memory, refused):
    stored = await remember(memory)
    await delete(memory, stored.memory_id)
    again = await remember(memory, "PREFERS e-mail")
    refusal = await refused(undelete(memory, stored.memory_id))
    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "MEMORY_ALREADY_EXISTS"
    assert refusal.resource.resource_name == again.memory_id
    await delete(memory, again.memory_id)
    assert (await undelete(memory, stored.memory_id)).memory_id == stored.memory_id


async def test_undelete_is_refused_if_nothing_is_deleted(memory, refused):
    stored = await remember(memory)
    refusal = await refused(undelete(memory, stored.memory_id))
    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "MEMORY_NOT_DELETED"
    assert refusal.resource.resource_name == stored.memory_id
    assert await get(memory, stored.memory_id) == stored


async def test_undelete_does_not_restore_a_memory_that_has_since_expired(memory, clock, refused):
    stored = await remember(memory, ttl=timedelta(hours=1))
    await delete(memory, stored.memory_id)
    clock.move(timedelta(hours=1))
    refusal = await refused(undelete(memory, stored.memory_id))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert refusal.resource.resource_name == stored.memory_id


async def test_undelete_does_not_restore_an_expired_memory(memory, clock, refused):
    stored = await remember(memory, ttl=timedelta(hours=1))
    clock.move(timedelta(hours=1))
    assert (await refused(undelete(memory, stored.memory_id))).code == grpc.StatusCode.NOT_FOUND
    again = await remember(memory)
    assert (await refused(undelete(memory, stored.memory_id))).code == grpc.StatusCode.NOT_FOUND
    assert await get(memory, again.memory_id) == again


async def test_undelete_of_an_absent_memory_is_not_found(memory, refused):
    elsewhere = await remember(memory, session_id="user-124")
    await delete(memory, (await remember(memory)).memory_id)
    for memory_id in (ABSENT, elsewhere.memory_id):
        refusal = await refused(undelete(memory, memory_id))
        assert refusal.code == grpc.StatusCode.NOT_FOUND
        assert refusal.resource.resource_name == memory_id


async def test_undelete_evicts_nothing_from_a_full_session(serve, clock, refused):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    first = await remember(memory, "first", importance=0.9)
    await delete(memory, first.memory_id)
    for n in range(9):
        await remember(memory, f"fact {n}")
    await remember(memory, "fleeting", ttl=timedelta(minutes=1))
    refusal = await refused(undelete(memory, first.memory_id))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.reason == "SESSION_FULL"
    (violation,) = refusal.quota.violations
    assert violation.subject == "memory.max_entries"
    assert "10" in violation.description
    clock.move(timedelta(minutes=1))  # only live memories count
    assert (await undelete(memory, first.memory_id)).content == "first"


async def test_evicted_memories_can_be_restored_once_there_is_room(serve, refused):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    stored = [await remember(memory, f"fact {n}", importance=n / 10) for n in range(11)]
    refusal = await refused(undelete(memory, stored[0].memory_id))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    await delete(memory, stored[10].memory_id)
    assert (await undelete(memory, stored[0].memory_id)).content == "fact 0"


# Revisions


async def test_every_change_raises_the_revision_by_one_and_nothing_else_does(memory, refused):
    stored = await remember(memory)
    seen = [stored.revision]
    seen.append((await remember(memory, "Prefers e-mail.")).revision)
    seen.append((await update(memory, stored.memory_id, importance=0.9)).revision)
    seen.append((await delete(memory, stored.memory_id)).revision)
    seen.append((await undelete(memory, stored.memory_id)).revision)
    other = await remember(memory, "prefers phone")
    seen.append(other.revision)
    assert seen == [1, 2, 3, 4, 5, 6]
    await get(memory, stored.memory_id)
    await update(memory, stored.memory_id, ["revision"])
    for call in (
        update(memory, stored.memory_id, importance=2),
        update(memory, stored.memory_id, importance=1, etag="wrong"),
        update(memory, stored.memory_id, content="prefers phone"),
        update(memory, ABSENT, importance=1),
        delete(memory, stored.memory_id, "wrong"),
        undelete(memory, stored.memory_id),
    ):
        await refused(call)
    assert await revision(memory) == 6
    assert (await get(memory, stored.memory_id)).revision == 5
    assert (await get(memory, other.memory_id)).revision == 6


async def test_concurrent_changes_get_revisions_without_gap_or_repeat(memory):
    stored = [await remember(memory, f"fact {n}") for n in range(8)]
    answers = await asyncio.gather(
        *(update(memory, m.memory_id, importance=k / 4) for m in stored for k in range(4))
    )
    assert sorted(answer.revision for answer in answers) == list(range(9, 41))
    assert await revision(memory) == 40
