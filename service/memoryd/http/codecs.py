"""How a message is written: as protobuf's bytes, or as JSON."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from memoryd.domain.errors import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import MethodDescriptor

PROTO, JSON = "proto", "json"


class Codec(NamedTuple):
    name: str
    decode: Callable[[bytes], bytes]
    """Gives the bytes of a request in protobuf. Raises MalformedMessage."""
    encode: Callable[[bytes], bytes]
    """Makes an answer of its bytes in protobuf."""


@cache
def codec_of(name: str, method: MethodDescriptor) -> Codec | None:
    """Give the codec of that name for a method's messages; None: there is none."""
    if name == PROTO:
        return Codec(PROTO, bytes, bytes)
    if name != JSON:
        return None
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    def decode(data: bytes) -> bytes:
        if not data.lstrip().startswith(b"{"):
            raise _malformed(method, "it is no object")
        try:
            message = json_format.Parse(data, request())
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise _malformed(method, _said(error)) from None
        return message.SerializeToString()

    def encode(data: bytes) -> bytes:
        return json_format.MessageToJson(response.FromString(data), indent=None).encode()

    return Codec(JSON, decode, encode)


def _malformed(method: MethodDescriptor, why: str) -> MalformedMessage:
    name = method.input_type.full_name
    return MalformedMessage(name, f"the JSON received is no {name}: {why}")


def _said(error: Exception) -> str:
    """What a parser says, without its list of everything that would be right."""
    if isinstance(error, json_format.ParseError):
        return str(error).partition("\n")[0].rstrip(". ")
    return "it is not UTF-8"
