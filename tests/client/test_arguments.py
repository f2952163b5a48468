"""Every argument of every public method makes a request, or an error that names it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from memoryd import client
from memoryd.client.conversation_calls import ConversationValues
from memoryd.client.new_messages import Said
from memoryd.client.promotion import PromoteOptions
from memoryd.client.windows import WindowOptions

CLIENTS = {
    "memory": client.MemoryClient,
    "sessions": client.SessionClient,
    "tools": client.ToolConfigClient,
}
KEYWORDS = {
    f"Unpack[{kind.__name__}]": kind.__annotations__
    for kind in (client.Filter, ConversationValues, PromoteOptions, Said, WindowOptions)
}
"""What `**which` and the like stand for."""
FINE: dict[str, Any] = {
    "session_id": "s",
    "source_session_id": "s",
    "target_session_id": "t",
    "content": "prefers e-mail",
    "memory_id": "0190a0c8-0000-7000-8000-000000000000",
    "memories": [client.NewMemory("s", "prefers e-mail")],
    "tool": "rag",
    "revision": 1,
    "conversation_id": "c",
    "query": "tea",
    "message_id": "m1",
    "after_message_id": "",
    "text": "They met.",
    "through_message_id": "m1",
    "key": "k",
    "put": client.Put("k", text="t"),
    "writes": [client.Put("k", text="t")],
    "names": [((), "k")],
    "source": ((), "k"),
    "target": ((), "l"),
}
"""Values for required parameters while another one is tested."""

STREAM_SECONDS = 0.05

LONG = ("a number", "infinite")
"""The values below that are timeouts longer than this test."""


def _self_containing() -> dict[str, Any]:
    itself: dict[str, Any] = {}
    itself["itself"] = [itself]
    return itself


def _list_of_itself() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return itself


def _deep() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(100_000):
        made = {"in": made}
    return made


def _wide() -> dict[str, Any]:
    made: list[Any] = []
    for _ in range(30):
        made = [made, made]
    return {"wide": made}


def _failing() -> Iterator[str]:
    yield "a"
    yield "cut \ud83d"


class _Odd:
    """A type that no parameter accepts."""


HOSTILE: dict[str, Callable[[], Any]] = {
    "half a surrogate": lambda: "cut \ud83d",
    "a NUL": lambda: "\0",
    "bytes": lambda: b"\xff",
    "fine bytes": lambda: b"abc",
    "an empty text": lambda: "",
    "a text": lambda: "5",
    "a long text": lambda: "x" * 100_000,
    "True": lambda: True,
    "zero": lambda: 0,
    "a number": lambda: 3600,
    "below zero": lambda: -1,
    "past an int32": lambda: 10**10,
    "past an int64": lambda: 10**20,
    "past a double": lambda: 10**400,
    "past a text": lambda: 10**5000,
    "a fraction": lambda: 0.5,
    "NaN": lambda: math.nan,
    "infinite": lambda: math.inf,
    "a Decimal": lambda: Decimal("0.5"),
    "not a Decimal number": lambda: Decimal("sNaN"),
    "a complex number": lambda: 1j,
    "a date": lambda: date(2030, 1, 1),
    "a naive datetime": lambda: datetime(2030, 1, 1),  # noqa: DTZ001  the point of the test
    "an aware datetime": lambda: datetime(2030, 1, 1, tzinfo=UTC),
    "the first datetime": lambda: datetime.min.replace(tzinfo=UTC),
    "a timedelta": lambda: timedelta(seconds=1),
    "the longest timedelta": lambda: timedelta.max,
    "a set": lambda: {1, 2},
    "a list": lambda: ["fact", "cut \ud83d", 7, None],
    "a list of itself": _list_of_itself,
    "an iterator": lambda: iter(["a", 7]),
    "a generator": _failing,
    "a dict": lambda: {"a": 1},
    "a dict that holds itself": _self_containing,
    "a deep dict": _deep,
    "a wide dict": _wide,
    "a dict with odd keys": lambda: {1: 2, None: 3},
    "a dict with half a surrogate": lambda: {"a": "\ud83d"},
    "a dict with such a key": lambda: {"\ud83d": 1},
    "a dict with NaN": lambda: {"a": math.nan},
    "a dict with an object": lambda: {"a": _Odd(), "chunk_size": _Odd(), "authorization": _Odd()},
    "an object": _Odd,
    "a class": lambda: _Odd,
}


@pytest.fixture
async def clients(running) -> dict[str, Any]:
    return {name: kind(channel=running.channel) for name, kind in CLIENTS.items()}


async def outcome(call: Callable[[], Any]) -> Exception | None:
    """The error that a call raises before it reaches the service; None if it does reach it."""
    try:
        answer = call()
        if inspect.isasyncgen(answer):
            try:
                async for _ in answer:
                    break
            finally:
                await answer.aclose()
        elif inspect.isawaitable(answer):
            await answer
    except client.MemorydError:
        return None
    except Exception as error:  # noqa: BLE001  the result of the test
        return error
    return None


def assert_named(error: Exception | None, argument: str, what: str) -> None:
    if error is not None:
        assert isinstance(error, ValueError | TypeError), f"{what}: {error!r}"
        assert str(error).startswith(argument), f"{what}: {error!r}"
        str(error).encode()  # must not raise


def parameters(function: Callable[..., Any]) -> Iterator[str]:
    """The names of the parameters, with those of its TypedDict instead of `**which`."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            yield from KEYWORDS[parameter.annotation]
        else:
            yield name


