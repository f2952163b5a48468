"""Frames of a stream of messages, and their compression.

A frame is a byte of flags, the length of its data in four bytes, the highest first, and the data:
https://connectrpc.com/docs/protocol/#streaming-request
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import gzip
import struct
import zlib

from memoryd.domain.errors import MalformedMessage, MessageTooLarge

HEAD_BYTES = 5
COMPRESSED = 0b1
END_OF_CONNECT = 0b10
END_OF_GRPC_WEB = 0b1000_0000

GZIP, IDENTITY = "gzip", "identity"

COMPRESS_FROM_BYTES = 1024
"""Smaller answers are sent as they are."""
_LEVEL = 4
_GZIP_WINDOW = 31
"""zlib's number for the format of gzip."""


def malformed(what: str) -> MalformedMessage:
    """The error of a body that cannot be read."""
    return MalformedMessage("request", f"the body of the request {what}")


def frame(flags: int, data: bytes) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def head_of(data: bytes) -> tuple[int, int]:
    """The flags and the length of the data of a frame that begins with these bytes."""
    flags, length = struct.unpack(">BI", data)
    return flags, length


def compress(data: bytes) -> bytes:
    return gzip.compress(data, _LEVEL, mtime=0)


def decompress(data: bytes, most: int) -> bytes:
    """Raises MessageTooLarge for what becomes more than `most` bytes, and MalformedMessage."""
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error:
        raise malformed("is said to be compressed with gzip and is not") from None
    if len(found) > most:
        raise MessageTooLarge(len(found), most)
    if not stream.eof:
        raise malformed("is compressed with gzip and not complete")
    return found
