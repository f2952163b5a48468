"""DocumentService: lists of documents, namespaces and versions, exports."""

from __future__ import annotations

import json
from datetime import timedelta

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tests.rpc.test_documents import MIB, batch, delete, put, revisions, seconds

from memoryd.v1 import condition_pb2, memory_pb2
from memoryd.v1 import document_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT

NAMES = [
    ((), "\U0001f600"),
    ((), "A"),
    ((), "a"),
    (("a",), "a"),
    (("a", "Z"), "k"),
    (("a", "b"), "k"),
    (("a b",), "k"),
    (("a-b",), "k"),
    (("aa",), "k"),
    (("Ä",), "k"),
    (("\ue000",), "k"),
    (("\U0001f600",), "k"),
]


async def fill(documents, names=NAMES, session_id="s"):
    writes = [put(key, namespace, session_id) for namespace, key in names]
    await documents.BatchWriteDocuments(batch(*writes, session_id=session_id))


async def pages(method, request, field):
    """All entries, page by page, and how many pages they were."""
    found, count = [], 0
    while True:
        answer = await method(request)
        count += 1
        found += getattr(answer, field)
        if not answer.next_page_token:
            return found, count
        request.page_token = answer.next_page_token


def listing(session_id="s", **others):
    return pb.ListDocumentsRequest(session_id=session_id, **others)


def name_of(document):
    return tuple(document.namespace), document.key


async def list_names(documents, **others):
    found, _ = await pages(documents.ListDocuments, listing(**others), "documents")
    return [name_of(document) for document in found]


@pytest.mark.parametrize("page_size", [1, 5, 0])
async def test_documents_are_listed_by_code_point(documents, page_size):
    await fill(documents, reversed(NAMES))
    assert sorted(NAMES) == await list_names(documents, page_size=page_size)


async def test_a_prefix_means_whole_labels(documents):
    await fill(documents)
    assert await list_names(documents, namespace_prefix=["a"], page_size=2) == [
        (("a",), "a"),
        (("a", "Z"), "k"),
        (("a", "b"), "k"),
    ]
    assert await list_names(documents, namespace_prefix=["a", "b"]) == [(("a", "b"), "k")]
    assert await list_names(documents, namespace_prefix=["none"]) == []
    assert await list_names(documents, session_id="none") == []


async def test_writes_between_pages_repeat_and_skip_nothing(documents):
    await fill(documents, [((), f"k{n:02}") for n in range(10)])
    request = listing(page_size=3)
    first = await documents.ListDocuments(request)
    await documents.PutDocument(put("k00"))
    await documents.PutDocument(put("k01a"))
    await documents.DeleteDocument(delete("k02"))
    await documents.PutDocument(put("k04", text="changed"))
    request.page_token = first.next_page_token
    rest, _ = await pages(documents.ListDocuments, request, "documents")
    found = [document.key for document in (*first.documents, *rest)]
    assert found == [f"k{n:02}" for n in range(10)]
    assert rest[1].text == "changed"


async def test_a_page_token_belongs_to_its_arguments(documents, refused):
    await fill(documents)
    token = (await documents.ListDocuments(listing(page_size=1))).next_page_token
    wrong = listing(page_size=1, page_token=token, namespace_prefix=["a"])
    found = await refused(documents.ListDocuments(wrong))
    assert list(found.violations) == ["page_token"]
    wrong = listing(page_token=token[1:])
    found = await refused(documents.ListDocuments(wrong))
    assert (found.code, list(found.violations)) == (INVALID, ["page_token"])


async def test_a_basic_view_has_no_bodies(documents):
    made = await documents.PutDocument(put(json="[1]", labels={"a": "b"}))
    basic = listing(view=pb.DOCUMENT_VIEW_BASIC)
    (found,) = (await documents.ListDocuments(basic)).documents
    assert found.WhichOneof("body") is None
    made.ClearField("json")
    assert found == made


