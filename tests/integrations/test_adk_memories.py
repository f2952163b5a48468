"""What ADK's own tests of its memory services ask, in meaning, and more."""

from __future__ import annotations

import asyncio
import contextlib
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from google.adk.events.event import Event
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai import types
from tests.integrations.wires import Wire

from memoryd.client import InvalidArgument, MemoryClient, MemorydError, SessionClient
from memoryd.integrations.adk import MemorydMemoryService


@pytest.fixture
async def service(address):
    async with MemorydMemoryService(address) as service:
        yield service


def says(name, *texts, author="user", timestamp=12345.0):
    parts = [types.Part(text=text) if isinstance(text, str) else text for text in texts]
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=parts) if texts else None
    return Event(id=name, author=author, timestamp=timestamp, content=content)


def session_of(app, *events, name="session-1", user="u"):
    return Session(app_name=app, user_id=user, id=name, events=list(events))


def about_adk(app):
    return session_of(
        app,
        says("1a", "The ADK is a great toolkit."),
        says("1b"),
        says("1c", "I agree. The Agent Development Kit (ADK) rocks!", author="helper"),
    )


def about_python(app):
    return session_of(app, says("2a", "I like to code in Python."), name="session-2")


async def texts(service, app, query, user="u"):
    found = await service.search_memory(app_name=app, user_id=user, query=query)
    return [each.content.parts[0].text for each in found.memories]


@pytest.fixture
async def memories(address, name):
    """What is kept of the user."""
    async with MemoryClient(address) as client:

        async def kept(user="u"):
            return [each async for each in client.list(f"adk:{name}:{user}")]

        yield kept


async def test_it_is_a_memory_service(service):
    assert isinstance(service, BaseMemoryService)


async def test_one_memory_a_text_event(service, name, memories):
    await service.add_session_to_memory(about_adk(name))
    kept = await memories()
    assert [each.content for each in kept] == [
        "The ADK is a great toolkit.",
        "I agree. The Agent Development Kit (ADK) rocks!",
    ]
    moment = datetime.fromtimestamp(12345, UTC).isoformat()
    rest = {"occurred_at": moment, "episode": "adk:session-1", "session_id": "session-1"}
    assert [each.metadata for each in kept] == [
        {"speaker": "user", "event_id": "1a", **rest},
        {"speaker": "helper", "event_id": "1c", **rest},
    ]


async def test_what_is_said_of_an_event(service, name, memories):
    image = types.Part.from_bytes(data=b"\x00", mime_type="image/png")
    thought = types.Part(text="Hm, weather", thought=True)
    call = types.Part.from_function_call(name="weather", args={})
    session = session_of(
        name,
        says("a", thought, "It is", image, " sunny. ", author="helper"),
        says("b", call, author="helper"),
        says("c", " \n"),
        says("d", thought),
    )
    await service.add_session_to_memory(session)
    assert [each.content for each in await memories()] == ["It is\nsunny."]


async def test_found_as_it_was_said(service, name):
    await service.add_session_to_memory(about_adk(name))
    found = await service.search_memory(app_name=name, user_id="u", query="kit that rocks")
    best = found.memories[0]
    assert best.content == types.Content(
        role="model", parts=[types.Part(text="I agree. The Agent Development Kit (ADK) rocks!")]
    )
    assert best.author == "helper"
    assert best.timestamp == "1970-01-01T03:25:45+00:00"
    assert best.custom_metadata["event_id"] == "1c"
    assert best.id


async def test_explicit_events(service, name, memories):
    first, _, second = about_adk(name).events
    where = {"app_name": name, "user_id": "u"}
    await service.add_events_to_memory(**where, session_id="session-1", events=[first])
    await service.add_session_to_memory(about_adk(name))
    await service.add_events_to_memory(
        **where, session_id="session-1", events=[says("1d", "A new fact.")]
    )
    assert [each.metadata["event_id"] for each in await memories()] == ["1a", "1c", "1d"]
    # Of no session, and of another one.
    await service.add_events_to_memory(**where, events=[second])
    await service.add_events_to_memory(**where, session_id="session", events=[second])
    assert [each.metadata.get("session_id") for each in await memories()] == [
        *["session-1"] * 3,
        None,
        "session",
    ]


async def test_metadata_of_the_caller(service, name, memories):
    await service.add_events_to_memory(
        app_name=name,
        user_id="u",
        events=[says("a", "hello")],
        custom_metadata={"topic": ["greetings"], "speaker": "someone"},
    )
    (kept,) = await memories()
    assert kept.metadata["topic"] == ["greetings"]
    assert kept.metadata["speaker"] == "user"
    with pytest.raises((TypeError, ValueError), match="metadata"):
        await service.add_events_to_memory(
            app_name=name, user_id="u", events=[says("b", "bye")], custom_metadata={"x": {1}}
        )


