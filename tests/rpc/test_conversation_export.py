"""ExportMessages: everything that conversations have, each message after the one it follows."""

from __future__ import annotations

from tests.rpc.test_conversation_branches import fork, rewrite
from tests.rpc.test_conversation_settings import create
from tests.rpc.test_conversations import NOT_FOUND, append, fill, head, said

from memoryd.v1 import conversation_pb2 as pb


async def exported(conversations, **values):
    """The messages of a stream, and what each conversation has in it."""
    request = pb.ExportMessagesRequest(**{"session_id": "s", **values})
    answers = [answer async for answer in conversations.ExportMessages(request)]
    found = {}
    for answer in answers:
        name = answer.conversation.conversation_id
        assert answer.conversation.session_id == "s"
        assert answer.conversation.HasField("create_time") is (name not in found)
        found.setdefault(name, []).extend(answer.messages)
    return answers, found


async def test_an_export_has_every_message_of_every_branch(conversations, refused):
    await fill(conversations, "1", "2", "3")
    await conversations.RewriteMessages(rewrite("1", said("x", "2b")))
    await conversations.RewriteMessages(rewrite("", said("y", "0")))
    await conversations.ForkConversation(fork("2"))
    await fill(conversations, "own", conversation_id="f")
    await conversations.CreateConversation(create(conversation_id="empty"))
    answers, found = await exported(conversations)
    assert [*found] == ["c", "empty", "f"]
    assert {name: [m.message_id for m in kept] for name, kept in found.items()} == {
        "c": ["1", "2", "3", "2b", "0"],
        "empty": [],
        "f": ["1", "2", "own"],
    }
    for kept in found.values():
        before = {""}
        for message in kept:
            assert message.parent_message_id in before
            before.add(message.message_id)
    assert answers[0].conversation == await head(conversations)
    _, one = await exported(conversations, conversation_id="f")
    assert one == {"f": found["f"]}
    call = conversations.ExportMessages(
        pb.ExportMessagesRequest(session_id="s", conversation_id="none")
    )
    assert (await refused(call.read())).code is NOT_FOUND
    assert await exported(conversations, session_id="t") == ([], {})


async def test_an_export_comes_in_parts(conversations):
    names = [str(n) for n in range(450)]
    await fill(conversations, *names)
    for n in range(4):
        await conversations.AppendMessages(append(said("x" * 1_000_000, f"large-{n}")))
    answers, found = await exported(conversations)
    assert len(answers) > 3
    assert all(answer.ByteSize() < 4_000_000 for answer in answers)
    assert [m.message_id for m in found["c"]] == [*names, *(f"large-{n}" for n in range(4))]
