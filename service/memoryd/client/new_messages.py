"""Messages that callers append to a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from google.protobuf.descriptor import FieldDescriptor

from memoryd.client import arguments as args
from memoryd.v1.conversation_pb2 import Blob, File, Message, Part, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.message import Message as AnyMessage

    from memoryd.client.messages import JsonValue
    from memoryd.v1.conversation_pb2 import Role

NewPart: TypeAlias = "str | Part | ToolCall | ToolResult | Blob | File | Mapping[str, Any]"
"""A part of a message: a text, a message of `memoryd.v1`, or the fields of a Part as a dict, such
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

    role: Role.ValueType | str | None = None
    """`user`, `assistant`, `system`, `developer` or `tool`, or the enum's value."""
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

_KINDS: dict[type[AnyMessage], str] = {
    ToolCall: "tool_call",
    ToolResult: "tool_result",
    Blob: "blob",
    File: "file",
}
"""Messages that are the whole of a part, with their fields of Part."""


def new_messages(
    given: Iterable[NewMessage | Message | Mapping[str, Any]], said: Said
) -> list[Message]:
    """What a call appends: the messages given, or the texts given by role."""
    args.only_known(said, Said, "role")
    listed = [
        _message(f"messages[{index}]", each)
        for index, each in enumerate(args.items("messages", given))
    ]
    if listed and said:
        raise ValueError(f"messages and {', '.join(said)}: give one of them, for their order")
    return listed or [
        Message(role=args.role(role, role), parts=[Part(text=args.text(role, text))])
        for role, text in said.items()
    ]


def _message(place: str, given: NewMessage | Message | Mapping[str, Any]) -> Message:
    """`place` names the argument in errors."""
    if isinstance(given, Mapping):
        given = NewMessage(**args.fields_of(place, given, _FIELDS))
    if isinstance(given, NewMessage):
        return _of_values(f"{place}.", given)
    if not isinstance(given, Message):
        raise TypeError(
            f"{place}: expected a NewMessage, a dict or a Message, not {args.shown(given)}"
        )
    message = Message()
    message.CopyFrom(given)
    if message.token_count_estimated:
        # It was read from the service; with the estimate it would have another body than there.
        message.ClearField("token_count")
    return message


def _of_values(place: str, new: NewMessage) -> Message:
    """`place` precedes the names of arguments in errors."""
    text = args.text(f"{place}text", new.text)
    parts = args.items(f"{place}parts", new.parts)
    return Message(
        message_id=args.text(f"{place}message_id", new.message_id),
        role=args.role(f"{place}role", new.role),
        author=args.text(f"{place}author", new.author),
        turn_id=args.text(f"{place}turn_id", new.turn_id),
        parts=[
            *([Part(text=text)] if text else []),
            *(_part(f"{place}parts[{index}]", each) for index, each in enumerate(parts)),
        ],
        raw_json=args.text(f"{place}raw_json", new.raw_json),
        raw_format=args.text(f"{place}raw_format", new.raw_format),
        metadata=args.struct(f"{place}metadata", new.metadata),
        token_count=args.optional_int32(f"{place}token_count", new.token_count),
        occur_time=args.timestamp(f"{place}occur_time", new.occur_time),
    )


def _part(place: str, given: Any) -> Part:
    match given:
        case str():
            return Part(text=args.text(place, given))
        case Part():
            return given
        case Mapping():
            if len(given) != 1:
                raise ValueError(f"{place}: give exactly one of {', '.join(_names_of(Part))}")
            part = Part()
            _fill(place, part, given)
            return part
    part = Part()
    kind = _KINDS.get(type(given))
    if kind is None:
        raise TypeError(
            f"{place}: expected a str, a dict, or a Part or what is in one, not {args.shown(given)}"
        )
    getattr(part, kind).CopyFrom(given)
    return part


def _names_of(kind: type[AnyMessage]) -> list[str]:
    return list(kind.DESCRIPTOR.fields_by_name)


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
                if isinstance(value, Mapping):
                    _fill(at, inner, value)
                else:
                    inner.CopyFrom(args.instance(at, value, type(inner)))
