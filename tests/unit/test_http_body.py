"""The room that large bodies share is never taken twice, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from memoryd.http.body import Room

MOST = 100
CLIENTS = ("ada", "bob", "eve")

requests = st.lists(
    st.tuples(
        st.sampled_from(CLIENTS),
        st.integers(1, 2 * MOST),  # some are larger than the room
        st.integers(0, 3),  # how long it is held
        st.booleans(),  # whether it is given up while it waits
    ),
    max_size=20,
)


@given(requests)
def test_a_room_is_never_over_full_and_everybody_gets_it(wanted):
    asyncio.run(_never_over_full(wanted))


async def _never_over_full(wanted):
    room = Room(MOST)
    held: Counter[str] = Counter()
    holders: Counter[str] = Counter()

    async def one(client, count, turns):
        await room.take(client, count)
        held[client] += count
        holders[client] += 1
        # What is larger than allowed is let in alone.
        assert held.total() <= MOST or holders.total() == 1
        assert held[client] <= MOST // 2 or holders[client] == 1
        for _ in range(turns):
            await asyncio.sleep(0)
        held[client] -= count
        holders[client] -= 1
        room.give_back(client, count)

    tasks = []
    for client, count, turns, is_given_up in wanted:
        tasks.append(asyncio.create_task(one(client, count, turns)))
        if is_given_up:
            await asyncio.sleep(0)
            if not holders[client]:
                tasks.pop().cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    # All of it is free again, for whoever comes.
    async with asyncio.timeout(60):
        await room.take("ada", MOST)


async def test_who_has_half_of_the_room_does_not_hold_up_others():
    room = Room(MOST)
    await room.take("ada", MOST // 2)
    second = asyncio.create_task(room.take("ada", 1))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await room.take("bob", MOST // 2)
    assert not second.done()
    room.give_back("ada", MOST // 2)
    async with asyncio.timeout(60):
        await second


async def test_who_gives_up_with_its_turn_gives_it_back():
    room = Room(MOST)
    await room.take("ada", MOST)
    waiting = asyncio.create_task(room.take("bob", MOST))
    await asyncio.sleep(0)
    room.give_back("ada", MOST)
    waiting.cancel()  # its turn has come, and it has not seen it
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(60):
        await room.take("eve", MOST)


async def test_who_comes_first_is_next_however_large():
    room = Room(MOST)
    await room.take("ada", MOST // 2)
    large = asyncio.create_task(room.take("bob", MOST))
    small = asyncio.create_task(room.take("eve", 1))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    room.give_back("ada", MOST // 2)
    async with asyncio.timeout(60):
        await large
    assert not small.done()
    room.give_back("bob", MOST)
    async with asyncio.timeout(60):
        await small
