"""What is taken for plain keeps the protos' rules, so that the rules' engine need not be asked."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.domain.metadata import JSON_BYTES_A_WIRE_BYTE, json_bytes
from memoryd.rpc.conversations import plain as plain_conversations
from memoryd.rpc.memories import plain
from memoryd.rpc.structs import struct_value
from memoryd.rpc.violations import Violations

from .messages import MEMORY_IDS, METHODS, REQUEST_ID, SESSION, VALID, of_type, requests

PLAIN: dict[str, Callable[[Any], bool]] = {
    "StoreMemory": plain.is_plain_store,
    "BatchStoreMemories": plain.is_plain_batch,
    "GetMemory": plain.is_plain_name,
    "RetrieveMemories": plain.is_plain_retrieval,
    "GetConversation": plain_conversations.is_plain_name,
    "AppendMessages": plain_conversations.is_plain_append,
}
BY_NAME = {method.name: method for method in METHODS}


@pytest.mark.parametrize("method", PLAIN)
@settings(max_examples=200)
@given(st.data())
def test_what_is_plain_breaks_no_rule(method: str, data: st.DataObject) -> None:
    request = data.draw(requests(BY_NAME[method]))
    violations = Violations()
    violations.add_rules(request)
    assert not (PLAIN[method](request) and violations)


@pytest.mark.parametrize("method", PLAIN)
def test_what_callers_send_is_plain(method: str) -> None:
    assert any(PLAIN[method](request) for request in VALID[method])


TALK = {"session_id": SESSION, "conversation_id": "c"}
_NEARLY_PLAIN = {
    "StoreMemory": [
        {"session_id": "a..b"},
        {"session_id": "user\n"},
        {"session_id": ".user"},
        {"session_id": "u" * 256},
        {"session_id": ""},
        {"importance": 1.0000001},
        {"importance": float("nan")},
        {"content_type": 5},
        {"request_id": REQUEST_ID + "\n"},
        {"request_id": REQUEST_ID[1:]},
        {"key": "a\n"},
        {"key": "k" * 256},
        {"key": "ü"},
        {"tags": [""]},
        {"tags": ["a\n"]},
        {"tags": ["a", "\x85"]},
        {"tags": ["t" * 65]},
        {"ttl": {"seconds": 0}},
        {"ttl": {"seconds": -1}},
        {"expire_time": {"seconds": 1 << 60}},
    ],
    "GetMemory": [
        {"session_id": SESSION + "\n", "memory_id": MEMORY_IDS[0]},
        {"session_id": SESSION, "memory_id": MEMORY_IDS[0] + "\n"},
        {"session_id": SESSION, "memory_id": "A" + MEMORY_IDS[0][1:]},
        {"session_id": SESSION, "key": "a b"},
    ],
    "RetrieveMemories": [
        {"session_id": SESSION, "query": "q" * 16_385},
        {"session_id": SESSION, "limit": -1},
        {"session_id": SESSION, "importance_weight": -0.1},
        {"session_id": SESSION, "session_ids": ["a..b"]},
        {"session_id": SESSION, "filter": {"content_types": [0]}},
    ],
    "GetConversation": [
        {"session_id": SESSION, "conversation_id": ""},
        {"session_id": SESSION, "conversation_id": "a..b"},
        {"session_id": "", "conversation_id": "c"},
    ],
    "AppendMessages": [
        {**TALK, "request_id": REQUEST_ID[1:]},
        {**TALK, "messages": [{}] * 1_001},
        {**TALK, "messages": [{"message_id": "a\n"}]},
        {**TALK, "messages": [{"message_id": "m" * 256}]},
        {**TALK, "messages": [{"role": 6}]},
        {**TALK, "messages": [{"author": "a" * 256}]},
        {**TALK, "messages": [{"turn_id": "t" * 256}]},
        {**TALK, "messages": [{"raw_format": "f" * 256}]},
        {**TALK, "messages": [{"token_count": -1}]},
        {**TALK, "messages": [{"occur_time": {"seconds": 1 << 60}}]},
        {**TALK, "messages": [{"parts": [{}]}]},
    ],
}


@pytest.mark.parametrize(
    ("method", "fields"),
    [(method, fields) for method, changes in _NEARLY_PLAIN.items() for fields in changes],
)
def test_what_breaks_a_rule_is_not_plain(method: str, fields: dict[str, Any]) -> None:
    kind = type(VALID[method][0])
    request = kind(
        **({"session_id": SESSION, "content": "x"} | fields if method == "StoreMemory" else fields)
    )
    violations = Violations()
    violations.add_rules(request)
    assert violations
    assert not PLAIN[method](request)


@given(of_type(struct_pb2.Struct.DESCRIPTOR))
def test_metadata_is_no_larger_as_json_than_its_bound(struct: struct_pb2.Struct) -> None:
    wire_bytes = struct.ByteSize()
    assert json_bytes(struct_value(struct)) <= max(2, wire_bytes * JSON_BYTES_A_WIRE_BYTE)


@pytest.mark.parametrize(
    "value", ["\x01" * 1000, [[]] * 100, [None] * 100, -1.2345678901234567e-100]
)
def test_metadata_that_grows_most_as_json_stays_within_its_bound(value: object) -> None:
    struct = struct_pb2.Struct()
    struct.update({"": value})
    assert json_bytes(struct_value(struct)) <= struct.ByteSize() * JSON_BYTES_A_WIRE_BYTE
