"""Conversations that keep sessions of Google's ADK: what calls read and append."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from google.adk.errors.already_exists_error import AlreadyExistsError

from memoryd.client import InvalidArgument, NotFound
from memoryd.integrations import adk_history as history
from memoryd.integrations.names import unescaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memoryd.client import Conversation, ConversationClient, NewMessage
    from memoryd.client.answers import AppendMessagesResponse
    from memoryd.integrations.adk_history import Step

Place = tuple[str, str]
"""A session of memoryd, and a conversation."""

MAX_PAGE = 1_000
"""Messages or conversations in one call."""

MAX_LAST = 2**31 - 1
"""Messages that a window may be of."""

_REQUESTS = uuid.UUID("9f1a24ef-60e5-46f6-bf1f-380027c73208")
"""The namespace of ids of requests, which follow from what is appended."""


class Conversations:
    """Of all apps and users."""

    def __init__(self, client: ConversationClient) -> None:
        self.client = client

    async def read(self, place: Place) -> Conversation | None:
        """Read one without its messages; None where there is none that keeps a session."""
        try:
            conversation = await self.client.get(*place)
        except NotFound:
            return None
        return conversation if history.is_session(conversation) else None

    async def all_of(self, session_id: str) -> list[Conversation]:
        """Those of one session of memoryd."""
        found = self.client.list(session_id, page_size=MAX_PAGE)
        return [each async for each in found if history.is_session(each)]

    async def all_below(self, prefix: str) -> list[Conversation]:
        """Those of all sessions of memoryd whose ids begin with a prefix."""
        found = self.client.list(session_id_prefix=prefix, page_size=MAX_PAGE)
        return [each async for each in found if history.is_session(each)]

    async def delete(self, place: Place) -> None:
        await self.client.delete(*place, allow_missing=True)

    async def append(
        self, place: Place, message: NewMessage, patch: dict[str, Any], *, etag: str = ""
    ) -> AppendMessagesResponse:
        """Append a message with what it changes of the state: both or neither.

        The id of the request follows from the message. So where it was appended before, this raises
        InvalidArgument of `request_id`, unless that was with the same etag; and then its answer is
        the first one. Else it raises what the client's `append` raises.
        """
        try:
            return await self._append(place, message, patch, etag)
        except InvalidArgument as error:
            if not is_of(error, "state_patch"):
                raise
        return await self._append(place, message, history.without_values(patch), etag)

    async def _append(
        self, place: Place, message: NewMessage, patch: dict[str, Any], etag: str
    ) -> AppendMessagesResponse:
        of = (*place, message.message_id, message.raw_json)
        return await self.client.append(
            *place,
            [message],
            state_patch=patch,
            etag=etag,
            request_id=str(uuid.uuid5(_REQUESTS, "\n".join(of))),
        )

    async def moment_of(self, place: Place, message: NewMessage) -> int | None:
        """When a message was appended, in microseconds since 1970; None: it was not.

        Raises AlreadyExistsError where another one has its id.
        """
        try:
            window = await self.client.window(*place, last=1, branch_head=message.message_id)
        except NotFound:
            return None
        (kept,) = window.messages
        if (kept.raw_format, kept.raw_json) != (message.raw_format, message.raw_json):
            raise other_event(message)
        return history.moment_of(kept)

    async def steps(self, conversation: Conversation, last: int | None = None) -> list[Step]:
        """Read all steps up to the head, or those from the newest `last` events on.

        Raises NotFound where it was deleted meanwhile.
        """
        place = conversation.session_id, conversation.conversation_id
        head = conversation.head_message_id
        if not head or last == 0:
            return []
        if last is None:
            found = self.client.messages(*place, branch_head=head, page_size=MAX_PAGE)
            return history.steps_of([message async for message in found])
        wanted = min(last, MAX_LAST)
        while True:
            window = await self.client.window(*place, last=wanted, branch_head=head)
            steps = history.steps_of(window.messages)
            events = sum(step.event is not None for step in steps)
            # Messages of others do not count, so that it may take more to have enough.
            if events >= last or len(window.messages) < wanted or wanted == MAX_LAST:
                return steps[-last:]
            wanted = min(2 * wanted, MAX_LAST)

    async def own_state(
        self, conversation: Conversation, steps: Sequence[Step] = (), *, is_all: bool = False
    ) -> dict[str, Any]:
        """Read the state of the session alone. `steps`: what was read; `is_all`: that is all.

        Raises NotFound where it was deleted meanwhile.
        """
        values = history.values_of(conversation)
        if values is None:
            if not is_all:
                steps = await self.steps(conversation)
            return history.own({key: step.delta[key] for step in steps for key in step.delta})
        deltas = {step.message_id: step.delta for step in steps}
        place = conversation.session_id, conversation.conversation_id
        for message_id in history.held_in(values) - deltas.keys():
            # What others have removed sets nothing.
            with contextlib.suppress(NotFound):
                window = await self.client.window(*place, last=1, branch_head=message_id)
                found = history.steps_of(window.messages)
                deltas |= {step.message_id: step.delta for step in found}
        return history.resolved(values, deltas)


def is_of(error: InvalidArgument, argument: str) -> bool:
    return any(each.field.startswith(argument) for each in error.violations)


def other_event(message: NewMessage) -> AlreadyExistsError:
    event_id = unescaped(message.message_id)
    return AlreadyExistsError(f"Event {event_id} already exists, and is another one.")
