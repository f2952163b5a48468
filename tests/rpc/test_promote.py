"""PromoteMessages: texts of messages become memories, each message once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import MessageToDict
from tests.rpc.test_conversation_branches import delete, fork, pop, rewrite, set_head
from tests.rpc.test_conversations import (
    INVALID,
    MIB,
    NAME,
    NOT_FOUND,
    append,
    fill,
    get,
    head,
    said,
)

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import memory_pb2, session_pb2
from memoryd.v1.memory_pb2 import STORE_OUTCOME_CREATED as CREATED
from memoryd.v1.memory_pb2 import STORE_OUTCOME_MERGED as MERGED


def promote(*message_ids, **values):
    """By ids, or without any what is new since the last time."""
    values.setdefault("since_last", not message_ids)
    return pb.PromoteMessagesRequest(message_ids=message_ids, **{**NAME, **values})


async def texts(conversations, *message_ids, **values):
    """What a promotion answers."""
    answer = await conversations.PromoteMessages(promote(*message_ids, **values))
    assert len(answer.memories) == len(answer.outcomes)
    return [one.content for one in answer.memories]


async def stored(running, **values):
    """The session's memories in the order in which they were made."""
    request = memory_pb2.ListMemoriesRequest(session_id="s", page_size=1_000, **values)
    return list((await running.memory.ListMemories(request)).memories)


async def contents(running):
    return [one.content for one in await stored(running)]


def metadata(memory):
    return MessageToDict(memory.metadata)


async def test_texts_become_memories_with_what_recall_ranks_by(running, conversations):
    said_at = datetime(2023, 5, 7, 13, 56, tzinfo=UTC)
    first = said("I adopted a cat", "m1", author="Zoë")
    first.occur_time.FromDatetime(said_at)
    roles = [pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER, pb.ROLE_TOOL]
    others = [said(f"as {role}", f"r{role}", role) for role in (*roles, pb.ROLE_UNSPECIFIED)]
    appended = await conversations.AppendMessages(append(first, *others))
    answer = await conversations.PromoteMessages(promote())
    assert [*answer.outcomes] == [CREATED] * 7
    assert [*answer.memories] == await stored(running)
    memory, *by_role = answer.memories
    assert memory.content == "I adopted a cat"
    assert metadata(memory) == {
        "speaker": "Zoë",
        "occurred_at": said_at.isoformat(),
        "episode": "c",
        "message_id": "m1",
    }
    assert [metadata(one).get("speaker") for one in by_role] == [
        *("user", "assistant", "system", "developer", "tool", None),
    ]
    created = appended.messages[1].create_time.ToDatetime(UTC)
    assert datetime.fromisoformat(metadata(by_role[0])["occurred_at"]) == created
    # As a store with these values.
    assert (memory.content_type, memory.importance) == (memory_pb2.CONTENT_TYPE_CONTEXT, 0.5)
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="I adopted a cat")
    again = await running.memory.StoreMemory(store)
    assert (again.outcome, again.memory.memory_id) == (MERGED, memory.memory_id)
    assert (again.memory.content_hash, again.memory.semantic_hash) == (
        memory.content_hash,
        memory.semantic_hash,
    )


async def test_what_is_given_is_set(conversations, refused, clock):
    await fill(conversations, "a", "b", "c", "d")
    given = {"content_type": memory_pb2.CONTENT_TYPE_FACT, "importance": 0.9}
    (fact,) = (await conversations.PromoteMessages(promote("a", **given))).memories
    assert (fact.content_type, fact.importance) == (memory_pb2.CONTENT_TYPE_FACT, 0.9)
    in_an_hour = clock() + timedelta(hours=1)
    for message_id, expiration, expected in (
        ("b", {"ttl": {"seconds": 3_600}}, in_an_hour),
        ("c", {"expire_time": in_an_hour}, in_an_hour),
        ("d", {"never_expires": True}, None),
    ):
        answer = await conversations.PromoteMessages(promote(message_id, **expiration))
        found = answer.memories[0]
        assert (found.expire_time.ToDatetime(UTC) if expected else None) == expected
        assert found.HasField("expire_time") == bool(expected)
    past = clock() - timedelta(seconds=1)
    error = await refused(conversations.PromoteMessages(promote("a", expire_time=past)))
    assert (error.code, [*error.violations]) == (INVALID, ["expire_time"])


