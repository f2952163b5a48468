"""What ADK's own tests of its session services ask, in meaning, and what these lose."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integrations.wires import Wire

from memoryd.access.api_key import new_key
from memoryd.client import (
    AccessClient,
    ConversationClient,
    DocumentClient,
    InvalidArgument,
    MemoryClient,
    PermissionDenied,
    Put,
    SessionClient,
)
from memoryd.integrations.adk import MemorydSessionService


@pytest.fixture
async def service(address):
    async with MemorydSessionService(address) as service:
        yield service


class Own:
    """The calls of a service for the app that a test has of its own, and by default one user."""

    def __init__(self, service, app):
        self.service = service
        self.app = app

    async def create(self, session_id=None, state=None, user="u"):
        return await self.service.create_session(
            app_name=self.app, user_id=user, state=state, session_id=session_id
        )

    async def get(self, session_id="s", user="u", **config):
        return await self.service.get_session(
            app_name=self.app,
            user_id=user,
            session_id=session_id,
            config=GetSessionConfig(**config) if config else None,
        )

    async def list(self, user="u"):
        found = await self.service.list_sessions(app_name=self.app, user_id=user)
        return found.sessions

    async def delete(self, session_id="s", user="u"):
        await self.service.delete_session(app_name=self.app, user_id=user, session_id=session_id)

    async def append(self, session, event):
        return await self.service.append_event(session=session, event=event)

    async def user_state(self, user="u"):
        return await self.service.get_user_state(app_name=self.app, user_id=user)


@pytest.fixture
def ours(service, name):
    return Own(service, name)


def says(text="", author="user", **more):
    parts = [types.Part(text=text)] if text else None
    return Event(author=author, content=types.Content(role=author, parts=parts), **more)


def sets(_event=None, **delta):
    return Event(author="agent", actions=EventActions(state_delta=delta), **(_event or {}))


def sets_all(delta, **more):
    return sets(more, **delta)


# Sessions


async def test_it_is_a_session_service(service):
    assert isinstance(service, BaseSessionService)


async def test_no_session(ours):
    assert await ours.get("123") is None
    assert await ours.list() == []
    assert await ours.list(None) == []
    await ours.delete("123")


async def test_create_get_delete(ours):
    session = await ours.create(state={"key": "value"})
    assert (session.app_name, session.user_id, session.state) == (ours.app, "u", {"key": "value"})
    assert uuid.UUID(session.id)
    assert session.events == []
    assert await ours.get(session.id) == session
    await ours.delete(session.id)
    assert await ours.get(session.id) is None
    assert await ours.list() == []


async def test_padded_and_blank_ids(ours):
    session = await ours.create("  s  ", {"keep": "original"})
    assert session.id == "s"
    with pytest.raises(AlreadyExistsError):
        await ours.create("s ", {"keep": "clobbered"})
    assert (await ours.get(" s ")).state == {"keep": "original"}
    await ours.delete(" s")
    assert await ours.get("s") is None
    assert (await ours.create("   ")).id.strip()


async def test_an_id_that_there_is_already(ours):
    await ours.create("s", {"user:a": 1, "b": 1})
    with pytest.raises(AlreadyExistsError, match="Session with id s already exists"):
        await ours.create("s", {"user:a": 2, "b": 2})
    # Also what it says of others is unchanged.
    assert (await ours.get()).state == {"user:a": 1, "b": 1}


async def test_one_of_many_creates_a_session(ours):
    made = await asyncio.gather(*(ours.create("s") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, Session) for each in made) == 1
    assert sum(isinstance(each, AlreadyExistsError) for each in made) == 4


async def test_a_session_of_another_user_with_the_same_id(ours):
    await ours.append(await ours.create("s"), says("mine"))
    await ours.create("s", user="u2")
    assert (await ours.get(user="u2")).events == []
    await ours.delete("s")
    assert (await ours.get(user="u2")).user_id == "u2"


async def test_list_sessions(ours):
    for number in range(5):
        await ours.create(f"s{number}", {"key": number})
    sessions = await ours.list()
    assert {each.id: each.state for each in sessions} == {f"s{n}": {"key": n} for n in range(5)}
    await ours.append(
        await ours.get("s1"), says("again", timestamp=sessions[-1].last_update_time + 9)
    )
    assert [each.id for each in await ours.list()] == ["s0", "s2", "s3", "s4", "s1"]
    assert all(each.events == [] for each in await ours.list())


async def test_list_sessions_of_all_users(ours):
    await ours.create("a", {"k": 1, "user:n": "ada", "app:v": 1, "temp:t": 0}, user="ada")
    await ours.create("b", {"k": 2}, user="ada")
    await ours.create("c", {"k": 3, "app:v": 2}, user="x:y")
    await ours.create("d", user="")
    assert {(each.user_id, each.id): each.state for each in await ours.list(None)} == {
        ("ada", "a"): {"k": 1, "user:n": "ada", "app:v": 2},
        ("ada", "b"): {"k": 2, "user:n": "ada", "app:v": 2},
        ("x:y", "c"): {"k": 3, "app:v": 2},
        ("", "d"): {"app:v": 2},
    }
    assert [each.id for each in await ours.list("x:y")] == ["c"]
    assert [each.id for each in await ours.list("")] == ["d"]
    assert await ours.list("x") == []


async def test_a_listed_session_can_be_appended_to(ours):
    await ours.create("s")
    (listed,) = await ours.list()
    await ours.append(listed, says("hello"))
    assert len((await ours.get()).events) == 1


async def test_apps_are_apart(service, name):
    one, other = Own(service, name), Own(service, f"{name}2")
    await one.create("s", {"user:a": 1, "app:b": 1, "c": 1})
    assert await other.get() is None
    assert await other.list(None) == []
    assert (await other.create("s")).state == {}
    assert await other.user_state() == {}


@pytest.mark.parametrize("odd", ["ä b/c", "a:b@c", "..", "日本", "_", "%41", "@41"])
async def test_names_of_any_letters(service, name, odd):
    ours = Own(service, f"{name}/{odd}")
    event = says("hello", id=odd)
    await ours.append(await ours.create(odd, user=odd), event)
    found = await ours.get(odd, odd)
    assert (found.app_name, found.user_id, found.id) == (f"{name}/{odd}", odd, odd)
    assert found.events == [event]
    assert [(each.user_id, each.id) for each in await ours.list(None)] == [(odd, odd)]


async def test_names_that_are_too_long(ours):
    with pytest.raises(ValueError, match="more than 255"):
        await ours.create("x" * 256)
    with pytest.raises(ValueError, match="more than 255"):
        await ours.get("s", "ä" * 100)
    with pytest.raises(ValueError, match="prefix"):
        MemorydSessionService("127.0.0.1:1", prefix="a:b")


# State


async def test_app_state_is_of_all_users(ours):
    session = await ours.create("s", {"app:k1": "v1"})
    await ours.append(session, sets_all({"app:k2": "v2"}))
    assert (await ours.create("s2", user="u2")).state == {"app:k1": "v1", "app:k2": "v2"}
    assert (await ours.get()).state == session.state == {"app:k1": "v1", "app:k2": "v2"}


async def test_user_state_is_of_the_users_sessions(ours):
    session = await ours.create("s", {"user:k1": "v1"})
    await ours.append(session, sets_all({"user:k2": "v2"}))
    assert (await ours.create("s2")).state == {"user:k1": "v1", "user:k2": "v2"}
    assert (await ours.create("s", user="u2")).state == {}


async def test_session_state_is_of_the_session(ours):
    session = await ours.create("s", {"k1": "v1"})
    await ours.append(session, sets(k2="v2"))
    assert (await ours.get()).state == {"k1": "v1", "k2": "v2"}
    assert (await ours.create("s2")).state == {}


async def test_temp_state_is_not_kept(ours):
    session = await ours.create("s", {"temp:begin": 1})
    assert session.state == {}
    event = sets_all({"temp:k": "v1", "k": "v2"})
    await ours.append(session, event)
    # The next agent of the same invocation reads it.
    assert session.state == {"temp:k": "v1", "k": "v2"}
    assert event.actions.state_delta == {"k": "v2"}
    found = await ours.get()
    assert found.state == {"k": "v2"}
    assert found.events[0].actions.state_delta == {"k": "v2"}


@pytest.mark.parametrize("scope", ["", "user:", "app:"])
async def test_values_are_replaced_and_none_is_one(ours, scope):
    before = {f"{scope}d": {"name": "ada", "role": "admin"}, f"{scope}n": 1, f"{scope}b": False}
    session = await ours.create("s", before)
    await ours.append(session, sets_all({f"{scope}d": {"name": "bob"}, f"{scope}n": None}))
    expected = {f"{scope}d": {"name": "bob"}, f"{scope}n": None, f"{scope}b": False}
    assert session.state == expected
    found = await ours.get()
    assert found.state == expected
    assert found.state[f"{scope}b"] is False
    assert (await ours.list())[0].state == expected


ODD = {
    "n": 9_007_199_254_740_993,
    "big": 2**70,
    "f": 5e-324,
    "t": "naïve 😀 \u0000 \ud800",
    "deep": [{"x": [None, {}]}] * 3,
    "": "no name",
    'a "quoted"\n\u0000 ü key': True,
    "user:": 1,
    "user:ä/b c": [1],
    "app:\u0000": {"x": None},
}


async def test_values_come_back_as_they_were(ours):
    session = await ours.create("s", ODD)
    assert session.state == ODD
    assert (await ours.get()).state == ODD
    await ours.append(session, sets_all({key: [value] for key, value in ODD.items()}))
    expected = {key: [value] for key, value in ODD.items()}
    for found in (await ours.get(), await ours.get(num_recent_events=0), (await ours.list())[0]):
        assert found.state == expected
        assert repr(dict(sorted(found.state.items()))) == repr(dict(sorted(expected.items())))


async def test_what_is_no_json_is_kept_as_adk_keeps_it(ours):
    session = await ours.create("s", {"callback": lambda: 1, "ok": {1, 2}})
    await ours.append(session, sets(callback2=lambda: 1))
    found = await ours.get()
    assert isinstance(found.state["callback"], str)
    assert isinstance(found.state["callback2"], str)
    assert found.state["ok"] == [1, 2]
    assert len(found.events) == 1


LARGE = [
    {f"k{number}": number for number in range(30)},
    {f"k{number}": "x" * 300 for number in range(30)},
    {f"k{number}": "x" * 200_000 for number in range(3)},
    {f"k{number}": "x" * 50 for number in range(2_000)},
    {"k" * 20_000: 1},
]
"""In a conversation's state; by messages; in neither."""


