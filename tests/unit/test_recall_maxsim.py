"""Token vectors compared: against the formula, a token at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.recall.maxsim import maxsim, quantised


def units(rng, count):
    rows = rng.standard_normal((count, 16), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(0, 5), st.lists(st.integers(0, 4), max_size=6), st.integers(0, 1_000))
def test_each_token_counts_by_its_nearest(of_query, counts, seed):
    rng = np.random.default_rng(seed)
    query, memories = units(rng, of_query), [units(rng, count) for count in counts]
    tokens = quantised(np.concatenate([np.zeros((0, 16), np.float32), *memories]))
    weights = rng.random(of_query)
    found = maxsim(query, weights, tokens, np.array(counts, np.int64))
    assert found.shape == (len(counts),)
    for value, memory in zip(found, memories, strict=True):
        nearest = [max(float(q @ token) for token in memory) for q in query if len(memory)]
        assert value == pytest.approx(weights @ nearest if nearest else 0.0, abs=0.05)
