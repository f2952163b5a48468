"""The answer to RetrieveMemories, put together from encoded parts; and how large answers get.

A message is encoded as its fields, one after the other in any order; a field given in parts is
their union (https://protobuf.dev/programming-guides/encoding/, "Last One Wins"). So what many
answers have in common is encoded once, and only what differs is encoded for each.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from memoryd.recall.ranked import Ranked
from memoryd.retrieval.query import Encoding
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES
from memoryd.rpc.memories import messages as convert
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from memoryd.domain.records import Accesses, Memory
    from memoryd.retrieval.query import Result

MAX_FRAMING_BYTES = 32
"""Of a result of RetrieveMemories: at most so many for the tags and lengths around its parts."""

# Wire types.
_VARINT, _DOUBLE, _LENGTH = 0, 1, 2

_CACHED_NUMBERS = 8192
_CACHED_TIMES = 256


def _tag(message: type[Message], field: str, wire_type: int) -> int:
    return message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type


_RESULT = bytes([_tag(memory_pb2.RetrieveMemoriesResponse, "results", _LENGTH)])
_MEMORY = bytes([_tag(memory_pb2.RetrievedMemory, "memory", _LENGTH)])
_ACCESS_COUNT = bytes([_tag(memory_pb2.Memory, "access_count", _VARINT)])
_LAST_ACCESS_TIME = bytes([_tag(memory_pb2.Memory, "last_access_time", _LENGTH)])
_EFFECTIVE_IMPORTANCE = _tag(memory_pb2.Memory, "effective_importance", _DOUBLE)
_SCORE = _tag(memory_pb2.RetrievedMemory, "score", _DOUBLE)
_BREAKDOWN = _tag(memory_pb2.RetrievedMemory, "breakdown", _LENGTH)
_RELEVANCE = _tag(memory_pb2.RetrievedMemory, "relevance", _DOUBLE)
_PARTS = Ranked._fields[Ranked._fields.index("lexical") :]
_PART_TAGS = [_tag(memory_pb2.ScoreBreakdown, part, _DOUBLE) for part in _PARTS]
_FIELD = "Bd"
_FIELD_BYTES = struct.calcsize(f"<{_FIELD}")
_BREAKDOWN_BYTES = len(_PARTS) * _FIELD_BYTES
# What ends a result: effective importance, its memory's last field; its score; its breakdown; and
# with a query its relevance.
_END = struct.Struct(f"<{_FIELD}{_FIELD}BB{len(_PARTS) * _FIELD}")
_END_RELEVANCE = struct.Struct(f"<{_FIELD}")
_END_BYTES = _END.size + _END_RELEVANCE.size


def _lasting(memory: Memory) -> bytes:
    return convert.lasting_message(memory).SerializeToString()


def _accesses(accessed: Accesses) -> bytes:
    count = _ACCESS_COUNT + _varint(accessed.times)
    if accessed.last is None:
        return count
    last = _encoded_time(accessed.last)
    return b"".join((count, _LAST_ACCESS_TIME, _varint(len(last)), last))


ENCODING = Encoding(_lasting, _accesses)


def fitting(results: Sequence[Result], max_chars: int) -> Sequence[Result]:
    """The first results, as many as one answer takes; at least one, if there is any.

    Their contents have `max_chars` characters together at most, unless that is 0.
    """
    room, characters = MAX_ANSWER_BYTES, max_chars or sys.maxsize
    for place, (encoded, _, _) in enumerate(results):
        room -= len(encoded.lasting) + len(encoded.accesses) + _END_BYTES + MAX_FRAMING_BYTES
        characters -= len(encoded.memory.content)
        if place and (room < 0 or characters < 0):
            return results[:place]
    return results


def encoded_response(
    results: Sequence[Result],
    revision: int,
    revisions: Mapping[str, int] | None,
    *,
    truncated: bool,
) -> bytes:
    """A RetrieveMemoriesResponse."""
    parts: list[bytes] = []
    for (_, _, lasting, accesses), effective_importance, ranked in results:
        memory_bytes = len(lasting) + len(accesses) + _FIELD_BYTES
        memory_length = _varint(memory_bytes)
        relevance = b""
        if ranked.relevance is not None:
            relevance = _END_RELEVANCE.pack(_RELEVANCE, ranked.relevance)
        framing = len(_MEMORY) + len(memory_length) + _END.size - _FIELD_BYTES + len(relevance)
        parts += (
            _RESULT,
            _varint(memory_bytes + framing),
            _MEMORY,
            memory_length,
            lasting,
            accesses,
            _end(effective_importance, ranked),
            relevance,
        )
    rest = memory_pb2.RetrieveMemoriesResponse(
        revision=revision, revisions=revisions, truncated=truncated
    )
    parts.append(rest.SerializeToString())
    return b"".join(parts)


def _end(effective_importance: float, ranked: Ranked) -> bytes:
    lexical, semantic, context, speaker, temporal, form, importance, diversity = _PART_TAGS
    return _END.pack(
        _EFFECTIVE_IMPORTANCE, effective_importance,
        _SCORE, ranked.score,
        _BREAKDOWN, _BREAKDOWN_BYTES,
        lexical, ranked.lexical,
        semantic, ranked.semantic,
        context, ranked.context,
        speaker, ranked.speaker,
        temporal, ranked.temporal,
        form, ranked.form,
        importance, ranked.importance,
        diversity, ranked.diversity,
    )  # fmt: skip


@lru_cache(_CACHED_TIMES)
def _encoded_time(moment: datetime) -> bytes:
    """A Timestamp; all results of a call are accessed at one."""
    return convert.timestamp(moment).SerializeToString()


@lru_cache(_CACHED_NUMBERS)
def _varint(count: int) -> bytes:
    """A number as a varint: seven bits a byte, the lowest first, all but the last marked."""
    encoded = bytearray()
    while count >> 7:
        encoded.append(count & 0x7F | 0x80)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)
