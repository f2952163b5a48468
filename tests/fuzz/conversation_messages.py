"""Valid requests of ConversationService, in the order of its methods."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import memory_pb2

_NAMED = {"session_id": "fuzz-1", "conversation_id": "talk"}
_MESSAGES = [
    pb.Message(
        message_id="1",
        role=pb.ROLE_USER,
        author="Zo\u00eb",
        turn_id="t",
        parts=[pb.Part(text="hello"), pb.Part(thinking="hm")],
        metadata={"a": 1.5},
        occur_time={"seconds": 1_700_000_000},
    ),
    pb.Message(
        message_id="2",
        role=pb.ROLE_ASSISTANT,
        turn_id="t",
        parts=[
            pb.Part(tool_call={"call_id": "c", "name": "f", "arguments_json": "[1]"}),
            pb.Part(blob={"mime_type": "a/b", "data": b"x"}),
            pb.Part(file={"mime_type": "a/b", "uri": "u", "name": "n"}),
        ],
        token_count=7,
    ),
    pb.Message(
        role=pb.ROLE_TOOL,
        parts=[pb.Part(tool_result={"call_id": "c", "json": "{}", "is_error": True})],
        raw_json="{}",
        raw_format="openai.item",
    ),
]

VALID: Mapping[str, tuple[Message, ...]] = {
    "CreateConversation": (
        pb.CreateConversationRequest(
            conversation=pb.Conversation(
                **_NAMED, display_name="a talk", labels={"team": "x"}, ttl={"seconds": 900}
            )
        ),
    ),
    "GetConversation": (pb.GetConversationRequest(**_NAMED),),
    "UpdateConversation": (
        pb.UpdateConversationRequest(
            conversation=pb.Conversation(**_NAMED, state={"a": [1]}, never_expires=True),
            update_mask={"paths": ["state", "never_expires"]},
        ),
    ),
    "ListConversations": (
        pb.ListConversationsRequest(session_id="fuzz-1", labels={"team": "x"}, page_size=1),
        pb.ListConversationsRequest(session_id_prefix="fuzz"),
    ),
    "DeleteConversation": (
        pb.DeleteConversationRequest(
            session_id="fuzz-1", conversation_id="none", etag="", allow_missing=True
        ),
    ),
    "AppendMessages": (
        pb.AppendMessagesRequest(**_NAMED, messages=_MESSAGES, state_patch={"b": None}),
    ),
    "ListMessages": (
        pb.ListMessagesRequest(**_NAMED, last=2, complete_turns=True, with_summary=True),
        pb.ListMessagesRequest(**_NAMED, max_tokens=9, branch_head="1", page_size=1),
        pb.ListMessagesRequest(**_NAMED, since={"seconds": 1_700_000_000}),
        pb.ListMessagesRequest(**_NAMED, after_message_id="1"),
    ),
    "PopMessages": (pb.PopMessagesRequest(**_NAMED, count=1),),
    "RewriteMessages": (
        pb.RewriteMessagesRequest(
            **_NAMED, after_message_id="1", messages=[pb.Message(parts=[pb.Part(text="again")])]
        ),
    ),
    "ForkConversation": (pb.ForkConversationRequest(**_NAMED, at_message_id="1"),),
    "SetHead": (pb.SetHeadRequest(**_NAMED, message_id="2"),),
    "SetSummary": (
        pb.SetSummaryRequest(
            **_NAMED, summary=pb.Summary(text="so far", through_message_id="1", token_count=3)
        ),
    ),
    "WatchConversations": (pb.WatchConversationsRequest(**_NAMED, start_revision=1),),
    "ExportMessages": (
        pb.ExportMessagesRequest(session_id="fuzz-1"),
        pb.ExportMessagesRequest(**_NAMED),
    ),
    "PromoteMessages": (
        pb.PromoteMessagesRequest(
            **_NAMED, since_last=True, exclude_message_ids=["2"], ttl={"seconds": 900}
        ),
        pb.PromoteMessagesRequest(
            **_NAMED,
            message_ids=["1", "2"],
            roles=[pb.ROLE_USER],
            content_type=memory_pb2.CONTENT_TYPE_FACT,
            importance=0.75,
            never_expires=True,
        ),
        pb.PromoteMessagesRequest(**_NAMED, since_last=True, expire_time={"seconds": 2**33}),
    ),
}
