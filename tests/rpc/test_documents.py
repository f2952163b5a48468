"""DocumentService: what is put is what is read, under every condition that a write may carry."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from memoryd.v1 import document_pb2 as pb
from memoryd.v1 import memory_pb2

NAMESPACE = ["files", "täglich"]
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
MIB = 1024 * 1024


def put(key="k", namespace=(), session_id="s", **values):
    """A put; what a request has besides its document is told from what a document has."""
    names = ("if_absent", "search_texts", "request_id")
    given = {name: values.pop(name) for name in names if name in values}
    if not {"json", "text", "data"} & values.keys():
        values["json"] = "{}"
    document = pb.Document(session_id=session_id, namespace=namespace, key=key, **values)
    return pb.PutDocumentRequest(document=document, **given)


def get(key="k", namespace=(), session_id="s", **others):
    return pb.GetDocumentRequest(session_id=session_id, namespace=namespace, key=key, **others)


def delete(key="k", namespace=(), session_id="s", **others):
    return pb.DeleteDocumentRequest(session_id=session_id, namespace=namespace, key=key, **others)


def batch(*writes, session_id="s", **others):
    kinds = {pb.PutDocumentRequest: "put", pb.DeleteDocumentRequest: "delete"}
    items = [pb.DocumentWrite(**{kinds[type(write)]: write}) for write in writes]
    return pb.BatchWriteDocumentsRequest(session_id=session_id, writes=items, **others)


def seconds(count):
    return Duration(seconds=count)


async def revisions(documents, key="k", **others):
    request = pb.ListDocumentRevisionsRequest(session_id="s", key=key, **others)
    return (await documents.ListDocumentRevisions(request)).revisions


@pytest.mark.parametrize(
    "body",
    [
        {"json": '{"n": 9007199254740993, "f": 1.10, "e": 1E400, "d": 1, "d": 2}'},
        {"json": ' \n["\\u0000", "\\ud800", "\\uD83D\\uDE00", "ü"] '},
        {"json": "null"},
        {"json": "9" * 5000},
        {"text": "<b>kept</b>  as\tit is \r\n"},
        {"text": ""},
        {"data": b""},
        {"data": bytes(range(256)) * 4096},
        {"text": "x" * MIB},
    ],
    ids=[
        "numbers",
        "escapes",
        "null",
        "digits",
        "text",
        "no text",
        "no data",
        "1 MiB",
        "text 1 MiB",
    ],
)
async def test_bodies_come_back_to_the_byte(documents, body):
    made = await documents.PutDocument(put(namespace=NAMESPACE, labels={"a/b": "ü"}, **body))
    (kind,) = body
    raw = body[kind].encode() if isinstance(body[kind], str) else body[kind]
    assert getattr(made, kind) == body[kind]
    assert made.WhichOneof("body") == kind
    assert (made.size_bytes, made.body_sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert (made.session_id, list(made.namespace), made.key) == ("s", NAMESPACE, "k")
    assert dict(made.labels) == {"a/b": "ü"}
    assert made.etag
    assert not made.HasField("expire_time")
    assert await documents.GetDocument(get(namespace=NAMESPACE)) == made


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"json": "NaN"}, "json"),
        ({"json": "[Infinity]"}, "json"),
        ({"json": "{'a': 1}"}, "json"),
        ({"json": "1 2"}, "json"),
        ({"json": ""}, "json"),
        ({"json": "\ufeff{}"}, "json"),
        ({"json": "[" * 513 + "]" * 513}, "json"),
        ({"json": '"' + "x" * MIB + '"'}, "json"),
        ({"text": "a\x00b"}, "text"),
        ({"data": b"x" * (MIB + 1)}, "data"),
        ({"key": ""}, "key"),
        ({"key": "x" * 513}, "key"),
        ({"key": "a\x7fb"}, "key"),
        ({"key": "k", "namespace": ["x" * 255] * 4 + ["yyyy"]}, "key"),
        ({"namespace": [""]}, "namespace[0]"),
        ({"namespace": ["a", "b\n"]}, "namespace[1]"),
        ({"namespace": ["x" * 256]}, "namespace[0]"),
        ({"namespace": ["x"] * 20}, "namespace"),
        ({"labels": {"Ä": "x"}}, "labels"),
        ({"labels": {"x" * 64: "x"}}, "labels"),
        ({"labels": {"x": "y" * 256}}, "labels"),
        ({"labels": {str(n): "x" for n in range(65)}}, "labels"),
        ({"ttl": Duration()}, "ttl"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "a b"}, "session_id"),
    ],
)
async def test_a_bad_document_is_refused_with_its_field(documents, refused, values, field):
    found = await refused(documents.PutDocument(put(**values)))
    assert (found.code, list(found.violations)) == (INVALID, [f"document.{field}"])


async def test_what_is_missing_or_too_much_is_named(documents, refused):
    document = pb.Document(session_id="s", key="k")
    found = await refused(documents.PutDocument(pb.PutDocumentRequest(document=document)))
    assert list(found.violations) == ["document.body"]
    assert (await refused(documents.PutDocument(pb.PutDocumentRequest()))).code is INVALID
    for texts, field in (
        (["x"] * 65, "search_texts"),
        (["x", ""], "search_texts[1]"),
        (["x" * 16_385], "search_texts[0]"),
    ):
        found = await refused(documents.PutDocument(put(search_texts=texts)))
        assert list(found.violations) == [field]
    for request in (put(), put(document_id := str(uuid.uuid4()))):
        assert (await documents.PutDocument(request)).key in {"k", document_id}


async def test_limits_are_reached_exactly(documents):
    longest = put("k" * 4, ["x" * 255] * 4, labels={str(n): "y" * 255 for n in range(64)})
    assert await documents.PutDocument(longest)
    deep = put("d" * 512, ["n"] * 19, json="[" * 512 + "]" * 512, search_texts=["x" * 16_384] * 64)
    assert await documents.PutDocument(deep)


async def test_a_put_replaces_and_keeps_the_create_time(documents, clock):
    first = await documents.PutDocument(put(json="1", labels={"a": "1"}, ttl=seconds(60)))
    clock.move(timedelta(seconds=30))
    second = await documents.PutDocument(put(text="2", labels={"b": "2"}))
    assert (second.create_time, second.update_time) == (first.create_time, second.update_time)
    assert second.update_time.ToDatetime() - first.update_time.ToDatetime() == timedelta(seconds=30)
    assert second.etag != first.etag
    assert second.revision == first.revision + 1
    assert dict(second.labels) == {"b": "2"}
    assert not second.HasField("ttl")
    assert not second.HasField("expire_time")  # a put without ttl never expires
    assert await documents.GetDocument(get()) == second
    kept = await revisions(documents)
    assert [one.document for one in kept] == [second, first]
    assert [one.change for one in kept] == [
        pb.DOCUMENT_CHANGE_UPDATED,
        pb.DOCUMENT_CHANGE_CREATED,
    ]


async def test_conditions_of_a_put(documents, refused):
    found = await refused(documents.PutDocument(put(etag="r1")))
    assert (found.code, found.reason) == (ABORTED, "ETAG_MISMATCH")
    made = await documents.PutDocument(put(if_absent=True))
    found = await refused(documents.PutDocument(put(if_absent=True)))
    assert (found.code, found.reason) == (EXISTS, "DOCUMENT_ALREADY_EXISTS")
    assert found.resource.resource_name == "k"
    again = await documents.PutDocument(put(etag=made.etag, json="2"))
    assert (await refused(documents.PutDocument(put(etag=made.etag)))).code is ABORTED
    assert await documents.GetDocument(get()) == again


async def test_of_racing_puts_if_absent_one_wins(documents):
    calls = [documents.PutDocument(put(json=str(n), if_absent=True)) for n in range(64)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    (won,) = (answer for answer in answers if isinstance(answer, pb.Document))
    assert await documents.GetDocument(get()) == won


async def test_a_repeated_request_id_changes_nothing(documents, refused, serve, clock):
    request = put(json="1", ttl=seconds(60), request_id=str(uuid.uuid4()))
    first = await documents.PutDocument(request)
    clock.move(timedelta(seconds=1))
    await documents.PutDocument(put(json="2"))
    request.document.etag = ""
    assert await documents.PutDocument(request) == first
    upper = put(json="1", ttl=seconds(60), request_id=request.request_id.upper())
    await documents.DeleteDocument(delete())
    other = await serve()
    assert await other.documents.PutDocument(upper) == first
    assert (await refused(documents.GetDocument(get()))).code is NOT_FOUND
    changed = put(json="3", request_id=request.request_id)
    found = await refused(documents.PutDocument(changed))
    assert (found.code, found.reason) == (INVALID, "REQUEST_ID_REUSED")


async def test_a_replay_beats_a_stale_etag_and_a_refusal_uses_up_nothing(documents, refused):
    made = await documents.PutDocument(put())
    request = put(etag=made.etag, json="2", request_id=str(uuid.uuid4()))
    changed = await documents.PutDocument(request)
    assert await documents.PutDocument(request) == changed
    absent = put("x", etag="r9", request_id=str(uuid.uuid4()))
    assert (await refused(documents.PutDocument(absent))).code is ABORTED
    assert (await refused(documents.PutDocument(absent))).code is ABORTED


async def test_deleting_is_for_good(documents, refused, tables):
    made = await documents.PutDocument(put(text="canary", search_texts=["canary text"]))
    again = await documents.PutDocument(put(text="canary 2", search_texts=["canary text 2"]))
    assert (await refused(documents.DeleteDocument(delete(etag=made.etag)))).code is ABORTED
    await documents.DeleteDocument(delete(etag=again.etag))
    assert "canary" not in await tables.everything()
    assert not await revisions(documents)
    found = await refused(documents.DeleteDocument(delete()))
    assert (found.code, found.reason) == (NOT_FOUND, "DOCUMENT_NOT_FOUND")
    assert (await refused(documents.DeleteDocument(delete(etag="r1")))).code is ABORTED
    request = delete(etag="r1", allow_missing=True)
    assert (await refused(documents.DeleteDocument(request))).code is ABORTED
    await documents.DeleteDocument(delete(allow_missing=True))
    await documents.DeleteDocument(delete(session_id="none", allow_missing=True))
    assert (await documents.PutDocument(put())).revision == again.revision + 2


async def test_a_batch_is_done_in_order(documents):
    await documents.PutDocument(put("old"))
    answer = await documents.BatchWriteDocuments(
        batch(
            put("a", json="1", session_id=""),
            put("a", json="2"),
            delete("old", session_id=""),
            put("old", if_absent=True),
            delete("a"),
            put("a", text="3", if_absent=True),
        )
    )
    assert [one.revision for one in answer.documents] == [2, 3, 0, 5, 0, 7]
    assert answer.documents[2] == pb.Document()
    assert await documents.GetDocument(get("a")) == answer.documents[5]
    assert await documents.GetDocument(get("old")) == answer.documents[3]
    assert len(await revisions(documents, "a")) == 1


async def test_a_batch_is_done_whole_or_not_at_all(documents, refused, tables):
    before = await documents.PutDocument(put("there"))
    for last, code in (
        (put("there", if_absent=True), EXISTS),
        (put("b", etag="r7"), ABORTED),
        (delete("none"), NOT_FOUND),
    ):
        writes = batch(put("a"), put("there", json="2"), last, request_id=str(uuid.uuid4()))
        found = await refused(documents.BatchWriteDocuments(writes))
        assert (found.code, list(found.violations)) == (code, ["writes[2]"])
        assert found.message.startswith("writes[2]: ")
    assert await documents.GetDocument(get("there")) == before
    assert (await refused(documents.GetDocument(get("a")))).code is NOT_FOUND
    assert await tables.rows("SELECT revision FROM sessions") == [(1,)]
    new = batch(put("a", session_id="new"), delete("b"), session_id="new")
    new.writes[1].delete.session_id = ""
    await refused(documents.BatchWriteDocuments(new))
    assert not await tables.naming("new") or not any((await tables.naming("new")).values())


async def test_what_is_wrong_with_a_batch_names_its_write(documents, refused):
    wrong = batch(
        put("ok"),
        put("", json="{"),
        delete("x\n"),
        put(session_id="other"),
        put(request_id=str(uuid.uuid4())),
        pb.DeleteDocumentRequest(session_id="other", key="k"),
    )
    found = await refused(documents.BatchWriteDocuments(wrong))
    assert set(found.violations) == {
        "writes[1].put.document.key",
        "writes[1].put.document.json",
        "writes[2].delete.key",
        "writes[3].put.document.session_id",
        "writes[4].put.request_id",
        "writes[5].delete.session_id",
    }
    found = await refused(documents.BatchWriteDocuments(batch(*[put()] * 1001)))
    assert list(found.violations) == ["writes"]
    empty = pb.BatchWriteDocumentsRequest(session_id="s", writes=[pb.DocumentWrite()])
    assert (await refused(documents.BatchWriteDocuments(empty))).code is INVALID
    assert not (await documents.BatchWriteDocuments(batch())).documents


async def test_a_batch_is_repeated_by_its_request_id(documents):
    await documents.PutDocument(put("old"))
    request = batch(*(put(f"k{n}") for n in range(1000)), request_id=str(uuid.uuid4()))
    first = await documents.BatchWriteDocuments(request)
    assert len(first.documents) == 1000
    await documents.DeleteDocument(delete("k7"))
    assert await documents.BatchWriteDocuments(request) == first
    nothing = batch(delete("none", allow_missing=True), request_id=str(uuid.uuid4()))
    answer = await documents.BatchWriteDocuments(nothing)
    await documents.PutDocument(put("none"))
    assert await documents.BatchWriteDocuments(nothing) == answer
    assert await documents.GetDocument(get("none"))


async def test_the_answer_of_a_repeated_batch_is_the_first_in_every_field(documents, clock):
    for key in ("replaced", "overdue"):
        await documents.PutDocument(put(key, ttl=seconds(30)))
    clock.move(timedelta(seconds=40))
    await documents.PutDocument(put("replaced", labels={"a": "b"}))
    clock.move(timedelta(seconds=40))
    writes = [
        put("new", NAMESPACE, text="t", labels={"c": "d"}, search_texts=["found by this"]),
        put("replaced", data=b"d", ttl=seconds(60)),
        delete("none", allow_missing=True),
        put("overdue"),
        put("twice"),
        put("twice", json="2", ttl=seconds(90)),
        put("kept", ttl=seconds(2)),
    ]
    request = batch(*writes, request_id=str(uuid.uuid4()))
    first = await documents.BatchWriteDocuments(request)
    assert await documents.GetDocument(get("new", NAMESPACE)) == first.documents[0]
    assert await documents.GetDocument(get("kept")) == first.documents[6]
    clock.move(timedelta(seconds=20))
    await documents.PutDocument(put("replaced", json="3"))
    assert await documents.BatchWriteDocuments(request) == first
    ages = [
        answer.update_time.ToDatetime() - answer.create_time.ToDatetime()
        for answer in first.documents
    ]
    assert ages[1] == timedelta(seconds=40)
    assert not any((ages[0], *ages[2:]))


async def test_many_are_read_in_order(documents):
    made = (await documents.BatchWriteDocuments(batch(put("a"), put("b", NAMESPACE)))).documents
    names = [
        pb.DocumentName(namespace=NAMESPACE, key="b"),
        pb.DocumentName(key="none"),
        pb.DocumentName(key="a"),
        pb.DocumentName(namespace=NAMESPACE, key="b"),
    ]
    request = pb.BatchGetDocumentsRequest(session_id="s", names=names)
    answer = await documents.BatchGetDocuments(request)
    assert [one.name for one in answer.entries] == names
    assert [one.HasField("document") for one in answer.entries] == [True, False, True, True]
    assert [answer.entries[n].document for n in (0, 2, 3)] == [made[1], made[0], made[1]]
    assert not answer.truncated


async def test_too_much_for_one_answer_leaves_bodies_out(documents, refused):
    for number in range(5):
        await documents.PutDocument(put(f"k{number}", data=b"x" * MIB))
    names = [pb.DocumentName(key=f"k{number}") for number in range(5)]
    request = pb.BatchGetDocumentsRequest(session_id="s", names=names)
    answer = await documents.BatchGetDocuments(request)
    assert answer.truncated
    assert answer.ByteSize() <= 4_000_000
    held = [one.document.HasField("data") for one in answer.entries]
    assert held == sorted(held, reverse=True)
    assert any(held)
    assert [one.document.size_bytes for one in answer.entries] == [MIB] * 5
    request = pb.BatchGetDocumentsRequest(session_id="s", names=[pb.DocumentName(key="k")] * 1001)
    assert list((await refused(documents.BatchGetDocuments(request))).violations) == ["names"]
    request = pb.BatchGetDocumentsRequest(session_id="s", names=[pb.DocumentName(key="")])
    found = await refused(documents.BatchGetDocuments(request))
    assert list(found.violations) == ["names[0].key"]


async def test_a_ttl_slides_with_puts_and_with_reads_that_say_so(documents, refused, clock):
    made = await documents.PutDocument(put(ttl=seconds(60)))
    assert made.expire_time.ToDatetime() - made.update_time.ToDatetime() == timedelta(seconds=60)
    clock.move(timedelta(seconds=59))
    assert await documents.GetDocument(get()) == made
    refreshed = await documents.GetDocument(get(refresh_ttl=True))
    assert (refreshed.etag, refreshed.revision) == (made.etag, made.revision)
    assert refreshed.update_time == made.update_time
    clock.move(timedelta(seconds=59))
    assert await documents.GetDocument(get()) == refreshed
    request = pb.BatchGetDocumentsRequest(
        session_id="s", names=[pb.DocumentName(key="k")], refresh_ttl=True
    )
    (entry,) = (await documents.BatchGetDocuments(request)).entries
    assert entry.document.expire_time.ToDatetime() > refreshed.expire_time.ToDatetime()
    clock.move(timedelta(seconds=60))
    assert (await refused(documents.GetDocument(get(refresh_ttl=True)))).code is NOT_FOUND
    assert not (await documents.BatchGetDocuments(request)).entries[0].HasField("document")
    again = await documents.PutDocument(put(if_absent=True, ttl=Duration(seconds=315_576_000_000)))
    assert again.create_time.ToDatetime() > made.create_time.ToDatetime()
    assert again.revision == made.revision + 2  # after its expiry
    assert again.expire_time.ToDatetime().year == 9999


async def test_sessions_and_tenants_of_documents(documents, memory, refused, tables):
    await documents.PutDocument(put())
    await tables.copy_to_tenant("other")
    assert (await refused(documents.GetDocument(get(session_id="t")))).code is NOT_FOUND
    erased = await memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
    assert erased.erased_rows["documents"] == 1
    assert (await refused(documents.GetDocument(get()))).code is NOT_FOUND
    left = await tables.rows("SELECT tenant FROM documents")
    assert left == [("other",)]


async def test_documents_below_a_namespace_are_counted_and_deleted(documents, refused):
    names = [((), "r"), (("a",), "k"), (("a", "b"), "k"), (("ab",), "k"), (("a\u0020",), "k")]
    await documents.BatchWriteDocuments(batch(*(put(key, namespace) for namespace, key in names)))
    below = pb.DeleteDocumentsRequest(session_id="s", namespace_prefix=["a"])
    assert (await documents.DeleteDocuments(below)).delete_count == 2
    assert await documents.GetDocument(get("k", ["a"]))
    below.force = True
    assert (await documents.DeleteDocuments(below)).delete_count == 2
    assert (await documents.DeleteDocuments(below)).delete_count == 0
    assert await documents.GetDocument(get("k", ["ab"]))
    every = pb.DeleteDocumentsRequest(session_id="s", force=True)
    assert (await documents.DeleteDocuments(every)).delete_count == 3
    wrong = pb.DeleteDocumentsRequest(session_id="s", namespace_prefix=[""])
    assert list((await refused(documents.DeleteDocuments(wrong))).violations) == [
        "namespace_prefix[0]"
    ]


async def test_of_racing_deletions_each_document_is_counted_once(documents):
    await documents.BatchWriteDocuments(batch(*(put(f"k{n}") for n in range(100))))
    every = pb.DeleteDocumentsRequest(session_id="s", force=True)
    answers = await asyncio.gather(*(documents.DeleteDocuments(every) for _ in range(4)))
    assert sum(answer.delete_count for answer in answers) == 100


async def test_memories_and_documents_share_one_order(documents, memory):
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="a fact")
    first = (await memory.StoreMemory(store)).memory
    second = await documents.PutDocument(put())
    store.content = "another"
    third = (await memory.StoreMemory(store)).memory
    await documents.DeleteDocument(delete())
    merged = (await memory.StoreMemory(store)).memory
    assert [one.revision for one in (first, second, third, merged)] == [1, 2, 3, 5]
    listed = await memory.ListMemories(memory_pb2.ListMemoriesRequest(session_id="s"))
    assert list(listed.memories) == [first, merged]
    found = await memory.RetrieveMemories(
        memory_pb2.RetrieveMemoriesRequest(session_id="s", query="fact")
    )
    assert found.revision == 5


@pytest.mark.parametrize(
    "request_",
    [
        batch(delete("a"), delete("b")),
        batch(delete("a", allow_missing=True), delete("b")),
        delete("a"),
        get("a", refresh_ttl=True),
        pb.MoveDocumentsRequest(
            session_id="s", to=pb.DocumentName(key="b"), **{"from": pb.DocumentName(key="a")}
        ),
    ],
    ids=["deletes", "one delete of two", "delete", "refresh", "move"],
)
async def test_a_session_that_is_not_there_has_no_document(
    documents, memory, refused, tables, request_
):
    """Nor does the refusal harm what is committed together with it."""
    calls = {
        pb.BatchWriteDocumentsRequest: documents.BatchWriteDocuments,
        pb.DeleteDocumentRequest: documents.DeleteDocument,
        pb.GetDocumentRequest: documents.GetDocument,
        pb.MoveDocumentsRequest: documents.MoveDocuments,
    }
    stores = [
        memory.StoreMemory(memory_pb2.StoreMemoryRequest(session_id="other", content=f"fact {n}"))
        for n in range(20)
    ]
    found, *stored = await asyncio.gather(refused(calls[type(request_)](request_)), *stores)
    assert found.code is NOT_FOUND
    assert len({one.memory.memory_id for one in stored}) == 20
    assert await tables.rows("SELECT session_id FROM sessions") == [("other",)]
