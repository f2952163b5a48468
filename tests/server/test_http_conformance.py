"""The published conformance cases of Connect and of gRPC-Web, as far as our server has them.

The cases are those of https://github.com/connectrpc/conformance, in meaning: its runner calls
methods of its own that answer as their request says. Here they are cases of our methods, family by
family, each over both protocols where both have it. These do not apply:

- client streams (no method has one), full duplex (a browser's HTTP cannot, and ours is HTTP/1.1;
  the half-duplex cases of bidirectional streams are those of StreamStoreMemories), HTTP/2 and 3;
- compression by br, zstd, deflate and snappy: a server need not have them;
- several values of one response header or trailer: no method of ours answers any;
- every code as a method's own wish: codes that our methods do answer are here.

In three cases the code differs on purpose: what reaches the service is INVALID_ARGUMENT with its
reason, whichever way it comes. See `AS_OVER_GRPC`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from google.rpc import status_pb2
from tests.http_client import ask, exchange, framed

from memoryd.http.wires import HTTP_STATUS, Failure
from memoryd.v1 import memory_pb2 as pb

SERVICE = "/memoryd.v1.MemoryService"
STORE, LIST, GET = f"{SERVICE}/StoreMemory", f"{SERVICE}/ListMemories", f"{SERVICE}/GetMemory"
EXPORT, WATCH = f"{SERVICE}/ExportMemories", f"{SERVICE}/WatchMemories"
STREAM = f"{SERVICE}/StreamStoreMemories"
STORED = pb.StoreMemoryRequest(session_id="s", content="prefers e-mail").SerializeToString()
LISTED = pb.ListMemoriesRequest(session_id="s").SerializeToString()
EXPORTED = pb.ExportMemoriesRequest(session_id="s").SerializeToString()

MOST_BYTES = 4 * 2**20
"""Of a message."""

UNARY, CONNECT, GRPC_WEB, GRPC_WEB_TEXT = "unary", "connect", "grpc-web", "grpc-web-text"
CONTENT_TYPES = {
    UNARY: "application/proto",
    CONNECT: "application/connect+proto",
    GRPC_WEB: "application/grpc-web+proto",
    GRPC_WEB_TEXT: "application/grpc-web-text+proto",
}
COMPRESSION = {
    UNARY: ("content-encoding", "accept-encoding"),
    CONNECT: ("connect-content-encoding", "connect-accept-encoding"),
    GRPC_WEB: ("grpc-encoding", "grpc-accept-encoding"),
    GRPC_WEB_TEXT: ("grpc-encoding", "grpc-accept-encoding"),
}
CODES = {0: "ok"} | {code.value[0]: Failure(code, "").name for code in HTTP_STATUS}
AS_OVER_GRPC = "invalid_argument"
"""What the cases have as `unimplemented` (none or several messages) or `internal` (a message that
is compressed though nothing is said of it)."""


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what differs is the wire."""
    return "sqlite"


@pytest.fixture
def http(running) -> str:
    return running.server.http_address


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    code: str
    """Connect's name of the code; `ok` where it is none."""
    message: str = ""
    reason: str = ""
    messages: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)


async def called(
    http: str, form: str, path: str, body: bytes | list[bytes], **headers: str
) -> Answer:
    """Call in a form; `body` as a list: messages, each in a frame where the form has frames."""
    if isinstance(body, list):
        body = b"".join(body if form == UNARY else map(framed, body))
    if form == GRPC_WEB_TEXT:
        body = base64.b64encode(body)
    given = {"content-type": CONTENT_TYPES[form]}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    found = await ask(http, path, body, headers=given)
    if form == UNARY:
        return unary_answer(found)
    data = found.body
    if form == GRPC_WEB_TEXT:
        data = b"".join(map(base64.b64decode, re.findall(rb"[^=]+=*", data)))
    return streamed_answer(form, found, list(frames_of(data)))


def unary_answer(found) -> Answer:
    unpacked = gzip.decompress if "content-encoding" in found.headers else bytes
    body = unpacked(found.body)
    if found.status == 200:
        return Answer(200, found.headers, "ok", messages=[body])
    error = json.loads(body)
    return Answer(found.status, found.headers, error["code"], error["message"], reason_of(error))


def reason_of(error) -> str:
    details = {one["type"]: one["debug"] for one in error.get("details", ())}
    return str(details.get("google.rpc.ErrorInfo", {}).get("reason", ""))


