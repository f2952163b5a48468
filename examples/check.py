"""Run an example against a server of its own, and compare what it prints with what it should.

    python examples/check.py COMMAND...

`{address}` in the command stands for the server's address.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

READY = "memoryd ready on "

EXPECTED = """\
stored: STORE_OUTCOME_CREATED
remembered: I prefer e-mail over the phone.
"""
"""What the examples in other languages than Python print for an empty database."""


def main(command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "MEMORYD_PORT": "0",
            "MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/memoryd.db",
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "memoryd", "serve"],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            address = server.stdout.readline().removeprefix(READY).strip()
            if not address:
                sys.exit("The server did not start; its log says why")
            done = subprocess.run(  # noqa: S603  the Makefile's own
                [part.replace("{address}", address) for part in command],
                check=False,
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        finally:
            server.terminate()
            server.wait(60)
    print(done.stdout, end="")
    if done.returncode or done.stdout != EXPECTED:
        sys.exit(f"The example ended with {done.returncode}; expected was:\n{EXPECTED}")


if __name__ == "__main__":
    main(sys.argv[1:])
