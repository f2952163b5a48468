"""What waits, by tenant."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.database.fair_queue import QUANTUM, FairQueue

tenants = st.sampled_from("abcd")
added = st.lists(st.tuples(tenants, st.integers(1, 40)), max_size=60)
rooms = st.integers(1, 60)
MANY = 100


def filled(items: list[tuple[str, int]]) -> FairQueue[tuple[str, int, int]]:
    queue: FairQueue[tuple[str, int, int]] = FairQueue()
    for number, (tenant, weight) in enumerate(items):
        queue.add(tenant, (tenant, number, weight), weight)
    return queue


@given(added, rooms, st.integers(1, 5))
def test_all_comes_out_once_and_in_order_within_a_tenant(items, room, most_tenants):
    queue = filled(items)
    assert len(queue) == len(items)
    assert sorted(n for _, n, _ in queue) == list(range(len(items)))
    assert queue.weight == sum(weight for _, weight in items)
    order = defaultdict(list)
    while len(queue):
        left = queue.weight
        taken = queue.take(room, most_tenants=most_tenants)
        assert taken  # one item always fits
        assert len({tenant for tenant, *_ in taken}) <= most_tenants
        sizes = [weight for *_, weight in taken]
        assert sum(sizes) <= room or len(sizes) == 1
        assert queue.weight == left - sum(sizes)
        for tenant, number, _ in taken:
            order[tenant].append(number)
    for tenant, numbers in order.items():
        assert numbers == [n for n, (name, _) in enumerate(items) if name == tenant]
        assert queue.weight_of(tenant) == 0
    assert queue.tenants == 0
    assert queue.take(room, most_tenants=MANY) == []


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 5))
def test_a_light_tenant_waits_a_turn_of_each_other(heavy, room, others):
    queue: FairQueue[str] = FairQueue()
    for number in range(others):
        for _ in range(heavy):
            queue.add(f"heavy {number}", "heavy", 1)
    queue.add("light", "light", 1)
    before = list(itertools.takewhile("heavy".__eq__, out_of(queue, room)))
    assert len(before) <= others * max(QUANTUM, room)


def out_of(queue, room):
    while len(queue):
        yield from queue.take(room, most_tenants=MANY)


@pytest.mark.parametrize("room", [1, 7, 100])
def test_tenants_with_much_get_alike(room):
    queue = filled([("a", 1), ("b", 1)] * 400)
    counts = defaultdict(int)
    for tenant, *_ in itertools.islice(out_of(queue, room), 400):
        counts[tenant] += 1
    assert abs(counts["a"] - counts["b"]) <= max(QUANTUM, room)


def test_what_is_larger_than_the_room_has_its_turn():
    queue = filled([("a", 1000), *[("b", 1)] * 200])
    taken = [queue.take(50, most_tenants=MANY) for _ in range(6)]
    assert ("a", 0, 1000) in itertools.chain(*taken)
    (alone,) = (batch for batch in taken if ("a", 0, 1000) in batch)
    assert len(alone) == 1