async def test_large_bodies_end_a_page_early(documents):
    for number in range(6):
        await documents.PutDocument(put(f"k{number}", data=bytes([number]) * MIB))
    found, count = await pages(documents.ListDocuments, listing(), "documents")
    assert [document.data[:1] for document in found] == [bytes([n]) for n in range(6)]
    assert 2 <= count <= 6


async def test_labels_filter(documents, refused):
    await documents.BatchWriteDocuments(
        batch(
            put("a", labels={"x": "1", "y": "2"}),
            put("b", labels={"x": "1"}),
            put("c", labels={"x": "2", "y": "2"}),
        )
    )
    for labels, keys in (
        ({"x": "1"}, ["a", "b"]),
        ({"x": "1", "y": "2"}, ["a"]),
        ({"z": ""}, []),
    ):
        found = await list_names(documents, filter=pb.DocumentFilter(labels=labels), page_size=1)
        assert [key for _, key in found] == keys
    wrong = listing(filter=pb.DocumentFilter(labels={"Ä": ""}))
    assert list((await refused(documents.ListDocuments(wrong))).violations) == ["filter.labels"]


def condition(path, op, value):
    wanted = Value()
    if isinstance(value, bool):
        wanted.bool_value = value
    elif isinstance(value, str):
        wanted.string_value = value
    elif value is None:
        wanted.null_value = 0
    else:
        wanted.number_value = value
    number = condition_pb2.ConditionOp.Value(f"CONDITION_OP_{op}")
    return condition_pb2.Condition(path=path, op=number, value=wanted)


@pytest.mark.parametrize(
    ("path", "op", "value", "keys"),
    [
        (["n"], "EQ", 2, ["b"]),
        (["n"], "GT", 1, ["b", "big"]),
        (["n"], "LT", "10", []),
        (["n"], "EXISTS", True, ["a", "b", "big", "null"]),
        (["n"], "NE", 1, ["b", "big", "list", "null", "text"]),
        (["o", "t"], "CONTAINS", "x", ["a"]),
        (["n"], "EQ", None, ["null"]),
        (["s"], "EXISTS", True, ["b"]),
    ],
)
async def test_conditions_look_into_json_bodies(documents, path, op, value, keys):
    await documents.BatchWriteDocuments(
        batch(
            put("a", json='{"n": 7, "n": 1, "o": {"t": ["x"]}}'),
            put("b", json='{"n": 2.0, "s": "\\ud83d"}'),
            put("big", json='{"n": 1e999, "large": "' + "x" * 100_000 + '"}'),
            put("list", json='[{"n": 2}]'),
            put("null", json='{"n": null}'),
            put("text", text='{"n": 2}'),
        )
    )
    wanted = pb.DocumentFilter(conditions=[condition(path, op, value)])
    found = await list_names(documents, filter=wanted, page_size=2)
    assert [key for _, key in found] == keys


async def test_an_export_has_all_that_match(documents):
    writes = [put(f"k{n:03}", ["a" if n % 2 else "b"], json=str(n)) for n in range(120)]
    await documents.BatchWriteDocuments(batch(*writes))
    request = pb.ExportDocumentsRequest(session_id="s", namespace_prefix=["a"])
    found = [document async for document in documents.ExportDocuments(request)]
    assert [json.loads(document.json) for document in found] == list(range(1, 120, 2))


async def test_expired_documents_are_in_no_list(documents, clock):
    await documents.BatchWriteDocuments(
        batch(put("a", ttl=seconds(60)), put("b", ["n"], ttl=seconds(60)), put("c"))
    )
    clock.move(timedelta(seconds=60))
    assert await list_names(documents) == [((), "c")]
    request = pb.ExportDocumentsRequest(session_id="s")
    assert [document.key async for document in documents.ExportDocuments(request)] == ["c"]
    found = await documents.ListNamespaces(pb.ListNamespacesRequest(session_id="s"))
    assert [list(one.labels) for one in found.namespaces] == [[]]
    assert not await revisions(documents, "a")
    counting = pb.DeleteDocumentsRequest(session_id="s")
    assert (await documents.DeleteDocuments(counting)).delete_count == 1


