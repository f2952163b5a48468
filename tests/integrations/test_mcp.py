"""The tools for models, by the SDK's own client, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from jsonschema import Draft202012Validator
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_PROTOCOL_VERSION

from memoryd.access.api_key import new_key
from memoryd.client import AccessClient, MemoryClient, SessionClient

TOOLS = {
    *("memory_store", "memory_search", "memory_list", "memory_update"),
    *("memory_delete", "memory_restore", "memory_similar"),
}
READING = {"memory_search", "memory_list", "memory_similar"}
ABSENT = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
MAX_CHARS = 8_000


def command(address, *options):
    return [sys.executable, "-m", "memoryd", "mcp", "--target", address, *options]


@asynccontextmanager
async def over_stdio(address, *options, mode="auto"):
    program, *arguments = command(address, *options)
    async with Client(StdioServerParameters(command=program, args=arguments), mode=mode) as client:
        yield client


@asynccontextmanager
async def over_http(http, mode="auto", **headers):
    async with httpx2.AsyncClient(headers=headers, timeout=60) as sender:
        transport = streamable_http_client(f"{http}/mcp", http_client=sender)
        async with Client(transport, mode=mode) as client:
            yield client


class Checked:
    """Calls tools, and holds their answers against the schemas that they declare."""

    def __init__(self, client, tools):
        self._client = client
        self._schemas = {tool.name: tool.output_schema for tool in tools}

    async def __call__(self, name, **arguments):
        answer = await self._client.call_tool(name, arguments)
        assert not answer.is_error, answer.content
        Draft202012Validator(self._schemas[name]).validate(answer.structured_content)
        (text,) = answer.content
        assert json.loads(text.text) == answer.structured_content
        return answer.structured_content

    async def refused(self, name, **arguments):
        answer = await self._client.call_tool(name, arguments)
        assert answer.is_error, answer.structured_content
        return answer.content[0].text


async def checked(client):
    return Checked(client, (await client.list_tools()).tools)


@pytest.fixture(params=["stdio", "http"])
def connected(request, addresses, name):
    """Connects over each transport. Over HTTP there is one session, which is the caller's."""

    def connect(mode="auto"):
        if request.param == "stdio":
            return over_stdio(addresses.grpc, "--session-id", name, mode=mode)
        return over_http(addresses.http, mode)

    return connect


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_every_tool(connected, mode, name):
    async with connected(mode) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        for tool in tools:
            Draft202012Validator.check_schema(tool.input_schema)
            assert tool.title
            assert tool.description
            hints = tool.annotations
            assert hints.read_only_hint == (tool.name in READING)
            assert hints.destructive_hint == (tool.name in {"memory_update", "memory_delete"})
            assert hints.open_world_hint is False
        call = Checked(client, tools)
        said = f"{name} prefers e-mail over the phone"
        first = await call(
            "memory_store",
            content=said,
            type="preference",
            importance=0.9,
            key=name,
            tags=[name],
            metadata={"order": 4711},
        )
        assert first["outcome"] == "created"
        memory = first["memory"]
        memory_id = memory["memory_id"]
        assert memory.items() >= {"content": said, "metadata": {"order": 4711}, "key": name}.items()
        again = await call("memory_store", content=said, type="preference", key=name)
        assert (again["outcome"], again["memory"]["memory_id"]) == ("merged", memory_id)
        found = await call("memory_search", query=f"how does {name} like to be reached", limit=1)
        assert [each["memory_id"] for each in found["memories"]] == [memory_id]
        of_tag = await call("memory_list", tags=[name], types=["preference"], after="2020-01-01")
        assert [each["content"] for each in of_tag["memories"]] == [said]
        assert (await call("memory_list", tags=[name], before="2020-01-01"))["memories"] == []
        similar = await call("memory_similar", content=said, min_similarity=0.9)
        assert memory_id in [each["memory_id"] for each in similar["memories"]]
        etag = again["memory"]["etag"]
        changed = await call("memory_update", memory_id=memory_id, importance=0.1, etag=etag)
        assert changed["memory"]["importance"] == 0.1
        assert "was changed since this etag; read it again" in await call.refused(
            "memory_update", memory_id=memory_id, importance=0.2, etag=etag
        )
        assert await call("memory_delete", key=name) == {"memory_id": memory_id}
        assert (await call("memory_list", tags=[name]))["memories"] == []
        assert (await call("memory_list", tags=[name], deleted=True))["memories"][0]["deleted"]
        restored = await call("memory_restore", memory_id=memory_id)
        assert "deleted" not in restored["memory"]