async def test_the_sessions_own_expiration_and_limit_hold(running, conversations, clock):
    session = session_pb2.Session(session_id="s", memory_ttl={"seconds": 60}, memory_limit=10)
    request = session_pb2.UpdateSessionRequest(session=session, allow_missing=True)
    await running.sessions.UpdateSession(request)
    await fill(conversations, *map(str, range(12)))
    answer = await conversations.PromoteMessages(promote())
    assert len(answer.memories) == 12
    assert answer.memories[0].expire_time.ToDatetime(UTC) == clock() + timedelta(seconds=60)
    assert len(answer.evicted_memory_ids) == 2
    left = {one.memory_id for one in await stored(running)}
    assert left == {one.memory_id for one in answer.memories} - {*answer.evicted_memory_ids}


async def test_texts_are_sanitised_joined_and_skipped_where_there_are_none(running, conversations):
    call = pb.Part(tool_call=pb.ToolCall(call_id="1", name="f"))
    result = pb.Part(tool_result=pb.ToolResult(call_id="1", text="no", json="1"))
    await conversations.AppendMessages(
        append(
            said("<b>likes</b>  tea", "1"),
            pb.Message(parts=[pb.Part(text="one"), call, pb.Part(text=""), pb.Part(text="two")]),
            pb.Message(parts=[call, result, pb.Part(thinking="hm")]),
            pb.Message(raw_json='{"text": "raw"}'),
            said(""),
            said(" \n "),
            said("<br>"),
        )
    )
    assert await texts(conversations) == ["likes tea", "one\ntwo"]
    assert await contents(running) == ["likes tea", "one\ntwo"]
    assert await texts(conversations) == []


async def test_what_cannot_be_stored_is_named_and_left_out_on_demand(
    running, conversations, refused
):
    most = "x" * 16_384
    await conversations.AppendMessages(
        append(
            said("a", "1"),
            said(most, "2"),
            said(most + "x", "3"),
            said(most * 10, "4"),
            pb.Message(message_id="5", parts=[pb.Part(text=most), pb.Part(text="x")]),
        )
    )
    error = await refused(conversations.PromoteMessages(promote()))
    expected = [f'since_last["{n}"]' for n in (3, 4, 5)]
    assert (error.code, [*error.violations]) == (INVALID, expected)
    assert "16,384" in error.violations[expected[0]]
    assert "exclude_message_ids" in error.violations[expected[0]]
    error = await refused(conversations.PromoteMessages(promote("1", "3")))
    assert [*error.violations] == ['message_ids["3"]']
    assert await stored(running) == []
    assert await texts(conversations, exclude_message_ids=["3", "4", "5"]) == ["a", most]
    assert await texts(conversations) == []


async def test_either_ids_or_since_last_must_be_given(conversations, refused):
    await fill(conversations, "a")
    for request, field in (
        (promote(since_last=False), "message_ids"),
        (promote("a", since_last=True), "since_last"),
        (promote("a b"), "message_ids[0]"),
        (promote(*map(str, range(1_001))), "message_ids"),
        (promote(exclude_message_ids=map(str, range(1_001))), "exclude_message_ids"),
        (promote(roles=[pb.ROLE_USER] * 17), "roles"),
        (promote(roles=[99]), "roles[0]"),
        (promote(importance=2), "importance"),
        (promote(content_type=99), "content_type"),
        (promote(ttl={"seconds": 0}), "ttl"),
    ):
        error = await refused(conversations.PromoteMessages(request))
        assert (error.code, [*error.violations]) == (INVALID, [field])


