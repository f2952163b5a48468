"""The Model Context Protocol: a session's memories as tools, resources and prompts for models.

The protocol's own SDK speaks it; every version that the SDK knows is served.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from memoryd.client import (
    InvalidArgument,
    MemoryClient,
    MemorydError,
    NotFound,
    SessionClient,
    open_channel,
)
from memoryd.integrations.mcp_tools import (
    DEFAULT_MAX_CHARS,
    TOOLS,
    Place,
    WrongArguments,
    arguments_of,
    refusal,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server.context import ServerRequestContext

    from memoryd.client import TLS
    from memoryd.integrations.mcp_tools import Tool

PROFILE = "memoryd://profile"
MEMORIES = "memoryd://memories/"

SESSION = "session_id"
"""The argument that names a session, where callers may."""

MOST_OF_PROFILE = 50
"""Memories."""

_INSTRUCTIONS = (
    "Memories that outlive conversations. Search them before you answer what earlier conversations"
    " may have settled; store what will matter later; correct what turns out to be wrong."
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered to a model."""

    read_only: bool = False
    """Nothing that changes anything."""
    no_delete: bool = False
    names_session: bool = False
    """Each call names its session, unless the place has one."""
    has_session: bool = True
    """The place has a session."""

    def tools(self) -> dict[str, Tool]:
        return {
            name: tool
            for name, tool in TOOLS.items()
            if not (self.read_only and not tool.reads) and not (self.no_delete and tool.deletes)
        }