@pytest.mark.parametrize("large", LARGE)
async def test_state_of_any_size(ours, large):
    expected = {"first": 1, **large}
    session = await ours.create("s", expected)
    await ours.append(session, sets(last=2))
    await ours.append(session, sets_all(dict.fromkeys(list(large)[:1], None) | {"more": "y" * 999}))
    await ours.append(session, says("bye"))
    expected |= {next(iter(large)): None, "more": "y" * 999, "last": 2}
    assert session.state == expected
    for found in (await ours.get(), await ours.get(num_recent_events=1), (await ours.list())[0]):
        assert found.state == expected
    await ours.append(await ours.get(), sets_all(dict.fromkeys(expected, 0)))
    assert (await ours.get(num_recent_events=0)).state == dict.fromkeys(expected, 0)


@pytest.mark.parametrize("large", LARGE)
async def test_a_session_that_begins_small_and_grows(ours, large):
    session = await ours.create("s", {"first": 1})
    for key, value in list(large.items())[:40]:
        await ours.append(session, sets_all({key: value}))
    await ours.append(session, sets_all(large))
    for found in (await ours.get(), await ours.get(num_recent_events=1), (await ours.list())[0]):
        assert found.state == {"first": 1, **large}


@pytest.mark.parametrize(("number", "is_there"), [(0, True), (1, True), (2, True), (3, False)])
async def test_a_list_need_not_read_events_for_long_values(ours, address, number, is_there):
    """What the conversation's state has no room for is in the events alone."""
    await ours.create("s", LARGE[number])
    async with ConversationClient(address) as conversations:
        state = (await conversations.get(f"adk:{ours.app}:u", "adk:s")).state
    assert bool(state["adk"].get("values")) == is_there