async def test_what_is_absent_is_not_found(running, conversations, refused, clock):
    async def code(*message_ids, **values):
        return (await refused(conversations.PromoteMessages(promote(*message_ids, **values)))).code

    assert await code() is NOT_FOUND
    assert await code("a") is NOT_FOUND
    await fill(conversations, "a", "b")
    assert await code("a", "z") is NOT_FOUND
    assert await code(conversation_id="other") is NOT_FOUND
    await conversations.PopMessages(pop())
    assert await code("b") is NOT_FOUND
    await conversations.DeleteConversation(delete())
    assert await code() is NOT_FOUND
    await conversations.CreateConversation(
        pb.CreateConversationRequest(conversation=pb.Conversation(**NAME, ttl={"seconds": 60}))
    )
    await fill(conversations, "a")
    clock.move(timedelta(seconds=60))
    assert await code() is NOT_FOUND
    assert await code("a") is NOT_FOUND
    assert await stored(running) == []


async def test_promoting_again_stores_nothing_twice(running, conversations):
    await fill(conversations, "a", "b", "c")
    assert await texts(conversations, "c", "a", "c") == ["c", "a"]
    answer = await conversations.PromoteMessages(promote("a", "c"))
    assert [*answer.outcomes] == [MERGED, MERGED]
    answer = await conversations.PromoteMessages(promote())
    assert [*answer.outcomes] == [MERGED, CREATED, MERGED]
    assert await texts(conversations) == []
    assert await contents(running) == ["c", "a", "b"]


async def test_messages_of_the_same_text_merge(running, conversations):
    await conversations.AppendMessages(append(said("yes", "1"), said("no", "2"), said("yes", "3")))
    answer = await conversations.PromoteMessages(promote())
    assert [*answer.outcomes] == [CREATED, CREATED, MERGED]
    assert answer.memories[0].memory_id == answer.memories[2].memory_id
    kept = await stored(running)
    assert [(one.content, metadata(one)["message_id"]) for one in kept] == [
        ("yes", "3"),
        ("no", "2"),
    ]


async def test_since_last_goes_over_what_roles_leave_out(conversations):
    roles = [pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL, pb.ROLE_UNSPECIFIED]
    messages = [said(str(role), str(role), role) for role in roles]
    await conversations.AppendMessages(append(*messages))
    assert await texts(conversations, "1", "2", "5", roles=[pb.ROLE_ASSISTANT]) == ["2"]
    wanted = [pb.ROLE_USER, pb.ROLE_UNSPECIFIED]
    assert await texts(conversations, roles=wanted) == ["1", "0"]
    assert await texts(conversations) == []
    await fill(conversations, "new")
    assert await texts(conversations) == ["new"]


async def test_a_promotion_changes_no_etag(running, conversations):
    before = await fill(conversations, "a", "b")
    await conversations.PromoteMessages(promote("a"))
    await conversations.PromoteMessages(promote())
    assert await head(conversations) == before
    after = await fill(conversations, "c", expected_etag=before.etag)
    assert await texts(conversations) == ["c"]
    assert (await head(conversations)).etag == after.etag
    # A call that only goes over messages changes nothing in the session.
    await conversations.AppendMessages(append(pb.Message(raw_json="1")))
    request = session_pb2.GetSessionRequest(session_id="s")
    session = await running.sessions.GetSession(request)
    assert await texts(conversations) == []
    assert await running.sessions.GetSession(request) == session


async def test_since_last_follows_the_heads_branch(conversations):
    await fill(conversations, "1", "2", "3", "4")
    assert await texts(conversations) == ["1", "2", "3", "4"]
    await conversations.RewriteMessages(rewrite("2", said("3b", "3b"), said("4b", "4b")))
    assert await texts(conversations) == ["3b", "4b"]
    await conversations.SetHead(set_head("4"))
    assert await texts(conversations) == []
    await fill(conversations, "5")
    await conversations.SetHead(set_head("3"))
    assert await texts(conversations) == []
    await fill(conversations, "4c")
    assert await texts(conversations) == ["4c"]
    await conversations.SetHead(set_head("5"))
    assert await texts(conversations) == ["5"]
    await conversations.RewriteMessages(rewrite("", said("1d", "1d")))
    assert await texts(conversations) == ["1d"]
    # Ids are of any branch, and say nothing of how far the branch was gone over.
    await conversations.SetHead(set_head("4b"))
    await fill(conversations, "5b", "6b")
    assert await texts(conversations, "5", "6b") == ["5", "6b"]
    assert await texts(conversations) == ["5b", "6b"]


