"""How requests and answers of a call look on the wire: of Connect, and of gRPC-Web.

https://connectrpc.com/docs/protocol/
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias
from urllib.parse import quote

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from memoryd.http import frames
from memoryd.http.body import Held
from memoryd.http.frames import GZIP, IDENTITY
from memoryd.http.request import Refused
from memoryd.rpc.serving import DETAILS_TRAILER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.http.body import Body
    from memoryd.http.codecs import Codec
    from memoryd.http.request import Headers

Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]]"

HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""Connect's, at https://connectrpc.com/docs/protocol/#error-codes."""

_CHALLENGE = (b"www-authenticate", b"Bearer")
"""RFC 9110 wants it with each 401. No address of an authorization server: keys and tokens come from
elsewhere."""


class Failure(NamedTuple):
    """How a call ends that is refused."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def name(self) -> str:
        """Connect's name of the code."""
        return "canceled" if self.code is grpc.StatusCode.CANCELLED else self.code.name.lower()

    def as_json(self) -> dict[str, object]:
        """What Connect says of it."""
        found: dict[str, object] = {"code": self.name, "message": self.message}
        details = [_detail(packed) for packed in self._details()]
        return {**found, "details": details} if details else found

    @property
    def headers(self) -> Headers:
        """Those that go with the status."""
        return [_CHALLENGE] if self.code is grpc.StatusCode.UNAUTHENTICATED else []

    def as_refused(self) -> Refused:
        """For a request that is no call."""
        return Refused(HTTP_STATUS[self.code], self.name, self.message, self.headers)

    def _details(self) -> Iterable[Any]:
        for name, value in self.trailers:
            if name == DETAILS_TRAILER and isinstance(value, bytes):
                details: Iterable[Any] = status_pb2.Status.FromString(value).details
                return details
        return ()


def _detail(packed: Any) -> dict[str, object]:
    name, value = packed.TypeName(), packed.value
    kind = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    return {
        "type": name,
        "value": base64.b64encode(value).rstrip(b"=").decode(),
        "debug": json_format.MessageToDict(kind.FromString(value)),
    }


def _is_taken(encoding: str, takes: str) -> bool:
    """Whether a caller takes what is compressed so, by its header; a weight of 0 says that not."""
    for one in takes.split(","):
        name, _, weight = one.partition(";")
        if name.strip().lower() == encoding:
            return _NONE.fullmatch(weight.replace(" ", "").lower()) is None
    return False


def _text(value: str | bytes) -> str:
    return base64.b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value


class Wire(ABC):
    """One call's form."""

    ENCODING: ClassVar[bytes]
    """The header that says how an answer is compressed."""

    def __init__(
        self,
        codec: Codec,
        content_type: str,
        *,
        compressed_by: str,
        takes: str,
        most: int,
        takes_one: bool,
    ) -> None:
        """`compressed_by`: what the request is compressed by; `takes`: what the caller takes.

        `most`: bytes of a message; `takes_one`: whether the method takes one message only.
        """
        self.compressed_by = compressed_by
        self._codec = codec
        self._content_type = content_type
        self._is_compressed = compressed_by == GZIP
        self._compresses = _is_taken(GZIP, takes)
        self._most = most
        self._takes_one = takes_one

    def head(self) -> tuple[int, Headers]:
        """How an answer of several frames begins."""
        encoding = GZIP if self._compresses else IDENTITY
        return 200, [
            (b"content-type", self._content_type.encode()),
            (self.ENCODING, encoding.encode()),
        ]

    @abstractmethod
    async def next_message(self, body: Body) -> bytes | None:
        """The next message as it is; None: there are no more. See `decoded`."""

    def decoded(self, message: bytes) -> bytes:
        """Raises MalformedMessage."""
        return self._codec.decode(message)

    def encoded(self, answer: bytes) -> bytes:
        """A frame of an answer."""
        data = self._codec.encode(answer)
        if self._compresses and len(data) >= frames.COMPRESS_FROM_BYTES:
            return frames.frame(frames.COMPRESSED, frames.compress(data))
        return frames.frame(0, data)

    @abstractmethod
    def end(self, failure: Failure | None, trailers: Metadata) -> bytes:
        """What comes last: of a stream its last frame."""

    async def _next_framed(self, body: Body, end: int) -> bytes | None:
        """The next message of frames; a frame with the flag `end` is no message."""
        found = await self._next_frame(body)
        if found is None or found[0] & end:
            return None
        if self._takes_one:
            more = await self._next_frame(body)
            if more is not None and not more[0] & end:
                raise frames.malformed("has more than one message, and the method takes one")
        return found[1]

    async def _next_frame(self, body: Body) -> tuple[int, bytes] | None:
        head = await body.exactly(frames.HEAD_BYTES)
        if head is None:
            return None
        flags, length = frames.head_of(head)
        is_packed = bool(flags & frames.COMPRESSED)
        if is_packed and not self._is_compressed:
            raise frames.malformed("has a compressed message, and no header says by what")
        data = await body.exactly(length, is_packed=is_packed) if length else b""
        if data is None:
            raise frames.malformed("ends within a message")
        return flags, await body.unpacked(data) if is_packed else data