async def test_a_key_of_shared_state_that_is_too_long(ours):
    session = await ours.create("s")
    with pytest.raises(ValueError, match="is too long"):
        await ours.append(session, sets_all({f"user:{'ä' * 200}": 1, "k": 1}))
    with pytest.raises(ValueError, match="is too long"):
        await ours.create("s2", {f"app:{'x' * 600}": 1})
    assert (await ours.get()).events == []
    assert await ours.get("s2") is None


async def test_user_state_alone(ours):
    assert await ours.user_state() == {}
    session = await ours.create("s")
    await ours.append(session, sets_all({"user:profile": {"name": "Alice"}, "k": 1, "app:k": 1}))
    assert await ours.user_state() == {"profile": {"name": "Alice"}}
    assert await ours.user_state("u2") == {}
    await ours.append(session, sets_all({"user:counter": 1}))
    await ours.append(session, sets_all({"user:counter": 2}))
    await ours.delete("s")
    assert await ours.user_state() == {"profile": {"name": "Alice"}, "counter": 2}


# Events


async def test_bytes(ours):
    session = await ours.create("s")
    event = Event(
        author="user",
        content=types.Content(
            role="user",
            parts=[types.Part.from_bytes(data=bytes(range(256)), mime_type="image/png")],
        ),
        grounding_metadata=types.GroundingMetadata(
            search_entry_point=types.SearchEntryPoint(sdk_blob=b"blob")
        ),
    )
    await ours.append(session, event)
    assert (await ours.get()).events == [event]