async def test_resources_and_prompts(connected, name):
    async with connected() as client:
        call = await checked(client)
        said = f"{name} prefers e-mail"
        memory = (await call("memory_store", content=said, type="user_info", importance=1.0))[
            "memory"
        ]
        (profile,) = (await client.list_resources()).resources
        (template,) = (await client.list_resource_templates()).resource_templates
        assert f"- {said}" in (await client.read_resource(profile.uri)).contents[0].text
        uri = template.uri_template.replace("{memory_id}", memory["memory_id"])
        assert json.loads((await client.read_resource(uri)).contents[0].text) == memory
        for uri, why in {
            f"memoryd://memories/{ABSENT}": "is not in the session",
            "memoryd://memories/1": "memory_id: must be a UUID",
            "file:///etc/passwd": "there are memoryd://profile and",
        }.items():
            with pytest.raises(MCPError, match=why):
                await client.read_resource(uri)
        assert [each.name for each in (await client.list_prompts()).prompts] == [
            "recall",
            "remember",
        ]
        recalled = await client.get_prompt("recall", {"query": f"what does {name} prefer"})
        assert said in recalled.messages[0].content.text
        asked = await client.get_prompt("remember", {"text": "Ada moved to Turin"})
        assert asked.messages[0].content.text.endswith("\n\nAda moved to Turin")
        for prompt, given in {"recall": {}, "remember": {"query": "x"}, "forget": {}}.items():
            with pytest.raises(MCPError, match=r"give the argument|there are recall, remember"):
                await client.get_prompt(prompt, given)


async def test_refusals_name_the_argument_and_the_remedy(connected):
    async with connected() as client:
        call = await checked(client)
        for (tool, said), given in {
            ("memory_store", "content: is missing"): {},
            ("memory_store", "content: The content is empty"): {"content": " "},
            ("memory_store", "content: "): {"content": "x" * 20_000},
            ("memory_store", "type: Input should be 'user_info'"): {"content": "x", "type": "y"},
            ("memory_store", "importance: must be"): {"content": "x", "importance": 2},
            ("memory_store", "importance: Input should be a valid number"): {
                "content": "x",
                "importance": "much",
            },
            ("memory_store", "tags[0]: must be 1 to 64 characters"): {"content": "x", "tags": [""]},
            ("memory_store", "there is no such argument; there are content"): {"contents": "x"},
            ("memory_search", "after: Input should be a valid datetime"): {
                "query": "x",
                "after": "yesterday",
            },
            ("memory_search", "tags[0]: must be 1 to 64"): {"query": "x", "tags": ["a" * 99]},
            ("memory_search", "limit: must be"): {"query": "x", "limit": -1},
            ("memory_search", "max_chars: Input should be greater"): {"query": "x", "max_chars": 0},
            ("memory_list", "page_token: is not from a page"): {"page_token": "x"},
            ("memory_list", "limit: must be"): {"limit": -1},
            ("memory_update", "memory_id: must be a UUID"): {"memory_id": "1"},
            ("memory_delete", "memory_id or key: give one"): {},
            ("memory_delete", f"memory {ABSENT} is not in the session"): {"memory_id": ABSENT},
            ("memory_restore", f"memory {ABSENT} is not in the session"): {"memory_id": ABSENT},
            ("memory_similar", "content or memory_id: give one"): {},
        }.items():
            assert said.lower() in (await call.refused(tool, **given)).lower(), (tool, given)
        for tool in ("memory_purge", "memory_erase", ""):
            with pytest.raises(MCPError, match="no such tool; there are memory_store"):
                await client.call_tool(tool, {})


RUBBISH = [
    *(None, True, -1, 2**70, 1e308, 0.5, "", "x" * 300, "\x00\u202e", [], [None], ["a"]),
    *({}, {"a": {"b": [1, None]}}, [[[[[[[[[[1]]]]]]]]]], ABSENT, "2026-02-30", "../etc/passwd"),
]


async def test_rubbish_is_refused_or_taken_and_nothing_else(connected):
    chance = random.Random(20)  # noqa: S311  the same rubbish each time
    async with connected() as client:
        tools = (await client.list_tools()).tools
        for _ in range(150):
            tool = chance.choice(tools)
            names = [*tool.input_schema["properties"], "other"]
            given = {each: chance.choice(RUBBISH) for each in chance.sample(names, 2)}
            answer = await client.call_tool(tool.name, given)
            if answer.is_error:
                assert answer.content[0].text
                assert "Traceback" not in answer.content[0].text
            else:
                Draft202012Validator(tool.output_schema).validate(answer.structured_content)