def frames_of(data: bytes):
    while data:
        flags, length = data[0], int.from_bytes(data[1:5], "big")
        content = data[5 : 5 + length]
        yield flags & ~1, gzip.decompress(content) if flags & 1 else content
        data = data[5 + length :]


def streamed_answer(form: str, found, frames: list[tuple[int, bytes]]) -> Answer:
    *messages, (flags, end) = frames
    assert not any(flag for flag, _ in messages)
    answer = Answer(found.status, found.headers, "ok", messages=[data for _, data in messages])
    if form == CONNECT:
        assert flags == 2
        said = json.loads(end)
        error = said.get("error", {"code": "ok", "message": ""})
        answer.code, answer.message, answer.reason = (
            error["code"],
            error["message"],
            reason_of(error),
        )
        answer.trailers = {name: one for name, (one,) in said["metadata"].items()}
        return answer
    assert flags == 0x80
    answer.trailers = dict(line.split(": ", 1) for line in end.decode().splitlines())
    answer.code = CODES[int(answer.trailers["grpc-status"])]
    answer.message = answer.trailers.get("grpc-message", "")
    if packed := answer.trailers.get("grpc-status-details-bin"):
        status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
        assert CODES[status.code] == answer.code
    return answer


BOTH = pytest.mark.parametrize("form", [UNARY, GRPC_WEB, GRPC_WEB_TEXT])
STREAMS = pytest.mark.parametrize("form", [CONNECT, GRPC_WEB, GRPC_WEB_TEXT])


# Basic, and Connect with GET


@BOTH
async def test_unary_success(http, form):
    answer = await called(http, form, STORE, [STORED], x_request_id="mine")
    assert (answer.status, answer.code) == (200, "ok")
    assert answer.headers["content-type"] == CONTENT_TYPES[form]
    (message,) = answer.messages
    assert pb.StoreMemoryResponse.FromString(message).memory.content == "prefers e-mail"
    # Headers reach the method, and its trailers the caller.
    shown = answer.headers if form == UNARY else answer.trailers
    assert shown["trailer-x-request-id" if form == UNARY else "x-request-id"] == "mine"


@STREAMS
@pytest.mark.parametrize("count", [0, 2])
async def test_server_stream_success_and_no_responses(http, memory, form, count):
    for number in range(count):
        await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content=f"fact {number}"))
    answer = await called(http, form, EXPORT, [EXPORTED], x_request_id="mine")
    assert (answer.status, answer.code, len(answer.messages)) == (200, "ok", count)
    assert answer.trailers["x-request-id"] == "mine"


@STREAMS
@pytest.mark.parametrize("count", [0, 1, 3])
async def test_half_duplex_stream_success_and_no_requests(http, form, count):
    one = pb.StreamStoreMemoriesRequest(
        requests=[pb.StoreMemoryRequest(session_id="s", content="prefers e-mail")]
    )
    answer = await called(http, form, STREAM, [one.SerializeToString()] * count)
    assert (answer.status, answer.code, len(answer.messages)) == (200, "ok", count)


@BOTH
async def test_an_unimplemented_method(http, form):
    answer = await called(http, form, f"{SERVICE}/Unimplemented", [b""])
    assert answer.code == "unimplemented"
    assert answer.status == (404 if form == UNARY else 200)


@pytest.mark.parametrize("encoding", ["proto", "json"])
async def test_a_method_without_side_effects_by_get(http, memory, encoding):
    await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content="fact"))
    packed = base64.urlsafe_b64encode(LISTED).decode().rstrip("=")
    message = f"base64=1&message={packed}"
    if encoding == "json":
        message = "message=" + quote('{"sessionId": "s"}')
    target = f"{LIST}?connect=v1&encoding={encoding}&{message}"
    answer = unary_answer(await ask(http, target, method="GET", headers={"x-request-id": "mine"}))
    assert (answer.status, answer.headers["trailer-x-request-id"]) == (200, "mine")
    assert b"fact" in answer.messages[0]


# Errors


@BOTH
@pytest.mark.parametrize(
    ("path", "message", "refused"),
    [
        (STORE, b"", ("invalid_argument", 400)),
        (GET, b"\x0a\x01s\x1a\x01k", ("not_found", 404)),
        (LIST, b"\x0a", ("invalid_argument", 400)),
    ],
)
async def test_unary_errors(http, form, path, message, refused):
    answer = await called(http, form, path, [message], x_request_id="mine")
    code, status = refused
    assert (answer.code, answer.status) == (code, status if form == UNARY else 200)
    assert answer.message
    assert not answer.messages
    # Metadata comes with an error too.
    assert (answer.headers if form == UNARY else answer.trailers)["x-request-id"] == "mine"


