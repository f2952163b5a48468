"""The OpenAI Agents SDK's sessions over memoryd's conversations.

    from memoryd.integrations.openai_agents import MemorydSession

    session = MemorydSession("support-1", "localhost:50051", user="ada")
    result = await Runner.run(agent, "Where is my order?", session=session)

An item is a message of the conversation, kept as the SDK gave it. It never expires. The
conversations of a user are one session of memoryd, so that erasing it removes all of them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agents.memory import SessionSettings

from memoryd.client import (
    Cancelled,
    ConversationClient,
    DeadlineExceeded,
    Internal,
    NewMessage,
    NotFound,
    Role,
    Unavailable,
)
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.names import prefix_of
from memoryd.integrations.names import session_id as id_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from agents import TResponseInputItem

    from memoryd.client import Message

_R = TypeVar("_R")

RAW_FORMAT = "openai.item"

MAX_LAST = 2**31 - 1
"""Messages that a window may be of."""

_ROLES = {role.value: role for role in (Role.USER, Role.ASSISTANT, Role.SYSTEM, Role.DEVELOPER)}

_MAYBE_DONE = (Cancelled, DeadlineExceeded, Internal, Unavailable)
"""Errors after which a change may have been committed."""


class MemorydSession(ClosedOnExit):
    """The history of one conversation, for any event loop: a `Session` of the SDK.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`. Whoever
    is cancelled while a method changes something gets the CancelledError once the change is done.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        target: str | None = None,
        *,
        user: str,
        prefix: str = "openai",
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        **connection: Any,
    ) -> None:
        """Prepare the session; the first call connects.

        `session_id`: names the conversation among those of the user. `target`: `host:port`; None:
        the variable MEMORYD_TARGET. `user`: whose it is; with `prefix` it names the session of
        memoryd, `openai:ada`, and so does `session_id` the conversation. `session_settings`: the
        SDK's, of which `limit` counts. `connection`: `api_key`, `tls`, `timeout` and the other
        arguments of `memoryd.client.ConversationClient`.

        Raises ValueError for names that are empty, or longer than 255 characters as ids.
        """
        self.session_id = session_id
        if isinstance(session_settings, Mapping):
            session_settings = SessionSettings(**session_settings)
        self.session_settings = session_settings or SessionSettings()
        if not session_id or not user:
            raise ValueError("session_id and user: give names of at least one character")
        # Both with the prefix, since an id does not begin with what is escaped.
        place = [id_of(prefix_of(prefix), [name]) for name in (user, session_id)]
        # Of the last `add_items`, if it failed and may have been committed all the same.
        self._in_doubt: tuple[list[str], str] | None = None
        self._loop = background()

        async def made() -> ConversationClient:
            return ConversationClient(target, **connection)

        self._client = self._loop.run(made())
        self._conversation = self._client.conversation(*place)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Read the newest `limit` items, the oldest of them first.

        `limit`: None: that of `session_settings`, or else all; 0 or less: none.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        return await self._loop.wait(self._items(limit))

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items: all or none, at most 1,000 of together 4 MiB.

        Where it fails and may have been done all the same, the next call with the same items adds
        them once.

        Raises TypeError and ValueError for what is no JSON, before anything is added.
        """
        if items:
            await self._change(self._append([_message(item) for item in items]))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it; None where there is none."""
        return await self._change(self._pop())

    async def clear_session(self) -> None:
        """Remove all items; it is no error if there are none.

        It is not repeated where its answer is lost: that would remove what others added since.
        """
        await self._change(self._conversation.delete(allow_missing=True))

    async def close(self) -> None:
        """Close the connection; this ends calls under way."""
        await self._loop.wait(self._client.close())

    async def _change(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Wait until a change is done, however often the caller is cancelled meanwhile."""
        change = asyncio.ensure_future(self._loop.wait(work))
        cancelled: asyncio.CancelledError | None = None
        while not change.done():
            try:
                await asyncio.wait([change])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled from change.exception()
        return change.result()

    # What follows runs in the one loop of the clients.

    async def _items(self, limit: int | None) -> list[Any]:
        wanted = MAX_LAST if limit is None else min(limit, MAX_LAST)
        last = wanted
        while last > 0:
            try:
                window = await self._conversation.window(last=None if limit is None else last)
            except NotFound:
                break
            items = _items_of(window.messages)
            # Messages of others do not count, so that it takes more to have enough.
            if len(items) >= wanted or len(window.messages) < last:
                return items[-wanted:]
            last = min(2 * last, MAX_LAST)
        return []

    async def _append(self, messages: list[NewMessage]) -> None:
        texts = [message.raw_json for message in messages]
        before, self._in_doubt = self._in_doubt, None
        request_id = before[1] if before and before[0] == texts else str(uuid.uuid4())
        try:
            await self._conversation.append(messages, request_id=request_id)
        except _MAYBE_DONE:
            self._in_doubt = texts, request_id
            raise

    async def _pop(self) -> Any:
        try:
            while popped := await self._conversation.pop():
                if items := _items_of(popped):
                    return items[0]
        except NotFound:
            pass
        return None


def _message(item: TResponseInputItem) -> NewMessage:
    text = json.dumps(item, allow_nan=False)
    role = item.get("role") if isinstance(item, Mapping) else None
    return NewMessage(
        _ROLES.get(role) if isinstance(role, str) else None, raw_json=text, raw_format=RAW_FORMAT
    )


def _items_of(messages: Iterable[Message]) -> list[Any]:
    return [json.loads(each.raw_json) for each in messages if each.raw_format == RAW_FORMAT]