async def test_the_same_event_again_is_one_memory(service, name, memories):
    for _ in range(3):
        await service.add_session_to_memory(about_adk(name))
    before = [each.etag for each in await memories()]
    assert len(before) == 2
    # One with the id of another changes nothing, as with ADK's own.
    await service.add_events_to_memory(
        app_name=name, user_id="u", session_id="session-1", events=[says("1a", "Updated text.")]
    )
    assert [each.etag for each in await memories()] == before


async def test_events_with_one_text_are_apart(service, name, memories):
    await service.add_session_to_memory(session_of(name, says("a", "Yes"), says("b", "Yes")))
    await service.add_session_to_memory(session_of(name, says("a", "Yes"), name="session-2"))
    assert [each.content for each in await memories()] == ["Yes"] * 3


async def test_the_same_events_at_once_are_one_memory_each(service, name, memories):
    await asyncio.gather(*(service.add_session_to_memory(about_adk(name)) for _ in range(5)))
    assert len(await memories()) == 2


@pytest.mark.parametrize("turns", [0, 10, 100, 1_000])
async def test_what_is_added_again_after_an_error_is_one_memory(
    service, name, address, memories, turns
):
    async with Wire(address) as wire, MemorydMemoryService(wire.address, timeout=60) as wired:
        for number in range(5):
            session = session_of(name, says("a", "one"), says("b", "two"), name=f"{number}")
            task = asyncio.create_task(wired.add_session_to_memory(session))
            for _ in range(turns):
                await asyncio.sleep(0)
            wire.cut()
            with contextlib.suppress(MemorydError):
                await task
            await service.add_session_to_memory(session)
    assert [each.content for each in await memories()] == ["one", "two"] * 5


async def test_a_session_without_events(service, name, address):
    await service.add_session_to_memory(session_of(name))
    assert await texts(service, name, "anything") == []
    async with SessionClient(address) as sessions:
        assert [each async for each in sessions.list(f"adk:{name}")] == []


async def test_finding(service, name):
    await service.add_session_to_memory(about_adk(name))
    await service.add_session_to_memory(about_python(name))
    assert (await texts(service, name, "Python"))[0] == "I like to code in Python."
    assert (await texts(service, name, "development"))[0].startswith("I agree.")
    assert len(await texts(service, name, "How about ADK?")) == 2
    assert await texts(service, name, "nonexistent") == []
    for blank in ("", " \n\t "):
        assert await texts(service, name, blank) == []


async def test_users_and_apps_are_apart(service, name):
    secret = says("a", "This is a secret.")
    await service.add_session_to_memory(session_of(name, secret, user="other"))
    await service.add_session_to_memory(session_of(f"{name}/x", secret, user="user"))
    assert await texts(service, name, "secret") == []
    assert await texts(service, name, "secret", user="x/user") == []
    assert await texts(service, name, "secret", user="other") == ["This is a secret."]
    assert await texts(service, f"{name}/x", "secret", user="user") == ["This is a secret."]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("私の名前は太郎です", "太郎"),
        ("我喜欢机器学习", "机器学习"),
        ("제 이름은 민수입니다", "민수입니다"),
        ("Меня зовут Алексей", "Алексей"),
        ("太郎 works at ABC Corp", "ABC"),
        ("私はPythonでADKを使っています", "Python"),
        (unicodedata.normalize("NFD", "Meet at the Café"), "Café"),
        ("Meet at the Café", unicodedata.normalize("NFD", "Café")),
    ],
)
async def test_finding_in_any_script(service, name, text, query):
    await service.add_session_to_memory(session_of(name, says("a", text)))
    assert await texts(service, name, query) == [text]


async def test_the_best_come_first_and_not_all(service, name, address):
    events = [says(f"note-{number}", f"note {number} about work") for number in range(20)]
    await service.add_session_to_memory(
        session_of(name, *events, says("backlog", "the backlog note about work"))
    )
    found = await texts(service, name, "work backlog note")
    assert (len(found), found[0]) == (10, "the backlog note about work")
    async with MemorydMemoryService(address, limit=3, min_relevance=0.0) as few:
        assert len(await texts(few, name, "work")) == 3
        assert len(await texts(few, name, "nonexistent")) == 3


async def test_many_events(service, name, memories):
    long = "word " * 3_000
    events = [says(f"{number}", f"{number} {long}") for number in range(100)]
    events += [says(f"s{number}", f"short {number}") for number in range(1_200)]
    await service.add_session_to_memory(session_of(name, *events))
    assert len(await memories()) == 1_300


async def test_a_text_that_is_too_long_is_cut(service, name, memories):
    await service.add_session_to_memory(session_of(name, says("a", "x" * 200_000)))
    assert [len(each.content) for each in await memories()] == [16_384]


async def test_a_query_that_is_too_long_is_cut(service, name):
    await service.add_session_to_memory(about_python(name))
    found = await texts(service, name, "I code in Python. " * 2_000)
    assert found == ["I like to code in Python."]


async def test_half_a_surrogate_pair(service, name):
    await service.add_session_to_memory(session_of(name, says("a", "tea \ud83d")))
    assert await texts(service, name, "tea \ud83d") == ["tea ?"]


