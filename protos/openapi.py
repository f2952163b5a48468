"""The service over HTTP, as OpenAPI 3.1 describes it: https://spec.openapis.org/oas/v3.1.1.html.

Each unary call is a POST of its request as JSON, by the mapping of
https://protobuf.dev/programming-guides/json/. OpenAPI has no words for streams of messages, so they
are left out; the protos have them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FileDescriptorProto,
        ServiceDescriptorProto,
    )

_Kind = FieldDescriptorProto.Type
PACKAGE = "memoryd.v1"
SERVED = (PACKAGE, "flagd.evaluation.v1", "flagd.evaluation.v2")
"""The packages of what is served."""

_INTEGERS_OF_64_BITS = {
    _Kind.TYPE_INT64,
    _Kind.TYPE_UINT64,
    _Kind.TYPE_SINT64,
    _Kind.TYPE_FIXED64,
    _Kind.TYPE_SFIXED64,
}
_SCALARS: Mapping[int, dict[str, Any]] = {
    _Kind.TYPE_STRING: {"type": "string"},
    _Kind.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _Kind.TYPE_BOOL: {"type": "boolean"},
    _Kind.TYPE_DOUBLE: {"type": "number"},
    _Kind.TYPE_FLOAT: {"type": "number"},
    **{kind: {"type": "string", "format": "int64"} for kind in _INTEGERS_OF_64_BITS},
}
_INTEGER = {"type": "integer", "format": "int32"}

_WELL_KNOWN: Mapping[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.rpc.Status": {"type": "object"},
}

_ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "description": "The code of gRPC, in lower case."},
        "message": {"type": "string", "description": "What is wrong, and the remedy."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "Such as google.rpc.ErrorInfo."},
                    "value": {"type": "string", "contentEncoding": "base64"},
                    "debug": {"type": "object", "description": "The detail as JSON."},
                },
            },
        },
    },
}

_SCHEMAS = "#/components/schemas/"
_REFERENCE = re.compile(rf'"{_SCHEMAS}([^"]+)"')

MESSAGE, ENUM, _SERVICE = 4, 5, 6
FIELD, _NESTED, VALUE, _METHOD = 2, 3, 2, 2
"""Numbers of fields of descriptors, by which the places of comments are named."""


class Comments:
    """What is said of a file's parts."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._texts = {
            tuple(place.path): place.leading_comments for place in file.source_code_info.location
        }

    def of(self, *path: int) -> dict[str, str]:
        """The description of a part, if it has one."""
        text = re.sub(r"\s*\n\s*", " ", self._texts.get(path, "")).strip()
        return {"description": text} if text else {}


def schemas(file: FileDescriptorProto) -> Iterator[tuple[str, dict[str, Any]]]:
    comments = Comments(file)
    for place, message in enumerate(file.message_type):
        yield from _of_message(message, file.package, comments, (MESSAGE, place))
    for place, enum in enumerate(file.enum_type):
        yield (
            f"{file.package}.{enum.name}",
            {
                "type": "string",
                "enum": [value.name for value in enum.value],
                **comments.of(ENUM, place),
            },
        )


def _of_message(
    message: DescriptorProto, scope: str, comments: Comments, path: tuple[int, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    name = f"{scope}.{message.name}"
    entries = {f".{name}.{one.name}": one for one in message.nested_type if one.options.map_entry}
    properties, required = {}, []
    for place, field in enumerate(message.field):
        properties[field.json_name] = {
            **_of_field(field, entries),
            **comments.of(*path, FIELD, place),
        }
        behaviours = field.options.Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.REQUIRED in behaviours:
            required.append(field.json_name)
        if field_behavior_pb2.OUTPUT_ONLY in behaviours:
            properties[field.json_name]["readOnly"] = True
    found: dict[str, Any] = {"type": "object", "properties": properties, **comments.of(*path)}
    if required:
        found["required"] = required
    yield name, found
    for place, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _of_message(nested, name, comments, (*path, _NESTED, place))


def _of_field(
    field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto]
) -> dict[str, Any]:
    entry = entries.get(field.type_name)
    if entry is not None:
        _, value = entry.field
        return {"type": "object", "additionalProperties": _of_field(value, {})}
    found = _of_type(field)
    if field.label == FieldDescriptorProto.Label.LABEL_REPEATED:
        return {"type": "array", "items": found}
    return found


def _of_type(field: FieldDescriptorProto) -> dict[str, Any]:
    name = field.type_name.removeprefix(".")
    if name in _WELL_KNOWN:
        return dict(_WELL_KNOWN[name])
    return {"$ref": f"{_SCHEMAS}{name}"} if name else dict(_SCALARS.get(field.type, _INTEGER))


def paths(file: FileDescriptorProto) -> Iterator[tuple[str, dict[str, Any]]]:
    comments = Comments(file)
    for place, service in enumerate(file.service):
        for number, method in enumerate(service.method):
            if method.client_streaming or method.server_streaming:
                continue
            called = {
                "operationId": f"{_title(file, service)}_{method.name}",
                "tags": [_title(file, service)],
                "requestBody": {"required": True, "content": _content(method.input_type)},
                "responses": {
                    "200": {"description": "The answer.", "content": _content(method.output_type)},
                    "default": {"description": "A refusal.", "content": _content(".Error")},
                },
                **comments.of(_SERVICE, place, _METHOD, number),
            }
            yield f"/{file.package}.{service.name}/{method.name}", {"post": called}


def _title(file: FileDescriptorProto, service: ServiceDescriptorProto) -> str:
    """Name a service as nothing else here is; our own, which are most, shortly."""
    return service.name if file.package == PACKAGE else f"{file.package}.{service.name}"


def _content(name: str) -> dict[str, Any]:
    schema = {"$ref": f"{_SCHEMAS}{name.removeprefix('.')}"}
    return {"application/json": {"schema": schema}}


def used(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of what is served, and of the messages of others that these refer to."""
    found = {name: schema for file in files for name, schema in schemas(file)}
    served = tuple(f"{package}." for package in SERVED)
    wanted = [name for name in found if name.startswith(served)]
    seen = set(wanted)
    for name in wanted:  # which grows
        yield name, found[name]
        for other in _REFERENCE.findall(json.dumps(found[name])):
            if other not in seen:
                seen.add(other)
                wanted.append(other)


def description(image: bytes) -> dict[str, Any]:
    """Describe what a FileDescriptorSet with comments has."""
    every = FileDescriptorSet.FromString(image).file
    files = [file for file in every if file.package in SERVED]
    tags = [
        {"name": _title(file, service), **Comments(file).of(_SERVICE, place)}
        for file in files
        for place, service in enumerate(file.service)
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "memoryd",
            "version": "v1",
            "summary": "Memory and tool configuration of conversational agents.",
        },
        "tags": tags,
        "paths": {path: item for file in files for path, item in paths(file)},
        "components": {
            "schemas": {
                "Error": _ERROR,
                **dict(used(every)),
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
