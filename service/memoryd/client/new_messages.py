"""Messages that callers append to a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from google.protobuf.descriptor import FieldDescriptor

from memoryd.client import arguments as args
from memoryd.client.answers import Blob, File, Message, Part, ToolCall, ToolResult
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.message import Message as AnyMessage

    from memoryd.client.answers import RoleName
    from memoryd.client.messages import JsonValue

NewPart: TypeAlias = "str | Part | ToolCall | ToolResult | Blob | File | Mapping[str, Any]"
"""A part of a message: a text, a Part or what is in one, or the fields of a Part as a dict, such
as `{"thinking": "…"}` or `{"tool_call": {"call_id": "1", "name": "find"}}`."""


class Said(TypedDict, total=False):
    """Texts as keyword arguments. Each becomes a message of its role, in the order given."""

    user: str
    assistant: str
    system: str
    developer: str
    tool: str


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append. It has a `text`, `parts` or `raw_json`, and at most 1 MiB."""

    role: RoleName | None = None
    """`user`, `assistant`, `system`, `developer` or `tool`."""
    text: str = ""
    """If given, its first part."""
    parts: Iterable[NewPart] = ()
    author: str = ""
    """The name of who speaks. At most 255 characters, as `turn_id` and `raw_format`."""
    turn_id: str = ""
    """Messages in a row with the same one belong together."""
    raw_json: str = ""
    """The message as another format has it: JSON text, kept as it is."""
    raw_format: str = ""
    """Which format that is, such as `openai.item`."""
    metadata: Mapping[str, JsonValue] | None = None
    """At most 16 KiB as JSON, nesting at most 8."""
    token_count: int | None = None
    """None: estimated as a quarter of the bytes of its texts."""
    occur_time: datetime | None = None
    """When it was said, if not now. Aware."""
    message_id: str = ""
    """1-255 characters of `A-Z a-z 0-9 . _ : @ -`; empty: the service gives one. To append a
    message again with the id and the same values changes nothing."""


_FIELDS = [field.name for field in fields(NewMessage)]

_KINDS: dict[type, str] = {
    ToolCall: "tool_call",
    ToolResult: "tool_result",
    Blob: "blob",
    File: "file",
}
"""What is the whole of a part, with its field of Part."""


def new_messages(
    given: Iterable[NewMessage | Message | Mapping[str, Any]], said: Said
) -> list[conversation_pb2.Message]:
    """What a call appends: the messages given, or the texts given by role."""
    args.only_known(said, Said, "role")
    listed = [
        _message(f"messages[{index}]", each)
        for index, each in enumerate(args.items("messages", given))
    ]
    if listed and said:
        raise ValueError(f"messages and {', '.join(said)}: give one of them, for their order")
    return listed or [
        conversation_pb2.Message(role=args.role(role, role), parts=[_text(role, text)])
        for role, text in said.items()
    ]


def _message(
    place: str, given: NewMessage | Message | Mapping[str, Any]
) -> conversation_pb2.Message:
    """`place` names the argument in errors."""
    if isinstance(given, Mapping):
        given = NewMessage(**args.fields_of(place, given, _FIELDS))
    if isinstance(given, NewMessage):
        return _of_values(f"{place}.", given)
    if not isinstance(given, Message):
        raise TypeError(
            f"{place}: expected a NewMessage, a dict or a Message, not {args.shown(given)}"
        )
    message = conversation_pb2.Message()
    try:
        message.CopyFrom(given.proto)
    except (TypeError, ValueError) as error:  # of one that the caller has made
        raise type(error)(f"{place}: {error}") from error
    if message.token_count_estimated:
        # It was read from the service; with the estimate it would have another body than there.
        message.ClearField("token_count")
    return message


def _of_values(place: str, new: NewMessage) -> conversation_pb2.Message:
    """`place` precedes the names of arguments in errors."""
    text = args.text(f"{place}text", new.text)
    parts = args.items(f"{place}parts", new.parts)
    return conversation_pb2.Message(
        message_id=args.text(f"{place}message_id", new.message_id),
        role=args.role(f"{place}role", new.role),
        author=args.text(f"{place}author", new.author),
        turn_id=args.text(f"{place}turn_id", new.turn_id),
        parts=[
            *([_text(f"{place}text", text)] if text else []),
            *(_part(f"{place}parts[{index}]", each) for index, each in enumerate(parts)),
        ],
        raw_json=args.text(f"{place}raw_json", new.raw_json),
        raw_format=args.text(f"{place}raw_format", new.raw_format),
        metadata=args.struct(f"{place}metadata", new.metadata),
        token_count=args.optional_int32(f"{place}token_count", new.token_count),
        occur_time=args.timestamp(f"{place}occur_time", new.occur_time),
    )


def _text(place: str, text: object) -> conversation_pb2.Part:
    return conversation_pb2.Part(text=args.text(place, text))


def _part(place: str, given: Any) -> conversation_pb2.Part:
    if isinstance(given, str):
        return _text(place, given)
    if type(given) in _KINDS:
        given = {_KINDS[type(given)]: given}
    elif isinstance(given, Part):
        given = _values_of(given)
    elif not isinstance(given, Mapping):
        raise TypeError(
            f"{place}: expected a str, a dict, or a Part or what is in one, not {args.shown(given)}"
        )
    if len(given) != 1:
        names = ", ".join(field.name for field in fields(Part))
        raise ValueError(f"{place}: give exactly one of {names}")
    part = conversation_pb2.Part()
    _fill(place, part, given)
    return part


def _values_of(given: Any) -> dict[str, Any]:
    """The fields of a dataclass that have a value."""
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    return {name: value for name, value in values.items() if value is not None}


def _fill(place: str, message: AnyMessage, given: Mapping[str, Any]) -> None:
    """Set fields of a message from a dict. Parts have texts, bytes, flags and messages of these."""
    descriptors = message.DESCRIPTOR.fields_by_name
    for name, value in args.fields_of(place, given, descriptors).items():
        at, descriptor = f"{place}.{name}", descriptors[name]
        match descriptor.type:
            case FieldDescriptor.TYPE_STRING:
                setattr(message, name, args.text(at, value))
            case FieldDescriptor.TYPE_BYTES:
                setattr(message, name, args.data(at, value))
            case FieldDescriptor.TYPE_BOOL:
                setattr(message, name, args.flag(at, value))
            case _:
                inner = getattr(message, name)
                inner.SetInParent()
                kind = next(kind for kind, field in _KINDS.items() if field == name)
                if not isinstance(value, Mapping):
                    value = _values_of(args.instance(at, value, kind))  # noqa: PLW2901  the same, as a dict
                _fill(at, inner, value)
