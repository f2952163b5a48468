"""The OpenAI Agents SDK's sessions over memoryd's conversations.

    from memoryd.integrations.openai_agents import MemorydSession

    session = MemorydSession("support-1", "localhost:50051", user="ada")
    result = await Runner.run(agent, "Where is my order?", session=session)

An item is a message of the conversation, kept as the SDK gave it. It never expires. The
conversations of a user are one session of memoryd, so that erasing it removes all of them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agents.memory import SessionSettings

from memoryd.client import ConversationClient, NewMessage, NotFound, Role
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.names import prefix_of
from memoryd.integrations.names import session_id as id_of
from memoryd.integrations.raw_messages import MAYBE_DONE, newest, of_format

if TYPE_CHECKING:
    from agents import TResponseInputItem

RAW_FORMAT = "openai.item"

_ROLES = {role.value: role for role in (Role.USER, Role.ASSISTANT, Role.SYSTEM, Role.DEVELOPER)}


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
        return await self._loop.wait(newest(self._conversation, RAW_FORMAT, limit))

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items: all or none, at most 1,000 of together 4 MiB.

        Where it fails and may have been done all the same, the next call with the same items adds
        them once.

        Raises TypeError and ValueError for what is no JSON, before anything is added.
        """
        if items:
            await self._loop.finish(self._append([_message(item) for item in items]))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it; None where there is none."""
        return await self._loop.finish(self._pop())

    async def clear_session(self) -> None:
        """Remove all items; it is no error if there are none.

        It is not repeated where its answer is lost: that would remove what others added since.
        """
        await self._loop.finish(self._conversation.delete(allow_missing=True))

    async def close(self) -> None:
        """Close the connection; this ends calls under way."""
        await self._loop.wait(self._client.close())

    # What follows runs in the one loop of the clients.

    async def _append(self, messages: list[NewMessage]) -> None:
        texts = [message.raw_json for message in messages]
        before, self._in_doubt = self._in_doubt, None
        request_id = before[1] if before and before[0] == texts else str(uuid.uuid4())
        try:
            await self._conversation.append(messages, request_id=request_id)
        except MAYBE_DONE:
            self._in_doubt = texts, request_id
            raise

    async def _pop(self) -> Any:
        try:
            while popped := await self._conversation.pop():
                if items := of_format(RAW_FORMAT, popped):
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
