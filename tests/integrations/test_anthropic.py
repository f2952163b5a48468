"""The memory tool beside the SDK's own on local files, and what that one cannot do."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.lib.tools import ToolError
from anthropic.tools import BetaLocalFilesystemMemoryTool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoryd.client import sync
from memoryd.integrations.anthropic import AsyncMemorydMemoryTool, MemorydMemoryTool


@pytest.fixture
def tool(address, name):
    with MemorydMemoryTool(address, user=name) as tool:
        yield tool


@pytest.fixture
def documents(address):
    with sync.DocumentClient(address) as documents:
        yield documents


def view(path, *view_range):
    return {"command": "view", "path": path} | ({"view_range": view_range} if view_range else {})


def create(path, text="1\n2\n3\n"):
    return {"command": "create", "path": path, "file_text": text}


def replace(path, old, new):
    return {"command": "str_replace", "path": path, "old_str": old, "new_str": new}


def insert(path, line, text):
    return {"command": "insert", "path": path, "insert_line": line, "insert_text": text}


def delete(path):
    return {"command": "delete", "path": path}


def rename(old, new):
    return {"command": "rename", "old_path": old, "new_path": new}


def answer(tool, command):
    """What a model is told, and whether it is an error."""
    try:
        return tool.call(command), False
    except ToolError as error:
        return error.content, True


def same_sizes(text):
    """An answer with one size for directories: on a disk it depends on the file system."""
    head, *lines = text.split("\n")
    if not head.startswith("Here're"):
        return text
    shown = [re.sub(r"^[^\t]+(?=\t.*/$)", "4K", line) for line in lines]
    return "\n".join([head, re.sub(r"^[^\t]+", "4K", shown[0]), *shown[1:]])


def assert_same(theirs, ours, command):
    try:
        text, is_error = answer(theirs, command)
    except OSError:
        # It tells of its own folder; ours says what is wrong.
        assert answer(ours, command)[1], command
        return
    assert answer(ours, command) == (same_sizes(text), is_error), command


SCRIPTS = {
    "files": [
        view("/memories"),
        create("/memories/a.txt"),
        create("/memories/a.txt", "other"),
        view("/memories/a.txt"),
        view("/memories/a.txt", 2, 3),
        view("/memories/a.txt", 0, 1),
        view("/memories/a.txt", 2, -1),
        view("/memories/a.txt", 9, 12),
        view("/memories/a.txt", 1, -2),
        create("/memories/empty", ""),
        view("/memories/empty"),
        create("/memories/no_end", "a\r\nb\x0cc\u2028d 😀"),
        view("/memories/no_end"),
        create("/memories/nul", "a\x00b"),
        view("/memories/nul"),
        view("/memories"),
        view("/memories/"),
        view("/memories/absent"),
        view("/memories/a.txt/b"),
        create("/memories/a.txt/b"),
        create("/memories/a.txt/b/c"),
        delete("/memories/a.txt"),
        delete("/memories/a.txt"),
        view("/memories"),
    ],
    "edits": [
        create("/memories/a", "one\ntwo\nthree\nfour\nfive\nsix\ntwo two\n"),
        replace("/memories/a", "four", "4\n4.5"),
        replace("/memories/a", "absent", "x"),
        replace("/memories/a", "two", "2"),
        replace("/memories/a", "one\n", ""),
        replace("/memories/a", "", "x"),
        replace("/memories/absent", "a", "b"),
        replace("/memories", "a", "b"),
        view("/memories/a"),
        create("/memories/aaa", "aaa"),
        replace("/memories/aaa", "aa", "b"),
        replace("/memories/aaa", "ba", ""),
        replace("/memories/aaa", "", "new"),
        view("/memories/aaa"),
        create("/memories/dots", "a.b\na+b"),
        replace("/memories/dots", ".", r"\1"),
        insert("/memories/a", 0, "top"),
        insert("/memories/a", 3, "mid\n\n"),
        insert("/memories/a", 99, "x"),
        insert("/memories/a", -1, "x"),
        insert("/memories/absent", 0, "x"),
        insert("/memories", 0, "x"),
        view("/memories/a"),
        create("/memories/empty", ""),
        insert("/memories/empty", 0, ""),
        view("/memories/empty"),
        create("/memories/cr", "a\r\nb\r\n"),
        insert("/memories/cr", 2, "c"),
        insert("/memories/cr", 4, "d"),
        view("/memories/cr"),
        create("/memories/no_end", "a"),
        insert("/memories/no_end", 1, "b\nc"),
        view("/memories/no_end"),
    ],
    "directories": [
        create("/memories/a/b/c/d.txt"),
        create("/memories/a.txt", "x" * 1_536),
        create("/memories/a/.hidden"),
        create("/memories/.git/config"),
        create("/memories/a-b/x", "x" * 2_048),
        create("/memories/B", "x" * 700_000),
        create("/memories/\u00e4 %20 (1).md", "\u00e4"),
        view("/memories"),
        view("/memories/a"),
        view("/memories/a/"),
        view("/memories/a/b/c"),
        create("/memories/a"),
        create("/memories"),
        replace("/memories/a", "x", "y"),
        insert("/memories/a", 0, "y"),
        delete("/memories/a/b/c/d.txt"),
        view("/memories/a/b/c"),
        view("/memories"),
        delete("/memories/a/b"),
        view("/memories/a/b"),
        delete("/memories/a"),
        delete("/memories/a/x"),
        delete("/memories"),
        delete("/memories/"),
        view("/memories"),
    ],
    "names": [
        create("/memories/a/x"),
        create("/memories/a/deep/y"),
        create("/memories/f", "f"),
        rename("/memories/f", "/memories/g"),
        rename("/memories/f", "/memories/h"),
        rename("/memories/g", "/memories/a"),
        rename("/memories/g", "/memories/a/x"),
        rename("/memories/g", "/memories/g"),
        rename("/memories/g", "/memories/new/place/g"),
        rename("/memories/absent", "/memories/made/x"),
        view("/memories"),
        rename("/memories/a", "/memories/b/c"),
        view("/memories"),
        view("/memories/b/c"),
        rename("/memories/b", "/memories/b/c/d"),
        rename("/memories/b/c/x", "/memories/b/c/x/y"),
        rename("/memories", "/memories/x"),
        rename("/memories/b", "/memories"),
        delete("/memories/b/c/x"),
        rename("/memories/made", "/memories/moved"),
        view("/memories/moved"),
        view("/memories/made"),
        view("/memories/b/c/deep/y"),
    ],
    "paths": [
        view("/etc/passwd"),
        view("memories/a"),
        view(""),
        view("/"),
        view("//memories"),
        view("/memories/.."),
        create("/memories/../../a"),
        delete("/memories/../../memories_2"),
        rename("/other", "/memories/a"),
        rename("/memories/a", "/other"),
        rename("/memories/a", "/memories/../../a"),
        view("/Memories/a"),
        view("/memories/100% sure.md"),
        view("/memories/..."),
        view("/memories/..hidden"),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_the_answers_of_the_sdk(tool, tmp_path, script):
    theirs = BetaLocalFilesystemMemoryTool(str(tmp_path))
    for command in SCRIPTS[script]:
        assert_same(theirs, tool, command)
    assert tool.clear_all_memory() == theirs.clear_all_memory()
    assert_same(theirs, tool, view("/memories"))


NAMES = st.sampled_from(["a", "b", ".c"])
PATHS = st.lists(NAMES, max_size=3).map(lambda names: "/".join(["/memories", *names]))
TEXTS = st.text("ab\n\r", max_size=6)
COMMANDS = st.one_of(
    st.builds(view, PATHS),
    st.builds(view, PATHS, st.integers(-1, 4), st.integers(-2, 4)),
    st.builds(create, PATHS, TEXTS),
    st.builds(create, PATHS, TEXTS),
    st.builds(replace, PATHS, TEXTS, TEXTS),
    st.builds(insert, PATHS, st.integers(-1, 4), TEXTS),
    st.builds(delete, PATHS),
    st.builds(rename, PATHS, PATHS),
)


@settings(
    max_examples=30,
    deadline=None,
    # Each script clears the memory that it has from the one before.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(commands=st.lists(COMMANDS, max_size=15))
def test_any_script_has_the_answers_of_the_sdk(tool, tmp_path, commands):
    theirs = BetaLocalFilesystemMemoryTool(str(tmp_path))
    theirs.clear_all_memory()
    tool.clear_all_memory()
    for command in [*commands, view("/memories")]:
        assert_same(theirs, tool, command)


def test_the_async_tool_answers_the_same(address, name, tool):
    scripts = [command for script in SCRIPTS.values() for command in script]

    async def answers():
        found = []
        async with AsyncMemorydMemoryTool(address, user=f"{name}-2") as other:
            for command in scripts:
                try:
                    found.append((await other.call(command), False))
                except ToolError as error:
                    found.append((error.content, True))
            found.append(await other.clear_all_memory())
        return found

    expected = [answer(tool, command) for command in scripts]
    assert asyncio.run(answers()) == [*expected, tool.clear_all_memory()]


REFUSED = [
    "/memories/./a",
    "/memories/a/.",
    "/memories/a/../b",
    "/memories/a/..",
    "/memories//a",
    "/memories/a//",
    "/memoriesX",
    "/memories2/a",
    "/memories/%2e%2e/a",
    "/memories/%2E./a",
    "/memories/%252e%252e/a",
    "/memories/a%2fb",
    "/memories/a%2F..%2Fb",
    "/memories/a\\..\\b",
    "/memories/..%5ca",
    "/memories/a\x00b",
    "/memories/a\nb",
    "/memories/" + "x" * 600,
    "/memories/" + "/".join("x" * 30),
]


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_are_refused(tool, path):
    tool.call(create("/memories/a/kept"))
    for command in (
        view(path),
        create(path),
        replace(path, "1", "2"),
        insert(path, 0, "x"),
        delete(path),
        rename(path, "/memories/new"),
        rename("/memories/a", path),
    ):
        text, is_error = answer(tool, command)
        assert is_error, command
        assert text, command
    assert tool.call(view("/memories/a")).endswith("/memories/a/kept")


def test_too_large_a_file_is_said_to_be(tool):
    text, is_error = answer(tool, create("/memories/a", "x" * 1_100_000))
    assert is_error
    assert "1,048,576" in text
    assert answer(tool, view("/memories/a"))[1]


def test_too_many_lines(tool, tmp_path):
    theirs = BetaLocalFilesystemMemoryTool(str(tmp_path))
    for command in (create("/memories/a", "\n" * 999_999), view("/memories/a")):
        assert_same(theirs, tool, command)


def test_a_file_is_a_document_that_never_expires(tool, documents, address, name):
    tool.call(create("/memories/notes/a.md", "text"))
    found = documents.get(f"anthropic:{name}", "a.md", namespace=["memories", "notes"])
    assert (found.text, found.ttl, found.expire_time) == ("text", None, None)
    with sync.SessionClient(address) as sessions, sync.MemoryClient(address) as memory:
        listed = [session.session_id for session in sessions.list(f"anthropic:{name}")]
        assert listed == [f"anthropic:{name}"]
        memory.erase(f"anthropic:{name}")
    assert tool.call(view("/memories")).count("\n") == 1


def test_users_are_apart(tool, address, name):
    tool.call(create("/memories/a", "1"))
    with MemorydMemoryTool(address, user=f"{name}-2") as other:
        assert answer(other, view("/memories/a"))[1]
        other.clear_all_memory()
    assert tool.call(view("/memories/a")).endswith("\t1")


@pytest.mark.parametrize("given", [{"user": ""}, {"user": "x" * 255}, {"user": "a", "prefix": ":"}])
def test_wrong_names_are_refused(given):
    with pytest.raises(ValueError, match=r"user|255|prefix"):
        MemorydMemoryTool("127.0.0.1:1", **given)


# Callers at the same time


def test_edits_at_the_same_time_lose_nothing(tool):
    tool.call(create("/memories/a", ""))
    barrier = threading.Barrier(4)

    def edit(number):
        barrier.wait()
        return answer(tool, insert("/memories/a", 0, f"{number}"))

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(edit, range(4)))
    # The slowest of four loses three races, and repeats thrice.
    assert answers == [("The file /memories/a has been edited.", False)] * 4
    lines = tool.call(view("/memories/a")).split("\n")[1:-1]
    assert sorted(line.split("\t")[1] for line in lines) == list("0123")


def test_one_of_many_creates_a_file(tool):
    barrier = threading.Barrier(6)

    def make(number):
        barrier.wait()
        return answer(tool, create("/memories/new/place/a", f"{number}"))

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(make, range(6)))
    assert sorted(is_error for _, is_error in answers) == [False] + [True] * 5
    assert {text for text, is_error in answers if is_error} == {
        "File /memories/new/place/a already exists"
    }


def test_files_created_at_the_same_time_in_a_new_directory(tool):
    barrier = threading.Barrier(3)

    def make(number):
        barrier.wait()
        return answer(tool, create(f"/memories/new/{number}"))

    with ThreadPoolExecutor(3) as threads:
        assert not any(is_error for _, is_error in threads.map(make, range(3)))
    assert tool.call(view("/memories/new")).count("\n") == 4


# A run


def test_a_runner_uses_it(tool):
    asked = []

    def reply(request):
        asked.append(json.loads(request.content))
        blocks, reason = next(script)
        return httpx2.Response(
            200,
            json={
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": blocks,
                "stop_reason": reason,
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        )

    def use(number, command):
        return {"type": "tool_use", "id": f"t{number}", "name": "memory", "input": command}

    script = iter(
        [
            ([use(1, create("/memories/a.md", "Likes tea")), use(2, view("/etc"))], "tool_use"),
            ([use(3, view("/memories/a.md"))], "tool_use"),
            ([{"type": "text", "text": "Noted."}], "end_turn"),
        ]
    )
    transport = httpx2.MockTransport(reply)
    with Anthropic(api_key="none", http_client=httpx2.Client(transport=transport)) as client:
        last = client.beta.messages.tool_runner(
            model="claude",
            max_tokens=100,
            messages=[{"role": "user", "content": "I like tea"}],
            tools=[tool],
        ).until_done()
    assert last.content[0].text == "Noted."
    assert asked[0]["tools"] == [{"type": "memory_20250818", "name": "memory"}]
    first, second = (message["messages"][-1]["content"] for message in asked[1:])
    assert first[0]["content"] == "File created successfully at: /memories/a.md"
    assert first[1]["is_error"]
    assert first[1]["content"] == "Path must start with /memories, got: /etc"
    assert second[0]["content"].endswith("     1\tLikes tea")


def test_cache_control_is_sent(address, name):
    control = {"type": "ephemeral"}
    with MemorydMemoryTool(address, user=name, cache_control=control) as tool:
        assert tool.to_dict()["cache_control"] == control
