"""The commands and their flags. The modules that do the work are loaded when a command runs."""

from __future__ import annotations

import io
import os
import sys
from importlib import metadata
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from memoryd.cli import call_commands

app = typer.Typer(
    help="memoryd: the memory and tool configuration of conversational agents, over gRPC.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

config_app = typer.Typer(
    help="The configuration: environment, defaults, and the database's overrides if it answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(config_app, name="config")

keys_app = typer.Typer(
    help="The API keys of a database, also while servers run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(keys_app, name="keys")

DatabaseUrl = Annotated[str | None, typer.Option(help="MEMORYD_DATABASE_URL")]
Host = Annotated[str | None, typer.Option(help="MEMORYD_HOST")]
Port = Annotated[int | None, typer.Option(help="MEMORYD_PORT; 0 is any free one")]


def _version(wanted: bool) -> None:  # noqa: FBT001  as typer calls it
    if wanted:
        print(f"memoryd {metadata.version('memoryd')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]


@app.callback()
def all_commands(version: Version = False) -> None:  # noqa: FBT002  typer's way of a flag
    del version  # its callback does the work


@app.command()
def serve(  # noqa: PLR0917  typer takes them by name
    database_url: DatabaseUrl = None,
    host: Host = None,
    port: Port = None,
    log_level: Annotated[str | None, typer.Option(help="MEMORYD_LOG_LEVEL")] = None,
    log_format: Annotated[str | None, typer.Option(help="MEMORYD_LOG_FORMAT")] = None,
    workers: Annotated[int | None, typer.Option(help="MEMORYD_WORKERS; on PostgreSQL")] = None,
    migrate: Annotated[bool, typer.Option("--migrate", help="Migrate PostgreSQL first.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Serve until SIGTERM. Flags beat variables, variables beat .env."""
    from memoryd.cli import serve as command

    command.serve(
        migrate_first=migrate,
        database_url=database_url,
        host=host,
        port=port,
        log_level=log_level,
        log_format=log_format,
        workers=workers,
    )


@app.command(hidden=True)
def worker(number: int, folder: Annotated[Path, typer.Option()]) -> None:
    """Serve as one of several processes, started by `serve`, until standard input ends."""
    from memoryd.cli import serve as command

    command.work(number, folder)


@app.command()
def migrate(
    database_url: DatabaseUrl = None,
    distribute: Annotated[  # noqa: FBT002  typer's way of a flag
        bool, typer.Option("--distribute", help="Then spread sessions over Citus's workers.")
    ] = False,
    shards: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Into how many shards; 4 a worker.")
    ] = None,
    undistribute: Annotated[  # noqa: FBT002  typer's way of a flag
        bool, typer.Option("--undistribute", help="Then bring them back to one PostgreSQL.")
    ] = False,
) -> None:
    """Bring the database's schema to this release's.

    Stop every server before --distribute and --undistribute.
    """
    from memoryd.cli import data

    if distribute and undistribute:
        raise typer.BadParameter("--distribute and --undistribute exclude each other")
    if shards is not None and not distribute:
        raise typer.BadParameter("--shards goes with --distribute")
    data.migrate(database_url)
    if distribute:
        data.distribute(database_url, shards)
    if undistribute:
        data.undistribute(database_url)


@app.command()
def sweep(
    database_url: DatabaseUrl = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing is left.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Remove memories that are due.

    Those that have expired, that no call retrieves any more, and that were deleted long ago.
    Servers sweep by themselves; one process does it at a time.
    """
    from memoryd.cli import data

    data.sweep(database_url, once=once)


@app.command()
def reindex(database_url: DatabaseUrl = None) -> None:
    """Make the vectors that are missing or come from another embedder.

    A server makes those of a session when a call next searches it. This makes all of them, also
    while servers run.
    """
    from memoryd.cli import data

    data.reindex(database_url)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The copy; it must not exist yet.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Copy an SQLite database as of one moment, while servers run.

    To restore the copy, stop the server and put it in the database's place.
    """
    from memoryd.cli import data

    data.backup(file, database_url)


@app.command(name="export")
def export_(
    file: Annotated[Path, typer.Argument(help="JSON Lines; it must not exist yet.")],
    database_url: DatabaseUrl = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted memories too.")] = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Write the whole database to a file, as of one moment."""
    from memoryd.cli import data

    data.export(file, database_url, with_deleted=deleted)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `memoryd export` wrote.", exists=True)],
    database_url: DatabaseUrl = None,
) -> None:
    """Insert the rows of a file that the database does not have."""
    from memoryd.cli import data

    data.import_(file, database_url)


@app.command()
def health(host: Host = None, port: Port = None) -> None:
    """Ask a server for its health; exit 0 if it serves."""
    from memoryd.cli import health as command

    command.health(host=host, port=port)


@config_app.command()
def show(
    database_url: DatabaseUrl = None,
    tenant: Annotated[
        str, typer.Option(help="Whose settings of the tools; `default` unless given.")
    ] = "default",
) -> None:
    """Print every setting, its value and its source; of a secret only where it is kept."""
    from memoryd.cli import config

    config.show(database_url, tenant)


@config_app.command()
def check(database_url: DatabaseUrl = None) -> None:
    """Exit 0 if a server would start with these settings; print what is doubtful about them."""
    from memoryd.cli import config

    config.check(database_url)


AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@keys_app.command()
def create(  # noqa: PLR0917  typer takes them by name
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What to call it, at most 128 characters.")],
    scope: Annotated[
        list[str], typer.Option(help="A scope, or agent, reader or operator; several times.")
    ],
    session: Annotated[
        list[str] | None,
        typer.Option(help="A session that it may name, or user-7.* ; several times. None: all."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends, such as 90d; s, m, h, d. Default: 365d.")
    ] = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="It never ends.")] = False,  # noqa: FBT002  typer's way of a flag
    first: Annotated[bool, typer.Option("--first", help="Only if there is no key yet.")] = False,  # noqa: FBT002  typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
    database_url: DatabaseUrl = None,
) -> None:
    """Make an API key, and print it: it is shown this once."""
    from memoryd.cli import keys

    keys.create(
        database_url,
        keys.KeyOptions(tenant, name, scope, session or [], expires, no_expiry),
        first=first,
        as_json=as_json,
    )


@keys_app.command(name="list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Whose keys; all if not given.")] = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
    database_url: DatabaseUrl = None,
) -> None:
    """List the keys, never what opens anything."""
    from memoryd.cli import keys

    keys.list_all(database_url, tenant, as_json=as_json)


KeyId = Annotated[str, typer.Argument(help="The id of the key, which `list` prints.")]


@keys_app.command()
def revoke(key_id: KeyId, database_url: DatabaseUrl = None) -> None:
    """Revoke a key: within a second every server refuses it."""
    from memoryd.cli import keys

    keys.revoke(database_url, key_id)


@keys_app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="How long the old key goes on, such as 24h; s, m, h, d.")
    ],
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key that gives what another one gives, and print it."""
    from memoryd.cli import keys

    keys.rotate(database_url, key_id, overlap, as_json=as_json)


audit_app = typer.Typer(
    help="The audit of a database, also while servers run.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(audit_app, name="audit")


@app.command()
def doctor(
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
) -> None:
    """Look at what a server depends on, and say what to change; also while servers run.

    Settings, TLS, the database and its schema, rights, row-level security, clocks, indexes, disk.
    Exit 1 where there is a problem.
    """
    from memoryd.cli import doctor as command

    command.doctor(database_url, as_json=as_json)


@audit_app.callback()
def audit(  # noqa: PLR0917  typer takes them by name
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(help="From when on: a time, or a span such as 24h; s, m, h, d.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose lines; all if not given.")] = None,
    session: Annotated[
        str | None, typer.Option(help="Lines about a session of the tenant, by its id.")
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new lines.")] = False,  # noqa: FBT002  typer's way of a flag
    database_url: DatabaseUrl = None,
) -> None:
    """Print who has changed, exported or erased what, the oldest line first."""
    from memoryd.cli import audit as command
    from memoryd.cli.running import fail

    if context.invoked_subcommand is None:
        command.show(
            database_url,
            since=since,
            tenant=tenant,
            session=session,
            as_json=as_json,
            follow=follow,
        )
    elif since or tenant or session or as_json or follow or database_url:
        fail(f"put the options behind {context.invoked_subcommand}, which has its own")


@audit_app.command()
def verify(
    expect: Annotated[
        str | None, typer.Option(help="A line that must be there, as SEQ:HASH.")
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002  typer's way of a flag
    database_url: DatabaseUrl = None,
) -> None:
    """Exit 0 if no line was changed, moved or cut out since it was written.

    Prints the last line's place and hash. Kept elsewhere, and given as --expect later, they tell
    whether the end was cut off or the whole chain was rewritten.
    """
    from memoryd.cli import audit as command

    command.verify(database_url, expect=expect, as_json=as_json)


call_commands.add_to(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a console lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="memoryd")  # also as `python -m memoryd`
        finally:
            sys.stdout.flush()
    except OSError as error:  # such as of a full disk that output goes to
        # What is still held would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        is_left = isinstance(error, BrokenPipeError)  # as by `head`, which has what it wants
        sys.exit(1 if is_left else f"memoryd: {error}")
