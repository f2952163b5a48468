"""The client for conversations, and a handle of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from memoryd.client.context import DEFAULT_CHARACTERS
from memoryd.client.conversation_calls import ConversationCalls
from memoryd.client.windows import name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from typing import Unpack

    from memoryd.client.answers import (
        AppendMessagesResponse,
        Conversation,
        ExportMessagesResponse,
        Message,
        PromoteMessagesResponse,
        WatchConversationsResponse,
    )
    from memoryd.client.context import Context
    from memoryd.client.conversation_calls import ConversationValues
    from memoryd.client.messages import JsonValue
    from memoryd.client.new_messages import NewMessage, Said
    from memoryd.client.promotion import PromoteOptions
    from memoryd.client.windows import Window, WindowOptions


class ChangeOptions(TypedDict, total=False):
    """How a call changes a conversation, as keyword arguments."""

    etag: str
    """Of the conversation as it was read."""
    timeout: float | None
    """Seconds the call may take."""


class RetryOptions(ChangeOptions, total=False):
    """The same of a call that is safe to retry."""

    request_id: str | None
    """A UUID; without it the call gets its own."""


@dataclass(frozen=True, slots=True)
class ConversationHandle:
    """A conversation of a client. Its methods are those of ConversationClient.

    conversation = client.conversation("user-123", "support-1")
    await conversation.append(user="Where is my order?")
    window = await conversation.window(max_tokens=4000)
    """

    client: ConversationCalls
    session_id: str
    conversation_id: str

    @property
    def _name(self) -> tuple[str, str]:
        return self.session_id, self.conversation_id

    async def get(self, *, timeout: float | None = None) -> Conversation:
        """Read it, with its summary and without its messages. Raises NotFound."""
        return await self.client.get(*self._name, timeout=timeout)

    async def update(
        self,
        *,
        etag: str = "",
        timeout: float | None = None,
        **values: Unpack[ConversationValues],
    ) -> Conversation:
        """Set what is given. See `ConversationClient.update`."""
        return await self.client.update(*self._name, etag=etag, timeout=timeout, **values)

    async def delete(
        self, *, allow_missing: bool = False, **options: Unpack[ChangeOptions]
    ) -> None:
        """Delete it for good. See `ConversationClient.delete`."""
        await self.client.delete(*self._name, allow_missing=allow_missing, **options)

    async def append(
        self,
        messages: Iterable[NewMessage | Message | Mapping[str, Any]] = (),
        *,
        state_patch: Mapping[str, JsonValue] | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        **said: Unpack[Said],
    ) -> AppendMessagesResponse:
        """Append messages after the head: `user="Hello"`. See `ConversationClient.append`."""
        return await self.client.append(
            *self._name,
            messages,
            state_patch=state_patch,
            etag=etag,
            request_id=request_id,
            timeout=timeout,
            **said,
        )

    def messages(
        self,
        *,
        page_size: int = 0,
        timeout: float | None = None,
        **which: Unpack[WindowOptions],
    ) -> AsyncGenerator[Message, None]:
        """Iterate over messages, the oldest first. See `ConversationClient.messages`."""
        return self.client.messages(*self._name, page_size=page_size, timeout=timeout, **which)

    async def window(
        self, *, timeout: float | None = None, **which: Unpack[WindowOptions]
    ) -> Window:
        """Read a window as a whole: `max_tokens=4000`. See `ConversationClient.window`."""
        return await self.client.window(*self._name, timeout=timeout, **which)

    async def context(
        self,
        query: str,
        *,
        max_chars: int = DEFAULT_CHARACTERS,
        limit: int = 0,
        min_relevance: float | None = None,
        peek: bool = False,
        timeout: float | None = None,
    ) -> Context:
        """Read summary, messages and memories. See `ConversationClient.context`."""
        return await self.client.context(
            *self._name,
            query,
            max_chars=max_chars,
            limit=limit,
            min_relevance=min_relevance,
            peek=peek,
            timeout=timeout,
        )

    async def pop(self, count: int = 1, **options: Unpack[RetryOptions]) -> Sequence[Message]:
        """Remove the newest messages and return them. See `ConversationClient.pop`."""
        return await self.client.pop(*self._name, count, **options)

    async def rewrite(
        self,
        after_message_id: str,
        messages: Iterable[NewMessage | Message | Mapping[str, Any]] = (),
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        **said: Unpack[Said],
    ) -> AppendMessagesResponse:
        """Let these messages follow an earlier one. See `ConversationClient.rewrite`."""
        return await self.client.rewrite(
            *self._name,
            after_message_id,
            messages,
            etag=etag,
            request_id=request_id,
            timeout=timeout,
            **said,
        )

    async def fork(
        self,
        new_conversation_id: str = "",
        *,
        at_message_id: str = "",
        **options: Unpack[ChangeOptions],
    ) -> Conversation:
        """Make a conversation of its messages up to one. See `ConversationClient.fork`."""
        return await self.client.fork(
            *self._name, new_conversation_id, at_message_id=at_message_id, **options
        )

    async def set_head(self, message_id: str, **options: Unpack[ChangeOptions]) -> Conversation:
        """Move the head to a message of any branch. Raises NotFound, EtagMismatch."""
        return await self.client.set_head(*self._name, message_id, **options)

    async def set_summary(
        self,
        text: str,
        through_message_id: str,
        *,
        token_count: int | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Conversation:
        """Set the summary up to a message. See `ConversationClient.set_summary`."""
        return await self.client.set_summary(
            *self._name, text, through_message_id, token_count=token_count, **options
        )

    async def promote(
        self,
        message_ids: Iterable[str] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[PromoteOptions],
    ) -> PromoteMessagesResponse:
        """Make memories: `since_last=True`. See `ConversationClient.promote`."""
        return await self.client.promote(*self._name, message_ids, timeout=timeout, **options)

    def watch(
        self, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[WatchConversationsResponse, None]:
        """Iterate over its changes after a revision. See `ConversationClient.watch`."""
        return self.client.watch(
            self.session_id,
            start_revision,
            conversation_id=self.conversation_id,
            timeout=timeout,
        )

    def export(
        self, *, timeout: float | None = None
    ) -> AsyncGenerator[ExportMessagesResponse, None]:
        """Iterate over the messages of all branches. See `ConversationClient.export`."""
        return self.client.export(*self._name, timeout=timeout)


class ConversationClient(ConversationCalls):
    """Conversations, by session and id. The session belongs to the caller's tenant.

    `conversation` gives a handle of one, whose methods are those here. `etag`, where a method takes
    it, is of the conversation as it was read: the change is refused if it has changed since.

    Every method may raise any `MemorydError`; its docstring names the ones to expect.
    """

    def conversation(self, session_id: str, conversation_id: str) -> ConversationHandle:
        """Return a handle of one conversation, which need not exist; nothing is sent."""
        return ConversationHandle(self, **name_of(session_id, conversation_id))