async def test_an_event_with_everything(ours):
    session = await ours.create("s")
    event = Event(
        invocation_id="invocation",
        author="user",
        content=types.Content(role="user", parts=[types.Part(text="test \ud800")]),
        turn_complete=True,
        partial=False,
        actions=EventActions(
            artifact_delta={"file": 0},
            transfer_to_agent="agent",
            escalate=True,
            requested_tool_confirmations={
                "call_1": ToolConfirmation(hint="hint", confirmed=False, payload={"n": None})
            },
        ),
        long_running_tool_ids={"tool1", "tool2"},
        branch="a.b",
        error_code="error_code",
        error_message="error_message",
        interrupted=True,
        grounding_metadata=types.GroundingMetadata(web_search_queries=["query1"]),
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=2),
        citation_metadata=types.CitationMetadata(),
        custom_metadata={"custom_key": 2**60, "none": None},
        timestamp=1700000000.123,
        input_transcription=types.Transcription(text="in", finished=True),
        output_transcription=types.Transcription(text="out", finished=True),
    )
    await ours.append(session, event)
    found = await ours.get()
    assert found == session
    assert found.events == [event]


async def test_partial_events_are_not_kept(ours):
    session = await ours.create("s")
    event = says("Hel", partial=True)
    assert await ours.append(session, event) is event
    assert session.events == (await ours.get()).events == []


async def test_the_last_update_is_that_of_the_event(ours):
    session = await ours.create("s")
    later = session.last_update_time + 10.000_001
    await ours.append(session, says("hello", timestamp=later))
    assert session.last_update_time == later
    assert (await ours.get()).last_update_time == later
    assert (await ours.list())[0].last_update_time == later


async def test_times_are_exact_and_events_in_the_order_of_their_appends(ours):
    session = await ours.create("s")
    # An hour that comes twice in New York, a tie, and what a clock that was set back gives.
    times = [1730613600.0, 1730615400.0, 1730615400.0, 1730615399.987654, 0.1 + 0.2]
    for name, moment in zip("cbade", times, strict=True):
        await ours.append(session, says(name, timestamp=moment, id=name))
    found = await ours.get()
    assert [event.timestamp for event in found.events] == times
    assert [event.id for event in found.events] == list("cbade")


async def test_which_events(ours):
    session = await ours.create("s")
    for number in range(1, 6):
        await ours.append(session, says(f"{number}", timestamp=float(number)))

    async def found(**config):
        session = await ours.get(**config)
        return "".join(event.content.parts[0].text for event in session.events)

    assert await found() == "12345"
    assert await found(num_recent_events=0) == ""
    assert await found(num_recent_events=3) == "345"
    assert await found(num_recent_events=5) == "12345"
    assert await found(num_recent_events=10**12) == "12345"
    assert await found(after_timestamp=4.0) == "45"
    assert await found(after_timestamp=0.0) == "12345"
    assert await found(after_timestamp=50.0) == ""
    assert await found(after_timestamp=4.0, num_recent_events=3) == "45"
    assert await found(after_timestamp=2.0, num_recent_events=3) == "345"


async def test_a_session_read_in_part_can_be_appended_to(ours):
    session = await ours.create("s", {"k": 1})
    await ours.append(session, says("1"))
    await ours.append(session, says("2"))
    some = await ours.get(num_recent_events=1)
    await ours.append(some, says("3"))
    assert len(some.events) == 2
    assert len((await ours.get()).events) == 3


async def test_long_histories(ours, address):
    session = await ours.create("s", {"k": 0})
    async with ConversationClient(address) as conversations:
        place = f"adk:{ours.app}:u", "adk:s"
        await ours.append(session, sets(k="x" * 1_000))
        for _ in range(3):
            await conversations.append(*place, [{"role": "user", "text": "no event"}] * 800)
        session = await ours.get()
        await ours.append(session, says("last"))
    for config in ({}, {"num_recent_events": 2}, {"num_recent_events": 9}):
        found = await ours.get(**config)
        assert len(found.events) == 2
        assert found.state == {"k": "x" * 1_000}


async def test_an_event_that_is_too_large(ours):
    session = await ours.create("s")
    with pytest.raises(InvalidArgument, match=r"1,048,576|1 MiB"):
        await ours.append(session, says("x" * 1_100_000))
    await ours.append(session, says("x" * 900_000))
    assert session.events == (await ours.get()).events


# Stale and absent sessions


