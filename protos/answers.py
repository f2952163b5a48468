"""The dataclasses and names of the Python client, as the protos describe them.

Their fields are those of the messages; `memoryd.client.answering` says how values become Python's.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from openapi import ENUM, FIELD, MESSAGE, PACKAGE, VALUE, Comments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
    )

_Kind = FieldDescriptorProto.Type

INNER = {
    "DeleteConversationResponse",
    "DeleteDocumentResponse",
    "DeleteDocumentsResponse",
    "ListMessagesResponse",
    "ListNamespacesResponse",
    "PopMessagesResponse",
    "StreamStoreMemoriesResponse",
}
"""Answers that no method of the client returns. Of pages it gives what is in them."""

WHOLE_PAGES = {"ListMemoriesResponse"}
"""The pages that it returns as well."""

OPTIONAL = {
    ("Conversation", "forked_from"),
    ("Conversation", "summary"),
    ("DocumentEntry", "document"),
}
"""The messages in others, besides alternatives, that may be absent."""

ASKED = {"ContentType", "Role", "ConditionOp"}
"""The enums whose names callers give."""

BASES = {"RetrieveMemoriesResponse": "AsPrompt"}
"""What a dataclass can do besides."""

HEAD = '''"""What the service answers, as frozen dataclasses. Made from protos/ by `make generate`.

Times are aware datetimes, JSON objects are dicts, enums are StrEnums. `proto` gives the message of
`memoryd.v1`; a name that a later release of the service adds reads `unspecified`, and has its
number there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

