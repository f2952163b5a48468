"""Microsoft Agent Framework's context and history providers over memoryd.

    from memoryd.integrations.agent_framework import MemorydContextProvider, MemorydHistoryProvider

    history = MemorydHistoryProvider("localhost:50051", user="ada")
    memories = MemorydContextProvider(
        "localhost:50051", store_scope="ada", search_scopes=["ada"]
    )
    agent = Agent(client, context_providers=[history, memories])

What they keep never expires. Both keep what is Ada's in the session `agent_framework:ada`, so that
erasing it removes all of it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from agent_framework import ContextProvider, HistoryProvider, Message
from agent_framework._sessions import filter_new_messages

from memoryd.client import (
    AlreadyExists,
    ConversationClient,
    EtagMismatch,
    NewMessage,
    NotFound,
    Role,
    SessionClient,
)
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.batches import MAX_BATCH_BYTES, chunks
from memoryd.integrations.names import prefix_of, session_id
from memoryd.integrations.raw_messages import MAYBE_DONE, newest
from memoryd.integrations.scopes import ScopedMemories
from memoryd.integrations.sessions import require_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent_framework import AgentSession, SessionContext, SupportsAgentRun

    from memoryd.client import ConversationHandle

PREFIX = "agent_framework"

RAW_FORMAT = "agent_framework.message"

MAX_IN_DOUBT = 1_000
"""Conversations whose last save may have been done; of more the first are forgotten."""

SAID_BY = frozenset({"user", "assistant", "system"})
"""The roles whose texts become memories."""

_ROLES = {role.value: role for role in Role if role is not Role.UNSPECIFIED}


class MemorydHistoryProvider(ClosedOnExit, HistoryProvider):
    """The histories of a user's sessions, for any event loop.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`. Whoever
    is cancelled while a method changes something gets the CancelledError once the change is done.
    """

    DEFAULT_SOURCE_ID: ClassVar[str] = "memoryd_history"

    def __init__(
        self,
        target: str | None = None,
        *,
        user: str,
        source_id: str = DEFAULT_SOURCE_ID,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        store_outputs: bool = True,
        skip_excluded: bool = False,
        prefix: str = PREFIX,
        **connection: Any,
    ) -> None:
        """Prepare the provider; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `user`: whose they are; with
        `prefix` it names the session of memoryd, `agent_framework:ada`. `source_id`: keeps the
        histories of providers apart. The next five are the framework's. `skip_excluded`: leave out
        messages whose `additional_properties` have `_excluded`. `connection`: `api_key`, `tls`,
        `timeout` and the other arguments of `memoryd.client.ConversationClient`.

        Raises ValueError for names that are empty, or longer than 255 characters as ids.
        """
        if not user or not source_id:
            raise ValueError("user and source_id: give names of at least one character")
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        self.skip_excluded = skip_excluded
        self._prefix = prefix_of(prefix)
        self._session = session_id(prefix, [user])
        # Of each conversation the last save, if it failed and may have been done all the same.
        self._in_doubt: dict[str, _Save] = {}
        self._loop = background()

        async def made() -> tuple[ConversationClient, SessionClient]:
            return ConversationClient(target, **connection), SessionClient(target, **connection)

        self._conversations, self._sessions = self._loop.run(made())

    async def get_messages(
        self,
        session_id: str | None,
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002  of providers that keep them there
        **kwargs: Any,  # noqa: ARG002  the framework's, for other providers
    ) -> list[Message]:
        """Read the messages of a session of the framework, the oldest first.

        Raises ValueError without a session id.
        """
        found = await self._loop.wait(newest(self._conversation(session_id), RAW_FORMAT))
        messages = [_message(each) for each in found]
        if self.skip_excluded:
            messages = [
                each for each in messages if not each.additional_properties.get("_excluded", False)
            ]
        return messages

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002  of providers that keep them there
        **kwargs: Any,  # noqa: ARG002  the framework's, for other providers
    ) -> None:
        """Append messages that the history does not have: at most 1 MiB each.

        It has what the framework takes for a replay, and a message with an id that it has with the
        same role and contents. Where a save fails and may have been done all the same, the next one
        with the same messages appends them once.

        Raises ValueError without a session id.
        """
        conversation = self._conversation(session_id)
        if messages:
            await self._loop.finish(self._save(conversation, list(messages)))

    async def before_run(
        self,
        *,
        agent: SupportsAgentRun,
        session: AgentSession,
        context: SessionContext,
        state: dict[str, Any],
    ) -> None:
        """Load the history, unless the model's service has one and would see it twice."""
        options = {**(getattr(agent, "default_options", None) or {}), **context.options}
        if not context.service_session_id and not options.get("conversation_id"):
            await super().before_run(agent=agent, session=session, context=context, state=state)

    async def clear(self, session_id: str | None) -> None:
        """Remove the history of a session for good; it is no error if there is none.

        It is not repeated where its answer is lost: that would remove what others added since.
        """
        await self._loop.finish(self._conversation(session_id).delete(allow_missing=True))

    async def close(self) -> None:
        """Close the connections; this ends calls under way."""
        await self._loop.wait(self._conversations.close())
        await self._loop.wait(self._sessions.close())

    def _conversation(self, framework_session_id: str | None) -> ConversationHandle:
        if not framework_session_id:
            raise ValueError("session_id: give the id of a session; histories are kept by it")
        name = session_id(self._prefix, [self.source_id, framework_session_id])
        return self._conversations.conversation(self._session, name)

    # What follows runs in the one loop of the clients.

    async def _save(self, conversation: ConversationHandle, messages: list[Message]) -> None:
        texts = [_json(message) for message in messages]
        save = self._in_doubt.pop(conversation.conversation_id, None)
        if save is None or save.texts != texts:
            save = await self._begun(conversation, texts, messages)
        while save.left:
            some = next(chunks(save.left, _size, room=MAX_BATCH_BYTES))
            try:
                answer = await conversation.append(
                    [_new_message(message) for message in some],
                    etag=save.etag,
                    request_id=save.request_id,
                )
            except EtagMismatch:
                save = await self._begun(conversation, texts, save.left)
            except MAYBE_DONE:
                self._in_doubt[conversation.conversation_id] = save
                if len(self._in_doubt) > MAX_IN_DOUBT:
                    del self._in_doubt[next(iter(self._in_doubt))]
                raise
            else:
                save = _Save(texts, save.left[len(some) :], answer.conversation.etag)

    async def _begun(
        self, conversation: ConversationHandle, texts: list[str], messages: list[Message]
    ) -> _Save:
        """A save of those messages that the history does not have as it is now."""
        # Before the messages, so that nothing is appended after others that are not seen here.
        etag = await self._etag(conversation)
        has_ids = any(message.message_id for message in messages)
        # An id may be anywhere; a replay ends where the history does.
        found = await newest(conversation, RAW_FORMAT, None if has_ids else len(messages) + 1)
        kept = [_message(each) for each in found]
        known = {_identity(message) for message in kept if message.message_id}
        new: list[Message] = []
        for message in filter_new_messages(kept, messages):
            if not message.message_id:
                new.append(message)
            elif (identity := _identity(message)) not in known:
                known.add(identity)
                new.append(message)
        return _Save(texts, new, etag)

    async def _etag(self, conversation: ConversationHandle) -> str:
        """The etag of a conversation, which is made where there is none."""
        while True:
            try:
                return (await conversation.get()).etag
            except NotFound:
                await require_session(self._sessions, self._session)
            try:
                name = conversation.conversation_id
                return (await self._conversations.create(self._session, name)).etag
            except AlreadyExists:
                continue  # another was faster