async def test_appending_to_a_session_that_is_gone(ours):
    session = await ours.create("s")
    await ours.append(session, says("hello"))
    await ours.delete("s")
    with pytest.raises(SessionNotFoundError, match="Session s not found"):
        await ours.append(session, says("anyone?"))
    unknown = Session(app_name=ours.app, user_id="u", id="never")
    with pytest.raises(SessionNotFoundError):
        await ours.append(unknown, says("anyone?"))
    assert await ours.list() == []
    # Nor to another one of its name.
    again = await ours.create("s")
    with pytest.raises(StaleSessionError):
        await ours.append(session, says("anyone?"))
    assert (await ours.get()).events == []
    await ours.append(again, session.events[0])
    assert (await ours.get()).events == again.events == session.events


async def test_a_stale_session(ours):
    original = await ours.create("s")
    await ours.append(original, sets(k1="v1"))
    updated = await ours.get()
    await ours.append(updated, sets(k2="v2"))
    assert "k2" not in original.state
    stale = sets_all({"k3": "v3", "user:k3": "v3", "app:k3": "v3"})
    with pytest.raises(StaleSessionError, match="modified in storage") as raised:
        await ours.append(original, stale)
    assert isinstance(raised.value, ValueError)
    assert (len(original.events), original.state) == (1, {"k1": "v1"})
    final = await ours.get()
    assert final.state == {"k1": "v1", "k2": "v2"}
    assert len(final.events) == 2
    # Read again, it goes on.
    await ours.append(final, stale)
    assert (await ours.get()).state["user:k3"] == "v3"


async def test_of_two_appends_at_once_one_is_stale(ours):
    await ours.create("s")
    for number in range(8):
        latest = await ours.get()
        copies = [latest.model_copy(deep=True) for _ in range(2)]
        results = await asyncio.gather(
            *(
                ours.append(copy, sets(**{f"k{number}-{each}": each}))
                for each, copy in enumerate(copies)
            ),
            return_exceptions=True,
        )
        assert sorted(type(each) for each in results if isinstance(each, Exception)) == [
            StaleSessionError
        ]
    final = await ours.get()
    assert len(final.events) == len(final.state) == 8


async def test_appends_to_one_object_at_once_follow_each_other(ours):
    session = await ours.create("s")
    events = [sets(**{f"k{number}": number}) for number in range(10)]
    await asyncio.gather(*(ours.append(session, event) for event in events))
    found = await ours.get()
    assert sorted(event.id for event in found.events) == sorted(event.id for event in events)
    assert found.state == session.state
    await ours.append(session, says("more"))


async def test_one_service_in_many_loops(ours):
    session = await ours.create("s")
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        asyncio.run(ours.append(session, says(f"{number}")))

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    assert len((await ours.get()).events) == 4


async def test_a_session_whose_time_is_a_little_off(ours):
    session = await ours.create("s")
    await ours.append(session, says("1"))
    session.last_update_time -= 0.0001
    await ours.append(session, says("2"))
    assert len((await ours.get()).events) == 2


def made_by_hand(session, **more):
    """As callers make one, without what services note in it."""
    names = {"app_name": session.app_name, "user_id": session.user_id, "id": session.id}
    return Session(**names, **{"events": list(session.events)} | more)


async def test_a_session_made_by_hand(ours):
    session = await ours.create("s")
    by_hand = made_by_hand(session)
    await ours.append(by_hand, says("1"))
    await ours.append(by_hand, says("2"))
    again = made_by_hand(by_hand)
    await ours.append(again, says("3"))
    # One that lacks events, and one that says it is as new as what is kept.
    with pytest.raises(StaleSessionError):
        await ours.append(made_by_hand(session), says("4"))
    with pytest.raises(StaleSessionError):
        await ours.append(made_by_hand(session, events=[says("1")]), says("4"))
    await ours.append(made_by_hand(session, last_update_time=2e10), says("5"))
    texts = [event.content.parts[0].text for event in (await ours.get()).events]
    assert texts == ["1", "2", "3", "5"]


# Again, and wires that break


async def test_an_event_appended_again(ours):
    session = await ours.create("s")
    event = sets_all({"k": 1, "user:k": 1})
    await ours.append(session, event)
    await ours.append(session, sets_all({"k": 2, "user:k": 2}))
    for again in (session, await ours.get(), await ours.get(num_recent_events=0)):
        await ours.append(again, event.model_copy(deep=True))
    found = await ours.get()
    assert len(session.events) == len(found.events) == 2
    assert found.state == {"k": 2, "user:k": 2}


