"""The tools: how each is set and by whom, changing it after a look at what comes of it."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from starlette.exceptions import HTTPException

from memoryd.client import EtagMismatch, InvalidArgument, MemorydError
from memoryd.client.answers import ToolConfigRevision
from memoryd.console.events import EventStream, changes, revision_seen
from memoryd.console.routes import Entry, Route
from memoryd.console.tool_settings import ENABLED, differences, read, settings_of
from memoryd.tools.settings import SETTINGS_OF
from memoryd.v1 import tool_config_pb2
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from memoryd.client import ToolConfig
    from memoryd.client.answers import ToolName
    from memoryd.console.visit import Visit

ENTRY = Entry("Tools", "/tools")

PAGE_SIZE = 20
"""Changes that a page of the history has."""

TITLES = {
    "rag": "Retrieval-augmented generation",
    "memory": "What is remembered, and for how long",
    "escalation": "Handing over to a human",
    "attachment": "Files that users attach",
    "crm": "Customer relations",
    "billing": "Invoices and payments",
    "inventory": "Stock",
}

DONE = {
    "changed": "The change holds, on every server within a second.",
    "reset": "The overrides are dropped.",
    "rolled-back": "The overrides are again as they were after that revision.",
}


async def overview(visit: Visit) -> Response:
    configs = await asyncio.gather(*(visit.tools.get(cast("ToolName", name)) for name in TITLES))
    return visit.page(
        "tools.html",
        tools=[(config, settings_of(config)) for config in configs],
        titles=TITLES,
        revision=max(config.revision for config in configs),
    )


async def tool(visit: Visit) -> Response:
    return await _page(visit, await visit.tools.get(_tool(visit)))


def _tool(visit: Visit) -> ToolName:
    name = visit.parts["tool"]
    if name not in SETTINGS_OF:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such tool.")
    return cast("ToolName", name)


async def _page(
    visit: Visit,
    config: ToolConfig,
    *,
    status: int = 200,
    problem: str = "",
    problems: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
    held: Mapping[str, str] | None = None,
    preview: ToolConfig | None = None,
) -> Response:
    """`given`: what somebody would change, by path; `held`: what they saw, of what has changed."""
    request = tool_config_pb2.ListToolConfigRevisionsRequest(
        tool=config.tool, page_size=PAGE_SIZE, page_token=visit.asked("page")
    )
    stub = ToolConfigServiceStub(visit.channel)
    found = await visit.answer(stub.ListToolConfigRevisions, request)
    revisions = [ToolConfigRevision.from_proto(each) for each in found.revisions]
    return visit.page(
        "tool.html",
        status=status,
        config=config,
        title=TITLES[config.tool],
        settings=settings_of(config, given or {}, problems or {}, held or {}),
        given=given or {},
        reason=visit.given("reason"),
        problem=problem,
        done=DONE.get(visit.asked("done"), ""),
        preview=preview,
        changes=[] if preview is None else differences(config, preview),
        revisions=[(each, differences(each.before, each.after)) for each in revisions],
        next_page=found.next_page_token,
        is_first=not visit.asked("page"),
    )


async def change(visit: Visit) -> Response:
    """Change settings, or show what would come of it."""
    name = _tool(visit)
    config = await visit.tools.get(name)
    given = _given(visit, config)
    if not given:
        problem = "Nothing is changed: change a setting first."
        return await _page(visit, config, status=HTTPStatus.BAD_REQUEST, problem=problem)
    values, problems = read(config, given)
    if problems:
        return await _page(
            visit,
            config,
            status=HTTPStatus.BAD_REQUEST,
            problem="Nothing is changed: see below what is wrong.",
            problems=problems,
            given=given,
        )
    is_trial = visit.given("action") != "apply"
    enabled = values.pop(ENABLED, None)
    try:
        result = await visit.tools.update(
            name,
            values,
            enabled=enabled,
            etag=visit.given("etag"),
            reason=visit.given("reason"),
            validate_only=is_trial,
        )
    except EtagMismatch as error:
        return await _lost(visit, name, given, error)
    except MemorydError as error:
        violations = error.violations if isinstance(error, InvalidArgument) else ()
        problems = {
            each.field.removeprefix("tool_config."): each.description for each in violations
        }
        return await _page(
            visit,
            config,
            status=visit.status_of(error),
            problem=error.message,
            problems=problems,
            given=given,
        )
    if not is_trial:
        return visit.see(f"/tools/{name}?done=changed")
    return await _page(visit, config, given=given, preview=result)


async def _lost(
    visit: Visit, name: ToolName, given: Mapping[str, str], error: MemorydError
) -> Response:
    """Somebody else was faster: what they changed is shown beside what was to be changed."""
    config = await visit.tools.get(name)
    saw = {each.path: _held(visit, each.path) for each in settings_of(config)}
    return await _page(
        visit, config, status=visit.status_of(error), problem=error.message, given=given, held=saw
    )


async def reset(visit: Visit) -> Response:
    """Drop overrides."""
    name = _tool(visit)
    config = await visit.tools.get(name)
    paths = visit.all_given("path")
    if not paths:
        problem = "Choose which overrides to drop."
        return await _page(visit, config, status=HTTPStatus.BAD_REQUEST, problem=problem)
    if problem := _changed_since(visit, config):
        return await _page(visit, config, status=HTTPStatus.CONFLICT, problem=problem)
    try:
        await visit.tools.reset(name, *paths, reason=visit.given("reason"))
    except MemorydError as error:
        return await _page(visit, config, status=visit.status_of(error), problem=error.message)
    return visit.see(f"/tools/{name}?done=reset")


def _changed_since(visit: Visit, config: ToolConfig) -> str:
    """What to say where somebody saw another configuration than the one that holds now."""
    if visit.given("etag") == config.etag:
        return ""
    return "Nothing is changed: the configuration has changed since you looked. Look again."


async def revision(visit: Visit) -> Response:
    return await _revision_page(visit, await visit.tools.get(_tool(visit)))


async def _revision_page(
    visit: Visit, config: ToolConfig, *, status: int = 200, problem: str = ""
) -> Response:
    found = await _found_revision(visit)
    return visit.page(
        "tool_revision.html",
        status=status,
        config=config,
        title=TITLES[config.tool],
        revision=found,
        changes=differences(found.before, found.after),
        back=differences(config, found.after),
        reason=visit.given("reason"),
        problem=problem,
    )


async def _found_revision(visit: Visit) -> ToolConfigRevision:
    number = visit.parts["revision"]
    async for each in visit.tools.revisions(_tool(visit), page_size=1000):
        if str(each.revision) == number:
            return each
    raise HTTPException(HTTPStatus.NOT_FOUND, "The tool has no such revision, or keeps it no more.")


async def roll_back(visit: Visit) -> Response:
    name = _tool(visit)
    config = await visit.tools.get(name)
    found = await _found_revision(visit)
    if problem := _changed_since(visit, config):
        return await _revision_page(visit, config, status=HTTPStatus.CONFLICT, problem=problem)
    try:
        await visit.tools.rollback(name, found.revision, reason=visit.given("reason"))
    except MemorydError as error:
        status = visit.status_of(error)
        return await _revision_page(visit, config, status=status, problem=error.message)
    return visit.see(f"/tools/{name}?done=rolled-back")


async def events(visit: Visit) -> Response:
    """What changes after a revision, of one tool or of all, for a page to load again."""
    await visit.tools.list_tools()  # refused before the stream begins
    request = tool_config_pb2.WatchToolConfigsRequest(start_revision=revision_seen(visit.request))
    watch = ToolConfigServiceStub(visit.channel).WatchToolConfigs
    return EventStream(
        changes(partial(watch, request), partial(_word, visit.asked("of")), _beginning)
    )


def _word(name: str, change: tool_config_pb2.WatchToolConfigsResponse) -> str | None:
    """What to say of a change to who looks at one tool, or at all where there is no name."""
    changed = change.tool_config.tool
    is_new = change.change == tool_config_pb2.TOOL_CONFIG_CHANGE_UPDATED
    return f"{changed} was changed" if is_new and name in {"", changed} else None


async def _beginning() -> int:
    """Where a watch begins with how the tools are now."""
    return 0


def _held(visit: Visit, path: str) -> str:
    """What a form had when it was loaded."""
    return visit.given(f"was:{path}").replace("\r\n", "\n").strip()


def _given(visit: Visit, config: ToolConfig) -> dict[str, str]:
    """What somebody changed in the form, by path."""
    found = {}
    for each in settings_of(config):
        new = visit.given(each.path).replace("\r\n", "\n").strip()
        if visit.given(f"was:{each.path}", "-") != "-" and new != _held(visit, each.path):
            found[each.path] = new
    return found


ROUTES = (
    Route("GET", "/tools", overview),
    Route("GET", "/tools/events", events),
    Route("GET", "/tools/{tool}", tool),
    Route("POST", "/tools/{tool}/change", change),
    Route("POST", "/tools/{tool}/reset", reset),
    Route("GET", "/tools/{tool}/revisions/{revision}", revision),
    Route("POST", "/tools/{tool}/revisions/{revision}", roll_back),
)
