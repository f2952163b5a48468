"""Write the pages of the API from the protos' descriptors, comments included.

    python docs/reference.py IMAGE FOLDER

IMAGE is what `python protos/generate.py image` writes. FOLDER gets a page for each file of
`memoryd.v1` that callers see.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

# Imported so that the descriptors' option of that name is understood.
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGES = {
    "memoryd/v1/memory.proto": "Memory API",
    "memoryd/v1/session.proto": "Session API",
    "memoryd/v1/document.proto": "Document API",
    "memoryd/v1/conversation.proto": "Conversation API",
    "memoryd/v1/tool_config.proto": "Tool configuration API",
    "memoryd/v1/condition.proto": "Conditions",
    "memoryd/v1/error_reason.proto": "Reasons of errors",
}
"""The files that callers see, with the titles of their pages."""

PACKAGE = ".memoryd.v1."
SHOWN_BEHAVIOURS = {
    FieldBehavior.REQUIRED,
    FieldBehavior.IMMUTABLE,
    FieldBehavior.OUTPUT_ONLY,
    FieldBehavior.INPUT_ONLY,
}
REPEATED = FieldDescriptorProto.LABEL_REPEATED

# The numbers that descriptor.proto gives to the fields of a descriptor.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _ONEOFS, _VALUES, _METHODS = 2, 8, 2, 2

Location = tuple[int, ...]


class Page:
    """A file of the protos as a page."""

    def __init__(self, file: FileDescriptorProto, title: str, places: dict[str, str]) -> None:
        """`places`: the page on which a message or enum of the package is described."""
        self._file = file
        self._title = title
        self._places = places
        self._comments = {
            tuple(location.path): location.leading_comments
            for location in file.source_code_info.location
        }

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# {self._title}"
        yield ""
        yield f"From [{self._file.name}](../../protos/{self._file.name})."
        for index, service in enumerate(self._file.service):
            yield from self._section(2, service.name, (_SERVICES, index))
            for number, method in enumerate(service.method):
                yield from self._method(method, (_SERVICES, index, _METHODS, number))
        for index, message in enumerate(self._file.message_type):
            yield from self._message(message, (_MESSAGES, index))
        for index, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (_ENUMS, index))

    def _section(self, level: int, title: str, at: Location) -> Iterator[str]:
        yield from ("", f"{'#' * level} {title}", "", self._comment(at))

    def _comment(self, at: Location) -> str:
        """Return the comment of what stands there; its paragraphs stay apart."""
        lines = self._comments.get(at, "").splitlines()
        return "\n".join(line.removeprefix(" ") for line in lines).strip()

    def _method(self, method: MethodDescriptorProto, at: Location) -> Iterator[str]:
        yield from self._section(3, method.name, at)
        stream = "a stream of " if method.server_streaming else ""
        yield ""
        yield (
            f"Request: {self._linked(method.input_type)}. "
            f"Answer: {stream}{self._linked(method.output_type)}."
        )

    def _message(self, message: DescriptorProto, at: Location) -> Iterator[str]:
        yield from self._section(2, message.name, at)
        if not message.field:
            return
        entries = {
            PACKAGE + f"{message.name}.{entry.name}": entry
            for entry in message.nested_type
            if entry.options.map_entry
        }
        yield from ("", "| field | type | meaning |", "|---|---|---|")
        for index, field in enumerate(message.field):
            entry = entries.get(field.type_name)
            kind = self._map(entry) if entry is not None else self._type(field)
            meaning = self._cell((*at, _FIELDS, index))
            if field.HasField("oneof_index") and not field.proto3_optional:
                choice = message.oneof_decl[field.oneof_index].name
                meaning = f"One of `{choice}`. {meaning}"
            yield f"| `{field.name}` | {kind} | {self._behaviours(field)}{meaning} |"
        for index, oneof in enumerate(message.oneof_decl):
            if comment := self._cell((*at, _ONEOFS, index)):
                yield from ("", f"`{oneof.name}`: {comment}")

    def _enum(self, enum: EnumDescriptorProto, at: Location) -> Iterator[str]:
        yield from self._section(2, enum.name, at)
        yield from ("", "| value | number | meaning |", "|---|---|---|")
        for index, value in enumerate(enum.value):
            yield f"| `{value.name}` | {value.number} | {self._cell((*at, _VALUES, index))} |"

    def _cell(self, at: Location) -> str:
        return " ".join(self._comment(at).split()).replace("|", "\\|")

    def _behaviours(self, field: FieldDescriptorProto) -> str:
        shown = [b for b in field.options.Extensions[field_behavior] if b in SHOWN_BEHAVIOURS]
        names = ", ".join(FieldBehavior.Name(b).lower().replace("_", " ") for b in shown)
        return f"*{names}.* " if names else ""

    def _map(self, entry: DescriptorProto) -> str:
        key, value = entry.field
        return f"map from {self._type(key)} to {self._type(value)}"

    def _type(self, field: FieldDescriptorProto) -> str:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        kind = self._linked(field.type_name) if field.type_name else name
        return f"list of {kind}" if field.label == REPEATED else kind

    def _linked(self, type_name: str) -> str:
        """Name a type; one of the package leads to where it is described."""
        name = type_name.removeprefix(PACKAGE)
        if name in self._places:
            return f"[{name}]({self._places[name]}#{name.lower()})"
        return f"`{type_name.removeprefix('.')}`"


def write(files: Sequence[FileDescriptorProto], folder: Path) -> None:
    named = {file.name: file for file in files}
    places = {
        described.name: f"{Path(name).stem}.md"
        for name in PAGES
        for described in (*named[name].message_type, *named[name].enum_type)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, title in PAGES.items():
        page = Page(named[name], title, places)
        (folder / f"{Path(name).stem}.md").write_text(page.text())


def main(image: str, folder: str) -> None:
    write(FileDescriptorSet.FromString(Path(image).read_bytes()).file, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