async def test_another_event_with_the_id_of_one(ours):
    session = await ours.create("s")
    await ours.append(session, says("1", id="e"))
    for other in (session, await ours.get(), await ours.get(num_recent_events=0)):
        with pytest.raises(AlreadyExistsError, match="Event e already exists"):
            await ours.append(other, says("2", id="e"))
    assert [event.content.parts[0].text for event in (await ours.get()).events] == ["1"]


@pytest.fixture
async def wire(address):
    async with Wire(address) as wire:
        yield wire


async def until(condition):
    async with asyncio.timeout(60):
        while not await condition():
            pass


@pytest.fixture
async def wired(wire, name):
    """The same app, over a wire."""
    async with MemorydSessionService(wire.address, timeout=60) as service:
        wired = Own(service, name)
        await wired.get()
        yield wired


async def answer_held(ours, wire, wired, session, event):
    """Begin to append a session's first event, and hold the answer while it is committed."""
    wire.hold()
    task = asyncio.create_task(wired.append(session, event))

    async def is_kept():
        return len((await ours.get(num_recent_events=5)).events) == 1

    await until(is_kept)
    return task


async def given_up(ours, wire, wired, session, event):
    """Append a session's first event, and learn nothing of it."""
    task = await answer_held(ours, wire, wired, session, event)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wire.release()
    assert session.events == []


async def test_an_append_whose_answer_is_lost_is_done_once(ours, wire, wired):
    session = await ours.create("s", {"user:k": 0})
    event = sets_all({"k": 1, "user:k": 1})
    task = await answer_held(ours, wire, wired, session, event)
    wire.cut()
    assert await task is event
    assert session.events == [event]
    assert await ours.get() == session
    await wired.append(session, says("more"))


@pytest.mark.parametrize("large", [{}, {f"k{number}": "x" * 50 for number in range(2_000)}])
async def test_an_event_appended_again_after_an_error(ours, wire, wired, large):
    session = await ours.create("s", large)
    event = sets_all({"k": 1, "user:k": 1})
    await given_up(ours, wire, wired, session, event)
    # The event is there. What it sets for the user, a reader sees and keeps.
    found = await ours.get()
    assert found.events == [event]
    assert found.state == {**large, "k": 1, "user:k": 1}
    assert await ours.user_state() == {"k": 1}
    await wired.append(session, event)
    assert session.events == [event]
    await wired.append(session, says("more"))
    assert len((await ours.get()).events) == 2


@pytest.mark.parametrize("is_read_again", [False, True])
async def test_after_an_error_others_may_have_gone_on(ours, wire, wired, is_read_again):
    session = await ours.create("s")
    event = sets_all({"k": 1, "user:k": 1})
    await given_up(ours, wire, wired, session, event)
    if is_read_again:
        session = await ours.get(num_recent_events=0)
    await ours.append(await ours.get(), sets(k=2))
    # It is done, so it is not refused; but the session lacks what the other appended.
    await wired.append(session, event)
    with pytest.raises(StaleSessionError):
        await wired.append(session, says("more"))
    found = await ours.get()
    assert len(found.events) == 2
    assert found.state == {"k": 2, "user:k": 1}


async def test_a_session_whose_answer_is_lost_is_made_once(ours, wire, wired):
    wire.hold()
    task = asyncio.create_task(wired.create("s", {"k": 1}))

    async def is_kept():
        return await ours.get() is not None

    await until(is_kept)
    wire.cut()
    assert (await task).state == {"k": 1}
    assert await ours.get() == await task


async def forget(documents, app, scope):
    """As if a process had died between an event and the state that sessions share."""
    place = f"adk:{app}:u" if scope == "user:" else f"adk:{app}"
    assert await documents.delete_all(place, ["state"], force=True)


@pytest.mark.parametrize("scope", ["user:", "app:"])
async def test_shared_state_that_was_not_set_is_set_by_the_next_reader(ours, address, scope):
    async with DocumentClient(address) as documents:
        session = await ours.create("s", {f"{scope}begin": 1})
        await ours.append(session, sets_all({f"{scope}k": 1}))
        await ours.append(session, sets_all({f"{scope}k": 2}))
        await forget(documents, ours.app, scope)
        assert (await ours.list())[0].state == {}
        assert (await ours.get()).state == {f"{scope}begin": 1, f"{scope}k": 2}
        assert (await ours.list())[0].state == {f"{scope}begin": 1, f"{scope}k": 2}


