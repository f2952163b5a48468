"""Invalid requests are refused with every violation at once, and leave no trace."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.rpc import page_token
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2, tool_config_pb2
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"
MEMORY_ID = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
LAST_SECOND = 253_402_300_799
"""The last second of the year 9999."""

SERVICES = (
    pb.DESCRIPTOR.services_by_name["MemoryService"],
    tool_config_pb2.DESCRIPTOR.services_by_name["ToolConfigService"],
    session_pb2.DESCRIPTOR.services_by_name["SessionService"],
)

BAD_SESSION_IDS = {
    "empty": "",
    "256 characters": "u" * 256,
    "a blank": "user 123",
    "blanks around": " user-123 ",
    "a line break": "user-123\n",
    "NUL": "user\x00123",
    "a control character": "user\x1b[31m",
    "a quote": "user'--",
    "SQL": "x'; DROP TABLE memories; --",
    "SQL of one word": "1'OR'1'='1",
    "a wildcard": "user%",
    "a path": "../../etc/passwd",
    "two dots": "user..123",
    "a slash": "user/123",
    "a backslash": "user\\123",
    "a dot first": ".user",
    "a hyphen first": "-user",
    "Cyrillic e": "us\u0435r-123",
    "full-width digits": "user-\uff11\uff12\uff13",
    "Arabic digits": "user-\u0661",
    "a zero-width space": "user\u200b-123",
    "a right-to-left mark": "\u202euser-123",
    "an emoji": "user-🐘",
    "an umlaut": "jürgen",
    "curly brackets": "{user}",
}

GOOD_SESSION_IDS = ("u", "7", "u" * 255, "a@b.example", "a.b_c:d@e-f", "Z9.", "select", "null")

BAD_MEMORY_IDS = {
    "empty": "",
    "a number": "1",
    "SQL": "' OR 1=1 --",
    "a path": "../memories",
    "upper case": MEMORY_ID.upper(),
    "brackets": f"{{{MEMORY_ID}}}",
    "no hyphens": MEMORY_ID.replace("-", ""),
    "a URN": f"urn:uuid:{MEMORY_ID}",
    "one short": MEMORY_ID[:-1],
    "one over": f"{MEMORY_ID}0",
    "a line break": f"{MEMORY_ID}\n",
    "a letter too far": f"g{MEMORY_ID[1:]}",
    "look-alike letters": MEMORY_ID.replace("a", "\u0430"),
    "NUL": f"{MEMORY_ID[:-1]}\x00",
}

BAD_CONTENTS = {
    "empty": "",
    "blank": " \t\r\n\u3000",
    "control characters": "\x00\x01\x1f\x7f",
    "markup": "<p><br/></p>",
    "a script": "<script>alert(1)</script>",
    "one over": "x" * 16_385,
    "one emoji over": "🐘" * 16_385,
}

GOOD_CONTENTS = {
    "one character": "x",
    "the longest": "x" * 16_384,
    "elephants": "🐘" * 16_384,
    "blanks at the ends": " " * 9_000 + "x" * 10_000 + " " * 9_000,
    "markup around": "<b>" * 5_000 + "x" * 16_384 + "</b>" * 5_000,
}

BAD_IMPORTANCES = (-0.1, 1.1, -1e-300, math.nextafter(1, 2), 1e308, math.nan, math.inf, -math.inf)

NO_DURATIONS = {
    "signs that differ": Duration(seconds=1, nanos=-1),
    "signs that differ, reversed": Duration(seconds=-1, nanos=1),
    "negative in total": Duration(seconds=1, nanos=-1_999_999_999),
    "a second of nanoseconds": Duration(nanos=1_000_000_000),
    "as many with seconds": Duration(seconds=5, nanos=1_000_000_000),
    "the most nanoseconds": Duration(seconds=1, nanos=2**31 - 1),
    "the fewest nanoseconds": Duration(seconds=-1, nanos=-(2**31)),
    "over 10,000 years": Duration(seconds=315_576_000_001),
    "under 10,000 years": Duration(seconds=-315_576_000_001),
    "the longest there is": Duration(seconds=2**63 - 1, nanos=999_999_999),
    "the most negative": Duration(seconds=-(2**63)),
}
"""Beyond the range of a duration."""

BAD_TTLS = NO_DURATIONS | {
    "zero": Duration(),
    "negative": Duration(seconds=-1),
    "a negative nanosecond": Duration(nanos=-1),
    "past the year 9999": Duration(seconds=LAST_SECOND),
}

BAD_TIMES = {
    "the year 10000": Timestamp(seconds=LAST_SECOND + 1),
    "the year 0": Timestamp(seconds=-62_135_596_801),
    "the last there is": Timestamp(seconds=2**63 - 1),
    "the first there is": Timestamp(seconds=-(2**63)),
    "a negative nanosecond": Timestamp(seconds=4_000_000_000, nanos=-1),
    "the fewest nanoseconds": Timestamp(seconds=4_000_000_000, nanos=-(2**31)),
    "too many nanoseconds": Timestamp(seconds=4_000_000_000, nanos=1_000_000_000),
}

PAST_TIMES = {
    "1970": Timestamp(),
    "the year 1": Timestamp(seconds=-62_135_596_800),
    "a moment ago": Timestamp(seconds=1_772_366_399, nanos=999_999_999),
    "now": Timestamp(seconds=1_772_366_400),  # as the clock of the tests has it
}

BAD_REQUEST_IDS = ("1", "x" * 36, MEMORY_ID[:-1], f"{MEMORY_ID} ", f"{{{MEMORY_ID}}}", "' OR 1=1")


def nested(containers: int) -> dict[str, object]:
    """Metadata with this many nested containers, including the outermost."""
    value: object = "core"
    for depth in range(containers - 1):
        value = [value] if depth % 2 else {"a": value}
    return {"a": value}


BAD_METADATA = {
    "NaN": {"a": math.nan},
    "infinite": {"a": [1, {"b": -math.inf}]},
    "too deep": nested(9),
    "far too deep": nested(25),
    "a byte too large": {"a": "x" * 16_377},
    "too large in UTF-8": {"a": "🐘" * 4_095},
    "too many keys": {f"key {n}": n for n in range(2_000)},
    "far too large": {"a": "x" * 1_000_000},
    "far too many numbers": {"a": [1] * 100_000},
}

GOOD_METADATA = {
    "as deep as may be": nested(8),
    "as large as may be": {"a": "x" * 16_376},
    "as large in UTF-8": {"a": "🐘" * 4_094},
    "the largest number": {"a": 1.7976931348623157e308},
}


def store(**fields: object) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(**{"session_id": SESSION, "content": "fact", **fields})


def change(path: str, value: object) -> pb.UpdateMemoryRequest:
    memory = pb.Memory(session_id=SESSION, memory_id=MEMORY_ID, **{path: value})
    return pb.UpdateMemoryRequest(memory=memory, update_mask=FieldMask(paths=[path]))


async def stored(memory: MemoryServiceStub) -> list[str]:
    answer = await memory.ListMemories(
        pb.ListMemoriesRequest(session_id=SESSION, page_size=1000, show_deleted=True)
    )
    return [m.content for m in answer.memories]


@pytest.fixture
def each_refused(memory, refused) -> Callable[..., object]:
    """Send each named request, and check that it is refused for exactly these fields."""

    async def each_refused(method: str, requests: Mapping[str, object], *fields: str) -> None:
        seen = {}
        for name, request in requests.items():
            call = getattr(memory, method)(request)
            refusal = await refused(call if isinstance(call, Awaitable) else anext(aiter(call)))
            seen[name] = (refusal.code.name, refusal.reason, sorted(refusal.violations))
        as_expected = ("INVALID_ARGUMENT", "INVALID_REQUEST", sorted(fields))
        assert seen == dict.fromkeys(requests, as_expected)
        assert await stored(memory) == []

    return each_refused


# Identifiers


OF_A_SESSION = {
    "StoreMemory": lambda i: store(session_id=i),
    "BatchStoreMemories": lambda i: pb.BatchStoreMemoriesRequest(
        requests=[store(), store(session_id=i)]
    ),
    "GetMemory": lambda i: pb.GetMemoryRequest(session_id=i, memory_id=MEMORY_ID),
    "ListMemories": lambda i: pb.ListMemoriesRequest(session_id=i),
    "RetrieveMemories": lambda i: pb.RetrieveMemoriesRequest(session_id=i),
    "FindSimilarMemories": lambda i: pb.FindSimilarMemoriesRequest(session_id=i, content="fact"),
    "UpdateMemory": lambda i: pb.UpdateMemoryRequest(
        memory=pb.Memory(session_id=i, memory_id=MEMORY_ID, importance=1)
    ),
    "DeleteMemory": lambda i: pb.DeleteMemoryRequest(session_id=i, memory_id=MEMORY_ID),
    "UndeleteMemory": lambda i: pb.UndeleteMemoryRequest(session_id=i, memory_id=MEMORY_ID),
    "PurgeMemories": lambda i: pb.PurgeMemoriesRequest(session_id=i, force=True),
    "EraseSession": lambda i: pb.EraseSessionRequest(session_id=i),
    "WatchMemories": lambda i: pb.WatchMemoriesRequest(session_id=i),
    "ExportMemories": lambda i: pb.ExportMemoriesRequest(session_id=i),
    "ListMemoryRevisions": lambda i: pb.ListMemoryRevisionsRequest(
        session_id=i, memory_id=MEMORY_ID
    ),
    "RollbackMemory": lambda i: pb.RollbackMemoryRequest(
        session_id=i, memory_id=MEMORY_ID, revision=1
    ),
}
"""A request, in any session, of each method that refuses it as a whole."""


async def test_session_ids_are_never_repaired(each_refused):
    # A stream of stores refuses item by item: its own tests have these.
    assert OF_A_SESSION.keys() | {"StreamStoreMemories"} == {m.name for m in SERVICES[0].methods}
    paths = {
        "BatchStoreMemories": "requests[1].session_id",
        "UpdateMemory": "memory.session_id",
    }
    for method, request_of in OF_A_SESSION.items():
        requests = {name: request_of(bad) for name, bad in BAD_SESSION_IDS.items()}
        await each_refused(method, requests, paths.get(method, "session_id"))


async def test_session_ids_are_accepted_unchanged(memory):
    for session_id in GOOD_SESSION_IDS:
        answer = await memory.StoreMemory(store(session_id=session_id))
        assert answer.memory.session_id == session_id
        listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id=session_id))
        assert list(listed.memories) == [answer.memory]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("GetMemory", pb.GetMemoryRequest),
        ("DeleteMemory", pb.DeleteMemoryRequest),
        ("UndeleteMemory", pb.UndeleteMemoryRequest),
        ("ListMemoryRevisions", pb.ListMemoryRevisionsRequest),
    ],
)
async def test_memory_ids_are_never_repaired(each_refused, method, kind):
    requests = {
        name: kind(session_id=SESSION, memory_id=bad) for name, bad in BAD_MEMORY_IDS.items()
    }
    await each_refused(method, requests, "memory_id")


async def test_memory_ids_to_update_are_never_repaired(each_refused):
    requests = {
        name: pb.UpdateMemoryRequest(
            memory=pb.Memory(session_id=SESSION, memory_id=bad, importance=1)
        )
        for name, bad in BAD_MEMORY_IDS.items()
    }
    await each_refused("UpdateMemory", requests, "memory.memory_id")


async def test_a_memory_to_update_is_required(each_refused):
    await each_refused("UpdateMemory", {"none": pb.UpdateMemoryRequest()}, "memory")


async def test_request_ids_are_uuids(each_refused):
    requests = {bad: store(request_id=bad) for bad in BAD_REQUEST_IDS}
    await each_refused("StoreMemory", requests, "request_id")


# Fields of a memory


async def test_contents_have_their_limits(memory, each_refused):
    await each_refused(
        "StoreMemory", {name: store(content=bad) for name, bad in BAD_CONTENTS.items()}, "content"
    )
    await each_refused(
        "UpdateMemory",
        {name: change("content", bad) for name, bad in BAD_CONTENTS.items()},
        "memory.content",
    )
    for name, good in GOOD_CONTENTS.items():
        answer = await memory.StoreMemory(store(content=good))
        assert answer.outcome in (pb.STORE_OUTCOME_CREATED, pb.STORE_OUTCOME_MERGED), name
        assert 1 <= len(answer.memory.content) <= 16_384, name


async def test_a_content_is_measured_in_characters_once_it_is_sanitised(memory):
    for good in ("🐘" * 16_384, "<i>" + "y" * 16_384 + "</i>"):
        answer = await memory.StoreMemory(store(content=good))
        assert len(answer.memory.content) == 16_384
        found = await memory.GetMemory(
            pb.GetMemoryRequest(session_id=SESSION, memory_id=answer.memory.memory_id)
        )
        assert found.content == answer.memory.content


UNREAD = {
    "markup": "<b>" * 43_690 + "abc",
    "plain": "x" * 131_073,
    "elephants": "🐘" * 131_073,
    "four million": "\x01<\x01a" * 1_000_000,
}
"""More than the service sanitises, even if little of it would be left."""


@pytest.mark.parametrize("policy", ["sanitize", "strict", "verbatim"])
async def test_contents_far_over_the_limit_are_refused_unread(serve, refused, policy):
    running = await serve(
        MEMORYD_CONTENT_POLICY=policy, MEMORYD_MAX_MESSAGE_BYTES=str(8 * 1024 * 1024)
    )
    for name, content in UNREAD.items():
        batch = pb.BatchStoreMemoriesRequest(requests=[store(), store(content=content)])
        similar = pb.FindSimilarMemoriesRequest(session_id=SESSION, content=content)
        calls = {
            "content": running.memory.StoreMemory(store(content=content)),
            "requests[1].content": running.memory.BatchStoreMemories(batch),
            "memory.content": running.memory.UpdateMemory(change("content", content)),
            "content ": running.memory.FindSimilarMemories(similar),
        }
        for field, call in calls.items():
            refusal = await refused(call)
            assert refusal.reason == "INVALID_REQUEST", name
            assert list(refusal.violations) == [field.strip()], name
            assert "131,072" in refusal.violations[field.strip()], name
            assert "several memories" in refusal.violations[field.strip()], name
    assert await stored(running.memory) == []


async def test_markup_may_fill_the_rest_of_the_limit(memory):
    content = "<b>" * 38_229 + "x" * 16_384 + " "
    assert len(content) == 131_072
    answer = await memory.StoreMemory(store(content=content))
    assert answer.memory.content == "x" * 16_384


async def test_importances_have_their_limits(each_refused):
    await each_refused(
        "StoreMemory", {str(bad): store(importance=bad) for bad in BAD_IMPORTANCES}, "importance"
    )
    await each_refused(
        "UpdateMemory",
        {str(bad): change("importance", bad) for bad in BAD_IMPORTANCES},
        "memory.importance",
    )


async def test_an_importance_of_negative_zero_is_zero(memory):
    made = (await memory.StoreMemory(store(importance=-0.0))).memory
    found = await memory.GetMemory(
        pb.GetMemoryRequest(session_id=SESSION, memory_id=made.memory_id)
    )
    made.importance = 1.0
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=made))
    made.importance, made.etag = -0.0, ""
    changed = await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=made))
    assert [math.copysign(1, one.importance) for one in (found, changed)] == [1, 1]


async def test_content_types_are_the_known_ones(each_refused):
    numbers = (5, 99, -1, 2**31 - 1)
    await each_refused(
        "StoreMemory", {str(bad): store(content_type=bad) for bad in numbers}, "content_type"
    )
    await each_refused(
        "UpdateMemory",
        {str(bad): change("content_type", bad) for bad in numbers},
        "memory.content_type",
    )


async def test_metadata_has_its_limits(memory, each_refused):
    await each_refused(
        "StoreMemory", {name: store(metadata=bad) for name, bad in BAD_METADATA.items()}, "metadata"
    )
    await each_refused(
        "UpdateMemory",
        {name: change("metadata", bad) for name, bad in BAD_METADATA.items()},
        "memory.metadata",
    )
    for name, good in GOOD_METADATA.items():
        answer = await memory.StoreMemory(store(content=name, metadata=good))
        assert answer.memory.metadata == store(metadata=good).metadata, name


async def test_a_ttl_is_between_zero_and_the_year_10000(memory, each_refused):
    await each_refused(
        "StoreMemory", {name: store(ttl=bad) for name, bad in BAD_TTLS.items()}, "ttl"
    )
    requests = {}
    for name, bad in BAD_TTLS.items():
        requests[name] = change("importance", 1)
        requests[name].ttl.CopyFrom(bad)
    await each_refused("UpdateMemory", requests, "ttl")
    answer = await memory.StoreMemory(store(ttl=Duration(nanos=1)))
    assert answer.memory.expire_time.ToNanoseconds() > answer.memory.create_time.ToNanoseconds()
    answer = await memory.StoreMemory(store(ttl=timedelta(days=365 * 7900)))
    assert answer.memory.expire_time.ToDatetime().year > 9900


async def test_an_expire_time_is_between_now_and_the_year_10000(memory, each_refused):
    bad_times = BAD_TIMES | PAST_TIMES
    await each_refused(
        "StoreMemory",
        {name: store(expire_time=bad) for name, bad in bad_times.items()},
        "expire_time",
    )
    await each_refused(
        "UpdateMemory",
        {name: change("expire_time", bad) for name, bad in bad_times.items()},
        "memory.expire_time",
    )
    last = Timestamp(seconds=LAST_SECOND, nanos=999_999_000)
    answer = await memory.StoreMemory(store(expire_time=last))
    assert answer.memory.expire_time == last


# Reading


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("ListMemories", pb.ListMemoriesRequest),
        ("RetrieveMemories", pb.RetrieveMemoriesRequest),
        ("PurgeMemories", pb.PurgeMemoriesRequest),
        ("ExportMemories", pb.ExportMemoriesRequest),
    ],
)
async def test_filters_have_their_limits(each_refused, method, kind):
    async def each(field: str, name: str, values: Mapping[object, object]) -> None:
        requests = {
            str(key): kind(session_id=SESSION, filter=pb.MemoryFilter(**{name: value}))
            for key, value in values.items()
        }
        await each_refused(method, requests, field)

    await each("filter.min_importance", "min_importance", {bad: bad for bad in BAD_IMPORTANCES})
    await each("filter.created_after", "created_after", BAD_TIMES)
    await each("filter.created_before", "created_before", BAD_TIMES)
    await each("filter.metadata", "metadata", BAD_METADATA)
    await each("filter.content_types[1]", "content_types", {bad: [1, bad] for bad in (0, 5, -1)})
    await each("filter.content_types", "content_types", {n: [1] * n for n in (17, 100_000)})


async def test_a_query_has_its_limit(memory, each_refused):
    too_long = {
        character: pb.RetrieveMemoriesRequest(session_id=SESSION, query=character * 16_385)
        for character in "x🐘"
    }
    await each_refused("RetrieveMemories", too_long, "query")
    for character in "x🐘":
        request = pb.RetrieveMemoriesRequest(session_id=SESSION, query=character * 16_384)
        assert not (await memory.RetrieveMemories(request)).results


async def test_further_sessions_have_their_limit(memory, refused):
    for count in (17, 1_300_000):
        request = pb.RetrieveMemoriesRequest(session_id=SESSION, session_ids=["u"] * count)
        refusal = await refused(memory.RetrieveMemories(request))
        assert list(refusal.violations) == ["session_ids"]
        assert f"these are {count:,}" in refusal.violations["session_ids"]
    request = pb.RetrieveMemoriesRequest(session_id=SESSION, session_ids=["u"] * 16)
    assert not (await memory.RetrieveMemories(request)).results


async def test_a_forged_page_token_is_refused_like_any_other(each_refused):
    first_page = pb.ListMemoriesRequest(session_id=SESSION)
    requests = {
        str(position): pb.ListMemoriesRequest(
            session_id=SESSION, page_token=page_token.encode(position, first_page, "default")
        )
        for position in (2**63, 2**64 - 1)
    }
    await each_refused("ListMemories", requests, "page_token")


# Durations and timestamps


def times_of(kind: Descriptor, within: tuple[Descriptor, ...] = ()) -> Iterator[list[Field]]:
    """Yield the path of fields to each duration and timestamp of a message."""
    for field in kind.fields:
        part = field.message_type
        if part in {Duration.DESCRIPTOR, Timestamp.DESCRIPTOR}:
            yield [field]
        elif part is not None and part not in within:
            yield from ([field, *rest] for rest in times_of(part, (*within, part)))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_malformed_durations_and_timestamps_are_refused(running, refused, service):
    """Malformed values are refused even in ignored fields, since they are mistakes."""
    seen = set()
    for method in service.methods:
        if method.client_streaming:
            continue  # it refuses item by item: its own tests have these
        for fields in times_of(method.input_type):
            of_duration = fields[-1].message_type is Duration.DESCRIPTOR
            for name, bad in (NO_DURATIONS if of_duration else BAD_TIMES).items():
                request = GetMessageClass(method.input_type)()
                part, path = request, ""
                for field in fields:
                    path += f"{'.' * bool(path)}{field.name}{'[0]' * field.is_repeated}"
                    part = getattr(part, field.name)
                    part = part.add() if field.is_repeated else part
                part.CopyFrom(bad)
                call = raw(running.channel, method, request.SerializeToString())
                refusal = await refused(call)
                assert refusal.reason == "INVALID_REQUEST", (method.name, path, name)
                assert path in refusal.violations, (method.name, path, name)
                assert "nanos" in refusal.violations[path], (method.name, path, name)
                seen.add(f"{method.name}.{path}")
    expected = {
        "MemoryService": {"BatchStoreMemories.requests[0].ttl", "UpdateMemory.memory.create_time"},
        "ToolConfigService": {"UpdateToolConfig.tool_config.stale_since"},
        "SessionService": {
            "UpdateSession.session.memory_ttl",
            "UpdateSession.session.create_time",
        },
    }
    assert seen >= expected[service.name]


async def test_times_that_only_the_service_sets_are_ignored(memory):
    stored_memory = (await memory.StoreMemory(store())).memory
    given = pb.Memory(
        session_id=SESSION,
        memory_id=stored_memory.memory_id,
        importance=1,
        create_time=Timestamp(seconds=-62_135_596_800),
        update_time=Timestamp(seconds=LAST_SECOND, nanos=999_999_999),
    )
    changed = await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=given))
    assert changed.importance == 1
    assert changed.create_time == stored_memory.create_time


# Several violations


async def test_all_violations_of_a_store_are_listed_at_once(each_refused):
    request = pb.StoreMemoryRequest(
        session_id="../x",
        content="<br>",
        content_type=99,
        importance=math.nan,
        metadata=nested(9),
        ttl=timedelta(0),
        request_id="again",
    )
    fields = ("content", "content_type", "importance", "metadata", "request_id", "session_id")
    await each_refused("StoreMemory", {"": request}, *fields, "ttl")


async def test_all_violations_of_a_batch_are_listed_with_their_place(each_refused):
    requests = [store(content=f"fact {n}") for n in range(6)]
    requests[0].session_id = ""
    requests[3].metadata.update(nested(9))
    requests[3].importance = 2
    requests[5].content = "\x00"
    requests[5].expire_time.FromSeconds(0)
    await each_refused(
        "BatchStoreMemories",
        {"": pb.BatchStoreMemoriesRequest(requests=requests)},
        *("requests[0].session_id", "requests[3].metadata", "requests[3].importance"),
        *("requests[5].content", "requests[5].expire_time"),
    )
    # These break no rule of the protos, only rules that protos cannot express.
    batch = pb.BatchStoreMemoriesRequest(
        requests=[store(), store(content=" "), store(), store(metadata=nested(9), content="")]
    )
    fields = ("requests[1].content", "requests[3].content", "requests[3].metadata")
    await each_refused("BatchStoreMemories", {"": batch}, *fields)


async def test_all_violations_of_an_update_are_listed_at_once(each_refused):
    request = pb.UpdateMemoryRequest(
        memory=pb.Memory(
            session_id="a b",
            memory_id="1",
            content=" ",
            content_type=99,
            importance=-1,
            metadata=nested(9),
            expire_time=PAST_TIMES["1970"],
        ),
        ttl=timedelta(seconds=-1),
    )
    fields = ("session_id", "memory_id", "content", "content_type", "importance", "metadata")
    await each_refused(
        "UpdateMemory", {"": request}, *(f"memory.{f}" for f in (*fields, "expire_time")), "ttl"
    )
    request.update_mask.paths.extend(["content", "no_such"])
    fields = ("session_id", "memory_id", "content", "content_type", "importance")
    await each_refused(
        "UpdateMemory", {"": request}, *(f"memory.{f}" for f in fields), "ttl", "update_mask"
    )


async def test_all_violations_of_a_read_are_listed_at_once(each_refused):
    bad = pb.MemoryFilter(
        content_types=[0],
        min_importance=2,
        metadata=nested(9),
        created_after=BAD_TIMES["the year 10000"],
        created_before=BAD_TIMES["the year 0"],
    )
    names = ("min_importance", "metadata", "created_after", "created_before", "content_types[0]")
    fields = ("session_id", *(f"filter.{name}" for name in names))
    listing = pb.ListMemoriesRequest(filter=bad, page_size=-1, page_token="garbage")  # noqa: S106
    await each_refused("ListMemories", {"": listing}, *fields, "page_size", "page_token")
    retrieval = pb.RetrieveMemoriesRequest(filter=bad, limit=-1, query="x" * 16_385)
    await each_refused("RetrieveMemories", {"": retrieval}, *fields, "limit", "query")


async def test_violations_that_only_the_handler_sees_are_listed_at_once(each_refused):
    listing = pb.ListMemoriesRequest(
        session_id=SESSION,
        filter=pb.MemoryFilter(metadata=nested(9)),
        page_token="garbage",  # noqa: S106
    )
    await each_refused("ListMemories", {"": listing}, "filter.metadata", "page_token")


@pytest.mark.parametrize("count", [40, 80, 1000])
async def test_a_client_receives_the_refusal_of_an_entirely_invalid_batch(memory, refused, count):
    batch = [
        store(session_id="a b", importance=2, content_type=99, content="") for _ in range(count)
    ]
    refusal = await refused(memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    *listed, more = refusal.violations
    assert len(listed) >= 20
    assert set(listed) <= {
        f"requests[{place}].{field}"
        for place in range(count)
        for field in ("session_id", "importance", "content_type", "content")
    }
    assert more == "requests"
    assert f"{4 * count - len(listed):,} more" in refusal.violations[more]
    assert listed[0] in refusal.message


async def test_a_batch_has_its_limit(memory, each_refused):
    for count in (1_001, 300_000):
        batch = pb.BatchStoreMemoriesRequest(requests=[pb.StoreMemoryRequest()] * count)
        await each_refused("BatchStoreMemories", {str(count): batch}, "requests")
    batch = pb.BatchStoreMemoriesRequest(requests=[store()] * 1_000)
    assert len((await memory.BatchStoreMemories(batch)).responses) == 1_000


# No trace


async def test_a_refused_call_does_not_use_up_its_request_id(memory, refused):
    request_id = str(uuid.uuid4())
    for bad in (
        store(request_id=request_id, importance=2),
        store(request_id=request_id, content=" "),
        store(request_id=request_id, metadata=nested(9)),
    ):
        await refused(memory.StoreMemory(bad))
    good = store(request_id=request_id)
    for bad in (store(importance=2), store(content="<br>")):
        await refused(memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=[good, bad])))
    answer = await memory.StoreMemory(store(request_id=request_id, content="at last"))
    assert answer.outcome == pb.STORE_OUTCOME_CREATED
    assert answer.memory.revision == 1
    assert await stored(memory) == ["at last"]


async def test_a_batch_that_is_refused_late_does_not_use_up_its_request_ids(memory, refused):
    used, fresh = str(uuid.uuid4()), str(uuid.uuid4())
    await memory.StoreMemory(store(content="first", request_id=used))
    batch = [store(content="second", request_id=fresh), store(content="third", request_id=used)]
    refusal = await refused(memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch)))
    assert refusal.reason == "REQUEST_ID_REUSED"
    assert list(refusal.violations) == ["requests[1].request_id"]
    answer = await memory.StoreMemory(store(content="fourth", request_id=fresh))
    assert answer.outcome == pb.STORE_OUTCOME_CREATED
    assert await stored(memory) == ["first", "fourth"]


async def test_a_refusal_does_not_repeat_the_content(memory, refused):
    secret = "my password is swordfish"  # noqa: S105
    for bad in (
        store(content=secret, importance=2),
        store(content=secret, metadata={"note": secret, "a": math.nan}),
        store(content=secret, session_id=secret),
        store(content=secret * 1_000),
        store(content=secret, request_id=secret),
    ):
        refusal = await refused(memory.StoreMemory(bad))
        assert "swordfish" not in str(refusal)


# Bytes


def raw(channel: grpc.aio.Channel, method: object, data: bytes) -> object:
    """A call of a method with raw bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if not method.server_streaming:
        return channel.unary_unary(path)(data)
    return anext(aiter(channel.unary_stream(path)(data)))


