"""Vectors of queries that are kept for a while."""

import numpy as np

from memoryd.retrieval.query_vectors import QueryVectors

VECTOR = np.ones(128, np.float32)


def test_a_vector_is_kept_for_the_tenant_that_asked():
    kept = QueryVectors(10_000)
    kept.keep("acme", "late parcels", VECTOR)
    assert kept.get("acme", "late parcels") is VECTOR
    assert kept.get("other", "late parcels") is None
    assert kept.get("acme", "late parcel") is None


def test_those_not_asked_for_the_longest_go_first():
    kept = QueryVectors(10_000)
    for number in range(100):
        kept.keep("acme", f"query {number}", VECTOR)
        assert kept.get("acme", "query 0") is VECTOR
        assert kept.nbytes <= 10_000
    found = [n for n in range(100) if kept.get("acme", f"query {n}") is not None]
    assert found == [0, *range(101 - len(found), 100)]
    assert len(found) > 5


def test_what_is_larger_than_the_room_is_not_kept():
    kept = QueryVectors(10_000)
    kept.keep("acme", "query", VECTOR)
    kept.keep("acme", "x" * 10_000, VECTOR)
    assert kept.nbytes == 0
    kept.keep("acme", "query", VECTOR)
    kept.keep("acme", "query", VECTOR)
    size = kept.nbytes
    kept.keep("acme", "quest", VECTOR)
    assert kept.nbytes == 2 * size
