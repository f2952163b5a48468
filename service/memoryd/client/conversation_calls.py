"""The calls on conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.client import arguments as args
from memoryd.client import context as contexts
from memoryd.client.answers import (
    AppendMessagesResponse,
    Conversation,
    ExportMessagesResponse,
    Message,
    PromoteMessagesResponse,
    RetrieveMemoriesResponse,
    Summary,
    WatchConversationsResponse,
)
from memoryd.client.channel import Client
from memoryd.client.errors import NotFound
from memoryd.client.messages import request_id_or_new
from memoryd.client.new_messages import new_messages
from memoryd.client.promotion import promote_request
from memoryd.client.windows import Window, name_of, window_request
from memoryd.v1 import conversation_pb2, memory_pb2
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Unpack

    import grpc.aio

    from memoryd.client.context import Context
    from memoryd.client.messages import JsonValue
    from memoryd.client.new_messages import NewMessage, Said
    from memoryd.client.promotion import PromoteOptions
    from memoryd.client.windows import WindowOptions
    from memoryd.v1.conversation_pb2_grpc import ConversationServiceAsyncStub


class ConversationValues(TypedDict, total=False):
    """What callers set of a conversation, as keyword arguments; of the last three at most one.

    A conversation that gets none of the three never expires.
    """

    display_name: str | None
    """At most 255 characters."""
    labels: Mapping[str, str] | None
    """At most 64."""
    state: Mapping[str, JsonValue] | None
    """What an agent keeps besides the messages. At most 16 KiB as JSON, nesting at most 8."""
    ttl: timedelta | None
    """How long it lives from the last append."""
    expire_time: datetime | None
    """When it ends; aware, and in the future."""
    never_expires: bool


class ConversationCalls(Client["ConversationServiceAsyncStub"]):
    """The methods of ConversationClient that make calls."""

    def _stub_over(self, channel: grpc.aio.Channel) -> ConversationServiceAsyncStub:
        return ConversationServiceStub(channel)

    async def create(
        self,
        session_id: str,
        conversation_id: str = "",
        *,
        timeout: float | None = None,
        **values: Unpack[ConversationValues],
    ) -> Conversation:
        """Make a conversation without messages; `append` makes one by itself.

        Without a `conversation_id` the service gives one.

        Raises InvalidArgument, AlreadyExists.
        """
        request = conversation_pb2.CreateConversationRequest(
            conversation=conversation_pb2.Conversation(
                **name_of(session_id, conversation_id),
                **_values(values),
            )
        )
        return await self._answer(self._stub.CreateConversation, request, Conversation, timeout)

    async def get(
        self, session_id: str, conversation_id: str, *, timeout: float | None = None
    ) -> Conversation:
        """Read a conversation, with its summary and without its messages. Raises NotFound."""
        request = conversation_pb2.GetConversationRequest(
            **name_of(session_id, conversation_id),
        )
        return await self._answer(self._stub.GetConversation, request, Conversation, timeout)

    async def update(
        self,
        session_id: str,
        conversation_id: str,
        *,
        etag: str = "",
        timeout: float | None = None,
        **values: Unpack[ConversationValues],
    ) -> Conversation:
        """Set what is given. `labels` and `state` are replaced as a whole.

        Raises InvalidArgument, NotFound, EtagMismatch.
        """
        fields = _values(values)
        request = conversation_pb2.UpdateConversationRequest(
            conversation=conversation_pb2.Conversation(
                **name_of(session_id, conversation_id),
                etag=args.text("etag", etag),
                **fields,
            ),
            # A mask that names nothing stands for the populated fields: here, for none.
            update_mask=FieldMask(paths=list(fields)),
        )
        return await self._answer(self._stub.UpdateConversation, request, Conversation, timeout)

    def list(
        self,
        session_id: str | None = None,
        *,
        session_id_prefix: str | None = None,
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """Iterate over the conversations of one session, or of all whose ids begin with a prefix.

        The last updated comes first. Pages are fetched as they are read; `timeout` applies to each.
        """
        request = conversation_pb2.ListConversationsRequest(
            labels=args.labels("labels", labels),
            page_size=args.int32("page_size", page_size),
            **args.one_text(session_id=session_id, session_id_prefix=session_id_prefix),
        )
        return self._pages(self._stub.ListConversations, request, _conversations_of, timeout)

    async def delete(
        self,
        session_id: str,
        conversation_id: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Delete a conversation with its messages and branches for good; forks keep what they need.

        Raises NotFound unless `allow_missing`, EtagMismatch.
        """
        request = conversation_pb2.DeleteConversationRequest(
            **name_of(session_id, conversation_id),
            etag=args.text("etag", etag),
            allow_missing=args.flag("allow_missing", allow_missing),
        )
        await self._call(self._stub.DeleteConversation, request, timeout)

    async def append(
        self,
        session_id: str,
        conversation_id: str,
        messages: Iterable[NewMessage | Message | Mapping[str, Any]] = (),
        *,
        state_patch: Mapping[str, JsonValue] | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        **said: Unpack[Said],
    ) -> AppendMessagesResponse:
        """Append up to 1,000 messages after the head: all or none, in order.

        Give texts by role, in their order (`user="Hello"`), or `messages`: each a NewMessage, a
        dict of its fields, or a Message. They are committed when this returns. `state_patch` is
        merged into the conversation's state; a None removes a key. Without a `request_id` the call
        gets its own, so that it is safe to retry.

        Raises InvalidArgument, ResourceExhausted, AlreadyExists where another message has an id
        of these, EtagMismatch.
        """
        request = conversation_pb2.AppendMessagesRequest(
            **name_of(session_id, conversation_id),
            messages=new_messages(messages, said),
            state_patch=args.struct("state_patch", state_patch),
            expected_etag=args.text("etag", etag),
            request_id=request_id_or_new(request_id),
        )
        return await self._answer(
            self._stub.AppendMessages, request, AppendMessagesResponse, timeout
        )

    def messages(
        self,
        session_id: str,
        conversation_id: str,
        *,
        page_size: int = 0,
        timeout: float | None = None,
        **which: Unpack[WindowOptions],
    ) -> AsyncGenerator[Message, None]:
        """Iterate over the messages of a branch, or a window of it, the oldest first.

        Pages are fetched as they are read; `timeout` applies to each. Raises NotFound.
        """
        request = window_request(session_id, conversation_id, which)
        request.page_size = args.int32("page_size", page_size)
        return self._pages(self._stub.ListMessages, request, _messages_of, timeout)

    async def window(
        self,
        session_id: str,
        conversation_id: str,
        *,
        timeout: float | None = None,
        **which: Unpack[WindowOptions],
    ) -> Window:
        """Read a window of a branch as a whole; without any option, the branch.

        It takes one call for every 1,000 messages or 4 MB; `timeout` applies to each.

        Raises InvalidArgument, NotFound.
        """
        request = window_request(session_id, conversation_id, which)
        pages = self._pages(self._stub.ListMessages, request, lambda page: [page], timeout)
        messages: list[Message] = []
        summary = None
        async for page in pages:
            messages += _messages_of(page)
            if page.HasField("summary"):
                summary = Summary.from_proto(page.summary)
        return Window(messages, summary)

    async def context(
        self,
        session_id: str,
        conversation_id: str,
        query: str,
        *,
        max_chars: int = contexts.DEFAULT_CHARACTERS,
        limit: int = 0,
        min_relevance: float | None = None,
        peek: bool = False,
        timeout: float | None = None,
    ) -> Context:
        """Read what a prompt needs: the summary, the newest messages, and the memories that matter.

        `text` of the answer has all of them in at most `max_chars` characters; it has more where
        the newest message alone has. The conversation gets three quarters, a third of them at most
        for the summary; what it leaves is for the session's memories, found as by
        `MemoryClient.retrieve` with `query`, `limit`, `min_relevance` and `peek`.

        It takes two calls: one that reads the conversation, and one that retrieves. (Bytes and
        `raw_json` count as no tokens: a window of more than 4 MB takes another call for each 4 MB.)
        A conversation that does not exist has no messages.
        """
        room = args.int32("max_chars", max_chars)
        if room <= 0:
            raise ValueError("max_chars: give a number above 0")
        request = memory_pb2.RetrieveMemoriesRequest(
            session_id=args.text("session_id", session_id),
            query=args.text("query", query),
            limit=args.int32("limit", limit),
            min_relevance=args.optional_double("min_relevance", min_relevance),
            peek=args.flag("peek", peek),
        )
        window = await self._window_of_tokens(
            session_id, conversation_id, contexts.tokens_within(room), timeout
        )
        context = contexts.conversation_within(room, window)
        request.max_chars = contexts.memory_room(room, context)
        if request.max_chars <= 0:
            return context
        memories = MemoryServiceStub(self._channel)
        answer = await self._answer(
            memories.RetrieveMemories, request, RetrieveMemoriesResponse, timeout
        )
        return contexts.with_memories(room, context, answer.results, conversation_id)

    async def _window_of_tokens(
        self, session_id: str, conversation_id: str, max_tokens: int, timeout: float | None
    ) -> Window:
        try:
            return await self.window(
                session_id,
                conversation_id,
                max_tokens=max_tokens,
                complete_turns=True,
                with_summary=True,
                timeout=timeout,
            )
        except NotFound:
            return Window([], None)

    async def pop(
        self,
        session_id: str,
        conversation_id: str,
        count: int = 1,
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Sequence[Message]:
        """Remove the newest messages and return them, the oldest first: at most 1,000.

        Each goes to one caller, however many race. There are fewer where the branch has fewer, or
        more do not fit into an answer of 4 MB. Without a `request_id` the call gets its own, so
        that it is safe to retry.

        Raises NotFound, EtagMismatch.
        """
        request = conversation_pb2.PopMessagesRequest(
            **name_of(session_id, conversation_id),
            count=args.int32("count", count),
            expected_etag=args.text("etag", etag),
            request_id=request_id_or_new(request_id),
        )
        popped = await self._call(self._stub.PopMessages, request, timeout)
        return tuple(_messages_of(popped))

    async def rewrite(
        self,
        session_id: str,
        conversation_id: str,
        after_message_id: str,
        messages: Iterable[NewMessage | Message | Mapping[str, Any]] = (),
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        **said: Unpack[Said],
    ) -> AppendMessagesResponse:
        """Let these messages, given as to `append`, follow a message of any branch.

        Empty `after_message_id`: they begin the conversation. What followed stays as a branch.
        Without messages the head only moves.

        Raises what `append` raises, and NotFound.
        """
        request = conversation_pb2.RewriteMessagesRequest(
            **name_of(session_id, conversation_id),
            after_message_id=args.text("after_message_id", after_message_id),
            messages=new_messages(messages, said),
            expected_etag=args.text("etag", etag),
            request_id=request_id_or_new(request_id),
        )
        return await self._answer(
            self._stub.RewriteMessages, request, AppendMessagesResponse, timeout
        )

    async def fork(
        self,
        session_id: str,
        conversation_id: str,
        new_conversation_id: str = "",
        *,
        at_message_id: str = "",
        etag: str = "",
        timeout: float | None = None,
    ) -> Conversation:
        """Make a conversation of the messages up to one, by default the head; nothing is copied.

        Without a `new_conversation_id` the service gives one.

        Raises NotFound, EtagMismatch, AlreadyExists where there is one with the new id.
        """
        request = conversation_pb2.ForkConversationRequest(
            **name_of(session_id, conversation_id),
            at_message_id=args.text("at_message_id", at_message_id),
            new_conversation_id=args.text("new_conversation_id", new_conversation_id),
            expected_etag=args.text("etag", etag),
        )
        return await self._answer(self._stub.ForkConversation, request, Conversation, timeout)

    async def set_head(
        self,
        session_id: str,
        conversation_id: str,
        message_id: str,
        *,
        etag: str = "",
        timeout: float | None = None,
    ) -> Conversation:
        """Move the head to a message of any branch. Raises NotFound, EtagMismatch."""
        request = conversation_pb2.SetHeadRequest(
            **name_of(session_id, conversation_id),
            message_id=args.text("message_id", message_id),
            expected_etag=args.text("etag", etag),
        )
        return await self._answer(self._stub.SetHead, request, Conversation, timeout)

    async def set_summary(
        self,
        session_id: str,
        conversation_id: str,
        text: str,
        through_message_id: str,
        *,
        token_count: int | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Conversation:
        """Set the summary of what was said up to a message of the head's branch.

        Two empty texts remove it. `token_count`: None is a quarter of the text's bytes.

        Raises InvalidArgument, NotFound, EtagMismatch.
        """
        request = conversation_pb2.SetSummaryRequest(
            **name_of(session_id, conversation_id),
            summary=conversation_pb2.Summary(
                text=args.text("text", text),
                through_message_id=args.text("through_message_id", through_message_id),
                token_count=args.optional_int32("token_count", token_count),
            ),
            expected_etag=args.text("etag", etag),
        )
        return await self._answer(self._stub.SetSummary, request, Conversation, timeout)

    async def promote(
        self,
        session_id: str,
        conversation_id: str,
        message_ids: Iterable[str] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[PromoteOptions],
    ) -> PromoteMessagesResponse:
        """Store texts of messages as memories of the session, word for word: all or none.

        Give `message_ids`, or `since_last=True`. To promote a message again stores nothing twice.
        With `since_last`, call again while the answer has `has_more`.

        Raises InvalidArgument, which names a text too long for a memory, NotFound and
        ResourceExhausted.
        """
        request = promote_request(session_id, conversation_id, message_ids, options)
        return await self._answer(
            self._stub.PromoteMessages, request, PromoteMessagesResponse, timeout
        )

    def watch(
        self,
        session_id: str,
        start_revision: int = 0,
        *,
        conversation_id: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[WatchConversationsResponse, None]:
        """Iterate over the changes after a revision, then over every change as it commits.

        One event for each call, with the messages that it appended; of every conversation of the
        session, or of one. It resumes by itself, and ends, as
        `MemoryClient.watch` does.
        """
        request = conversation_pb2.WatchConversationsRequest(
            **name_of(session_id, conversation_id),
            start_revision=args.int64("start_revision", start_revision),
        )
        return self._watch(
            self._stub.WatchConversations, request, WatchConversationsResponse, timeout
        )

    def export(
        self, session_id: str, conversation_id: str = "", *, timeout: float | None = None
    ) -> AsyncGenerator[ExportMessagesResponse, None]:
        """Iterate over the messages of all branches, some at a time, as one stream.

        Of one conversation, or of every conversation of the session. A message comes after the one
        that it follows. `timeout`: seconds for the whole stream; None: no limit.

        Raises NotFound.
        """
        request = conversation_pb2.ExportMessagesRequest(**name_of(session_id, conversation_id))
        return self._stream(self._stub.ExportMessages, request, ExportMessagesResponse, timeout)


def _conversations_of(page: conversation_pb2.ListConversationsResponse) -> Iterable[Conversation]:
    return map(Conversation.from_proto, page.conversations)


def _messages_of(
    page: conversation_pb2.ListMessagesResponse | conversation_pb2.PopMessagesResponse,
) -> Iterable[Message]:
    return map(Message.from_proto, page.messages)


def _values(given: ConversationValues) -> dict[str, Any]:
    """The fields of a conversation that are given."""
    args.only_known(given, ConversationValues, "field")
    never_expires = args.flag("never_expires", given.get("never_expires", False))
    ttl, expire_time = given.get("ttl"), given.get("expire_time")
    args.at_most_one(ttl=ttl, expire_time=expire_time, never_expires=never_expires)
    labels = given.get("labels")
    values = {
        "display_name": args.optional_text("display_name", given.get("display_name")),
        "labels": None if labels is None else args.labels("labels", labels),
        "state": args.struct("state", given.get("state")),
        "ttl": args.duration("ttl", ttl),
        "expire_time": args.timestamp("expire_time", expire_time),
        "never_expires": never_expires or None,
    }
    return {name: value for name, value in values.items() if value is not None}