class _Handlers:
    """Answers the requests of the protocol."""

    def __init__(
        self, offer: Offer, place_of: Callable[[ServerRequestContext[Any, Any]], Place]
    ) -> None:
        self._offer = offer
        self._place_of = place_of
        self._tools = offer.tools()

    async def list_tools(self, _context: object, _params: object) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[self._described(name, tool) for name, tool in self._tools.items()]
        )

    def _described(self, name: str, tool: Tool) -> types.Tool:
        schema = tool.takes.schema_of()
        if self._offer.names_session:
            schema["properties"] |= {
                SESSION: {"type": "string", "description": "Whose memories, such as user-123."}
            }
            if not self._offer.has_session:
                schema["required"] = [SESSION, *schema.get("required", ())]
        return types.Tool(
            name=name,
            title=tool.title,
            description=tool.description,
            input_schema=schema,
            output_schema=tool.gives.schema_of(),
            annotations=types.ToolAnnotations(
                read_only_hint=tool.reads,
                destructive_hint=tool.destroys,
                idempotent_hint=True,
                open_world_hint=False,
            ),
        )

    async def call_tool(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            there = ", ".join(self._tools)
            raise MCPError(
                types.INVALID_PARAMS, f"{params.name!a}: no such tool; there are {there}"
            )
        try:
            place, given = self._placed(context, params.arguments)
            result = await tool.work(place, arguments_of(tool.takes, given))
        except WrongArguments as error:
            return _refused(str(error))
        except (MemorydError, ValueError, TypeError) as error:
            return _refused(refusal(error))
        found = result.as_json()
        return types.CallToolResult(content=[_text(_compact(found))], structured_content=found)

    def _placed(
        self, context: ServerRequestContext[Any, Any], given: Mapping[str, Any] | None
    ) -> tuple[Place, dict[str, Any]]:
        """The place of a call, and its arguments but the session. Raises WrongArguments."""
        arguments = dict(given or {})
        place = self._place_of(context)
        if self._offer.names_session:
            session_id = arguments.pop(SESSION, None)
            if session_id is not None:
                place = place._replace(session_id=session_id)
            elif not self._offer.has_session:
                raise WrongArguments(f"{SESSION}: is missing; say whose memories are meant")
        return place._replace(peeks=self._offer.read_only), arguments

    async def list_resources(self, _context: object, _params: object) -> types.ListResourcesResult:
        profile = types.Resource(
            uri=PROFILE,
            name="profile",
            title="Who the user is",
            description="What is known of the user and what they prefer, the most important first.",
            mime_type="text/markdown",
        )
        return types.ListResourcesResult(resources=[profile])

    async def list_templates(
        self, _context: object, _params: object
    ) -> types.ListResourceTemplatesResult:
        memory = types.ResourceTemplate(
            uri_template=f"{MEMORIES}{{memory_id}}",
            name="memory",
            title="A memory",
            description="A memory with all its fields.",
            mime_type="application/json",
        )
        return types.ListResourceTemplatesResult(resource_templates=[memory])

    async def read_resource(
        self, context: ServerRequestContext[Any, Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        place = self._place_of(context)
        try:
            if params.uri == PROFILE:
                text, kind = await _profile(place), "text/markdown"
            elif params.uri.startswith(MEMORIES):
                memory = await place.memories.get(
                    place.session_id, params.uri.removeprefix(MEMORIES)
                )
                text, kind = _compact(stored(memory).as_json()), "application/json"
            else:
                raise MCPError(
                    types.INVALID_PARAMS,
                    f"{params.uri!a}: no such resource; there are {PROFILE} and {MEMORIES}…",
                )
        except (MemorydError, ValueError, TypeError) as error:
            raise _failed(error) from error
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=params.uri, mime_type=kind, text=text)]
        )

    async def list_prompts(self, _context: object, _params: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(
            prompts=[
                types.Prompt(
                    name=name,
                    title=title,
                    description=description,
                    arguments=[
                        types.PromptArgument(name=argument, description=about, required=True),
                        *self._session_of_prompts(),
                    ],
                )
                for name, (title, description, argument, about) in self._prompts().items()
            ]
        )

    def _prompts(self) -> dict[str, tuple[str, str, str, str]]:
        """Title, description, argument and what this is, by the name."""
        prompts = {"recall": ("Recall", "Tells what is remembered.", "query", "Of what.")}
        if not self._offer.read_only:
            about = "Has a text remembered, as far as it is worth it."
            prompts["remember"] = ("Remember", about, "text", "The text.")
        return prompts

    def _session_of_prompts(self) -> list[types.PromptArgument]:
        if not self._offer.names_session:
            return []
        return [
            types.PromptArgument(
                name=SESSION,
                description="Whose memories, such as user-123.",
                required=not self._offer.has_session,
            )
        ]

    async def get_prompt(
        self, context: ServerRequestContext[Any, Any], params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        prompts = self._prompts()
        if params.name not in prompts:
            raise MCPError(
                types.INVALID_PARAMS,
                f"{params.name!a}: no such prompt; there are {', '.join(prompts)}",
            )
        argument = prompts[params.name][2]
        try:
            place, given = self._placed(context, params.arguments)
            if given.keys() != {argument}:
                raise WrongArguments(f"give the argument {argument}, and no other")
            text = given[argument]
            said = await _recalled(place, text) if params.name == "recall" else _to_remember(text)
        except WrongArguments as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        except (MemorydError, ValueError, TypeError) as error:
            raise _failed(error) from error
        return types.GetPromptResult(
            messages=[types.PromptMessage(role="user", content=_text(said))]
        )


def server_of(
    offer: Offer, place_of: Callable[[ServerRequestContext[Any, Any]], Place]
) -> Server[Any]:
    """A server of the protocol. `place_of` gives the place of a request."""
    handlers = _Handlers(offer, place_of)
    has_resources = offer.has_session
    return Server(
        "memoryd",
        version=metadata.version("memoryd"),
        title="memoryd",
        instructions=_INSTRUCTIONS,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources if has_resources else None,
        on_list_resource_templates=handlers.list_templates if has_resources else None,
        on_read_resource=handlers.read_resource if has_resources else None,
        on_list_prompts=handlers.list_prompts,
        on_get_prompt=handlers.get_prompt,
    )


async def serve(
    target: str,
    offer: Offer,
    *,
    session_id: str | None = None,
    tls: TLS | None = None,
) -> None:
    """Serve over standard input and output until the first ends.

    The API key is that of the variable MEMORYD_API_KEY. Raises ValueError as `open_channel` does.
    """
    offer = replace(offer, has_session=session_id is not None)
    async with open_channel(target, tls=tls) as channel:
        memories = MemoryClient(channel=channel)
        place = Place(memories, SessionClient(channel=channel), session_id or "")
        server = server_of(offer, lambda _: place)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
        await memories.close()


async def _profile(place: Place) -> str:
    found = await place.memories.retrieve(
        place.session_id,
        content_types=["user_info", "preference"],
        limit=MOST_OF_PROFILE,
        max_chars=DEFAULT_MAX_CHARS,
        peek=True,
    )
    return found.as_prompt(max_chars=DEFAULT_MAX_CHARS)


async def _recalled(place: Place, query: str) -> str:
    found = await place.memories.retrieve(
        place.session_id, query, max_chars=DEFAULT_MAX_CHARS, peek=place.peeks
    )
    if not found.results:
        return f"Nothing is remembered of: {query}"
    return f"What is remembered of: {query}\n\n{found.as_prompt(max_chars=DEFAULT_MAX_CHARS)}"


def _to_remember(text: str) -> str:
    return (
        "Store what is worth remembering of the text below with memory_store: one call for each"
        " thing, each a sentence that can be read on its own. Leave out what later conversations"
        f" will not need. Then say what you have stored.\n\n{text}"
    )


def _refused(why: str) -> types.CallToolResult:
    return types.CallToolResult(content=[_text(why)], is_error=True)


def _failed(error: MemorydError | ValueError | TypeError) -> MCPError:
    of_caller = isinstance(error, InvalidArgument | NotFound) or not isinstance(error, MemorydError)
    return MCPError(types.INVALID_PARAMS if of_caller else types.INTERNAL_ERROR, refusal(error))


def _text(text: str) -> types.TextContent:
    return types.TextContent(text=text)


def _compact(found: Mapping[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