from memoryd.client.answering import Answer, names_of
from memoryd.client.errors import Violation
from memoryd.client.prompts import AsPrompt
from memoryd.v1 import (
    {modules},
)
'''

_SCALARS = {
    _Kind.TYPE_STRING: ("str", '""'),
    _Kind.TYPE_BYTES: ("bytes", 'b""'),
    _Kind.TYPE_BOOL: ("bool", "False"),
    _Kind.TYPE_DOUBLE: ("float", "0.0"),
}
_WHOLE = ("int", "0")

_WELL_KNOWN = {
    "google.protobuf.Timestamp": "datetime",
    "google.protobuf.Duration": "timedelta",
    "google.rpc.BadRequest.FieldViolation": "Violation",
}
_OBJECT = "google.protobuf.Struct"
_NEW_DICT = "field(default_factory=dict)"
_WIDTH = 100


class Protos:
    """The messages and enums of the package."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self.messages: dict[str, tuple[FileDescriptorProto, int]] = {}
        self.enums: dict[str, tuple[FileDescriptorProto, int]] = {}
        self.outputs: list[str] = []
        for file in files:
            for place, message in enumerate(file.message_type):
                self.messages[message.name] = file, place
            for place, enum in enumerate(file.enum_type):
                self.enums[enum.name] = file, place
            self.outputs += [
                _local(method.output_type) for service in file.service for method in service.method
            ]

    def message(self, name: str) -> DescriptorProto:
        file, place = self.messages[name]
        return file.message_type[place]

    def enum(self, name: str) -> EnumDescriptorProto:
        file, place = self.enums[name]
        return file.enum_type[place]

    def used(self) -> tuple[list[str], list[str]]:
        """The messages and enums of answers, each message after those in it."""
        messages: dict[str, None] = {}
        enums = dict.fromkeys(sorted(ASKED))

        def visit(name: str) -> None:
            if name in messages:
                return
            for field in self.message(name).field:
                other = _local(_value_of(field, self.message(name)).type_name)
                if other in self.messages:
                    visit(other)
                elif other in self.enums:
                    enums[other] = None
            messages[name] = None

        for name in self.outputs:
            if name in INNER:
                continue
            fields = {field.name: field for field in self.message(name).field}
            if "next_page_token" not in fields or name in WHOLE_PAGES:
                visit(name)
            else:
                visit(_local(next(iter(fields.values())).type_name))
        return list(messages), list(enums)


def _local(type_name: str) -> str:
    return type_name.removeprefix(f".{PACKAGE}.")


def _value_of(field: FieldDescriptorProto, message: DescriptorProto) -> FieldDescriptorProto:
    """Of a map the values, else the field itself."""
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return nested.field[1]
    return field


def _module(file: FileDescriptorProto) -> str:
    return file.name.removeprefix("memoryd/v1/").removesuffix(".proto") + "_pb2"


def _docstring(text: str, indent: str) -> Iterator[str]:
    """A comment of the protos; none without a text."""
    if not text:
        return
    lines = textwrap.wrap(text, _WIDTH - len(indent) - 6)
    first = f'{indent}{"r" if chr(92) in text else ""}"""{lines[0]}'
    if len(lines) == 1:
        yield f'{first}"""'
        return
    yield first
    yield from (f"{indent}{line}" for line in lines[1:-1])
    yield f'{indent}{lines[-1]}"""'


def _text(comments: Comments, *path: int) -> str:
    return comments.of(*path).get("description", "")


def _enum(protos: Protos, name: str) -> Iterator[str]:
    file, place = protos.enums[name]
    comments = Comments(file)
    yield f"@names_of({_module(file)}.{name})"
    yield f"class {name}(StrEnum):"
    yield from _docstring(_text(comments, ENUM, place), "    ")
    yield ""
    names = _names(protos.enum(name))
    for number, value in enumerate(names):
        yield f'    {value.upper()} = "{value}"'
        yield from _docstring(_text(comments, ENUM, place, VALUE, number), "    ")
    if name in ASKED:
        yield "\n"
        given = ", ".join(f'"{value}"' for value in names[1:])
        yield f"{name}Name: TypeAlias = {name} | Literal[{given}]"


def _names(enum: EnumDescriptorProto) -> list[str]:
    prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
    return [value.name.removeprefix(prefix).lower() for value in enum.value]


def _message(protos: Protos, name: str) -> Iterator[str]:
    file, place = protos.messages[name]
    comments, message = Comments(file), protos.message(name)
    base = f"Answer[{_module(file)}.{name}]"
    yield "@dataclass(frozen=True, slots=True, kw_only=True)"
    yield f"class {name}({', '.join(filter(None, [BASES.get(name), base]))}):"
    yield from _docstring(_text(comments, MESSAGE, place), "    ")
    yield ""
    yield f"    _message: ClassVar[type[Any]] = {_module(file)}.{name}"
    for number, field in enumerate(message.field):
        kind, default = _annotation(field, message)
        if field.options.debug_redact:
            default = f"field(default={default}, repr=False)"
        yield f"    {field.name}: {kind} = {default}"
        yield from _docstring(_text(comments, MESSAGE, place, FIELD, number), "    ")


def _annotation(field: FieldDescriptorProto, message: DescriptorProto) -> tuple[str, str]:
    """The type of a field, and its default."""
    value = _value_of(field, message)
    kind, default = _type(value)
    if value is not field:
        return f"dict[str, {kind}]", _NEW_DICT
    if field.label == FieldDescriptorProto.Label.LABEL_REPEATED:
        return f"tuple[{kind}, ...]", "()"
    is_alternative = field.HasField("oneof_index")
    is_flag = is_alternative and not field.proto3_optional and field.type == _Kind.TYPE_BOOL
    may_be_none = (
        (is_alternative and not is_flag)
        or kind in _WELL_KNOWN.values()
        or (message.name, field.name) in OPTIONAL
    )
    return (f"{kind} | None", "None") if may_be_none else (kind, default)


def _type(field: FieldDescriptorProto) -> tuple[str, str]:
    name = field.type_name.removeprefix(".")
    if name == _OBJECT:
        return "dict[str, Any]", _NEW_DICT
    if known := _WELL_KNOWN.get(name):
        return known, "None"
    if field.type == _Kind.TYPE_MESSAGE:
        kind = _local(field.type_name)
        return kind, f"field(default_factory={kind})"
    if field.type == _Kind.TYPE_ENUM:
        enum = _local(field.type_name)
        return enum, f"{enum}.UNSPECIFIED"
    return _SCALARS.get(field.type, _WHOLE)


def _tools(protos: Protos) -> str:
    """The names of the tools are those of the fields that have their settings."""
    settings = [field.name for field in protos.message("ToolConfig").field if _is_tool(field)]
    return "ToolName: TypeAlias = Literal[" + ", ".join(f'"{name}"' for name in settings) + "]"


def _is_tool(field: FieldDescriptorProto) -> bool:
    return field.HasField("oneof_index") and not field.proto3_optional


def module(image: bytes) -> str:
    """The Python module, of a FileDescriptorSet with comments."""
    every: Mapping[str, FileDescriptorProto] = {
        file.name: file
        for file in FileDescriptorSet.FromString(image).file
        if file.package == PACKAGE
    }
    protos = Protos(every.values())
    messages, enums = protos.used()
    files = [protos.messages[name][0] for name in messages]
    files += [protos.enums[name][0] for name in enums]
    modules = sorted({_module(file) for file in files})
    parts = [
        HEAD.replace("{modules}", ",\n    ".join(modules)).rstrip(),
        _tools(protos),
        *("\n".join(_enum(protos, name)) for name in enums),
        *("\n".join(_message(protos, name)) for name in messages),
    ]
    return "\n\n\n".join(parts) + "\n"
