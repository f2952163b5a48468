"""The answer to RetrieveMemories, put together from encoded parts; and how large answers get.

What many answers have in common is encoded once, and only what differs is encoded for each.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from memoryd.recall.ranked import Ranked
from memoryd.retrieval.query import Encoding
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES
from memoryd.rpc.encoding import DOUBLE, LENGTH, VARINT, tag, varint
from memoryd.rpc.memories import messages as convert
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from memoryd.domain.records import Accesses, Memory
    from memoryd.retrieval.query import Result

MAX_FRAMING_BYTES = 32
"""Of a result of RetrieveMemories: at most so many for the tags and lengths around its parts."""

_CACHED_TIMES = 256


_RESULT = bytes([tag(memory_pb2.RetrieveMemoriesResponse, "results", LENGTH)])
_MEMORY = bytes([tag(memory_pb2.RetrievedMemory, "memory", LENGTH)])
_ACCESS_COUNT = bytes([tag(memory_pb2.Memory, "access_count", VARINT)])
_LAST_ACCESS_TIME = bytes([tag(memory_pb2.Memory, "last_access_time", LENGTH)])
_EFFECTIVE_IMPORTANCE = tag(memory_pb2.Memory, "effective_importance", DOUBLE)
_SCORE = tag(memory_pb2.RetrievedMemory, "score", DOUBLE)
_BREAKDOWN = tag(memory_pb2.RetrievedMemory, "breakdown", LENGTH)
_RELEVANCE = tag(memory_pb2.RetrievedMemory, "relevance", DOUBLE)
_PARTS = Ranked._fields[Ranked._fields.index("lexical") :]
_PART_TAGS = [tag(memory_pb2.ScoreBreakdown, part, DOUBLE) for part in _PARTS]
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
    count = _ACCESS_COUNT + varint(accessed.times)
    if accessed.last is None:
        return count
    last = _encoded_time(accessed.last)
    return b"".join((count, _LAST_ACCESS_TIME, varint(len(last)), last))


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
        memory_length = varint(memory_bytes)
        relevance = b""
        if ranked.relevance is not None:
            relevance = _END_RELEVANCE.pack(_RELEVANCE, ranked.relevance)
        framing = len(_MEMORY) + len(memory_length) + _END.size - _FIELD_BYTES + len(relevance)
        parts += (
            _RESULT,
            varint(memory_bytes + framing),
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
    lexical, semantic, context, speaker, temporal, form, importance, recency, diversity = _PART_TAGS
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
        recency, ranked.recency,
        diversity, ranked.diversity,
    )  # fmt: skip


@lru_cache(_CACHED_TIMES)
def _encoded_time(moment: datetime) -> bytes:
    """A Timestamp; all results of a call are accessed at one."""
    return convert.timestamp(moment).SerializeToString()