class ConnectUnary(Wire):
    """The body is the message, and the status of HTTP tells how the call ends."""

    ENCODING = b"content-encoding"
    _is_read = False

    async def next_message(self, body: Body) -> bytes | None:
        if self._is_read:
            return None
        self._is_read = True
        data = await body.all_of_it(is_packed=self._is_compressed)
        return await body.unpacked(data) if self._is_compressed and data else data

    def encoded(self, answer: bytes) -> bytes:
        return self._codec.encode(answer)

    def end(self, failure: Failure | None, trailers: Metadata) -> bytes:
        """What a refusal says in the place of an answer."""
        del trailers  # they are headers
        return (
            b"" if failure is None else json.dumps(failure.as_json(), ensure_ascii=False).encode()
        )

    def whole(
        self, answer: bytes, failure: Failure | None, trailers: Metadata
    ) -> tuple[int, Headers, bytes]:
        """The status, the headers and the body of an answer, or of a refusal."""
        status, content_type = 200, self._content_type
        headers: Headers = []
        for name, value in trailers:
            if name != DETAILS_TRAILER:  # it stands in the body
                # As Connect has it, and as everybody else looks for it.
                headers += (
                    (f"{prefix}{name}".encode(), _text(value).encode())
                    for prefix in ("trailer-", "")
                )
        if failure is not None:
            status, content_type = HTTP_STATUS[failure.code], "application/json"
            headers += failure.headers
            answer = self.end(failure, trailers)
        elif self._compresses and len(answer) >= frames.COMPRESS_FROM_BYTES:
            answer = frames.compress(answer)
            headers.append((self.ENCODING, GZIP.encode()))
        headers += [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(answer)).encode()),
            (b"vary", b"accept-encoding"),
        ]
        return status, headers, answer


class ConnectAbsent(ConnectUnary):
    """Of a method that there is not, which its status tells those between as well."""

    def whole(
        self, answer: bytes, failure: Failure | None, trailers: Metadata
    ) -> tuple[int, Headers, bytes]:
        status, headers, body = super().whole(answer, failure, trailers)
        is_absent = failure is not None and failure.code is grpc.StatusCode.UNIMPLEMENTED
        return 404 if is_absent else status, headers, body


class ConnectGet(ConnectUnary):
    """The message stands in the address."""

    def __init__(self, message: bytes, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._message = message

    async def next_message(self, body: Body) -> bytes | None:
        if self._is_read:
            return None
        self._is_read = True
        await body.all_of_it()  # so that it is seen where the caller goes
        data = self._message
        return await body.unpacked(data) if self._is_compressed and data else data


class ConnectStream(Wire):
    """Messages in frames, and a last one of JSON that says how the call ends."""

    ENCODING = b"connect-content-encoding"

    async def next_message(self, body: Body) -> bytes | None:
        return await self._next_framed(body, frames.END_OF_CONNECT)

    def end(self, failure: Failure | None, trailers: Metadata) -> bytes:
        metadata: dict[str, list[str]] = {}
        for name, value in trailers:
            if name != DETAILS_TRAILER:
                metadata.setdefault(name, []).append(_text(value))
        found: dict[str, object] = {"metadata": metadata}
        if failure is not None:
            found["error"] = failure.as_json()
        return frames.frame(frames.END_OF_CONNECT, json.dumps(found, ensure_ascii=False).encode())


class GrpcWeb(Wire):
    """Messages in frames, and a last one that has gRPC's trailers."""

    ENCODING = b"grpc-encoding"

    async def next_message(self, body: Body) -> bytes | None:
        return await self._next_framed(body, frames.END_OF_GRPC_WEB)

    def end(self, failure: Failure | None, trailers: Metadata) -> bytes:
        code = grpc.StatusCode.OK if failure is None else failure.code
        lines = [f"grpc-status: {code.value[0]}"]
        if failure is not None:
            lines.append(f"grpc-message: {quote(failure.message, safe=_UNQUOTED)}")
        lines += [f"{name}: {_text(value)}" for name, value in trailers]
        return frames.frame(frames.END_OF_GRPC_WEB, "".join(f"{one}\r\n" for one in lines).encode())


class GrpcWebText(GrpcWeb):
    """The same in base64, for browsers that give a page no bytes."""

    _decoded: Body | None = None

    async def next_message(self, body: Body) -> bytes | None:
        if self._decoded is None:
            try:
                most = _BASE64_RATIO * (self._most + frames.HEAD_BYTES)
                text = await body.all_of_it(int(most), is_packed=self._is_compressed)
                # Strictly: else what stands behind padding, such as a second frame, is dropped.
                data = binascii.a2b_base64(text.translate(None, b"\r\n"), strict_mode=True)
            except binascii.Error:
                raise frames.malformed(
                    "is said to be base64 and is not; encode all of it as one"
                ) from None
            self._decoded = Held(data, self._most, body)
        return await super().next_message(self._decoded)

    def encoded(self, answer: bytes) -> bytes:
        return base64.b64encode(super().encoded(answer))

    def end(self, failure: Failure | None, trailers: Metadata) -> bytes:
        return base64.b64encode(super().end(failure, trailers))


_NONE = re.compile(r"q=0(\.0*)?")

_BASE64_RATIO = 1.4
"""How much longer a text is at the most than its bytes, by line breaks too."""

_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