async def test_many_calls_at_once(connected, name):
    async with connected() as client:
        call = await checked(client)

        async def store(number):
            content = f"{name} fact number {number}"
            stored = await call("memory_store", content=content, tags=[name])
            assert stored["memory"]["content"] == content
            found = await call("memory_search", query=content, tags=[name], limit=1)
            assert found["memories"]
            return stored["memory"]["memory_id"]

        stored = await asyncio.gather(*map(store, range(40)))
        listed = await call("memory_list", tags=[name], max_chars=100_000)
        assert {each["memory_id"] for each in listed["memories"]} == set(stored)
        assert len(set(stored)) == 40


async def test_answers_are_short_enough_for_a_model(connected, name):
    async with connected() as client:
        call = await checked(client)
        words = "a long story about an order that never arrived, told once more " * 16
        contents = {f"{name} {number} {words}".strip() for number in range(20)}
        for content in contents:
            await call("memory_store", content=content, tags=[name], metadata={"n": "m" * 500})
        listed, token = [], ""
        while True:
            page = await call("memory_list", tags=[name], page_token=token)
            assert len(json.dumps(page)) < MAX_CHARS + 200
            listed += [each["content"] for each in page["memories"]]
            token = page.get("next_page_token", "")
            if not token:
                break
        assert sorted(listed) == sorted(contents)
        found = await call("memory_search", query=f"{name} order", tags=[name], limit=20)
        assert found["truncated"]
        assert len(json.dumps(found)) < MAX_CHARS + 200
        one = await call("memory_search", query=f"{name} order", tags=[name], max_chars=10)
        assert len(one["memories"]) == 1
        similar = await call("memory_similar", content=listed[0], min_similarity=0.0, limit=50)
        assert similar["truncated"]
        assert len(json.dumps(similar)) < MAX_CHARS + 200


async def test_what_is_stored_neither_expires_nor_is_evicted(address, name):
    async with over_stdio(address, "--session-id", name) as client:
        stored = await (await checked(client))("memory_store", content="prefers e-mail")
        assert "expires" not in stored["memory"]
    async with SessionClient(address) as sessions:
        session = await sessions.get(name)
        assert session.memories_never_expire
        assert session.memory_limit == 100_000
        await sessions.update(f"{name}-2", display_name="of the application", allow_missing=True)
        async with over_stdio(address, "--session-id", f"{name}-2") as client:
            await (await checked(client))("memory_store", content="prefers e-mail")
        assert (await sessions.get(f"{name}-2")).memory_limit is None


async def test_less_may_be_offered(address, name):
    async with MemoryClient(address) as memories:
        memory = (await memories.store(name, "prefers e-mail")).memory
        async with over_stdio(address, "--session-id", name, "--read-only") as client:
            call = await checked(client)
            assert {tool.name for tool in (await client.list_tools()).tools} == READING
            assert (await call("memory_search", query="e-mail"))["memories"]
            assert [each.name for each in (await client.list_prompts()).prompts] == ["recall"]
            for tool in TOOLS - READING:
                with pytest.raises(MCPError, match="no such tool"):
                    await client.call_tool(tool, {"memory_id": memory.memory_id})
        unchanged = await memories.get(name, memory.memory_id)
        assert (unchanged.access_count, unchanged.revision) == (0, memory.revision)
    async with over_stdio(address, "--session-id", name, "--no-delete") as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == TOOLS - {"memory_delete"}


async def test_calls_may_name_the_session(address, name):
    async with over_stdio(address, "--session-argument") as client:
        for tool in (await client.list_tools()).tools:
            assert "session_id" in tool.input_schema["required"]
        call = await checked(client)
        for user in ("ada", "bob"):
            await call("memory_store", session_id=f"{name}-{user}", content=f"is {user}")
        (found,) = (await call("memory_list", session_id=f"{name}-bob"))["memories"]
        assert found["content"] == "is bob"
        assert "session_id: is missing" in await call.refused("memory_list")
        assert "session_id: " in await call.refused("memory_list", session_id="a..b")
        assert "session_id: " in await call.refused("memory_list", session_id=7)
        told = await client.get_prompt("recall", {"query": "who", "session_id": f"{name}-ada"})
        assert "is ada" in told.messages[0].content.text
        assert client.server_capabilities.resources is None
    both = ("--session-argument", "--session-id", f"{name}-ada")
    async with over_stdio(address, *both) as client:
        call = await checked(client)
        (found,) = (await call("memory_list"))["memories"]
        (other,) = (await call("memory_list", session_id=f"{name}-bob"))["memories"]
        assert (found["content"], other["content"]) == ("is ada", "is bob")


