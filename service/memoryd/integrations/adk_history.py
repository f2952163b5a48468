"""What a conversation keeps of a session of Google's ADK: its events, and the state that they make.

The first message has the state that the session began with, each further one an event; both are
JSON as ADK makes it. What they change of the session's own state is kept in the conversation's
`state` too, by the same call, so that a list of sessions need not read events.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.client import NewMessage, Role
from memoryd.integrations.names import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memoryd.client import Conversation, Message

EVENT, BEGINNING = "adk.event", "adk.session"
"""Formats of messages."""

BEGINNING_ID = "adk:session"
"""Of the first message. The id of an event has no colon."""

SHARED_PREFIXES = USER_PREFIX, APP_PREFIX = ("user:", "app:")
TEMP_PREFIX = "temp:"

MAX_INLINE = 256
"""Characters of a value, as JSON, that the conversation's state has; of a longer one it says which
message has it, since a state has 16 KiB at most."""

_STATE = "adk"
_EPOCH = datetime.fromtimestamp(0, UTC)
_ROLES = {"user": Role.USER, "model": Role.ASSISTANT}


class Step(NamedTuple):
    """A message that changes state."""

    message_id: str
    event: dict[str, Any] | None
    """As JSON. None: it begins the session."""
    delta: Mapping[str, Any]
    """What it sets."""
    moment: int
    """When it was appended, in microseconds since 1970."""

    @property
    def shared(self) -> dict[str, Any]:
        """What it sets for other sessions too."""
        return {key: self.delta[key] for key in self.delta if key.startswith(SHARED_PREFIXES)}


def json_of(value: object) -> str:
    """JSON text. Raises ValueError and TypeError for what is none."""
    return json.dumps(value, allow_nan=False)


def message_id_of(event_id: str) -> str:
    return escaped(event_id)


def event_message(event: Mapping[str, Any]) -> NewMessage:
    """The message of an event, given as JSON."""
    return NewMessage(
        _ROLES.get(event.get("content", {}).get("role", "")),
        message_id=message_id_of(event["id"]),
        raw_json=json_of(event),
        raw_format=EVENT,
    )


def beginning(state: Mapping[str, Any], nonce: str) -> NewMessage:
    """The first message. With a nonce of its own, only one of several can begin a session."""
    text = json_of({"state": state, "nonce": nonce})
    return NewMessage(message_id=BEGINNING_ID, raw_json=text, raw_format=BEGINNING)


def delta_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event, given as JSON, sets."""
    delta: dict[str, Any] = event.get("actions", {}).get("state_delta", {})
    return delta


def steps_of(messages: Iterable[Message]) -> list[Step]:
    """Leaves out what others appended to the conversation."""
    steps = []
    for message in messages:
        if message.raw_format == EVENT:
            event = json.loads(message.raw_json)
            steps.append(Step(message.message_id, event, delta_of(event), moment_of(message)))
        elif message.raw_format == BEGINNING:
            delta = json.loads(message.raw_json)["state"]
            steps.append(Step(message.message_id, None, delta, moment_of(message)))
    return steps


def moment_of(message: Message) -> int:
    """When it was appended, in microseconds since 1970."""
    if message.create_time is None:
        raise ValueError(f"the service does not say when message {message.message_id} was appended")
    since = message.create_time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def own(delta: Mapping[str, Any]) -> dict[str, Any]:
    """What is set for the session alone."""
    return {key: delta[key] for key in delta if not key.startswith(SHARED_PREFIXES)}


# The conversation's state


class Held(NamedTuple):
    """A value that a message has."""

    message_id: str


def state_patch(delta: Mapping[str, Any], message_id: str, update_time: float) -> dict[str, Any]:
    """What a message changes in the conversation's state.

    A value is a JSON text, since JSON in a state loses digits and nulls.
    """
    values: dict[str, Any] = {}
    for key, value in own(delta).items():
        text = json_of(value)
        # As it stands in JSON, so that it is ASCII.
        values[json_of(key)[1:-1]] = text if len(text) <= MAX_INLINE else {"in": message_id}
    return {_STATE: {"values": values, "update_time": update_time}}


def without_values(patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patch where there is no room for the values, from then on."""
    return {_STATE: patch[_STATE] | {"values": None, "is_full": True}}


def is_session(conversation: Conversation) -> bool:
    return _STATE in conversation.state


def update_time_of(conversation: Conversation) -> float:
    """That of the last event, in seconds since 1970."""
    return float(conversation.state[_STATE]["update_time"])


def values_of(conversation: Conversation) -> dict[str, str | Held] | None:
    """Each value as JSON text, or the message that has it. None: there was no room for them."""
    kept = conversation.state[_STATE]
    if kept.get("is_full"):
        return None
    return {
        json.loads(f'"{name}"'): value if isinstance(value, str) else Held(value["in"])
        for name, value in kept["values"].items()
    }


def held_in(values: Mapping[str, str | Held]) -> set[str]:
    """The messages that have values."""
    return {value.message_id for value in values.values() if isinstance(value, Held)}


def resolved(
    values: Mapping[str, str | Held], deltas: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The values themselves. `deltas`: what the messages set that have some, if they are there."""
    state: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(value, Held):
            state[key] = json.loads(value)
        elif value.message_id in deltas:
            state[key] = deltas[value.message_id][key]
    return state
