"""Who may do what with conversations, and how many a tenant may have."""

from __future__ import annotations

import grpc
from tests.access.guarded import outcome
from tests.rpc.test_conversation_branches import delete, fork, pop
from tests.rpc.test_conversations import append, get, listed, said
from tests.rpc.test_promote import promote

from memoryd.v1 import access_pb2
from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub


def call(caller, method, request):
    return caller.call(ConversationServiceStub, method, request)


async def test_a_prefix_stays_within_the_rules_of_the_credential(guarded):
    owner = await guarded.caller("acme", scopes=["agent"])
    caller = await guarded.caller("acme", scopes=["agent"], sessions=["user-7.*", "chat"])
    for session_id in ("user-7.a", "user-7.b", "user-8", "chat", "chatter"):
        request = append(said(), session_id=session_id, conversation_id=session_id)
        await call(owner, "AppendMessages", request)
    for prefix, expected in (
        ("", ["chat", "user-7.a", "user-7.b"]),
        ("user", ["user-7.a", "user-7.b"]),
        ("user-7.b", ["user-7.b"]),
        ("user-8", []),
        ("cha", ["chat"]),
    ):
        request = pb.ListConversationsRequest(session_id_prefix=prefix)
        answer = await call(caller, "ListConversations", request)
        assert sorted(one.conversation_id for one in answer.conversations) == expected


async def test_another_tenants_conversations_do_not_exist(guarded):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    made = await call(acme, "AppendMessages", append(said("a", "1")))
    for method, request in (
        ("GetConversation", get()),
        ("ListMessages", listed()),
        ("PopMessages", pop()),
        ("DeleteConversation", delete()),
        ("ForkConversation", fork()),
        ("PromoteMessages", promote()),
        ("PromoteMessages", promote("1")),
    ):
        found = await outcome(call(other, method, request))
        assert found is not None
        assert found.code is grpc.StatusCode.NOT_FOUND, method
    every = pb.ListConversationsRequest(session_id_prefix="")
    assert not (await call(other, "ListConversations", every)).conversations
    await call(other, "AppendMessages", append(said("b", "1")))
    assert await call(acme, "GetConversation", get()) == made.conversation


async def test_conversations_messages_and_their_bytes_have_quotas(guarded):
    caller = await guarded.caller("acme")

    async def limit(**limits):
        quotas = access_pb2.Quotas(**limits)
        update = access_pb2.UpdateTenantRequest(tenant="acme", quotas=quotas)
        await guarded.admin.access("UpdateTenant", update)

    async def refusal(method, request):
        found = await outcome(call(caller, method, request))
        assert found is not None
        assert found.reason == "QUOTA_EXCEEDED"
        return found.message

    async def usage():
        request = access_pb2.GetUsageRequest(tenant="acme")
        return (await guarded.admin.access("GetUsage", request)).usage

    await limit(conversations=2, messages=3, bytes=1_000)
    await call(caller, "AppendMessages", append(said("12345", "1"), said("x", "2")))
    size = (await usage()).bytes
    assert size > 6
    assert "quota messages" in await refusal("AppendMessages", append(said(), said()))
    assert "quota bytes" in await refusal("AppendMessages", append(said("x" * 1_000)))
    await call(caller, "ForkConversation", fork())
    assert "quota conversations" in await refusal("ForkConversation", fork(new="g"))
    found = await usage()
    assert (found.conversations, found.messages, found.bytes) == (2, 2, size)
    # A pop gives back what no fork needs; a retry and a skip take nothing.
    await call(caller, "AppendMessages", append(said("12345", "1"), said("y", "3")))
    await call(caller, "PopMessages", pop(2))
    found = await usage()
    assert (found.conversations, found.messages, found.bytes) == (2, 2, size)
    # What is counted on is what a count finds.
    await limit(conversations=3)
    assert await usage() == found
    await call(caller, "DeleteConversation", delete(conversation_id="f"))
    found = await usage()
    assert (found.conversations, found.messages) == (1, 1)
    await limit(conversations=2)
    assert await usage() == found
    await call(caller, "DeleteConversation", delete())
    found = await usage()
    assert (found.conversations, found.messages, found.bytes) == (0, 0, 0)


async def test_promoting_needs_the_scopes_of_both(guarded):
    owner = await guarded.caller("acme")
    await call(owner, "AppendMessages", append(said("a", "1")))
    both = ["conversations:write", "memories:write"]
    others = ["conversations:read", "memories:read", "memories:export", "memories:erase"]
    for lacking in both:
        held = [scope for scope in both if scope != lacking]
        caller = await guarded.caller("acme", scopes=[*held, *others])
        for request in (promote(), promote("1")):
            found = await outcome(call(caller, "PromoteMessages", request))
            assert found is not None
            assert (found.reason, found.metadata) == ("SCOPE_MISSING", {"scope": lacking})
    caller = await guarded.caller("acme", scopes=both)
    answer = await call(caller, "PromoteMessages", promote())
    assert [memory.content for memory in answer.memories] == ["a"]


async def test_promoted_memories_count_in_quotas(guarded):
    caller = await guarded.caller("acme")
    await call(caller, "AppendMessages", append(said("a", "1"), said("b", "2"), said("c", "3")))

    async def limit(memories):
        quotas = access_pb2.Quotas(memories=memories)
        update = access_pb2.UpdateTenantRequest(tenant="acme", quotas=quotas)
        await guarded.admin.access("UpdateTenant", update)

    await limit(2)
    for request in (promote(), promote("1", "2", "3")):
        found = await outcome(call(caller, "PromoteMessages", request))
        assert found is not None
        assert (found.reason, "quota memories" in found.message) == ("QUOTA_EXCEEDED", True)
    usage = access_pb2.GetUsageRequest(tenant="acme")
    assert (await guarded.admin.access("GetUsage", usage)).usage.memories == 0
    await limit(3)
    answer = await call(caller, "PromoteMessages", promote())
    assert len(answer.memories) == 3
    assert (await guarded.admin.access("GetUsage", usage)).usage.memories == 3
