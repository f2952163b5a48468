"""The client for documents, against a running server."""

from __future__ import annotations

from datetime import timedelta

import pytest

from memoryd.client import (
    AlreadyExists,
    Condition,
    DocumentClient,
    EtagMismatch,
    NotFound,
    Put,
    Remove,
)


@pytest.fixture
async def client(running):
    async with DocumentClient(running.address) as client:
        yield client


async def test_documents_there_and_back(client):
    made = await client.put("s", Put("k", ["a", "b"], json="[1]", labels={"x": "y"}))
    assert await client.get("s", "k", namespace=["a", "b"]) == made
    changed = await client.put("s", Put("k", ["a", "b"], text="2", etag=made.etag))
    with pytest.raises(EtagMismatch):
        await client.put("s", Put("k", ["a", "b"], text="3", etag=made.etag))
    with pytest.raises(AlreadyExists) as caught:
        await client.put("s", Put("k", ["a", "b"], text="3", if_absent=True))
    assert caught.value.resource
    assert caught.value.resource.name == "a/b/k"
    kept = [one.document async for one in client.revisions("s", "k", namespace=["a", "b"])]
    assert kept == [changed, made]
    answer = await client.get_many("s", [(["a", "b"], "k"), ((), "none")])
    assert [one.document is not None for one in answer.entries] == [True, False]
    await client.delete("s", "k", namespace=["a", "b"], etag=changed.etag)
    await client.delete("s", "k", namespace=["a", "b"], allow_missing=True)
    with pytest.raises(NotFound):
        await client.get("s", "k", namespace=["a", "b"])


async def test_many_documents(client):
    writes = [
        Put(f"k{n}", [f"n{n % 2}"], json=f'{{"n": {n}}}', labels={"n": str(n)}) for n in range(7)
    ]
    written = await client.write_many("s", [*writes, Remove("k0", ["n0"])])
    assert len(written.documents) == 8
    assert [one.key async for one in client.list("s", page_size=2)] == [
        *("k2", "k4", "k6", "k1", "k3", "k5"),
    ]
    odd = client.list("s", ["n1"], conditions=[Condition(["n"], "gt", 1)], with_bodies=False)
    assert [(one.key, one.json) async for one in odd] == [("k3", None), ("k5", None)]
    assert [one.key async for one in client.list("s", labels={"n": "4"})] == ["k4"]
    assert [one async for one in client.namespaces("s", page_size=1)] == [("n0",), ("n1",)]
    assert [one async for one in client.namespaces(session_id_prefix="", max_depth=1)] == [
        *(("n0",), ("n1",)),
    ]
    assert [one.key async for one in client.export("s", ["n0"])] == ["k2", "k4", "k6"]
    watching = client.watch("s", 7)
    event = await anext(watching)
    assert (event.change, event.document.key) == ("deleted", "k0")
    await watching.aclose()
    assert await client.delete_all("s", ["n0"]) == 3
    assert await client.delete_all("s", force=True) == 6
    assert not [one async for one in client.list("s")]


async def test_a_ttl_is_refreshed(client, clock):
    made = await client.put("s", Put("k", data=b"x", ttl=timedelta(minutes=1)))
    clock.move(timedelta(seconds=30))
    refreshed = await client.get("s", "k", refresh_ttl=True)
    assert refreshed.etag == made.etag
    assert refreshed.expire_time > made.expire_time


@pytest.mark.parametrize(
    ("put", "named"),
    [
        (Put("k"), "json, text or data"),
        (Put("k", json="1", text="2"), "json, text or data"),
        (Put(7, json="1"), "key"),
        (Put("k", data="1"), "data"),
        (Put("k", json="1", labels=["x"]), "labels"),
        (Put("k", json="1", labels={"x": 1}), "labels"),
        (Put("k", "abc", json="1"), "namespace"),
    ],
)
async def test_what_cannot_be_sent_is_named(client, put, named):
    with pytest.raises((TypeError, ValueError), match=named):
        await client.put("s", put)
    with pytest.raises((TypeError, ValueError), match=r"writes\[1\]\." + named):
        await client.write_many("s", [Put("k", json="1"), put])


async def test_documents_are_moved(client):
    await client.write_many("s", [Put(f"k{n}", ["a", "b"], json=str(n)) for n in range(3)])
    moved = await client.move("s", (["a", "b"], "k0"), ([], "first"))
    assert [one.key for one in moved.documents] == ["first"]
    assert (await client.get("s", "first")).json == "0"
    assert (await client.move_all("s", ["a"], ["c"])).moved_count == 2
    assert [one async for one in client.namespaces("s")] == [(), ("c", "b")]
    with pytest.raises(NotFound):
        await client.move_all("s", ["a"], ["c"])
    with pytest.raises(AlreadyExists) as caught:
        await client.move("s", ((), "first"), (["c", "b"], "k1"))
    assert caught.value.resource
    assert caught.value.resource.name == "c/b/k1"
    with pytest.raises((TypeError, ValueError), match="target"):
        await client.move("s", ((), "first"), (["c"], 1))


async def test_documents_are_searched(client):
    writes = [
        Put("whales", ["sea"], json='{"n": 1}', search_texts=["Blue whales sing"]),
        Put("tea", ["land"], json='{"n": 2}', search_texts=["Green tea"], labels={"x": "y"}),
        Put("plain", ["land"], json='{"n": 3}'),
    ]
    await client.write_many("s", writes)

    async def keys(*args, **kwargs):
        answer = await client.search(*args, **kwargs)
        assert not answer.truncated
        return [one.document.key for one in answer.results]

    assert await keys("s", query="whales") == ["whales", "plain"]
    assert await keys("s") == ["plain", "tea", "whales"]
    assert await keys(session_id_prefix="", limit=1, skip=1) == ["tea"]
    assert await keys("s", namespace_prefix=["land"], labels={"x": "y"}, refresh_ttl=True) == [
        "tea"
    ]
    assert await keys("s", conditions=[Condition(["n"], "lt", 2)]) == ["whales"]
    with pytest.raises(ValueError, match="session_id"):
        await client.search("s", session_id_prefix="")
