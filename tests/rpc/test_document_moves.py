"""MoveDocuments: documents take other names, with all that belongs to them, or none does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from tests.rpc.test_document_lists import fill, list_names
from tests.rpc.test_document_watch import CREATED, DELETED, EXPIRED, events
from tests.rpc.test_documents import batch, delete, get, put, revisions, seconds

from memoryd.documents import moving
from memoryd.v1 import document_pb2 as pb
from memoryd.v1 import session_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def name(namespace=(), key=""):
    return pb.DocumentName(namespace=namespace, key=key)


def move(source, target, session_id="s"):
    return pb.MoveDocumentsRequest(session_id=session_id, to=target, **{"from": source})


def told(found):
    return [(one.change, tuple(one.document.namespace), one.document.key) for one in found]


async def test_a_document_takes_another_name_with_all_that_is_its_own(documents, clock):
    values = {"labels": {"a": "b"}, "ttl": seconds(60), "search_texts": ["blue whales"]}
    await documents.PutDocument(put("k", ["a"], text="1", **values))
    clock.move(timedelta(seconds=7))
    before = await documents.PutDocument(put("k", ["a"], text="2", **values))
    clock.move(timedelta(seconds=7))
    answer = await documents.MoveDocuments(move(name(["a"], "k"), name(["b", "c"], "n")))
    after = await documents.GetDocument(get("n", ["b", "c"]))
    assert after.revision > before.revision
    assert after.etag != before.etag
    moved = pb.Document()
    moved.CopyFrom(before)
    moved.namespace[:], moved.key = ["b", "c"], "n"
    moved.revision, moved.etag = after.revision, after.etag
    assert after == moved
    moved.ClearField("body")
    assert (answer.moved_count, list(answer.documents)) == (1, [moved])
    kept = await revisions(documents, "n", namespace=["b", "c"])
    assert [one.document.text for one in kept] == ["2", "1"]
    assert not await revisions(documents, "k", namespace=["a"])
    assert await list_names(documents) == [(("b", "c"), "n")]
    clock.move(timedelta(seconds=60))
    assert await list_names(documents) == []


async def test_a_namespace_takes_the_place_of_another(documents):
    await fill(documents, [((), "a"), (("a",), "a"), (("a", "b"), "k"), (("ab",), "k")])
    answer = await documents.MoveDocuments(move(name(["a"]), name(["x", "y"])))
    assert answer.moved_count == 2
    assert await list_names(documents) == [
        *(((), "a"), (("ab",), "k"), (("x", "y"), "a"), (("x", "y", "b"), "k")),
    ]
    back = await documents.MoveDocuments(move(name(["x", "y"]), name(["a"])))
    assert [tuple(one.namespace) for one in back.documents] == [("a",), ("a", "b")]
    assert (await documents.MoveDocuments(move(name(["ab"]), name()))).moved_count == 1
    assert await list_names(documents) == [
        *(((), "a"), ((), "k"), (("a",), "a"), (("a", "b"), "k"))
    ]


async def test_a_namespace_takes_the_place_of_one_above_it(documents):
    await fill(documents, [((), "k"), *((("a",) * depth, "k") for depth in range(2, 6))])
    assert (await documents.MoveDocuments(move(name(["a"] * 2), name(["a"])))).moved_count == 4
    assert await list_names(documents) == [((), "k"), *((("a",) * n, "k") for n in range(1, 5))]
    request = move(name(["a"]), name())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await documents.MoveDocuments(request)
    assert caught.value.code() is EXISTS
    await documents.DeleteDocument(delete())
    assert (await documents.MoveDocuments(request)).moved_count == 4
    assert await list_names(documents) == [(("a",) * n, "k") for n in range(4)]
    for depth in range(4):
        found = await revisions(documents, namespace=["a"] * depth)
        assert [one.document.json for one in found] == ["{}"]


async def test_watchers_see_the_old_name_go_and_the_new_one_come(documents):
    await fill(documents, [(("a",), "k"), (("a", "b"), "k")])
    answer = await documents.MoveDocuments(move(name(["a"]), name(["b"])))
    last = answer.documents[-1].revision
    assert last == 6
    seen = await events(documents, last, start=2)
    assert told(seen) == [
        *((DELETED, ("a",), "k"), (CREATED, ("b",), "k")),
        *((DELETED, ("a", "b"), "k"), (CREATED, ("b", "b"), "k")),
    ]
    assert seen[-1].document.json == "{}"
    assert [one.revision for one in seen] == [3, 4, 5, 6]
    assert told(await events(documents, last, prefix=["b"])) == [
        *((CREATED, ("b",), "k"), (CREATED, ("b", "b"), "k")),
    ]


@pytest.mark.parametrize(
    ("source", "target", "field"),
    [
        (name([], "k"), name([], "k"), "to"),
        (name(["a"]), name(["a"]), "to"),
        (name(["a"]), name(["a", "b"]), "to"),
        (name(), name(), "to"),
        (name(), name(["a"]), "to"),
        (name([], "k"), name(["a"]), "to.key"),
        (name(["a"]), name([], "k"), "to.key"),
        (name([""], "k"), name([], "l"), "from.namespace[0]"),
        (name([], "k"), name(["x\n"], "l"), "to.namespace[0]"),
        (name([], "k"), name([], "x" * 513), "to.key"),
        (name(["x"] * 20), name(["a"]), "from.namespace"),
        (None, name([], "k"), "from"),
        (name([], "k"), None, "to"),
    ],
    ids=str,
)
async def test_what_cannot_be_moved_is_named(documents, refused, source, target, field):
    await fill(documents, [((), "k"), (("a",), "k")])
    refusal = await refused(documents.MoveDocuments(move(source, target)))
    assert refusal.code is INVALID
    assert [*refusal.violations] == [field]
    assert await list_names(documents) == [((), "k"), (("a",), "k")]


async def test_names_stay_within_their_limits(documents, refused):
    deep = ("x" * 200,) * 4
    await fill(documents, [(("a",), "k"), (("a", *deep), "y" * 200), (("b", *"c" * 18), "k")])
    before = await list_names(documents)
    for source, target in ((["a"], ["z" * 25]), (["b"], ["z", "z"])):
        refusal = await refused(documents.MoveDocuments(move(name(source), name(target))))
        assert refusal.code is INVALID
        assert [*refusal.violations] == ["to"]
    assert await list_names(documents) == before
    assert (await documents.MoveDocuments(move(name(["a"]), name(["z" * 24])))).moved_count == 2


async def test_a_taken_name_moves_nothing(documents, sessions, refused, clock):
    await fill(documents, [(("a",), "1"), (("a",), "2"), (("a",), "3"), (("b",), "2")])
    refusal = await refused(documents.MoveDocuments(move(name(["a"]), name(["b"]))))
    assert refusal.code is EXISTS
    assert refusal.resource.resource_name == "b/2"
    assert [*refusal.violations] == ["to"]
    assert len(await list_names(documents, namespace_prefix=["a"])) == 3
    # One that has expired makes room, as for a put.
    await documents.PutDocument(put("2", ["b"], ttl=seconds(60)))
    clock.move(timedelta(seconds=60))
    answer = await documents.MoveDocuments(move(name(["a"]), name(["b"])))
    assert answer.moved_count == 3
    last = answer.documents[-1].revision
    assert told(await events(documents, last, start=last - 7))[0] == (EXPIRED, ("b",), "2")
    assert await list_names(documents) == [(("b",), str(n)) for n in range(1, 4)]
    named = session_pb2.GetSessionRequest(session_id="s")
    assert (await sessions.GetSession(named)).document_count == 3


@pytest.mark.parametrize("source", [name([], "none"), name(["none"]), name([], "gone")])
async def test_what_is_not_there_is_not_moved(documents, refused, clock, source):
    target = name(["b"], "k" if source.key else "")
    refusal = await refused(documents.MoveDocuments(move(source, target, "never")))
    assert refusal.code is NOT_FOUND
    await documents.PutDocument(put("gone", ttl=seconds(1)))
    await documents.PutDocument(put("gone", ["none"], ttl=seconds(1)))
    clock.move(timedelta(seconds=1))
    assert (await refused(documents.MoveDocuments(move(source, target)))).code is NOT_FOUND


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_MOVED", 2), ("MAX_MOVED_VERSIONS", 1), ("MAX_MOVED_BYTES", 11)]
)
async def test_a_move_is_bounded(documents, refused, monkeypatch, limit, value):
    await fill(documents, [(("a",), str(n)) for n in range(3)])
    await documents.BatchWriteDocuments(batch(*(put(str(n), ["a"]) for n in range(3))))
    request = move(name(["a"]), name(["b"]))
    with monkeypatch.context() as patched:
        patched.setattr(moving, limit, value)
        refusal = await refused(documents.MoveDocuments(request))
        assert refusal.code is INVALID
        assert [*refusal.violations] == ["from"]
    assert (await documents.MoveDocuments(request)).moved_count == 3


async def test_a_move_sees_the_writes_of_its_transaction_and_they_see_it(documents, sessions):
    """All are waiting at once, so they share transactions; nothing is lost in any order."""
    await fill(documents, [(("a",), str(n)) for n in range(4)])

    async def attempt(method, request):
        try:
            await method(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() in {EXISTS, NOT_FOUND}  # noqa: PT017  other outcomes are fine, too

    calls = []
    for n in range(8):
        calls += [
            attempt(documents.PutDocument, put(f"new{n}", ["a"], text=str(n))),
            attempt(documents.MoveDocuments, move(name(["a"]), name(["b"]))),
            attempt(documents.MoveDocuments, move(name(["b"], f"new{n}"), name(["c"], f"new{n}"))),
            attempt(documents.PutDocument, put(str(n % 4), ["b"], text="over")),
            attempt(documents.MoveDocuments, move(name(["b"]), name(["a"]))),
        ]
    await asyncio.gather(*calls)
    names = await list_names(documents)
    assert {key for _, key in names} == {*"0123", *(f"new{n}" for n in range(8))}
    for n in range(8):
        assert [key for _, key in names].count(f"new{n}") == 1
    # What is counted is what is there, and the feed leads to it.
    count = (
        await documents.DeleteDocuments(pb.DeleteDocumentsRequest(session_id="s"))
    ).delete_count
    assert count == len(names)
    named = session_pb2.GetSessionRequest(session_id="s")
    assert (await sessions.GetSession(named)).document_count == len(names)
    last = (await documents.PutDocument(put("last"))).revision
    state = set()
    for change, namespace, key in told(await events(documents, last)):
        if change == DELETED:
            state.discard((namespace, key))
        else:
            state.add((namespace, key))
    assert state == {*names, ((), "last")}