@STREAMS
async def test_server_stream_errors_have_the_status_of_success(http, form):
    answer = await called(http, form, EXPORT, [b""], x_request_id="mine")
    assert (answer.status, answer.code, answer.messages) == (200, "invalid_argument", [])
    assert answer.trailers["x-request-id"] == "mine"


@STREAMS
async def test_a_stream_may_fail_after_responses(http, memory, form):
    """A watch that its deadline ends has answered before."""
    await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content="fact"))
    watched = pb.WatchMemoriesRequest(session_id="s").SerializeToString()
    name = "connect_timeout_ms" if form == CONNECT else "grpc_timeout"
    value = "500" if form == CONNECT else "500m"
    answer = await called(http, form, WATCH, [watched], **{name: value})
    assert (answer.status, answer.code, len(answer.messages)) == (200, "deadline_exceeded", 1)


@pytest.mark.parametrize("form", [UNARY, GRPC_WEB])
async def test_an_error_with_unicode_in_its_message(http, form):
    text = "☺ 😈".encode()
    body = b'{"' + text + b'": 1}'
    if form == UNARY:
        given = {"content_type": "application/json"}
        answer = await called(http, form, STORE, body, **given)
        assert "☺ 😈" in answer.message
    else:
        # Percent-encoded, all of it ASCII.
        update = pb.GetMemoryRequest(session_id="s", key="☺ 😈").SerializeToString()
        answer = await called(http, form, GET, [update])
        assert answer.code in {"invalid_argument", "not_found"}
        assert answer.message.isascii()


# Timeouts and deadlines


@STREAMS
async def test_timeouts(http, form):
    watched = pb.WatchMemoriesRequest(session_id="s").SerializeToString()
    name = "connect_timeout_ms" if form == CONNECT else "grpc_timeout"
    value = "200" if form == CONNECT else "200m"
    answer = await called(http, form, WATCH, [watched], **{name: value})
    assert (answer.status, answer.code) == (200, "deadline_exceeded")


@BOTH
async def test_a_deadline_that_does_not_pass(http, form):
    name = "connect_timeout_ms" if form == UNARY else "grpc_timeout"
    value = "60000" if form == UNARY else "60S"
    answer = await called(http, form, STORE, [STORED], **{name: value})
    assert answer.code == "ok"