@pytest.mark.parametrize("scope", ["user:", "app:"])
async def test_shared_state_that_is_set_late_does_not_replace_later_state(ours, address, scope):
    async with DocumentClient(address) as documents:
        first, second = await ours.create("s"), await ours.create("s2")
        await ours.append(first, sets_all({f"{scope}k": 1, f"{scope}only": 1}))
        await forget(documents, ours.app, scope)
        await ours.append(second, sets_all({f"{scope}k": 2}))
        expected = {f"{scope}k": 2, f"{scope}only": 1}
        assert (await ours.get("s")).state == expected
        assert (await ours.get("s2")).state == expected


@pytest.mark.parametrize("ahead", [-(10**6), 10**6, 10**15])
async def test_clocks_that_differ(ours, address, ahead):
    """The later append counts, also where it came by a server whose clock is behind."""
    session = await ours.create("s", {"user:k": 0})
    async with DocumentClient(address) as documents:
        place = f"adk:{ours.app}:u"
        (kept,) = [each async for each in documents.list(place)]
        moment = str(int(kept.labels["moment"]) + ahead)
        await documents.put(
            place, Put(kept.key, kept.namespace, json="1", labels={"moment": moment})
        )
    await ours.append(session, sets_all({"user:k": 2}))
    assert await ours.user_state() == {"k": 2}
    assert (await ours.get()).state == {"user:k": 2}
    await ours.append(session, sets_all({"user:k": 3}))
    assert (await ours.get()).state == {"user:k": 3}
    assert await ours.user_state() == {"k": 3}


async def test_who_may_only_read_reads_what_was_not_set_too(served, name):
    admin = new_key().text
    required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
    with served("sqlite", BOOTSTRAP=admin, **required) as found:
        async with AccessClient(found.grpc, api_key=admin) as access:
            agent, reader = [
                (await access.create_key(scope, [scope], tenant="acme")).key
                for scope in ("agent", "reader")
            ]
        async with (
            MemorydSessionService(found.grpc, api_key=agent) as writing,
            MemorydSessionService(found.grpc, api_key=reader) as reading,
            DocumentClient(found.grpc, api_key=agent) as documents,
        ):
            session = await Own(writing, name).create("s", {"user:k": 1, "app:k": 1})
            await forget(documents, name, "user:")
            read = await Own(reading, name).get()
            assert read.state == {"user:k": 1, "app:k": 1}
            assert await Own(reading, name).user_state() == {}
            with pytest.raises(PermissionDenied):
                await Own(reading, name).append(read, says("hello"))
            await Own(writing, name).append(session, says("hello"))


async def test_shared_state_set_by_many_at_once(ours):
    sessions = [await ours.create(f"s{number}") for number in range(6)]
    await asyncio.gather(
        *(
            ours.append(
                session,
                sets_all({f"user:k{number}": number, "user:all": number, "app:all": number}),
            )
            for number, session in enumerate(sessions)
        )
    )
    state = await ours.user_state()
    assert {f"k{number}": number for number in range(6)} | {"all": state["all"]} == state
    reads = [await ours.get(session.id) for session in sessions]
    assert len({(each.state["user:all"], each.state["app:all"]) for each in reads}) == 1


# Where it is


async def test_nothing_expires_and_a_user_is_one_session(ours, address):
    session = await ours.create("s", {"user:k": 1, "app:k": 1})
    await ours.append(session, says("hello"))
    async with (
        ConversationClient(address) as conversations,
        DocumentClient(address) as documents,
        SessionClient(address) as sessions,
    ):
        listed = [each.session_id async for each in sessions.list(f"adk:{ours.app}")]
        assert listed == [f"adk:{ours.app}", f"adk:{ours.app}:u"]
        found = await conversations.get(f"adk:{ours.app}:u", "adk:s")
        assert (found.ttl, found.expire_time, found.message_count) == (None, None, 2)
        window = await conversations.window(f"adk:{ours.app}:u", "adk:s")
        assert [each.raw_format for each in window.messages] == ["adk.session", "adk.event"]
        assert window.messages[1].role == "user"
        for place in listed:
            kept = [each async for each in documents.list(place)]
            assert [(each.ttl, each.expire_time) for each in kept] == [(None, None)]


async def test_erasing_a_user(ours, address):
    await ours.append(await ours.create("s"), sets_all({"user:k": 1, "app:k": 1, "k": 1}))
    await ours.create("s2", user="u2")
    async with MemoryClient(address) as memories, SessionClient(address) as sessions:
        await memories.erase(f"adk:{ours.app}:u")
        assert [each async for each in sessions.list(f"adk:{ours.app}:u:")] == []
    assert await ours.get() is None
    assert await ours.list() == []
    assert await ours.user_state() == {}
    assert [(each.id, each.state) for each in await ours.list(None)] == [("s2", {"app:k": 1})]