async def test_versions_are_listed_newest_first(documents):
    made = [await documents.PutDocument(put(json=str(n))) for n in range(5)]
    request = pb.ListDocumentRevisionsRequest(session_id="s", key="k", page_size=2)
    found, count = await pages(documents.ListDocumentRevisions, request, "revisions")
    assert count == 3
    assert [one.document for one in found] == made[::-1]
    assert [one.revision for one in found] == [5, 4, 3, 2, 1]
    assert [one.record_time for one in found] == [one.update_time for one in made[::-1]]
    assert not await revisions(documents, "none")


# Namespaces


async def namespaces(documents, session_id="s", **others):
    request = pb.ListNamespacesRequest(session_id=session_id, **others)
    found, _ = await pages(documents.ListNamespaces, request, "namespaces")
    return ["/".join(one.labels) for one in found]


TREE = ["", "a", "a/b", "a/b/c", "a/x/c", "b/b/c/d", "z/z"]


@pytest.fixture
async def tree(documents):
    names = [(tuple(filter(None, one.split("/"))), f"k{n}") for one in TREE for n in range(3)]
    await fill(documents, names)


@pytest.mark.parametrize("page_size", [1, 0])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, TREE),
        ({"prefix": ["a"]}, ["a", "a/b", "a/b/c", "a/x/c"]),
        ({"prefix": ["a", "*"]}, ["a/b", "a/b/c", "a/x/c"]),
        ({"prefix": ["*", "b"]}, ["a/b", "a/b/c", "b/b/c/d"]),
        ({"suffix": ["c"]}, ["a/b/c", "a/x/c"]),
        ({"suffix": ["*", "c"]}, ["a/b/c", "a/x/c"]),
        ({"prefix": ["a"], "suffix": ["*", "c"]}, ["a/b/c", "a/x/c"]),
        ({"max_depth": 1}, ["", "a", "b", "z"]),
        ({"max_depth": 2}, ["", "a", "a/b", "a/x", "b/b", "z/z"]),
        ({"max_depth": 1, "suffix": ["c"]}, ["a"]),
        ({"max_depth": 2, "suffix": ["c"]}, ["a/b", "a/x"]),
        ({"prefix": ["none"]}, []),
        ({"prefix": ["*"] * 5}, []),
        ({"session_id": "none"}, []),
    ],
    ids=str,
)
@pytest.mark.usefixtures("tree")
async def test_namespaces_match_before_they_are_cut(documents, arguments, expected, page_size):
    assert await namespaces(documents, **arguments, page_size=page_size) == expected


async def test_namespaces_sort_by_code_point(documents):
    await fill(documents, reversed(NAMES))
    expected = sorted({namespace for namespace, _ in NAMES})
    assert await namespaces(documents) == ["/".join(one) for one in expected]


async def test_namespaces_of_many_sessions(documents, refused, tables):
    for session_id, label in (("u-1", "a"), ("u-2", "b"), ("U-1", "c"), ("v", "d")):
        await fill(documents, [((label,), "k"), (("all",), "k")], session_id)
    await tables.copy_to_tenant("other")

    async def of(prefix):
        request = pb.ListNamespacesRequest(session_id_prefix=prefix, page_size=1)
        found, _ = await pages(documents.ListNamespaces, request, "namespaces")
        return [one.labels[0] for one in found]

    assert await of("u-") == ["a", "all", "b"]
    assert await of("") == ["a", "all", "b", "c", "d"]
    assert await of("none") == []
    for wrong in (
        pb.ListNamespacesRequest(),
        pb.ListNamespacesRequest(session_id_prefix="a b"),
        pb.ListNamespacesRequest(session_id="s", max_depth=-1),
        pb.ListNamespacesRequest(session_id="s", prefix=[""]),
    ):
        assert (await refused(documents.ListNamespaces(wrong))).code is INVALID


async def test_lists_of_memories_know_nothing_of_documents(documents, memory):
    await fill(documents)
    listed = await memory.ListMemories(memory_pb2.ListMemoriesRequest(session_id="s"))
    assert not listed.memories
