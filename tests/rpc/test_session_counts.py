"""Counts of sessions that servers of an earlier release have made, or written to since."""

from __future__ import annotations

import itertools

import pytest

from memoryd.sessions.store import MAX_COUNTED
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb

SESSION = "user-123"


def store(content: str, session_id: str = SESSION, **fields: object):
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


@pytest.fixture(autouse=True)
async def swept(running) -> None:
    """The sweep with which a server begins is over."""
    await running.server.sweeper.run_once()


async def session_of(sessions, session_id: str = SESSION) -> spb.Session:
    return await sessions.GetSession(spb.GetSessionRequest(session_id=session_id))


async def written_by_an_earlier_release(tables, revision: int, *, session_id=SESSION) -> None:
    """A memory stored by a server that knows none of the columns for counts and times."""
    end = f"{revision:02}.000000{'' if tables.is_sqlite else '+00:00'}"
    await tables.execute(
        "INSERT INTO memories (tenant, session_id, id, content, created_at, updated_at,"  # noqa: S608  constants
        " content_hash, semantic_hash, revision, created_revision)"
        f" VALUES ('default', '{session_id}', 'id-{revision}', 'earlier {revision}',"
        f" '2026-02-01 12:00:{end}', '2026-02-02 12:00:{end}',"
        f" 'hash {revision}', '0123456789abcdef', {revision}, {revision})"
    )
    await tables.execute(
        f"UPDATE sessions SET revision = {revision} WHERE session_id = '{session_id}'"  # noqa: S608
    )


async def made_by_an_earlier_release(tables, *session_ids: str) -> None:
    for session_id in session_ids:
        await tables.execute(
            "INSERT INTO sessions (tenant, session_id, revision)"  # noqa: S608  constants
            f" VALUES ('default', '{session_id}', 0)"
        )
        for revision in (1, 2, 3):
            await written_by_an_earlier_release(tables, revision, session_id=session_id)


async def uncounted(tables) -> int:
    wrong = "counted_revision IS NULL OR counted_revision <> revision"
    ((count,),) = await tables.rows(f"SELECT count(*) FROM sessions WHERE {wrong}")  # noqa: S608
    return int(count)


async def test_what_an_earlier_release_writes_in_between_is_counted(
    memory, sessions, tables, running
):
    await memory.StoreMemory(store("ours"))
    await written_by_an_earlier_release(tables, 2)
    seen = await session_of(sessions)
    assert (seen.memory_count, seen.revision) == (2, 2)
    # The next store counts for good.
    await memory.StoreMemory(store("ours again"))
    assert await uncounted(tables) == 0
    assert (await session_of(sessions)).memory_count == 3
    # A change that counts nothing leaves it to the sweeper.
    await written_by_an_earlier_release(tables, 4)
    stored = await memory.ListMemories(pb.ListMemoriesRequest(session_id=SESSION))
    await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id=SESSION, memory_id=stored.memories[0].memory_id)
    )
    assert (await session_of(sessions)).memory_count == 3
    await running.server.sweeper.run_once()
    assert await uncounted(tables) == 0
    assert (await session_of(sessions)).memory_count == 3


async def test_sessions_of_before_have_counts_and_times(sessions, tables, running):
    await made_by_an_earlier_release(tables, "a", "b")
    before = [await session_of(sessions, name) for name in ("a", "b")]
    for session in before:
        assert session.memory_count == 3
        assert session.create_time.ToJsonString() == "2026-02-01T12:00:01Z"
        assert session.update_time.ToJsonString() == "2026-02-02T12:00:03Z"
    await running.server.sweeper.run_once()
    assert await uncounted(tables) == 0
    listed = await sessions.ListSessions(spb.ListSessionsRequest())
    assert list(listed.sessions) == before


async def test_setting_something_for_a_session_of_before_keeps_its_times(sessions, tables):
    await made_by_an_earlier_release(tables, SESSION)
    request = spb.UpdateSessionRequest(session=spb.Session(session_id=SESSION, display_name="Ada"))
    session = await sessions.UpdateSession(request)
    assert session.memory_count == 3
    assert session.create_time.ToJsonString() == "2026-02-01T12:00:01Z"
    assert session.update_time.ToJsonString() == "2026-03-01T12:00:00Z"


async def test_a_page_counts_only_so_many_sessions(sessions, tables, running):
    await tables.execute(
        "INSERT INTO sessions (tenant, session_id, revision)"
        " WITH RECURSIVE n(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM n WHERE n < 1249)"
        " SELECT 'default', 'user-' || n, 1 FROM n"
    )
    pages = []
    request = spb.ListSessionsRequest(page_size=1000)
    while not pages or request.page_token:
        page = await sessions.ListSessions(request)
        pages.append([session.session_id for session in page.sessions])
        request.page_token = page.next_page_token
    assert [*map(len, pages)] == [MAX_COUNTED, MAX_COUNTED, 250 - 2 * MAX_COUNTED]
    assert [*itertools.chain(*pages)] == [f"user-{n}" for n in range(1000, 1250)]
    await running.server.sweeper.run_once()
    whole = await sessions.ListSessions(spb.ListSessionsRequest(page_size=1000))
    assert len(whole.sessions) == 250
