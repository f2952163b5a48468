"""Tags of memories: how they are kept, merged, changed and found by."""

from __future__ import annotations

import uuid

import grpc
import pytest
from tests.rpc.test_change import delete, get, remember, update
from tests.rpc.test_keys import SESSION, listed

from memoryd.rpc.answer_size import MAX_ANSWER_BYTES
from memoryd.v1 import memory_pb2 as pb

MANY = [f"tag {number:02}" for number in range(33)]


async def test_tags_are_kept_sorted_by_code_point_and_each_once(memory):
    given = ["ä", "b", "a", "B", "🙂", "a", "z", "\uffee", " ", "b"]
    stored = await remember(memory, tags=given)
    assert list(stored.tags) == sorted(set(given))
    assert await get(memory, stored.memory_id) == stored
    (found,) = await listed(memory)
    assert found == stored
    retrieved = await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id=SESSION, peek=True)
    )
    assert list(retrieved.results[0].memory.tags) == sorted(set(given))


@pytest.mark.parametrize("tag", ["", "a\n", "\x00", "a\x1fb", "\x7f", "\x85", "t" * 65], ids=repr)
async def test_what_is_no_tag_is_refused(memory, refused, tag):
    stored = await remember(memory)
    for call, field in (
        (remember(memory, tags=["fine", tag]), "tags[1]"),
        (update(memory, stored.memory_id, tags=[tag]), "memory.tags[0]"),
        (listed(memory, filter=pb.MemoryFilter(tags_any=[tag])), "filter.tags_any[0]"),
        (listed(memory, filter=pb.MemoryFilter(tags_all=[tag])), "filter.tags_all[0]"),
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {field}


@pytest.mark.parametrize("tag", ["t" * 64, "🙂" * 64, " ", "%_'\"\\", "NULL"])
async def test_every_tag_allowed_is_kept_and_found(memory, tag):
    stored = await remember(memory, tags=[tag])
    assert list(stored.tags) == [tag]
    assert await listed(memory, filter=pb.MemoryFilter(tags_any=[tag])) == [stored]


async def test_32_different_tags_are_the_most(memory, refused):
    stored = await remember(memory, tags=MANY[:32] * 3)
    assert list(stored.tags) == MANY[:32]
    for call, field in (
        (remember(memory, "another", tags=MANY), "tags"),
        (remember(memory, "another", tags=["a"] * 1_001), "tags"),
        (update(memory, stored.memory_id, tags=MANY), "memory.tags"),
        (remember(memory, tags=MANY[32:]), "tags"),  # merged they would be 33
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {field}
    assert await listed(memory) == [stored]


async def test_a_batch_names_the_item_whose_tags_are_too_many(memory, refused):
    await remember(memory, tags=MANY[:32])
    requests = [
        pb.StoreMemoryRequest(session_id=SESSION, content="new"),
        pb.StoreMemoryRequest(session_id=SESSION, content="prefers e-mail", tags=MANY[32:]),
    ]
    refusal = await refused(
        memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    )
    assert set(refusal.violations) == {"requests[1].tags"}
    assert len(await listed(memory)) == 1


async def test_a_filter_takes_100_tags(memory, refused):
    stored = await remember(memory, tags=["here"])
    tags = [f"{number}" for number in range(99)]
    wanted = pb.MemoryFilter(tags_any=["here", *tags])
    assert await listed(memory, filter=wanted) == [stored]
    for name in ("tags_any", "tags_all"):
        wanted = pb.MemoryFilter(**{name: ["here", *tags, "one more"]})
        refusal = await refused(listed(memory, filter=wanted))
        assert set(refusal.violations) == {f"filter.{name}"}


async def test_merging_unites_tags(memory):
    first = await remember(memory, tags=["b", "a"])
    second = await remember(memory, tags=["c", "a"])
    assert (second.memory_id, list(second.tags)) == (first.memory_id, ["a", "b", "c"])
    third = await remember(memory)
    assert list(third.tags) == ["a", "b", "c"]
    for tag in "abc":
        assert await listed(memory, filter=pb.MemoryFilter(tags_any=[tag])) == [third]


async def test_an_update_sets_tags_as_a_whole(memory):
    first = await remember(memory, tags=["a", "b"])
    second = await update(memory, first.memory_id, tags=["c", "b", "c"])
    assert (list(second.tags), second.content) == (["b", "c"], first.content)
    assert await listed(memory, filter=pb.MemoryFilter(tags_any=["a"])) == []
    assert await listed(memory, filter=pb.MemoryFilter(tags_all=["b", "c"])) == [second]
    unmasked = await update(memory, first.memory_id, ["importance"], tags=["x"], importance=1)
    assert list(unmasked.tags) == ["b", "c"]
    cleared = await update(memory, first.memory_id, ["tags"])
    assert list(cleared.tags) == []
    assert await listed(memory, filter=pb.MemoryFilter(tags_any=["b", "c"])) == []
    again = await update(memory, first.memory_id, tags=["a"])
    assert await listed(memory, filter=pb.MemoryFilter(tags_any=["a"])) == [again]


FILTERS = [
    ({"tags_any": ["a"]}, ["a", "ab", "abc"]),
    ({"tags_any": ["b", "c"]}, ["ab", "abc", "c"]),
    ({"tags_all": ["a", "b"]}, ["ab", "abc"]),
    ({"tags_all": ["a", "a", "b"]}, ["ab", "abc"]),
    ({"tags_any": ["c"], "tags_all": ["a"]}, ["abc"]),
    ({"tags_any": ["A"]}, []),
    ({"tags_all": ["a", "x"]}, []),
]


@pytest.mark.parametrize(("given", "expected"), FILTERS, ids=str)
async def test_tags_select_the_same_wherever_a_filter_is(memory, given, expected):
    for tags in ("a", "ab", "abc", "c", ""):
        await remember(memory, f"tags {tags}.", tags=list(tags), never_expires=True)
    await remember(memory, "tags a.", session_id="elsewhere", tags=["a"])
    wanted = pb.MemoryFilter(**given)
    contents = [f"tags {tags}." for tags in expected]
    assert [one.content for one in await listed(memory, filter=wanted)] == contents
    for query in ("", "tags"):
        retrieve = pb.RetrieveMemoriesRequest(
            session_id=SESSION, query=query, filter=wanted, peek=True
        )
        found = (await memory.RetrieveMemories(retrieve)).results
        assert sorted(one.memory.content for one in found) == contents
    export = pb.ExportMemoriesRequest(session_id=SESSION, filter=wanted)
    assert [one.content async for one in memory.ExportMemories(export)] == contents
    purge = pb.PurgeMemoriesRequest(session_id=SESSION, filter=wanted)
    assert [one.content for one in (await memory.PurgeMemories(purge)).sample] == contents
    purge.force = True
    assert (await memory.PurgeMemories(purge)).purge_count == len(contents)
    assert len(await listed(memory)) == 5 - len(contents)


async def test_pages_of_tagged_memories_are_whole(memory):
    for number in range(25):
        tags = ["even"] if number % 2 == 0 else ["odd"]
        await remember(memory, f"number {number}", tags=tags)
    request = pb.ListMemoriesRequest(
        session_id=SESSION, filter=pb.MemoryFilter(tags_any=["even"]), page_size=4
    )
    found: list[str] = []
    while True:
        page = await memory.ListMemories(request)
        found += [one.content for one in page.memories]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [f"number {number}" for number in range(0, 25, 2)]


async def test_deleted_memories_keep_their_tags_until_they_are_purged(memory, tables):
    first = await remember(memory, tags=["a", "b"])
    await delete(memory, first.memory_id)
    wanted = pb.MemoryFilter(tags_all=["a", "b"])
    assert await listed(memory, filter=wanted) == []
    (found,) = await listed(memory, filter=wanted, show_deleted=True)
    assert list(found.tags) == ["a", "b"]
    assert len(await tables.rows("SELECT * FROM memory_tags")) == 2
    await memory.PurgeMemories(
        pb.PurgeMemoriesRequest(session_id=SESSION, filter=wanted, force=True)
    )
    assert await tables.rows("SELECT * FROM memory_tags") == []


async def test_a_purge_leaves_neither_tag_nor_key(memory, tables):
    for _ in range(2):  # the second is merged, and its answer kept
        await remember(
            memory, key="a-secret-key", tags=["a secret tag"], request_id=str(uuid.uuid4())
        )
    everything = await tables.everything()
    assert "a secret tag" in everything
    assert "a-secret-key" in everything
    purge = pb.PurgeMemoriesRequest(session_id=SESSION, force=True)
    assert (await memory.PurgeMemories(purge)).purge_count == 1
    everything = await tables.everything()
    assert "a secret tag" not in everything
    assert "a-secret-key" not in everything


async def test_the_answer_to_a_batch_is_small_whatever_tags_merge(memory):
    tags = [f"{n:02}" + "🙂" * 62 for n in range(32)]
    contents = [f"fact {n}" for n in range(100)]
    for content in contents:
        await remember(memory, content, tags=tags)
    requests = [
        pb.StoreMemoryRequest(session_id=SESSION, content=content)
        for content in contents
        for _ in range(10)
    ]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert answer.truncated
    assert answer.ByteSize() <= MAX_ANSWER_BYTES
    assert list(answer.responses[0].memory.tags) == tags


async def test_an_erasure_counts_the_rows_of_tags(memory, tables):
    await remember(memory, tags=["a", "b"])
    receipt = await memory.EraseSession(pb.EraseSessionRequest(session_id=SESSION))
    assert receipt.erased_rows["memory_tags"] == 2
    assert await tables.rows("SELECT * FROM memory_tags") == []


async def test_a_server_that_knows_no_tags_leaves_them(memory, tables):
    """It changes other columns of a row."""
    first = await remember(memory, tags=["a"])
    await tables.execute("UPDATE memories SET importance = 0.75, revision = 2")
    await tables.execute("UPDATE sessions SET revision = 2")
    (found,) = await listed(memory, filter=pb.MemoryFilter(tags_any=["a"]))
    assert (found.memory_id, found.importance, list(found.tags)) == (first.memory_id, 0.75, ["a"])