async def test_what_comes_in_place_of_popped_messages_is_promoted(conversations):
    await fill(conversations, "1", "2", "3")
    assert await texts(conversations) == ["1", "2", "3"]
    await conversations.PopMessages(pop(2))
    assert await texts(conversations) == []
    await fill(conversations, "2b", "3b")
    assert await texts(conversations) == ["2b", "3b"]
    await conversations.PopMessages(pop(3))
    await fill(conversations, "1c")
    assert await texts(conversations) == ["1c"]
    # What another branch still has stays gone over.
    await fill(conversations, "2c", "3c")
    assert await texts(conversations) == ["2c", "3c"]
    await conversations.RewriteMessages(rewrite("2c", said("3d", "3d")))
    await conversations.PopMessages(pop(2))
    await conversations.SetHead(set_head("3c"))
    assert await texts(conversations) == []


async def test_a_fork_begins_with_what_its_source_has_gone_over(running, conversations):
    await fill(conversations, "1", "2")
    assert await texts(conversations) == ["1", "2"]
    await fill(conversations, "3", "4")
    await conversations.ForkConversation(fork("3"))
    await conversations.ForkConversation(fork("1", "g"))
    await fill(conversations, "2g", conversation_id="g")
    assert await texts(conversations, conversation_id="f") == ["3"]
    assert await texts(conversations, conversation_id="g") == ["2g"]
    assert await texts(conversations) == ["3", "4"]
    episodes = {one.content: metadata(one)["episode"] for one in await stored(running)}
    assert episodes == {"1": "c", "2": "c", "3": "c", "4": "c", "2g": "g"}
    await conversations.DeleteConversation(delete())
    await fill(conversations, "4f", conversation_id="f")
    assert await texts(conversations, conversation_id="f") == ["4f"]
    # One with the same id begins with nothing.
    await fill(conversations, "new")
    assert await texts(conversations) == ["new"]


async def test_merged_sessions_know_how_far_they_were_promoted(running, conversations):
    await fill(conversations, "1", session_id="t")
    await fill(conversations, "2")
    assert await texts(conversations) == ["2"]
    await fill(conversations, "3")
    merge = session_pb2.MergeSessionsRequest(source_session_id="s", target_session_id="t")
    await running.sessions.MergeSessions(merge)
    moved = {"session_id": "t", "conversation_id": "c.merged-1"}
    assert await texts(conversations, **moved) == ["3"]
    assert await texts(conversations, session_id="t") == ["1"]


async def test_calls_at_once_promote_each_message_once(running, conversations):
    names = [str(n) for n in range(90)]
    await fill(conversations, *names[:40])

    async def add(start):
        await fill(conversations, *names[start : start + 5])

    calls = [texts(conversations) for _ in range(12)]
    appends = map(add, range(40, 90, 5))
    answers = await asyncio.gather(*calls[:6], *appends, *calls[6:])
    found = [text for answer in answers if answer for text in answer]
    found += await texts(conversations)
    assert sorted(found, key=int) == names
    # None of them was merged with itself: each has one revision.
    memories = await stored(running)
    assert sorted((one.content for one in memories), key=int) == names
    request = session_pb2.GetSessionRequest(session_id="s")
    assert (await running.sessions.GetSession(request)).revision == 11 + 90


