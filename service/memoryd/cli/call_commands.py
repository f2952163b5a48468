"""The commands that call a server, and their flags."""

from __future__ import annotations

import functools
import inspect
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoryd.cli.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable

SessionId = Annotated[str, typer.Argument(help="The session, such as user-123.")]
SessionArgument = Annotated[
    bool, typer.Option("--session-argument", help="Calls may name another session.")
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only tools that change nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (store, retrieve, sessions, watch, erase, tools):
        app.command()(_calling(command))
    app.command(name="list")(_calling(list_))
    app.command()(_calling(mcp, prints=False))


def _place(
    *,
    target: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the server; else MEMORYD_TARGET, else 127.0.0.1:50051."),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Call over TLS; trust certificates of well-known CAs.")
    ] = False,
    ca: Annotated[
        str | None,
        typer.Option(help="A PEM file: call over TLS, and trust certificates of this CA."),
    ] = None,
    client_cert: Annotated[
        str | None, typer.Option(help="A PEM file: the certificate to show over TLS.")
    ] = None,
    client_key: Annotated[
        str | None, typer.Option(help="A PEM file: the key of the certificate.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, an answer a line.")] = False,
) -> Place:
    """What the flags that all commands have say."""
    return Place(target, tls, ca, client_cert, client_key, as_json)


def _calling(command: Callable[..., None], *, prints: bool = True) -> Callable[..., None]:
    """Give a command the flags of `_place` after its own, and what they say as first argument."""
    shared = dict(inspect.signature(_place, eval_str=True).parameters)
    if not prints:
        del shared["as_json"]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        # gRPC reads it as it is loaded; a message of ours says what its log would.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        command(_place(**{name: given.pop(name) for name in shared}), **given)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*own, *shared.values()]
    # What typer reads.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def store(  # noqa: PLR0917  typer takes them by name
    place: Place,
    session_id: SessionId,
    content: Annotated[str, typer.Argument(help="One sentence or paragraph.")],
    content_type: Annotated[
        str, typer.Option("--type", help="context, fact, preference and so on.")
    ] = "",
    importance: Annotated[float | None, typer.Option(help="From 0 to 1.", min=0, max=1)] = None,
    key: Annotated[str, typer.Option(help="Its name in the session; replaces what has it.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; several times.")] = None,
    metadata: Annotated[str, typer.Option(help="A JSON object.")] = "",
) -> None:
    """Store a memory.

    The variable MEMORYD_API_KEY has the key that is shown to the server.
    """
    from memoryd.cli import calls

    calls.store(
        place,
        session_id,
        content,
        content_type=content_type,
        importance=importance,
        key=key,
        tags=tag,
        metadata=metadata,
    )


def retrieve(
    place: Place,
    session_id: SessionId,
    query: Annotated[str, typer.Argument(help="None: the most important ones.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 is 10.")] = 0,
) -> None:
    """Find the memories that bear on a query, best first."""
    from memoryd.cli import calls

    calls.retrieve(place, session_id, query, limit=limit)


def list_(
    place: Place,
    session_id: SessionId,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """List all memories of a session, the oldest first."""
    from memoryd.cli import calls

    calls.list_all(place, session_id, deleted=deleted)


def sessions(
    place: Place,
    prefix: Annotated[str, typer.Argument(help="Those whose names begin with it.")] = "",
) -> None:
    """List sessions by name."""
    from memoryd.cli import calls

    calls.sessions(place, prefix)


def watch(
    place: Place,
    session_id: SessionId,
    start_revision: Annotated[int, typer.Option(help="Only changes after this one.", min=0)] = 0,
) -> None:
    """Print the changes of a session, and go on as they come."""
    from memoryd.cli import calls

    calls.watch(place, session_id, start_revision=start_revision)


def erase(
    place: Place,
    session_id: SessionId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Remove all of a session for good, and print the receipt."""
    from memoryd.cli import calls

    calls.erase(place, session_id, is_sure=yes)


def tools(
    place: Place,
    tool: Annotated[str, typer.Argument(help="One of the seven; all if not given.")] = "",
) -> None:
    """List the tools, or print how one is set."""
    from memoryd.cli import calls

    calls.tools(place, tool)


def mcp(
    place: Place,
    session_id: Annotated[str | None, typer.Option(help="Whose memories: user-123.")] = None,
    session_argument: SessionArgument = False,  # noqa: FBT002  typer's way of a flag
    read_only: ReadOnly = False,  # noqa: FBT002  typer's way of a flag
    no_delete: Annotated[bool, typer.Option("--no-delete", help="No tool that deletes.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Give a model a session's memories as tools, by the Model Context Protocol over stdio.

    The variable MEMORYD_API_KEY has the key that is shown to the server.
    """
    from memoryd.cli import mcp as command

    command.serve(
        place,
        session_id,
        session_argument=session_argument,
        read_only=read_only,
        no_delete=no_delete,
    )
