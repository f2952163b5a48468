"""Places for a few at once."""

from __future__ import annotations

import asyncio

from memoryd.database.fair_places import FairPlaces


async def test_who_is_turned_away_takes_no_place_and_gives_none_back():
    places = FairPlaces(1)

    async def work() -> None:
        async with places.place("a", amount=5):
            pass

    async with places.place("a"):
        waiting = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        assert places.line.weight == 15
        places.turn_away(LookupError("gone"))
        waiting[0].cancel()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends[1:]] == [LookupError, LookupError]
        assert isinstance(ends[0], asyncio.CancelledError)
        assert places.are_taken
        assert not len(places.line)
    assert not places.are_taken
    async with places.place("a"):
        assert places.are_taken