# Every version of the protocol


def message(method, number=None, **params):
    found = {"jsonrpc": "2.0", "method": method, "params": params}
    return found if number is None else found | {"id": number}


def handshake(version):
    info = {"name": "test", "version": "1"}
    return message("initialize", 1, protocolVersion=version, capabilities={}, clientInfo=info)


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
def test_versions_before_and_nothing_but_the_protocol_on_stdout(address, name, version):
    sent = [
        handshake(version),
        message("notifications/initialized"),
        message("tools/list", 2),
        message("tools/call", 3, name="memory_store", arguments={"content": "prefers e-mail"}),
        message("tools/call", 4, name="memory_store", arguments={"content": 7}),
        "no JSON",
        message("no/such", 5),
    ]
    lines = [each if isinstance(each, str) else json.dumps(each) for each in sent]
    with subprocess.Popen(  # noqa: S603  our own
        command(address, "--session-id", name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        answers = {}
        server.stdin.write("\n".join(lines) + "\n")
        server.stdin.flush()
        while len(answers) < 5:
            answer = json.loads(server.stdout.readline())
            assert answer["jsonrpc"] == "2.0"
            if "id" in answer:
                answers[answer["id"]] = answer
        rest, _ = server.communicate(timeout=60)
    assert (rest, server.returncode) == ("", 0)
    assert answers[1]["result"]["protocolVersion"] == version
    assert {tool["name"] for tool in answers[2]["result"]["tools"]} == TOOLS
    assert "prefers e-mail" in answers[3]["result"]["content"][0]["text"]
    assert answers[4]["result"]["isError"]
    assert answers[5]["error"]["code"] == -32601


HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


async def post(http, body, path="/mcp", method="POST", **headers):
    async with httpx2.AsyncClient(timeout=60) as sender:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await sender.request(method, f"{http}{path}", json=body, headers=HEADERS | named)


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
async def test_versions_before_over_http(addresses, version):
    answer = (await post(addresses.http, handshake(version))).json()
    assert answer["result"]["protocolVersion"] == version
    answer = await post(addresses.http, message("tools/list", 2), mcp_protocol_version=version)
    assert {tool["name"] for tool in answer.json()["result"]["tools"]} == TOOLS
    assert "mcp-session-id" not in answer.headers


async def test_the_newest_version(connected):
    async with connected("auto") as client:
        assert client.protocol_version == LATEST_PROTOCOL_VERSION


# Over HTTP


@pytest.fixture
def guarded(served):
    """A server that wants credentials, and the key of its admin."""
    key = new_key().text
    required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
    with served("sqlite", BOOTSTRAP=key, **required) as found:
        yield found, key


async def test_the_session_is_the_callers(guarded):
    found, admin = guarded
    async with AccessClient(found.grpc, api_key=admin) as access:
        keys = {}
        for user, scope in {"ada": "agent", "bob@x": "agent", "eve": "reader"}.items():
            made = await access.create_key(user, [scope], tenant="acme")
            keys[user] = made.key
    for user in ("ada", "bob@x"):
        async with over_http(found.http, authorization=f"Bearer {keys[user]}") as client:
            call = await checked(client)
            await call("memory_store", content=f"is {user}")
            (memory,) = (await call("memory_list"))["memories"]
            assert memory["content"] == f"is {user}"
    async with over_http(found.http, authorization=f"Bearer {keys['eve']}") as client:
        call = await checked(client)
        assert (await call("memory_list"))["memories"] == []
        assert "memories:write" in await call.refused("memory_store", content="is eve")
    async with SessionClient(found.grpc, api_key=keys["ada"]) as sessions:
        assert [each.session_id async for each in sessions.list()] == [
            "mcp:ada",
            "mcp:bob@40x",
        ]


async def test_who_shows_no_key_is_told_so_and_finds_no_other_way(guarded):
    found, _ = guarded
    for shown in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic x"}):
        refused = await post(found.http, handshake(LATEST_PROTOCOL_VERSION), **shown)
        assert refused.status_code == 401
        assert refused.json()["code"] == "unauthenticated"
        assert refused.headers["www-authenticate"] == "Bearer"
    for path in (
        *("/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server"),
        *("/.well-known/oauth-protected-resource/mcp", "/.well-known/openid-configuration"),
        *("/authorize", "/token", "/register"),
    ):
        for method in ("GET", "POST"):
            answer = await post(found.http, None, path, method)
            assert answer.status_code == 404, path


async def test_other_hosts_origins_and_methods_are_refused(addresses):
    http, body = addresses.http, handshake(HANDSHAKE_PROTOCOL_VERSIONS[-1])
    assert (await post(http, body, host="evil.example")).status_code == 421
    assert (await post(http, body, origin="https://evil.example")).status_code == 403
    assert (await post(http, body, origin="null")).status_code == 403
    assert (await post(http, body, origin=http)).status_code == 200
    for method in ("GET", "DELETE", "PUT"):
        refused = await post(http, None, method=method)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert (await post(http, body, "/mcp/x")).status_code == 404
    large = message("tools/call", 1, name="memory_store", arguments={"content": "x" * 2**23})
    assert (await post(http, large)).status_code == 413
    assert (await post(http, [body])).status_code == 400


async def test_a_page_that_may_call(served):
    allowed = "https://app.example"
    with served("sqlite", MEMORYD_HTTP_ALLOWED_ORIGINS=allowed) as found:
        body = handshake(HANDSHAKE_PROTOCOL_VERSIONS[-1])
        answer = await post(found.http, body, origin=allowed)
        assert answer.headers["access-control-allow-origin"] == allowed
        assert (await post(found.http, body, origin="https://evil.example")).status_code == 403


async def test_the_session_may_be_called_otherwise(served):
    with served("sqlite", MEMORYD_MCP_SESSION="team.notes") as found:
        async with over_http(found.http) as client:
            await (await checked(client))("memory_store", content="standup is at nine")
        async with MemoryClient(found.grpc) as memories:
            assert [each.content async for each in memories.list("team.notes")]


# What is missing


@pytest.fixture
def without(tmp_path):
    """Variables of an environment that has no SDK."""
    (tmp_path / "mcp_types.py").write_text(
        'raise ModuleNotFoundError("No module named mcp_types", name="mcp_types")\n'
    )
    return {"PYTHONPATH": str(tmp_path)}


async def test_a_server_without_the_extra_says_so(served, without):
    with served("sqlite", **without) as found:
        refused = await post(found.http, handshake(LATEST_PROTOCOL_VERSION))
        assert refused.status_code == 501
        assert "pip install 'memoryd[mcp]'" in refused.json()["message"]


def run(*options, **variables):
    done = subprocess.run(  # noqa: S603  our own
        command("localhost:1", *options),
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def test_a_command_that_cannot_work_says_why(without):
    done = run("--session-id", "ada", **without)
    assert (done.returncode, "pip install 'memoryd[mcp]'" in done.stderr) == (1, True)
    done = run()
    assert (done.returncode, "--session-id, or --session-argument" in done.stderr) == (1, True)
    away = ("--session-id", "ada", "--target", "memory.example:1")
    done = run(*away, MEMORYD_API_KEY=new_key().text)
    assert (done.returncode, "in plaintext" in done.stderr) == (1, True)
    done = run(*away, "--ca", "no-such-file.pem")
    assert (done.returncode, "no-such-file.pem" in done.stderr) == (1, True)
    assert run("--session-id", "ada").returncode == 0  # standard input has ended


def test_the_extra_alone_has_this_command_and_others_say_what_they_need():
    done = subprocess.run(
        [sys.executable, "-m", "memoryd", "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'memoryd[server]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(number):
    with subprocess.Popen(  # noqa: S603  our own
        command("localhost:1", "--session-id", "ada"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        server.stdin.write(json.dumps(message("ping", 1)) + "\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 1
        server.send_signal(number)
        assert server.wait(timeout=60) == -number


def test_the_configurations_of_the_page_work():
    page = Path(__file__).parents[2] / "docs" / "integrations" / "mcp.md"
    blocks = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    started = 0
    for block in map(json.loads, blocks):
        (servers,) = (block[name] for name in ("mcpServers", "servers") if name in block)
        for server in servers.values():
            if "command" in server:
                assert server["command"] == "memoryd"
                assert run(*server["args"][1:]).returncode == 0
                started += 1
            else:
                assert server["url"].endswith(":50052/mcp")
    assert started == 2


async def test_a_server_that_is_away_is_said_to_be(name):
    async with over_stdio("localhost:1", "--session-id", name) as client:
        call = await checked(client)
        assert "does not answer" in await call.refused("memory_list")
