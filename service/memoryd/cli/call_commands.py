"""The commands that call a server, and their flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from memoryd.cli.calls import Place

SessionId = Annotated[str, typer.Argument(help="The session, such as user-123.")]
Target = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of the server; else MEMORYD_TARGET, else 127.0.0.1:50051."),
]
Ca = Annotated[
    str | None, typer.Option(help="A PEM file: call over TLS, and trust certificates of this CA.")
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, an answer a line.")]

SessionArgument = Annotated[
    bool, typer.Option("--session-argument", help="Calls may name another session.")
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only tools that change nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (store, retrieve, sessions, watch, erase, tools, mcp):
        app.command()(command)
    app.command(name="list")(list_)


def _place(target: str | None, ca: str | None, as_json: bool) -> Place:  # noqa: FBT001  as typer gives it
    from memoryd.cli.calls import Place

    return Place(target, ca, as_json)


def store(  # noqa: PLR0917  typer takes them by name
    session_id: SessionId,
    content: Annotated[str, typer.Argument(help="One sentence or paragraph.")],
    content_type: Annotated[
        str, typer.Option("--type", help="context, fact, preference and so on.")
    ] = "",
    importance: Annotated[float | None, typer.Option(help="From 0 to 1.", min=0, max=1)] = None,
    key: Annotated[str, typer.Option(help="Its name in the session; replaces what has it.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; several times.")] = None,
    metadata: Annotated[str, typer.Option(help="A JSON object.")] = "",
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Store a memory.

    The variable MEMORYD_API_KEY has the key that is shown to the server.
    """
    from memoryd.cli import calls

    calls.store(
        _place(target, ca, as_json),
        session_id,
        content,
        content_type=content_type,
        importance=importance,
        key=key,
        tags=tag,
        metadata=metadata,
    )


def retrieve(  # noqa: PLR0917  typer takes them by name
    session_id: SessionId,
    query: Annotated[str, typer.Argument(help="None: the most important ones.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 is 10.")] = 0,
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Find the memories that bear on a query, best first."""
    from memoryd.cli import calls

    calls.retrieve(_place(target, ca, as_json), session_id, query, limit=limit)


def list_(
    session_id: SessionId,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")] = False,  # noqa: FBT002  typer's way of a flag
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """List all memories of a session, the oldest first."""
    from memoryd.cli import calls

    calls.list_all(_place(target, ca, as_json), session_id, deleted=deleted)


def sessions(
    prefix: Annotated[str, typer.Argument(help="Those whose names begin with it.")] = "",
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """List sessions by name."""
    from memoryd.cli import calls

    calls.sessions(_place(target, ca, as_json), prefix)


def watch(
    session_id: SessionId,
    start_revision: Annotated[int, typer.Option(help="Only changes after this one.", min=0)] = 0,
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Print the changes of a session, and go on as they come."""
    from memoryd.cli import calls

    calls.watch(_place(target, ca, as_json), session_id, start_revision=start_revision)


def erase(
    session_id: SessionId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002  typer's way of a flag
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Remove all of a session for good, and print the receipt."""
    from memoryd.cli import calls

    calls.erase(_place(target, ca, as_json), session_id, is_sure=yes)


def tools(
    tool: Annotated[str, typer.Argument(help="One of the seven; all if not given.")] = "",
    target: Target = None,
    ca: Ca = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """List the tools, or print how one is set."""
    from memoryd.cli import calls

    calls.tools(_place(target, ca, as_json), tool)


def mcp(  # noqa: PLR0917  typer takes them by name
    session_id: Annotated[str | None, typer.Option(help="Whose memories: user-123.")] = None,
    session_argument: SessionArgument = False,  # noqa: FBT002  typer's way of a flag
    read_only: ReadOnly = False,  # noqa: FBT002  typer's way of a flag
    no_delete: Annotated[bool, typer.Option("--no-delete", help="No tool that deletes.")] = False,  # noqa: FBT002  typer's way of a flag
    target: Target = None,
    ca: Ca = None,
) -> None:
    """Give a model a session's memories as tools, by the Model Context Protocol over stdio.

    The variable MEMORYD_API_KEY has the key that is shown to the server.
    """
    from memoryd.cli import mcp as command

    command.serve(
        session_id,
        target,
        ca,
        session_argument=session_argument,
        read_only=read_only,
        no_delete=no_delete,
    )