@pytest.mark.parametrize("form", [UNARY, CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
async def test_a_timeout_that_is_none_is_refused_in_the_form_of_the_call(http, form):
    name = "connect_timeout_ms" if form in {UNARY, CONNECT} else "grpc_timeout"
    path, message = (EXPORT, EXPORTED) if form == CONNECT else (STORE, STORED)
    answer = await called(http, form, path, [message], **{name: "soon"})
    assert (answer.code, answer.status) == ("invalid_argument", 400 if form == UNARY else 200)


# Empty messages, and messages of all sizes


@pytest.mark.parametrize("form", [UNARY, GRPC_WEB, GRPC_WEB_TEXT])
async def test_an_empty_message_is_a_message(http, form):
    path = "/memoryd.v1.ToolConfigService/ListTools"
    answer = await called(http, form, path, [b""])
    assert (answer.code, len(answer.messages)) == ("ok", 1)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("form", [UNARY, CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
async def test_a_message_of_the_most_bytes_is_read_and_a_longer_one_is_not(http, form, over):
    # A field that nobody knows: the message is read, and refused for what it lacks.
    filler = MOST_BYTES + over - 6
    length = bytes(
        (filler >> shift) & 0x7F | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21)
    )
    message = b"\xfa\x3f" + length + bytes(filler)
    assert len(message) == MOST_BYTES + over
    path = EXPORT if form == CONNECT else STORE
    for packed in (False, True):
        data = gzip.compress(message, 1) if packed else message
        body = data if form == UNARY else framed(data, int(packed))
        given = {COMPRESSION[form][0].replace("-", "_"): "gzip"} if packed else {}
        answer = await called(http, form, path, body, **given)
        assert answer.code == ("resource_exhausted" if over else "invalid_argument")


# Compression


@pytest.mark.parametrize("form", [UNARY, CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
@pytest.mark.parametrize("compresses", [False, True])
async def test_requests_and_answers_may_be_compressed(http, memory, form, compresses):
    content = "word " * 1_000
    await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content=content))
    path, message = (EXPORT, EXPORTED) if form == CONNECT else (LIST, LISTED)
    body = message if form == UNARY else framed(message)
    given = {}
    if compresses:
        sent, takes = (name.replace("-", "_") for name in COMPRESSION[form])
        given = {sent: "gzip", takes: "gzip"}
        data = gzip.compress(message)
        body = data if form == UNARY else framed(data, 1)
    answer = await called(http, form, path, body, **given)
    assert answer.code == "ok"
    assert content.strip().encode() in answer.messages[0]
    wanted = "gzip" if compresses else None if form == UNARY else "identity"
    assert answer.headers.get(COMPRESSION[form][0]) == wanted


@pytest.mark.parametrize("form", [UNARY, CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
async def test_an_unexpected_compression(http, form):
    path, message = (EXPORT, EXPORTED) if form == CONNECT else (STORE, STORED)
    given = {COMPRESSION[form][0].replace("-", "_"): "foo"}
    answer = await called(http, form, path, [message], **given)
    assert (answer.code, answer.status) == ("unimplemented", 501 if form == UNARY else 200)


@pytest.mark.parametrize("form", [CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
async def test_an_unexpected_compressed_message(http, form):
    path, message = (EXPORT, EXPORTED) if form == CONNECT else (STORE, STORED)
    given = {COMPRESSION[form][0].replace("-", "_"): "identity"}
    answer = await called(http, form, path, framed(message, 1), **given)
    assert answer.code == AS_OVER_GRPC


# Unexpected requests


@pytest.mark.parametrize("form", [CONNECT, GRPC_WEB, GRPC_WEB_TEXT])
@pytest.mark.parametrize("count", [0, 2])
async def test_a_server_stream_with_no_request_or_several(http, form, count):
    answer = await called(http, form, EXPORT, [EXPORTED] * count)
    assert (answer.code, answer.messages) == (AS_OVER_GRPC, [])


@pytest.mark.parametrize("form", [GRPC_WEB, GRPC_WEB_TEXT])
@pytest.mark.parametrize("count", [0, 2])
async def test_a_unary_call_with_no_request_or_several(http, memory, form, count):
    answer = await called(http, form, STORE, [STORED] * count)
    assert (answer.code, answer.messages) == (AS_OVER_GRPC, [])
    assert not (await memory.ListMemories(pb.ListMemoriesRequest(session_id="s"))).memories


@pytest.mark.parametrize("content_type", ["image/jpeg", "text/html", ""])
async def test_an_unexpected_content_type(http, content_type):
    refused = await ask(http, STORE, b"12345678", headers={"content-type": content_type})
    assert refused.status == 415


@pytest.mark.parametrize("form", [UNARY, GRPC_WEB])
@pytest.mark.parametrize("verb", ["DELETE", "PUT", "PATCH"])
async def test_an_unexpected_verb(http, form, verb):
    headers = {"content-type": CONTENT_TYPES[form]}
    refused = await ask(http, STORE, STORED, headers=headers, method=verb)
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("form", [UNARY, GRPC_WEB])
async def test_an_unexpected_uri(http, form):
    answer = await called(http, form, "/memoryd.v1.UnknownService/UnknownMethod", [STORED])
    assert (answer.code, answer.status) == ("unimplemented", 404 if form == UNARY else 200)


@pytest.mark.parametrize("content_type", ["application/grpc-web", "application/grpc-web+proto"])
async def test_grpc_web_with_and_without_its_format(http, content_type):
    answer = await called(http, GRPC_WEB, STORE, [STORED], content_type=content_type)
    assert answer.code == "ok"
    assert answer.headers["content-type"] == content_type


# Delivery


@pytest.mark.parametrize("form", [CONNECT, GRPC_WEB])
async def test_responses_are_delivered_one_by_one(http, memory, form):
    watched = framed(pb.WatchMemoriesRequest(session_id="s").SerializeToString())
    async with exchange(http, WATCH, watched, {"content-type": CONTENT_TYPES[form]}) as found:
        frames = found.frames()
        for number in range(3):
            request = pb.StoreMemoryRequest(session_id="s", content=f"fact {number}")
            await memory.StoreMemory(request)
            _, data = await anext(frames)
            assert pb.WatchMemoriesResponse.FromString(data).memory.content == f"fact {number}"