NO_MESSAGES = {
    "no tag": b"\xff\xff\xff\xff",
    "cut short": b"\x0a\x08user",
    "an endless number": b"\x08" + b"\xff" * 11,
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
}

NO_TEXTS = {
    "no UTF-8": b"\x0a\x02\xc3\x28",
    "a lone surrogate": b"\x0a\x03\xed\xa0\x80",
}
"""For messages whose first field is a string."""


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_every_method_refuses_bytes_that_are_not_a_message(running, refused, service):
    for method in service.methods:
        fields = method.input_type.fields
        takes_text = bool(fields) and fields[0].type == fields[0].TYPE_STRING
        for name, data in (NO_MESSAGES | NO_TEXTS if takes_text else NO_MESSAGES).items():
            refusal = await refused(raw(running.channel, method, data))
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT, (method.name, name)
            assert refusal.reason == "MALFORMED_MESSAGE", (method.name, name)


async def test_metadata_nested_past_what_can_be_decoded_is_refused(running, refused):
    data = b""
    for _ in range(200):  # Value of struct_value of fields of …
        entry = b"\x0a\x01a" + (b"\x12" + _length(data) + data if data else b"")
        struct = b"\x0a" + _length(entry) + entry
        data = b"\x2a" + _length(struct) + struct
    struct = data[1 + len(_length(struct)) :]
    request = store().SerializeToString() + b"\x2a" + _length(struct) + struct
    (method,) = (m for m in SERVICES[0].methods if m.name == "StoreMemory")
    refusal = await refused(raw(running.channel, method, request))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert await stored(running.memory) == []


