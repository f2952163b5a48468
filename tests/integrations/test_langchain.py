"""LangChain's own tests of its key-value stores, and what they leave out."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests

from memoryd.integrations.langchain import MemorydByteStore


class OurStore:
    @pytest.fixture
    def three_values(self):
        return b"a", b"\x00\xff", b""

    @pytest.fixture
    def kv_store(self, address, name):
        with MemorydByteStore(address, session_id=name) as store:
            yield store


class TestStore(OurStore, BaseStoreSyncTests[bytes]):
    """As it is."""


class TestStoreOfTasks(OurStore, BaseStoreAsyncTests[bytes]):
    """As it is."""


def test_many_and_large_values(address, name):
    with MemorydByteStore(address, session_id=name, namespace=["cache", "v1"]) as store:
        pairs = [(f"k{number:04}", bytes([number % 256]) * 10) for number in range(2_500)]
        pairs += [(f"large{number}", b"x" * 900_000) for number in range(6)]
        store.mset(pairs)
        keys = [key for key, _ in pairs]
        assert store.mget([*keys, "absent"]) == [*(value for _, value in pairs), None]
        assert list(store.yield_keys()) == sorted(keys)
        assert list(store.yield_keys(prefix="large")) == keys[-6:]
        store.mdelete([*keys, "absent"])
        assert list(store.yield_keys()) == []


def test_stores_are_apart(address, name):
    one = MemorydByteStore(address, session_id=name, namespace=["a"])
    other = MemorydByteStore(address, session_id=name, namespace=["a", "b"])
    one.mset([("k", b"1")])
    other.mset([("k", b"2"), ("k", b"3")])
    assert (one.mget(["k"]), other.mget(["k"])) == ([b"1"], [b"3"])
    assert list(one.yield_keys()) == ["k"]
    one.close()
    other.close()
