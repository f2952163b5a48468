"""The streams that keep a page live, and what ends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.console.conftest import Site
from tests.http_client import exchange

from memoryd.console.cookies import COOKIE


class Listener:
    """Reads events as a browser does."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = ""

    async def next(self) -> dict[str, str]:
        """The fields of the next event. Raises StopAsyncIteration at the end of the stream."""
        while "\n\n" not in self._held:
            self._held += (await anext(self._chunks)).decode()
        event, _, self._held = self._held.partition("\n\n")
        return dict(line.split(": ", 1) for line in event.splitlines())

    async def rest(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(await self.next())
            except StopAsyncIteration:
                return found


@pytest.fixture
def listening(calling):
    """Listen to the events of a session `ada`."""

    @asynccontextmanager
    async def listen(site: Site, after: int, *, key: str = "", **headers: str):
        caller = await calling(site)
        once = site.link.partition("once=")[2]
        await caller.post("/sign-in", form={"key": key or site.key, "once": once})
        cookies = (await caller.storage_state())["cookies"]
        headers["cookie"] = f"{COOKIE}={cookies[0]['value']}"
        address = site.origin.removeprefix("http://")
        target = f"/sessions/ada/events?after={after}"
        async with exchange(address, target, b"", headers, method="GET") as found:
            assert found.status == 200
            assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield Listener(found.chunks())

    return listen


@pytest.fixture
async def stored(guard) -> Site:
    """A site with one memory."""
    site = await guard(MEMORYD_MAX_STREAMS_PER_CLIENT="1")
    async with site.memories() as memories:
        await memories.store("ada", "the first")
    return site


async def test_a_browser_goes_on_from_what_it_has_seen(stored, listening):
    async with stored.memories() as memories:
        revisions = [(await memories.store("ada", f"{n}")).memory.revision for n in range(2)]
    async with listening(stored, 1, **{"last-event-id": str(revisions[0])}) as listener:
        assert await listener.next() == {"event": "said", "data": "Live"}
        said, changed = await listener.next(), await listener.next()
        assert said["data"] == "A memory was created"
        assert changed == {
            "event": "changed",
            "data": "A memory was created",
            "id": str(revisions[1]),
        }


async def test_a_revoked_key_hears_no_more(stored, listening):
    key = await stored.new_key("reader")
    async with listening(stored, 1, key=key.key) as listener:
        assert await listener.next() == {"event": "said", "data": "Live"}
        await stored.access().revoke_key(key.api_key.key_id)
        (said,) = await listener.rest()
        assert said["data"].startswith("Not live: ")


async def test_there_are_as_many_as_of_other_streams(stored, listening, eventually):
    async with listening(stored, 1) as listener:
        await listener.next()
        async with listening(stored, 1) as other:
            _, said = await other.rest()
            assert said["data"].startswith("Not live: ")

    async def is_free() -> bool:
        """A browser that has gone leaves its place."""
        async with listening(stored, 1) as listener, stored.memories() as memories:
            await listener.next()
            await memories.store("ada", "another")
            return (await listener.next())["data"] == "A memory was created"

    await eventually(is_free)


async def test_a_server_that_stops_ends_them(stored, listening):
    async with listening(stored, 1) as listener:
        await listener.next()
        await stored.running.server.stop()
        (said,) = await listener.rest()
        assert said["data"].startswith("Not live: ")


@pytest.mark.parametrize("after", [10**18, 10**30, -1])
async def test_what_is_no_revision_is_the_beginning(stored, listening, after):
    async with listening(stored, after) as listener:
        assert await listener.next() == {"event": "said", "data": "Live"}
        async with stored.memories() as memories:
            await memories.store("ada", "another")
        assert (await listener.next())["data"] == "A memory was created"


async def test_a_page_loads_again_where_changes_are_no_longer_kept(stored, listening):
    async with listening(stored, 10**6) as listener:
        _, said, changed = await listener.rest()
        assert said["data"].startswith("Not live: ")
        assert (changed["event"], changed["id"]) == ("changed", "1")
