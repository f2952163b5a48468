"""What the client answers: frozen dataclasses that say what the service's messages say."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.client import Memory, Message, Part, RetrievedMemory, ToolCall, answering, answers
from memoryd.client.answers import (
    ContentType,
    CreateApiKeyResponse,
    RetrieveMemoriesResponse,
    SimilarMemory,
)
from memoryd.v1 import access_pb2, conversation_pb2, memory_pb2

KINDS = [
    kind
    for kind in vars(answers).values()
    if isinstance(kind, type)
    and issubclass(kind, answering.Answer)
    and dataclasses.is_dataclass(kind)
]

SCALARS = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: b"data",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 0.5,
    FieldDescriptor.TYPE_INT32: 7,
    FieldDescriptor.TYPE_INT64: 2**40,
}


def fill(message, choice):
    """Give every field a value; of alternatives the one of this number."""
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof and len(oneof.fields) > 1 and oneof.fields[choice % len(oneof.fields)] != field:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            getattr(message, field.name)["key"] = scalar(value)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner = inner.add() if field.is_repeated else inner
            if isinstance(inner, Struct):
                inner.update({"a": [1, None, {"b": True}], "c": 0.5})
            elif isinstance(inner, Timestamp):
                inner.FromDatetime(datetime(2030, 1, 1, 12, 0, 0, 1, UTC))
            elif isinstance(inner, Duration):
                inner.FromTimedelta(timedelta(days=1, microseconds=1))
            elif isinstance(inner, BadRequest.FieldViolation):
                inner.field, inner.description = "rag.search_k", "too large"
            else:
                fill(inner, choice)
        elif field.is_repeated:
            getattr(message, field.name).append(scalar(field))
        else:
            setattr(message, field.name, scalar(field))
    return message


def message_of(kind):
    return kind._message()  # noqa: SLF001  not visible otherwise


def scalar(field):
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return SCALARS[field.type]


@pytest.mark.parametrize("choice", range(7))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_answer_says_what_its_message_says(kind, choice):
    message = fill(message_of(kind), choice)
    answer = kind.from_proto(message)
    assert answer.proto is message
    # Without the message it was made from, it makes one.
    for other in (
        copy.copy(answer),
        pickle.loads(pickle.dumps(answer)),  # noqa: S301  our own
        dataclasses.replace(answer),
    ):
        assert other == answer
        assert other.proto == message
        assert other.proto is not message
    for field in dataclasses.fields(kind):
        value = getattr(answer, field.name)
        if isinstance(value, datetime):
            assert value.tzinfo is UTC
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(answer, field.name, value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_empty_message_is_what_the_defaults_are(kind):
    assert kind.from_proto(message_of(kind)) == kind()
    # Of its own, so that nobody changes another's.
    for field in dataclasses.fields(kind):
        value = getattr(kind(), field.name)
        assert not isinstance(value, dict) or value is not getattr(kind(), field.name)


def test_names_and_times_are_pythons():
    message = memory_pb2.Memory(content_type=memory_pb2.CONTENT_TYPE_FACT)
    message.metadata.update({"order": 4711, "share": 0.25, "large": 2.0**60})
    message.create_time.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC))
    memory = Memory.from_proto(message)
    assert memory.content_type is ContentType.FACT
    assert memory.content_type == "fact"
    assert memory.metadata == {"order": 4711, "share": 0.25, "large": 2.0**60}
    assert [type(memory.metadata[name]) for name in ("order", "share", "large")] == [
        int,
        float,
        float,
    ]
    assert memory.create_time == datetime(2030, 1, 1, tzinfo=UTC)
    assert memory.last_access_time is None


def test_a_name_of_a_later_release_is_unspecified():
    message = memory_pb2.Memory.FromString(b"\x20\x63")  # content_type = 99
    memory = Memory.from_proto(message)
    assert memory.content_type is ContentType.UNSPECIFIED
    assert memory.proto.content_type == 99


def test_every_enum_is_a_name():
    enums = [
        kind
        for kind in vars(answers).values()
        if isinstance(kind, type) and issubclass(kind, StrEnum)
    ]
    assert {str(kind.UNSPECIFIED) for kind in enums if kind is not StrEnum} == {"unspecified"}


def test_alternatives_are_none():
    part = Part.from_proto(conversation_pb2.Part(tool_call={"name": "find"}))
    assert part == Part(tool_call=ToolCall(name="find"))
    assert (part.text, part.blob) == (None, None)
    assert Part.from_proto(conversation_pb2.Part(text="")).text == ""


def test_what_a_caller_makes_is_checked():
    with pytest.raises(TypeError):
        _ = Message(author=7).proto
    with pytest.raises(ValueError, match="surrogate"):
        _ = Memory(metadata={"a": "\ud800"}).proto


def test_a_key_is_in_no_representation():
    answer = CreateApiKeyResponse.from_proto(access_pb2.CreateApiKeyResponse(key="secret"))
    assert "secret" not in repr(answer)
    assert answer.key == "secret"


@given(st.integers(-(10**9), 10**9), st.integers(0, 999_999))
def test_times_and_spans_keep_their_microseconds(seconds, microseconds):
    moment = answering.EPOCH + timedelta(seconds=seconds, microseconds=microseconds)
    memory = Memory(create_time=moment)
    assert Memory.from_proto(memory.proto) == memory
    span = timedelta(seconds=seconds, microseconds=microseconds)
    conversation = answers.Conversation(ttl=span)
    assert answers.Conversation.from_proto(conversation.proto) == conversation


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_metadata_comes_back_as_it_went(metadata):
    assert Memory.from_proto(Memory(metadata=metadata).proto).metadata == metadata


# Prompts

LINES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def retrieved(contents):
    return RetrieveMemoriesResponse(
        results=tuple(RetrievedMemory(memory=Memory(content=content)) for content in contents)
    )


def test_memories_as_a_prompt():
    answer = retrieved(["prefers e-mail", "order 4711 is late\nsince Monday"])
    text = "- prefers e-mail\n- order 4711 is late\n  since Monday"
    assert answer.as_prompt() == answer.as_prompt(max_chars=len(text)) == text
    assert answer.as_prompt(max_chars=len(text) - 1) == "- prefers e-mail"
    assert answer.as_prompt(max_chars=9) == "- prefer…"
    assert retrieved([]).as_prompt() == retrieved([]).as_prompt(max_chars=5) == ""
    with pytest.raises(ValueError, match="max_chars"):
        answer.as_prompt(max_chars=0)


@given(st.lists(LINES, max_size=8), st.integers(1, 200))
def test_a_prompt_keeps_its_limit(contents, max_chars):
    answer = retrieved(contents)
    text, whole = answer.as_prompt(max_chars=max_chars), answer.as_prompt()
    assert len(text) <= max_chars
    assert whole.startswith(text.removesuffix("…"))
    assert (text == whole) == (len(whole) <= max_chars)
    # Every line begins an item or goes on with one.
    assert all(line.startswith(("- ", "  ", "…", "-")) for line in text.split("\n") if line)


def test_what_was_not_measured_is_none():
    similar = SimilarMemory.from_proto(memory_pb2.SimilarMemory())
    assert (similar.distance, similar.similarity) == (None, None)
    assert math.isclose(SimilarMemory(similarity=0.5).proto.similarity, 0.5)
