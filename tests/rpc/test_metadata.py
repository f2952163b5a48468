"""Metadata comes back as the same JSON by every path."""

from __future__ import annotations

import math
import uuid

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"

VALUES = {
    "one": 1,
    "zero": 0,
    "negative zero": -0.0,
    "negative": -17,
    "a fraction": 0.1,
    "a third": 1 / 3,
    "the largest exact integer": 2**53,
    "the largest in 32 bits": 2**31 - 1,
    "beyond exact integers": float(2**53 + 2),
    "beyond 64 bits": 1e19,
    "very large": 1e300,
    "the largest": 1.7976931348623157e308,
    "the smallest": 5e-324,
    "just below one": math.nextafter(1, 0),
    "true": True,
    "false": False,
    "null": None,
    "an empty text": "",
    "a text like a number": "1",
    "a text like null": "null",
    "a text like JSON": '{"a": [1, "\\u0041"]}',
    "quotes and backslashes": "\"'\\ \\n \\u0000 / %s :name ?",
    "line ends and tabs": "a\r\nb\tc",
    "control characters": "".join(map(chr, range(0x20))) + "\x7f\x85",
    "many scripts": "naïve Žižka Ελλάδα Привет שלום السلام नमस्ते 你好 안녕 🐘🏳️‍🌈",
    "combining and composed": "e\u0301 é",
    "separators and marks": "\u2028\u2029\u200b\u202e\ufeff\ufffe\U0010ffff",
    "markup": "<b>bold</b> <script>alert(1)</script>",
    "an empty object": {},
    "an empty list": [],
    "empty ones in each other": [{}, [], [[]], {"a": {}}, {"": []}],
    "a list of everything": [1, 0.5, "x", True, False, None, {"a": 1}, [1, [2, [3]]]],
    "an object of objects": {"a": {"b": {"c": {"d": [1, {"e": None}]}}}},
}

KEYS = {
    "": "empty",
    " ": "blank",
    "a.b": "a dot",
    "$.a": "a path",
    "[0]": "an index",
    "'\"\\": "quotes",
    "NUL \x00": "a control character",
    "ключ": "Cyrillic",
    "鍵 🐘": "beyond the BMP",
    "é": "composed",
    "e\u0301": "combining",
    "__proto__": "another language's",
    "id": "a column's name",
}


def store(metadata: object, **fields: object) -> pb.StoreMemoryRequest:
    fields = {"session_id": SESSION, "content": "fact", **fields}
    return pb.StoreMemoryRequest(metadata=metadata, **fields)


def as_bytes(struct: Struct) -> bytes:
    """Distinguishes what `==` does not: 0 and -0."""
    return struct.SerializeToString(deterministic=True)


async def read(memory: MemoryServiceStub) -> list[Struct]:
    """The metadata of the one memory by every way of reading it."""
    listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION))
    (found,) = listed.memories
    got = await memory.GetMemory(pb.GetMemoryRequest(session_id=SESSION, memory_id=found.memory_id))
    retrieved = await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=SESSION))
    return [found.metadata, got.metadata, retrieved.results[0].memory.metadata]


@pytest.mark.parametrize("metadata", [{"value": VALUES}, VALUES, KEYS], ids=["nested", "", "keys"])
async def test_metadata_comes_back_unchanged(memory, metadata):
    request = store(metadata)
    answer = await memory.StoreMemory(request)
    for found in [answer.memory.metadata, *await read(memory)]:
        for key in metadata:
            assert found.fields[key] == request.metadata.fields[key], key
        assert as_bytes(found) == as_bytes(request.metadata)


async def test_negative_zero_keeps_its_sign(memory):
    answer = await memory.StoreMemory(store({"value": -0.0}))
    for found in [answer.memory.metadata, *await read(memory)]:
        assert math.copysign(1, found["value"]) == -1


async def test_no_metadata_is_empty_metadata(memory):
    await memory.StoreMemory(store(None))
    assert await read(memory) == [Struct()] * 3


async def test_a_retry_gets_the_metadata_as_the_first_time(memory):
    request = store(VALUES, request_id=str(uuid.uuid4()))
    first, again = [await memory.StoreMemory(request) for _ in range(2)]
    assert as_bytes(again.memory.metadata) == as_bytes(first.memory.metadata)
    assert as_bytes(again.memory.metadata) == as_bytes(request.metadata)


async def test_a_batch_keeps_the_metadata_of_each(memory):
    batch = [store({name: value}, content=name) for name, value in VALUES.items()]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION))
    for request, response, found in zip(batch, answer.responses, listed.memories, strict=True):
        assert as_bytes(response.memory.metadata) == as_bytes(request.metadata)
        assert as_bytes(found.metadata) == as_bytes(request.metadata)


async def test_merging_adds_and_replaces_whole_keys(memory):
    await memory.StoreMemory(store({"kept": VALUES, "bag": {"a": 1}, "text": "old", "gone": 1}))
    newer = {"bag": {"b": 2}, "text": None, "gone": {}, "added": -0.0}
    answer = await memory.StoreMemory(store(newer))
    assert answer.outcome == pb.STORE_OUTCOME_MERGED
    merged = store({"kept": VALUES, **newer}).metadata
    for found in [answer.memory.metadata, *await read(memory)]:
        assert as_bytes(found) == as_bytes(merged)


async def test_merging_nothing_changes_nothing(memory):
    request = store(VALUES)
    await memory.StoreMemory(request)
    answer = await memory.StoreMemory(store(None))
    assert as_bytes(answer.memory.metadata) == as_bytes(request.metadata)


async def test_an_update_replaces_the_whole(memory):
    answer = await memory.StoreMemory(store({"old": 1, "bag": {"a": 1}}))
    changed = pb.Memory(session_id=SESSION, memory_id=answer.memory.memory_id, metadata=VALUES)
    updated = await memory.UpdateMemory(
        pb.UpdateMemoryRequest(memory=changed, update_mask=FieldMask(paths=["metadata"]))
    )
    for found in [updated.metadata, *await read(memory)]:
        assert as_bytes(found) == as_bytes(changed.metadata)


async def test_keys_that_recall_uses_may_hold_anything(memory):
    odd = {"speaker": 7, "occurred_at": "yesterday", "episode": ["a", {"b": None}]}
    request = store(odd)
    await memory.StoreMemory(request)
    assert await read(memory) == [request.metadata] * 3


async def test_keys_that_differ_only_in_unicode_form_stay_distinct(memory):
    await memory.StoreMemory(store({"é": 1, "e\u0301": 2, "É": 3}))
    (found, *_) = await read(memory)
    assert dict(found) == {"é": 1, "e\u0301": 2, "É": 3}