@dataclass(frozen=True, slots=True)
class _Save:
    """Messages on their way into a history."""

    texts: list[str]
    """Of all messages that are given."""
    left: list[Message]
    """Those that are not known to be kept."""
    etag: str
    """Of the conversation that they follow."""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class MemorydContextProvider(ClosedOnExit, ContextProvider):
    """Memories of what was said, for any event loop.

    Where it stores and where it searches are given apart, and neither stands for the other. The
    `source_id` keeps it apart from other providers of the same scope.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`.
    """

    DEFAULT_SOURCE_ID: ClassVar[str] = "memoryd"
    DEFAULT_CONTEXT_PROMPT: ClassVar[str] = (
        "## Memories\nThis is remembered from earlier, what matters most first:"
    )

    def __init__(
        self,
        target: str | None = None,
        *,
        store_scope: str | None = None,
        search_scopes: Iterable[str] = (),
        source_id: str = DEFAULT_SOURCE_ID,
        context_prompt: str | None = None,
        limit: int = 10,
        min_relevance: float | None = None,
        prefix: str = PREFIX,
        **connection: Any,
    ) -> None:
        """Prepare the provider; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `store_scope`: whose memories it
        adds to, such as a user; None: it stores nothing. `search_scopes`: whose it finds, up to 17;
        none: it finds nothing. A scope with `prefix` is a session of memoryd:
        `agent_framework:ada`. `source_id`: 1-64 characters. `context_prompt`: what precedes the
        memories that a model gets. `limit`: how many it gets, 1-100. `min_relevance`: from 0 to 1;
        what recall is less sure of is left out. `connection`: `api_key`, `tls`, `timeout` and the
        other arguments of `memoryd.client.MemoryClient`.

        Raises ValueError for names that are empty or too long, for a limit below 1, and where there
        is no scope at all.
        """
        if limit < 1:
            raise ValueError(f"limit: expected a number from 1 on, not {limit}")
        super().__init__(source_id)
        self.context_prompt = context_prompt or self.DEFAULT_CONTEXT_PROMPT
        self._limit = limit
        self._min_relevance = min_relevance
        self._memories = ScopedMemories(
            target,
            prefix=prefix,
            source=source_id,
            store_scope=store_scope,
            search_scopes=search_scopes,
            connection=connection,
        )

    async def before_run(
        self,
        *,
        agent: SupportsAgentRun,  # noqa: ARG002  the framework gives it
        session: AgentSession,  # noqa: ARG002  the framework gives it
        context: SessionContext,
        state: dict[str, Any],  # noqa: ARG002  nothing is kept there
    ) -> None:
        """Find what bears on the input, and give it to the model as a message of the user."""
        query = "\n".join(each.text for each in context.input_messages if each.text.strip())
        if not query:
            return
        found = await self._memories.search(
            query, limit=self._limit, min_relevance=self._min_relevance
        )
        if not found:
            return
        lines = "\n".join(result.memory.content for result in found)
        episodes = [result.memory.metadata.get("episode") for result in found]
        context.extend_messages(
            self.source_id,
            [Message("user", [f"{self.context_prompt}\n{lines}"])],
            origin_session_ids=[
                each for each in episodes if isinstance(each, str) and each != context.session_id
            ],
        )

    async def after_run(
        self,
        *,
        agent: SupportsAgentRun,  # noqa: ARG002  the framework gives it
        session: AgentSession,  # noqa: ARG002  the framework gives it
        context: SessionContext,
        state: dict[str, Any],  # noqa: ARG002  nothing is kept there
    ) -> None:
        """Store the texts of input and response word for word, a memory each.

        Their `speaker` is the author or the role, their `episode` the framework's session.
        """
        if not self._memories.stores:
            return
        messages = [
            *context.input_messages,
            *(context.response.messages if context.response else ()),
        ]
        episode = {} if context.session_id is None else {"episode": context.session_id}
        await self._memories.store_said(
            (each.text, {"speaker": each.author_name or each.role, **episode})
            for each in messages
            if each.role in SAID_BY
        )

    async def close(self) -> None:
        """Close the connections; this ends calls under way."""
        await self._memories.close()


def _json(message: Message) -> str:
    values = message.to_dict()
    try:
        return json.dumps(values, allow_nan=False)
    except ValueError:  # JSON has neither NaN nor infinity, but has a text with them
        return json.dumps(json.dumps(values))


def _size(message: Message) -> int:
    return len(_json(message))  # all of it is ASCII


def _message(kept: dict[str, Any] | str) -> Message:
    return Message.from_dict(json.loads(kept) if isinstance(kept, str) else kept)


def _new_message(message: Message) -> NewMessage:
    return NewMessage(_ROLES.get(message.role), raw_json=_json(message), raw_format=RAW_FORMAT)


def _identity(message: Message) -> tuple[str | None, str, str]:
    contents = [content.to_dict() for content in message.contents]
    return message.message_id, message.role, json.dumps(contents, sort_keys=True)