def methods(kind: type) -> list[str]:
    """The public methods that take arguments."""
    return [
        method
        for method, function in inspect.getmembers(kind, inspect.isfunction)
        if not method.startswith("_") and len(inspect.signature(function).parameters) > 1
    ]


def required(function: Callable[..., Any]) -> dict[str, Any]:
    """Fine values for the parameters without a default."""
    return {
        name: FINE[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
        and parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }


METHODS = [
    pytest.param(which, method, id=f"{which}.{method}")
    for which, kind in CLIENTS.items()
    for method in methods(kind)
]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("which", "method"), METHODS)
async def test_an_argument_that_makes_no_request_is_named(clients, which, method):
    function = getattr(CLIENTS[which], method)
    needed = required(function)
    call = getattr(clients[which], method)
    for name in parameters(function):
        for what, make in HOSTILE.items():
            given = {"timeout": STREAM_SECONDS} | needed | {name: make()}
            if method == "find_similar" and name != "memory_id":
                given.setdefault("content", "prefers e-mail")
            if method in {"get", "delete"} and which == "memory" and name != "key":
                given.setdefault("memory_id", FINE["memory_id"])
            positional = given.pop("paths", None)
            if name == "timeout" and what in LONG:
                continue  # a stream would be read until then
            error = await outcome(
                lambda given=given, paths=positional: call(
                    *([given.pop("tool"), paths] if paths is not None else ()), **given
                )
            )
            assert_named(error, name, f"{method}({name}={what})")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_an_argument_that_makes_no_memory_is_named(clients):
    for field in fields(client.NewMemory):
        for what, make in HOSTILE.items():
            new = client.NewMemory(**{"session_id": "s", "content": "x", field.name: make()})
            error = await outcome(
                lambda new=new: clients["memory"].store_many([new], timeout=STREAM_SECONDS)
            )
            assert_named(error, f"memories[0].{field.name}", f"NewMemory({field.name}={what})")


NEVER = ("half a surrogate", "bytes", "a complex number", "an object", "a class")
"""The values above that no parameter of a document's or conversation's accepts, so that nothing is
sent."""


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        pytest.param(kind, method, id=f"{kind.__name__}.{method}")
        for kind in (client.DocumentClient, client.ConversationClient)
        for method in methods(kind)
    ],
)
async def test_an_argument_of_no_kind_that_is_accepted_is_named(kind, method):
    function = getattr(kind, method)
    async with kind("127.0.0.1:1") as unconnected:
        for name in parameters(function):
            for what in NEVER:
                given = {"session_id": "s"} | required(function)
                if method == "move_all":
                    given |= {"source": ["a"], "target": ["b"]}
                given[name] = HOSTILE[what]()
                if name == "session_id_prefix":
                    del given["session_id"]
                error = await outcome(lambda given=given: getattr(unconnected, method)(**given))
                assert error is not None, f"{method}({name}={what})"
                assert_named(error, name, f"{method}({name}={what})")


@pytest.mark.parametrize("field", [field.name for field in fields(client.NewMessage)])
async def test_an_argument_that_makes_no_message_is_named(field):
    async with client.ConversationClient("127.0.0.1:1") as conversations:
        for what in NEVER:
            new = client.NewMessage(**{"text": "x", field: HOSTILE[what]()})
            error = await outcome(lambda new=new: conversations.append("s", "c", [new]))
            assert error is not None
            assert_named(error, f"messages[0].{field}", f"NewMessage({field}={what})")


@pytest.mark.parametrize("opener", [*CLIENTS.values(), client.open_channel])
async def test_an_argument_that_opens_no_channel_is_named(opener):
    for name in parameters(opener if inspect.isfunction(opener) else opener.__init__):
        for what, make in HOSTILE.items():
            given = {name: make()}
            if name != "channel":
                given = {"target": "127.0.0.1:1"} | given
            try:
                opened = opener(**given)
            except Exception as error:  # noqa: BLE001  the result of the test
                assert_named(error, name, f"{name}={what}")
            else:
                with suppress(AttributeError):
                    await opened.close()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("part", ["path", "op", "value"])
@pytest.mark.parametrize("what", HOSTILE)
async def test_a_part_of_a_condition_that_makes_no_request_is_named(clients, part, what):
    given = {"path": "a", "op": "eq", "value": 1, part: HOSTILE[what]()}

    async def call() -> None:
        async for _ in clients["memory"].list("s", conditions=[client.Condition(**given)]):
            pass

    assert_named(await outcome(call), f"conditions[0].{part}", what)