def _length(data: bytes) -> bytes:
    """As a varint."""
    rest, out = len(data), b""
    while rest > 127:
        out += bytes([rest & 127 | 128])
        rest >>= 7
    return out + bytes([rest])


async def test_unknown_fields_are_ignored(running):
    known = store(content="from a newer client").SerializeToString()
    path = "/memoryd.v1.MemoryService/StoreMemory"
    await running.channel.unary_unary(path)(known + b"\xfa\x3f\x05hello")
    assert await stored(running.memory) == ["from a newer client"]


@pytest.mark.grpc
@pytest.mark.parametrize(
    "path",
    [
        "/memoryd.v1.MemoryService/StoreMemories",
        "/memoryd.v1.MemoryService/",
        "/memoryd.v2.MemoryService/StoreMemory",
        "/no.such.Service/Method",
        "/",
    ],
)
async def test_an_unknown_method_is_unimplemented(running, refused, path):
    refusal = await refused(running.channel.unary_unary(path)(b"\xff"))
    assert refusal.code == grpc.StatusCode.UNIMPLEMENTED
    assert refusal.reason == "NOT_IMPLEMENTED"
    stream = running.channel.unary_stream(path)(b"")
    assert (await refused(anext(aiter(stream)))).reason == "NOT_IMPLEMENTED"