async def test_promotions_and_changes_of_the_branch_at_once(conversations):
    """What is promoted was on the branch, in order, and nothing of the branch is left out."""
    await fill(conversations, *(f"{n}" for n in range(20)))

    async def rewritten(n):
        await conversations.RewriteMessages(rewrite("5", *(said(f"{n}.{i}") for i in range(5))))

    async def popped():
        await conversations.PopMessages(pop(3))
        await fill(conversations, "x", "y", "z", conversation_id="other")

    work = [
        *map(rewritten, range(6)),
        popped(),
        popped(),
        *(texts(conversations) for _ in range(8)),
    ]
    answers = await asyncio.gather(*work)
    found = [text for answer in answers if answer for text in answer]
    while answer := await texts(conversations):
        found += answer
    assert len(found) == len(set(found))
    listed = await conversations.ListMessages(pb.ListMessagesRequest(**NAME))
    assert {m.parts[0].text for m in listed.messages} <= {*found}


async def test_a_call_goes_over_so_many_messages(conversations):
    names = [str(n) for n in range(1_003)]
    await fill(conversations, *names[:1_000])
    await fill(conversations, *names[1_000:])
    first = await conversations.PromoteMessages(promote())
    assert ([m.content for m in first.memories], first.has_more) == (names[:1_000], True)
    second = await conversations.PromoteMessages(promote())
    assert ([m.content for m in second.memories], second.has_more) == (names[1_000:], False)


async def test_a_call_goes_over_so_many_bytes(conversations, refused):
    def large(name):
        blob = pb.Part(blob=pb.Blob(data=b"x" * (MIB - 2_000)))
        return pb.Message(message_id=name, parts=[pb.Part(text=name), blob])

    for name in "1234":
        await conversations.AppendMessages(append(large(name)))
    error = await refused(conversations.PromoteMessages(promote(*"1234")))
    assert (error.code, [*error.violations]) == (INVALID, ["message_ids"])
    assert await texts(conversations, "2", "3") == ["2", "3"]
    answers = []
    while True:
        answer = await conversations.PromoteMessages(promote())
        answers.append([one.content for one in answer.memories])
        if not answer.has_more:
            break
    assert [text for answer in answers for text in answer] == ["1", "2", "3", "4"]
    assert len(answers) == 2


async def test_large_answers_lack_contents(running, conversations):
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="same")
    store.metadata.update({"x": "y" * 16_000})
    await running.memory.StoreMemory(store)
    await conversations.AppendMessages(append(*(said("same", f"{n}") for n in range(300))))
    answer = await conversations.PromoteMessages(promote())
    assert answer.truncated
    assert answer.ByteSize() < 4_000_000
    assert [*answer.outcomes] == [MERGED] * 300
    assert len({memory.memory_id for memory in answer.memories}) == 1
    assert (answer.memories[0].content, answer.memories[-1].content) == ("same", "")


async def test_a_refused_promotion_stores_and_goes_over_nothing(running, conversations, refused):
    """A merge that makes metadata too large is found within the transaction."""
    await fill(conversations, "a", "b", "c")
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="b")
    store.metadata.update({"x": "y" * 16_350})
    await running.memory.StoreMemory(store)
    error = await refused(conversations.PromoteMessages(promote()))
    assert (error.code, [*error.violations]) == (INVALID, ['since_last["b"].metadata'])
    assert await contents(running) == ["b"]
    assert await texts(conversations, exclude_message_ids=["b"]) == ["a", "c"]


async def test_watchers_of_memories_see_what_is_promoted(running, conversations):
    await fill(conversations, "a", "b")
    answer = await conversations.PromoteMessages(promote())
    watch = running.memory.WatchMemories(memory_pb2.WatchMemoriesRequest(session_id="s"))
    seen = [await watch.read(), await watch.read()]
    watch.cancel()
    assert [one.memory for one in seen] == [*answer.memories]


@pytest.mark.parametrize("policy", ["strict", "verbatim"])
async def test_the_content_policy_is_that_of_stores(serve, refused, policy):
    conversations = (await serve(MEMORYD_CONTENT_POLICY=policy)).conversations
    await conversations.AppendMessages(append(said("a <b>c</b>", "1"), said("", "2")))
    if policy == "verbatim":
        assert await texts(conversations) == ["a <b>c</b>"]
        return
    error = await refused(conversations.PromoteMessages(promote()))
    assert (error.code, [*error.violations]) == (INVALID, ['since_last["1"]'])
    assert await conversations.GetConversation(get())