async def test_a_deleted_session_leaves_nothing(ours, address):
    session = await ours.create("s", {"secret": "x" * 1_000})
    await ours.append(session, says("secret"))
    await ours.delete("s")
    async with ConversationClient(address) as conversations, DocumentClient(address) as documents:
        place = f"adk:{ours.app}:u"
        assert [each async for each in conversations.list(place)] == []
        assert [each async for each in documents.list(place)] == []


async def test_conversations_of_others_are_no_sessions(ours, address):
    async with ConversationClient(address) as conversations:
        await conversations.append(f"adk:{ours.app}:u", "adk:s", user="hello")
        await conversations.append(f"adk:{ours.app}:u", "other", user="hello")
        assert await ours.get() is None
        assert await ours.list() == await ours.list(None) == []
        session = await ours.create("s", {"k": 1})
        await conversations.append(f"adk:{ours.app}:u", "adk:s", user="hello")
        with pytest.raises(StaleSessionError):
            await ours.append(session, says("1"))
        found = await ours.get()
        assert found.events == []
        await ours.append(found, says("1"))
        assert len((await ours.get(num_recent_events=1)).events) == 1


async def test_what_others_do_with_its_conversation(ours, address):
    session = await ours.create("s", {"k": 1})
    await ours.append(session, sets(long="x" * 1_000))
    async with ConversationClient(address) as conversations:
        place = f"adk:{ours.app}:u", "adk:s"
        await conversations.fork(*place, "adk:s2")
        await conversations.fork(*place, "fork")
        await conversations.pop(*place)
    assert [each.id for each in await ours.list()] == ["s", "s2"]
    assert (await ours.get()).events == []
    assert (await ours.get()).state == {"k": 1}
    assert (await ours.get("s2")).state == {"k": 1, "long": "x" * 1_000}


async def test_prefixes_are_apart(address, name, ours):
    async with MemorydSessionService(address, prefix="other") as other:
        await Own(other, name).create("s", {"user:k": 1, "app:k": 1})
        assert await ours.get() is None
        assert await ours.user_state() == {}
        assert (await ours.create("s")).state == {}


# As ADK's own services answer

KEYS = st.sampled_from(["k", "long", "user:k", "user:long", "app:k", "temp:k"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.just({"a": {"b": None}}),
    st.just("x" * 9_000),
)
DELTAS = st.dictionaries(KEYS, VALUES, max_size=4)
IDS = st.sampled_from("ab")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), IDS, IDS, DELTAS),
        st.tuples(st.just("append"), IDS, IDS, DELTAS),
        st.tuples(st.just("delete"), IDS, IDS),
        st.tuples(st.just("list"), st.none() | IDS),
        st.tuples(st.just("get"), IDS, IDS, st.none() | st.integers(0, 3)),
    ),
    max_size=12,
)


def shown(result):
    """What can be compared: all but the times of sessions that were made at different ones."""
    if isinstance(result, Session):
        return result.model_dump(exclude={"last_update_time"})
    return result


class Player:
    """Plays a script on a service."""

    def __init__(self, own):
        self.own = own
        self.clock = 2e9

    async def step(self, kind, *arguments):
        try:
            return shown(await getattr(self, kind)(*arguments))
        except AlreadyExistsError as error:
            return type(error)

    async def create(self, user, session_id, state):
        return await self.own.create(session_id, state, user)

    async def append(self, user, session_id, delta):
        session = await self.own.get(session_id, user)
        if session is not None:
            self.clock += 1
            event = sets_all(delta, timestamp=self.clock, id=f"{self.clock}")
            await self.own.append(session, event)
        return session

    async def delete(self, user, session_id):
        await self.own.delete(session_id, user)

    async def list(self, user):
        return sorted(
            (each.user_id, each.id, sorted(each.state.items(), key=repr))
            for each in await self.own.list(user)
        )

    async def get(self, user, session_id, last):
        config = {} if last is None else {"num_recent_events": last}
        return await self.own.get(session_id, user, **config)


@pytest.mark.parametrize("kind", ["sqlite", "in memory"])
def test_a_script_has_the_same_results(address, tmp_path, kind):
    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(steps=STEPS)
    def play(steps):
        async def work():
            app = f"app{uuid.uuid4().hex}"
            theirs = (
                SqliteSessionService(str(tmp_path / f"{app}.db"))
                if kind == "sqlite"
                else InMemorySessionService()
            )
            async with MemorydSessionService(address) as service:
                ours, reference = Player(Own(service, app)), Player(Own(theirs, app))
                for step in steps:
                    assert await ours.step(*step) == await reference.step(*step), step

        asyncio.run(work())

    play()
