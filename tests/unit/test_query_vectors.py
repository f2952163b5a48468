"""Vectors of queries that are kept for a while."""

import numpy as np

from memoryd.recall.embedders.embedder import QueryTokens
from memoryd.recall.signals import Meaning
from memoryd.retrieval.query_vectors import QueryVectors

MEANING = Meaning(np.ones(128, np.float32), adds_up_words=False)


def test_a_vector_is_kept_for_the_tenant_that_asked():
    kept = QueryVectors(10_000)
    kept.keep("acme", "late parcels", MEANING)
    assert kept.get("acme", "late parcels") is MEANING
    assert kept.get("other", "late parcels") is None
    assert kept.get("acme", "late parcel") is None


def test_those_not_asked_for_the_longest_go_first():
    kept = QueryVectors(10_000)
    for number in range(100):
        kept.keep("acme", f"query {number}", MEANING)
        assert kept.get("acme", "query 0") is MEANING
        assert kept.nbytes <= 10_000
    found = [n for n in range(100) if kept.get("acme", f"query {n}") is not None]
    assert found == [0, *range(101 - len(found), 100)]
    assert len(found) > 5


def test_what_is_larger_than_the_room_is_not_kept():
    kept = QueryVectors(10_000)
    kept.keep("acme", "query", MEANING)
    kept.keep("acme", "x" * 10_000, MEANING)
    assert kept.nbytes == 0
    kept.keep("acme", "query", MEANING)
    kept.keep("acme", "query", MEANING)
    size = kept.nbytes
    kept.keep("acme", "quest", MEANING)
    assert kept.nbytes == 2 * size


def test_tokens_take_room():
    tokens = QueryTokens(np.ones((20, 128), np.float32), ("parcels",) * 20)
    kept = QueryVectors(10_000)
    kept.keep("acme", "late parcels", MEANING._replace(tokens=tokens))
    assert kept.get("acme", "late parcels") is None
    kept.keep("acme", "late parcels", MEANING)
    assert kept.get("acme", "late parcels") is MEANING
