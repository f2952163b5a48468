"""Conditions on metadata, from outside: every operator with every type of JSON."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tests.plain_conditions import OPERATORS, condition, matches, takes

from memoryd.v1 import condition_pb2
from memoryd.v1 import memory_pb2 as pb

SESSION = "user-123"

VALUES = [
    *(None, True, False),
    *(0, -0.0, 1, -1, 9, 10, 0.5, 2**53, 1e300),
    *("", "1", "9", "10", "a", "B", "ab", "true", "null", "é", "\uffff", "\U00010000"),
    *([], [1], [True], ["a"], [[1]], [None, {"k": 1}], {}, {"k": 1}, {"k": True}, {"k": [1]}),
]
"""What stands in the metadata, and what it is compared with."""

DOCUMENTS = {
    **{f"fact {place}": {"v": value} for place, value in enumerate(VALUES)},
    **{f"deep fact {place}": {"o": {"v": value}} for place, value in enumerate(VALUES[::4])},
    "empty": {},
    "a list": {"o": ["v"]},
}


@pytest.fixture
async def stored(memory):
    requests = [
        pb.StoreMemoryRequest(
            session_id=SESSION, content=content, metadata=metadata, importance=1, never_expires=True
        )
        for content, metadata in DOCUMENTS.items()
    ]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    return memory


async def listed(memory, *conditions) -> set[str]:
    request = pb.ListMemoriesRequest(
        session_id=SESSION, page_size=1000, filter=pb.MemoryFilter(conditions=conditions)
    )
    return {found.content for found in (await memory.ListMemories(request)).memories}


@pytest.mark.parametrize("op", OPERATORS)
async def test_values_compare_by_their_json_type(stored, op):
    for wanted in [*VALUES, VALUES[:14], [[], {"k": 1}]]:
        if not takes(op, wanted):
            continue
        for path in (["v"], ["o", "v"]):
            given = condition(path, op, wanted)
            expected = {c for c, d in DOCUMENTS.items() if matches(d, path, op, wanted)}
            assert await listed(stored, given) == expected, (path, op, wanted)


async def test_every_method_with_a_filter_takes_conditions(stored):
    given = [condition(["v"], "GTE", 9), condition(["v"], "LT", 1e300)]
    expected = {c for c, d in DOCUMENTS.items() if d.get("v") in (9, 10, 2**53)}
    which = pb.MemoryFilter(conditions=given)
    assert await listed(stored, *given) == expected
    for query in ("", "fact"):
        answer = await stored.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id=SESSION, filter=which, query=query)
        )
        assert {result.memory.content for result in answer.results} == expected
    export = stored.ExportMemories(pb.ExportMemoriesRequest(session_id=SESSION, filter=which))
    assert {found.content async for found in export} == expected
    counted = pb.PurgeMemoriesRequest(session_id=SESSION, filter=which)
    assert (await stored.PurgeMemories(counted)).purge_count == len(expected)
    purge = pb.PurgeMemoriesRequest(session_id=SESSION, filter=which, force=True)
    assert (await stored.PurgeMemories(purge)).purge_count == len(expected)
    assert await listed(stored) == DOCUMENTS.keys() - expected


async def test_metadata_and_conditions_both_have_to_hold(stored):
    which = pb.MemoryFilter(metadata={"v": 1}, conditions=[condition(["v"], "IN", [1, 9])])
    request = pb.ListMemoriesRequest(session_id=SESSION, filter=which)
    assert [m.metadata["v"] for m in (await stored.ListMemories(request)).memories] == [1]
    which.conditions.append(condition(["v"], "NE", 1))
    again = pb.ListMemoriesRequest(session_id=SESSION, filter=which)
    assert not (await stored.ListMemories(again)).memories


REFUSED = {
    "no path": (condition([], "EQ", 1), "path"),
    "a long path": (condition(["a"] * 9, "EQ", 1), "path"),
    "no operator": (condition_pb2.Condition(path=["a"], value=Value(bool_value=True)), "op"),
    "an unknown operator": (
        condition_pb2.Condition(path=["a"], op=99, value=Value(bool_value=True)),
        "op",
    ),
    "no value": (condition_pb2.Condition(path=["a"], op=condition_pb2.CONDITION_OP_EQ), "value"),
    "a value without a kind": (
        condition_pb2.Condition(path=["a"], op=condition_pb2.CONDITION_OP_EQ, value=Value()),
        "value",
    ),
    "IN without a list": (condition(["a"], "IN", "x"), "value"),
    "NOT_IN without a list": (condition(["a"], "NOT_IN", {}), "value"),
    "EXISTS of a number": (condition(["a"], "EXISTS", 1), "value"),
    "a large value": (condition(["a"], "EQ", "x" * 16_384), "value"),
    "a deep value": (condition(["a"], "EQ", [[[[[[[[[]]]]]]]]]), "value"),
    "NaN": (
        condition_pb2.Condition(
            path=["a"],
            op=condition_pb2.CONDITION_OP_GT,
            value=Value(number_value=float("nan")),
        ),
        "value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_condition_is_refused_with_its_place(memory, refused, name):
    bad, field = REFUSED[name]
    which = pb.MemoryFilter(conditions=[condition(["a"], "EQ", 1), bad])
    for call in (
        memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION, filter=which)),
        memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=SESSION, filter=which)),
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {f"filter.conditions[1].{field}"}


async def test_more_than_32_conditions_are_refused(memory, refused):
    which = pb.MemoryFilter(conditions=[condition(["a"], "EQ", 1)] * 32)
    request = pb.ListMemoriesRequest(session_id=SESSION, filter=which)
    await memory.ListMemories(request)
    for many in (33, 100_000):
        del which.conditions[:]
        which.conditions.extend([condition(["a"], "EQ", 1)] * many)
        request = pb.ListMemoriesRequest(session_id=SESSION, filter=which)
        assert set((await refused(memory.ListMemories(request))).violations) == {
            "filter.conditions"
        }
