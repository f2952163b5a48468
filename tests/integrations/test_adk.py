"""Agents of ADK over the services, and the services by their URIs."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from google.adk.agents import LlmAgent, SequentialAgent
from google.adk.agents.run_config import RunConfig
from google.adk.cli.service_registry import get_service_registry
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools import load_memory, preload_memory
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from pydantic import Field

from memoryd.integrations import adk
from memoryd.integrations.adk import MemorydMemoryService, MemorydSessionService


class Scripted(BaseLlm):
    """Says what it is told to, and keeps what it was asked."""

    model: str = "scripted"
    parts: list[types.Part]
    asked: list[str] = Field(default_factory=list)

    async def generate_content_async(self, llm_request, stream=False):  # noqa: ARG002, FBT002  as ADK has it
        self.asked.append(
            "\n".join(
                part.text or str(part.function_response)
                for content in llm_request.contents
                for part in content.parts
            )
        )
        yield LlmResponse(content=types.Content(role="model", parts=[self.parts.pop(0)]))


def agent_that(*parts, name="helper", **more):
    said = [types.Part(text=part) if isinstance(part, str) else part for part in parts]
    return LlmAgent(name=name, model=Scripted(parts=said), **more)


@pytest.fixture
async def runner_of(address, name):
    sessions, memories = MemorydSessionService(address), MemorydMemoryService(address)

    def made(agent):
        return Runner(app_name=name, agent=agent, session_service=sessions, memory_service=memories)

    yield made
    await sessions.close()
    await memories.close()


async def run(runner, text, session_id="s", **more):
    message = types.Content(role="user", parts=[types.Part(text=text)])
    found = runner.run_async(user_id="u", session_id=session_id, new_message=message, **more)
    return [event async for event in found]


async def started(runner, session_id="s"):
    return await runner.session_service.create_session(
        app_name=runner.app_name, user_id="u", session_id=session_id
    )


async def read(runner, session_id="s"):
    return await runner.session_service.get_session(
        app_name=runner.app_name, user_id="u", session_id=session_id
    )


async def test_an_agent_remembers(runner_of, address, name):
    agent = agent_that("San Francisco", "California", output_key="answer")
    runner = runner_of(agent)
    await started(runner)
    await run(runner, "What city is the Golden Gate Bridge in?")
    # From services that know only what is stored.
    async with MemorydSessionService(address) as again:
        await run(Runner(app_name=name, agent=agent, session_service=again), "What state is it in?")
    assert agent.model.asked[-1] == (
        "What city is the Golden Gate Bridge in?\nSan Francisco\nWhat state is it in?"
    )
    session = await read(runner)
    assert len(session.events) == 4
    assert session.state == {"answer": "California"}


async def test_a_run_may_read_the_newest_events_alone(runner_of):
    agent = agent_that("1", "2", "3", output_key="answer")
    runner = runner_of(agent)
    await started(runner)
    for text in "abc":
        config = RunConfig(get_session_config=GetSessionConfig(num_recent_events=2))
        await run(runner, text, run_config=config)
    assert agent.model.asked[-1] == "b\n2\nc"
    assert len((await read(runner)).events) == 6


async def test_tools_set_state(runner_of):
    def note(tool_context: ToolContext) -> str:
        """Notes."""
        tool_context.state["k"] = {"n": 2**60}
        tool_context.state["user:k"] = None
        tool_context.state["app:k"] = [1]
        tool_context.state["temp:k"] = 1
        return "noted"

    call = types.Part.from_function_call(name="note", args={})
    runner = runner_of(agent_that(call, "Done.", tools=[note]))
    await started(runner)
    await run(runner, "Note it.")
    session = await read(runner)
    assert session.state == {"k": {"n": 2**60}, "user:k": None, "app:k": [1]}
    assert (await started(runner, "s2")).state == {"user:k": None, "app:k": [1]}


@pytest.mark.filterwarnings("ignore:SequentialAgent is deprecated")
async def test_agents_in_a_row_share_temp_state(runner_of):
    first = agent_that("The plan.", name="first", output_key="temp:plan")
    second = agent_that("Done.", name="second", instruction="Do {temp:plan}", output_key="result")
    runner = runner_of(SequentialAgent(name="both", sub_agents=[first, second]))
    await started(runner)
    await run(runner, "Go")
    session = await read(runner)
    assert session.state == {"result": "Done."}
    assert len(session.events) == 3


async def test_a_run_that_is_taken_back(runner_of):
    agent = agent_that("1", "2", "3", output_key="answer")
    runner = runner_of(agent)
    await started(runner)
    await run(runner, "a")
    events = await run(runner, "b")
    await runner.rewind_async(
        user_id="u", session_id="s", rewind_before_invocation_id=events[0].invocation_id
    )
    assert (await read(runner)).state == {"answer": "1"}
    await run(runner, "c")
    assert agent.model.asked[-1] == "a\n1\nc"


async def test_memories_of_another_session(runner_of):
    async def keep(callback_context):
        await callback_context.add_session_to_memory()

    call = types.Part.from_function_call(name="load_memory", args={"query": "reached?"})
    agent = agent_that(
        "I see.", "Fine.", "By e-mail.", tools=[preload_memory], after_agent_callback=keep
    )
    runner = runner_of(agent)
    for session_id in ("s", "s2"):
        await started(runner, session_id)
    await run(runner, "I prefer to be reached by e-mail.")
    await run(runner, "How are you?")
    await run(runner, "How do I like to be reached?", "s2")
    assert "user: I prefer to be reached by e-mail." in agent.model.asked[-1]
    asking = agent_that(call, "By e-mail.", tools=[load_memory])
    runner = runner_of(asking)
    await started(runner, "s3")
    await run(runner, "How do I like to be reached?", "s3")
    assert "I prefer to be reached by e-mail." in asking.model.asked[-1]


# By URI


@pytest.mark.parametrize("kind", ["session", "memory"])
@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("memoryd://key@localhost:50051", "MEMORYD_API_KEY"),
        ("memoryd://:key@localhost:50051", "MEMORYD_API_KEY"),
        ("memoryd://localhost", "names no port; say memoryd://localhost:50051"),
        ("memoryd://localhost:50051/x", "memoryd://host:port"),
        ("memoryd://localhost:50051#x", "memoryd://host:port"),
        ("other://localhost:50051", "memoryd://host:port"),
        ("memoryd://localhost:50051?x=1", "prefix=… and tls=true alone"),
        ("memoryd://localhost:50051?tls=false", "prefix=… and tls=true alone"),
        ("memoryd://localhost:50051?prefix=a:b", "prefix"),
    ],
)
def test_wrong_uris(kind, uri, why):
    factory = {"session": adk.session_service, "memory": adk.memory_service}[kind]
    with pytest.raises(ValueError, match=why) as raised:
        factory(uri)
    assert "key@" not in str(raised.value)


async def test_services_by_uri(address, name, monkeypatch):
    adk.register()
    registry = get_service_registry()
    uri = f"memoryd://{address}?prefix={name}"
    monkeypatch.setenv("MEMORYD_TARGET", address)
    async with (
        registry.create_session_service(uri, agents_dir="/agents") as sessions,
        registry.create_memory_service(uri, agents_dir="/agents") as memories,
        registry.create_session_service("memoryd://", agents_dir="/", timeout=9) as others,
        MemorydSessionService(address, prefix=name) as same,
    ):
        assert isinstance(memories, MemorydMemoryService)
        where = {"app_name": "app", "user_id": "u"}
        await sessions.create_session(**where, session_id="s")
        assert await same.get_session(**where, session_id="s")
        assert await others.get_session(**where, session_id="s") is None
    with pytest.raises(TypeError, match="pool_size"):
        registry.create_session_service(uri, pool_size=3)


SERVICES = {
    "services.py": "from memoryd.integrations.adk import register\n\nregister()\n",
    "services.yaml": """
        services:
          - scheme: memoryd
            type: session
            class: memoryd.integrations.adk.session_service
          - scheme: memoryd
            type: memory
            class: memoryd.integrations.adk.memory_service
        """,
}
AGENT = """
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.genai import types

    class Model(BaseLlm):
        async def generate_content_async(self, llm_request, stream=False):
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="Hi.")]))

    root_agent = LlmAgent(name="helper", model=Model(model="scripted"), output_key="said")
    """
CALLS = """
    import json, sys
    from fastapi.testclient import TestClient
    from google.adk.cli.fast_api import get_fast_api_app

    uri, folder = sys.argv[1:]
    app = get_fast_api_app(
        agents_dir=folder, session_service_uri=uri, memory_service_uri=uri, web=False
    )
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        place = "/apps/shop/users/ada/sessions"
        client.post(f"{place}/s", json={"user:k": 1}).raise_for_status()
        message = {"role": "user", "parts": [{"text": "I like tea."}]}
        named = {"app_name": "shop", "user_id": "ada", "session_id": "s", "new_message": message}
        client.post("/run", json=named).raise_for_status()
        client.patch("/apps/shop/users/ada/memory", json={"session_id": "s"}).raise_for_status()
        found = client.get(f"{place}/s").raise_for_status().json()
        listed = client.get(place).raise_for_status().json()
        print(json.dumps([found["state"], len(found["events"]), [each["id"] for each in listed]]))
    """


@pytest.mark.parametrize("kind", SERVICES)
async def test_the_server_of_adk(address, name, tmp_path, kind):
    """As `adk web` and `adk api_server` make it."""
    (tmp_path / kind).write_text(textwrap.dedent(SERVICES[kind]))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("from . import agent\n")
    (tmp_path / "shop" / "agent.py").write_text(textwrap.dedent(AGENT))
    uri = f"memoryd://{address}?prefix={name}"
    done = subprocess.run(  # noqa: ASYNC221, S603  our own
        [sys.executable, "-c", textwrap.dedent(CALLS), uri, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"said": "Hi.", "user:k": 1}, 2, ["s"]]
    async with MemorydMemoryService(address, prefix=name) as memories:
        found = await memories.search_memory(app_name="shop", user_id="ada", query="tea")
        assert found.memories[0].content.parts[0].text == "I like tea."
