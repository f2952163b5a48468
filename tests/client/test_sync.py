"""The clients for programs without an event loop."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC

import pytest

from memoryd import client
from memoryd.client import sync
from memoryd.client.background import background

CLASSES = [name for name in sync.__all__ if name not in {"Channel", "open_channel"}]


def methods_of(kind):
    found = inspect.getmembers(kind, inspect.isroutine)
    return {name: method for name, method in found if not name.startswith("_")}


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_is_there_with_the_same_arguments(name):
    theirs = methods_of(getattr(client, name))
    ours = methods_of(getattr(sync, name))
    assert ours.keys() == theirs.keys()
    for method, mine in ours.items():
        assert inspect.signature(mine).parameters == inspect.signature(theirs[method]).parameters
        assert not inspect.iscoroutinefunction(inspect.unwrap(mine)) or callable(mine)


def test_every_client_is_there():
    clients = {name for name in client.__all__ if name.endswith(("Client", "Handle"))}
    assert clients == set(CLASSES)


def test_constructors_take_the_same_arguments():
    ours = inspect.signature(sync.MemoryClient.__init__).parameters
    theirs = inspect.signature(client.MemoryClient.__init__).parameters
    assert {name: given.default for name, given in ours.items()} == {
        name: given.default for name, given in theirs.items()
    }
    ours = inspect.signature(sync.open_channel).parameters
    assert list(ours) == list(inspect.signature(client.open_channel).parameters)


async def test_every_service(running):
    def work(address):
        with sync.open_channel(address) as channel:
            memory = sync.MemoryClient(channel=channel)
            stored = memory.store("s", "prefers e-mail", content_type="preference", key="mail")
            assert stored.outcome is client.StoreOutcome.CREATED
            assert memory.get("s", key="mail") == stored.memory
            assert [one.content for one in memory.list("s")] == ["prefers e-mail"]
            assert memory.retrieve("s", "how to reach").as_prompt() == "- prefers e-mail"
            with closing(memory.watch("s")) as changes:
                assert next(changes).memory.key == "mail"
            documents = sync.DocumentClient(channel=channel)
            documents.put("s", client.Put("k", text="x"))
            assert [document.key for document in documents.export("s")] == ["k"]
            talk = sync.ConversationClient(channel=channel).conversation("s", "c")
            talk.append(user="Where is it?", assistant="On its way.")
            assert [message.role for message in talk.messages()] == ["user", "assistant"]
            assert talk.window(last=1).messages[0].parts[0].text == "On its way."
            sessions = sync.SessionClient(channel=channel)
            assert [one.session_id for one in sessions.list()] == ["s"]
            tools = sync.ToolConfigClient(channel=channel)
            assert tools.update("rag", {"search_k": 7}).rag.search_k == 7
            assert sync.AccessClient(channel=channel).who_am_i().method == "off"
            erased = memory.erase("s")
            assert erased.erased_memories == 1
            assert erased.erase_time.tzinfo is UTC

    await asyncio.to_thread(work, running.address)


async def test_errors_are_those_of_the_other_client(running):
    def work(address):
        with sync.MemoryClient(address) as memory:
            with pytest.raises(client.NotFound) as raised:
                memory.get("s", "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b")
            assert raised.value.reason == "ERROR_REASON_MEMORY_NOT_FOUND"
            with pytest.raises(TypeError, match=r"^content: expected a str"):
                memory.store("s", 7)
            with pytest.raises(TypeError, match="page_size"):
                memory.list("s", page_size="7")
            with pytest.raises(client.InvalidArgument):
                list(memory.list("../s"))

    await asyncio.to_thread(work, running.address)


async def test_threads_share_a_client(running):
    def work(address):
        with sync.MemoryClient(address) as memory, ThreadPoolExecutor(32) as threads:
            stored = list(threads.map(lambda n: memory.store("s", f"fact {n}"), range(90)))
            assert len({one.memory.memory_id for one in stored}) == 90
            assert {one.memory.content for one in stored} == {f"fact {n}" for n in range(90)}
            assert len(list(memory.list("s"))) == len(stored)

    await asyncio.to_thread(work, running.address)


async def test_closing_ends_calls_under_way(running):
    def work(address):
        memory = sync.MemoryClient(address)
        memory.store("s", "fact")
        watch = memory.watch("s")
        next(watch)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(next, watch)
            memory.close()
            with pytest.raises(client.Cancelled):
                waiting.result(30)

    await asyncio.to_thread(work, running.address)


async def test_an_iterator_that_is_left_ends_its_stream(serve, eventually):
    running = await serve(MEMORYD_MAX_STREAMS="1")

    def watches(memory):
        try:
            for _ in memory.watch("s"):
                break  # the generator is closed as the last reference goes
        except client.ResourceExhausted:
            return False  # the one before it has not ended yet
        return True

    def opened():
        memory = sync.MemoryClient(running.address)
        memory.store("s", "fact")
        return memory

    memory = await asyncio.to_thread(opened)
    for _ in range(3):
        await eventually(lambda: asyncio.to_thread(watches, memory))
    await asyncio.to_thread(memory.close)


async def test_both_kinds_of_client_in_one_process(running):
    def work(address):
        with sync.MemoryClient(address) as memory:
            for number in range(50):
                memory.store("sync", f"fact {number}")

    async with client.MemoryClient(running.address) as memory:
        blocking = asyncio.create_task(asyncio.to_thread(work, running.address))
        for number in range(50):
            await memory.store("async", f"fact {number}")
        await blocking
        for session in ("sync", "async"):
            assert len([one async for one in memory.list(session)]) == 50


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_token_provider_of_either_kind(serve, is_async):
    running = await serve()
    asked = []

    def provide():
        asked.append(threading.current_thread())
        return "token", None

    async def provide_later():
        return provide()

    def work(address):
        provider = provide_later if is_async else provide
        with sync.MemoryClient(address, token_provider=provider) as memory:
            memory.store("s", "fact")

    await asyncio.to_thread(work, running.address)
    assert (asked[0] is background()._thread) == is_async  # noqa: SLF001  not visible otherwise


async def test_a_provider_that_would_wait_for_itself_is_told(running):
    def work(address):
        async def provide():
            memory.who()  # as a stand-in for any call of a client

        with sync.AccessClient(address) as access:
            memory = type("Asks", (), {"who": staticmethod(access.who_am_i)})
            with (
                sync.MemoryClient(address, token_provider=provide) as asks,
                pytest.raises(RuntimeError, match="would wait for itself"),
            ):
                asks.store("s", "fact")

    await asyncio.to_thread(work, running.address)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"channel": 7}, "channel: expected one from sync.open_channel"),
        ({"target": "localhost:1", "tls": 7}, "tls: expected"),
        ({"target": "localhost:1", "token_provider": 7}, "token_provider: expected"),
    ],
)
def test_wrong_arguments_are_named(given, problem):
    with pytest.raises(TypeError, match=f"^{problem}"):
        sync.MemoryClient(**given)


SCRIPTS = {
    "a process ends while it watches": """
        import sys, threading
        from memoryd.client.sync import MemoryClient
        memory = MemoryClient(sys.argv[1])
        memory.store("s", "fact")
        watch = memory.watch("s")
        next(watch)
        threading.Thread(target=lambda: next(watch), daemon=True).start()
        print("ended")
    """,
    "an interrupted call": """
        import signal, sys
        from memoryd.client.sync import MemoryClient
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        with MemoryClient(sys.argv[1]) as memory:
            memory.store("s", "fact")
            watch = memory.watch("s")
            next(watch)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            try:
                next(watch)
            except KeyboardInterrupt:
                pass
            memory.store("s", "another")
            print("ended")
    """,
    "a fork": """
        import os, sys
        from memoryd.client.sync import MemoryClient
        memory = MemoryClient("127.0.0.1:1")
        if os.fork() == 0:
            try:
                memory.store("s", "fact")
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
        print("ended")
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_processes(running, name):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPTS[name]), running.address]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ended"]), done.stderr
    if name == "a fork":
        assert "before the process forked" in done.stdout
    assert "Traceback" not in done.stderr
