"""A call as one makes it oneself: by grpcurl, curl and Python. Without the key."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from google.protobuf.message import Message

KEY = "$MEMORYD_API_KEY"
"""The variable that Python's client reads too."""


class Place(NamedTuple):
    """Where a server is called, and how."""

    host: str
    """As it stands in an address: an address of IPv6 in brackets."""
    grpc_port: int
    http: str
    """The origin, such as `http://localhost:50052`."""
    asks_for_key: bool

    @property
    def has_tls(self) -> bool:
        return self.http.startswith("https:")


class Copied(NamedTuple):
    """One way to make a call."""

    name: str
    text: str


def as_grpcurl(place: Place, method: str, request: Message) -> Copied:
    """`method`: `memoryd.v1.MemoryService/RetrieveMemories`."""
    words = ["grpcurl", *(("-cacert", "CA.pem") if place.has_tls else ("-plaintext",))]
    target = f"{place.host}:{place.grpc_port}"
    line = " ".join([*words, *_key(place), "-d", _quoted(request), target, method])
    return Copied("grpcurl", line)


def as_curl(place: Place, method: str, request: Message) -> Copied:
    words = ["curl", *(("--cacert", "CA.pem") if place.has_tls else ())]
    header = '-H "content-type: application/json"'
    line = " ".join(
        [*words, *_key(place), header, "-d", _quoted(request), f"{place.http}/{method}"]
    )
    return Copied("curl", line)


def as_python(place: Place, positional: Sequence[str], named: Mapping[str, Any]) -> Copied:
    """A program that retrieves memories; the client reads the key from its variable by itself."""
    imports = ["from memoryd.client.sync import MemoryClient"]
    target = _literal(f"{place.host}:{place.grpc_port}")
    if place.has_tls:
        imports.insert(0, "from memoryd.client import TLS")
        target += ', tls=TLS(ca="CA.pem")'
    arguments = [
        *map(_literal, positional),
        *(f"{name}={_literal(value)}" for name, value in named.items()),
    ]
    lines = [
        *imports,
        "",
        f"with MemoryClient({target}) as memories:",
        "    found = memories.retrieve(",
        *(f"        {argument}," for argument in arguments),
        "    )",
        "    for result in found.results:",
        '        print(f"{result.score:.3f}  {result.memory.content}")',
    ]
    return Copied("Python", "\n".join(lines))


def _literal(value: Any) -> str:
    """In Python; of texts and lists of texts, JSON is that too."""
    is_text = isinstance(value, str | list)
    return json.dumps(value, ensure_ascii=False) if is_text else repr(value)


def _key(place: Place) -> list[str]:
    return ["-H", f'"authorization: Bearer {KEY}"'] if place.asks_for_key else []


def _quoted(request: Message) -> str:
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return shlex.quote(json.dumps(fields, ensure_ascii=False))