async def test_a_text_that_cannot_be_stored_is_left_out(service, name, memories, caplog):
    events = [says("a", "one"), says("b", "<br>"), says("c", "two"), says("d", "<p></p>")]
    await service.add_session_to_memory(session_of(name, *events))
    assert [each.content for each in await memories()] == ["one", "two"]
    assert "event session-1/b is not remembered" in caplog.text
    await service.add_events_to_memory(app_name=name, user_id="u", events=events[1:2])
    assert len(await memories()) == 2
    with pytest.raises(InvalidArgument, match="empty"):
        await service.add_memory(
            app_name=name, user_id="u", memories=[MemoryEntry(content=events[1].content)]
        )


@pytest.mark.parametrize("by_session", [True, False])
async def test_callers_may_change_what_they_gave_and_got(service, name, by_session):
    event = says("a", "I prefer jasmine tea.")
    session = session_of(name, event)
    if by_session:
        await service.add_session_to_memory(session)
    else:
        await service.add_events_to_memory(app_name=name, user_id="u", events=[event])
    event.content.parts[0].text = "I prefer coffee."
    found = await service.search_memory(app_name=name, user_id="u", query="jasmine")
    found.memories[0].content.parts.clear()
    assert await texts(service, name, "jasmine") == ["I prefer jasmine tea."]


# Entries


async def test_entries(service, name, memories):
    entry = MemoryEntry(
        id="likes tea",
        content=types.Content(parts=[types.Part(text="Likes tea.")]),
        author="helper",
        timestamp="2026-01-02T03:04:05Z",
        custom_metadata={"a": 1, "b": 1},
    )
    where = {"app_name": name, "user_id": "u"}
    for _ in range(2):
        await service.add_memory(**where, memories=[entry], custom_metadata={"b": 2, "c": 2})
    (kept,) = await memories()
    assert (kept.content, kept.metadata) == (
        "Likes tea.",
        {"a": 1, "b": 1, "c": 2, "speaker": "helper", "occurred_at": "2026-01-02T03:04:05Z"},
    )
    entry.content.parts[0].text = "Likes coffee."
    await service.add_memory(**where, memories=[entry])
    assert [each.content for each in await memories()] == ["Likes coffee."]
    plain = MemoryEntry(content=types.Content(parts=[types.Part(text="Owns a cat.")]))
    for _ in range(2):
        await service.add_memory(**where, memories=[plain, MemoryEntry(content=types.Content())])
    assert [each.content for each in await memories()] == ["Likes coffee.", "Owns a cat."]
    found = await service.search_memory(**where, query="cat")
    assert found.memories[0].author is None
    assert found.memories[0].timestamp


async def test_deleted_memories_do_not_come_back(service, name, memories):
    await service.add_session_to_memory(about_adk(name))
    where = {"app_name": name, "user_id": "u"}
    found = await service.search_memory(**where, query="great toolkit")
    await service.delete_memory(**where, memory_id=found.memories[0].id)
    await service.delete_memory(**where, memory_id=found.memories[0].id)
    await service.delete_memory(**where, memory_id="unknown")
    await service.delete_memory(**where)
    assert [each.metadata["event_id"] for each in await memories()] == ["1c"]
    await service.add_session_to_memory(about_adk(name))
    await service.add_events_to_memory(
        **where, session_id="session-1", events=about_adk(name).events[:1]
    )
    assert [each.metadata["event_id"] for each in await memories()] == ["1c"]


# Where it is


async def test_nothing_expires_or_is_evicted(service, name, address, memories):
    await service.add_session_to_memory(about_adk(name))
    async with SessionClient(address) as sessions:
        session = await sessions.get(f"adk:{name}:u")
        assert (session.memories_never_expire, session.memory_limit) == (True, 100_000)
    assert [each.expire_time for each in await memories()] == [None, None]


async def test_what_is_set_for_a_session_stays(service, name, address, memories):
    async with SessionClient(address) as sessions:
        given = {"memory_limit": 10, "memory_ttl": timedelta(hours=1)}
        await sessions.update(f"adk:{name}:u", allow_missing=True, **given)
        await sessions.update(f"adk:{name}:u2", allow_missing=True, display_name="Ada")
        await service.add_session_to_memory(about_adk(name))
        session = await sessions.get(f"adk:{name}:u")
        assert (session.memory_ttl, session.memory_limit) == (timedelta(hours=1), 10)
        assert all(each.expire_time for each in await memories())
        await service.add_session_to_memory(session_of(name, says("a", "hello"), user="u2"))
        session = await sessions.get(f"adk:{name}:u2")
        assert (session.display_name, session.memory_limit) == ("Ada", 100_000)
        assert session.memories_never_expire


async def test_erasing_a_user(service, name, address):
    await service.add_session_to_memory(about_adk(name))
    async with MemoryClient(address) as client:
        await client.erase(f"adk:{name}:u")
    assert await texts(service, name, "ADK") == []
