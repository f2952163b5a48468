"""The programs of `clients/stock`, which show what a client of memoryd can, and what they need."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOCK = ROOT / "clients" / "stock"
BUILT = ROOT / "build" / "clients"
BESIDE = Path(sys.executable).parent

WITH_TOOLCHAINS = bool(os.environ.get("TEST_TOOLCHAINS"))
"""Whether to call from languages whose toolchains `make test` does not need, and from no other."""

FEATURES = ("unary", "stream", "errors", "gzip", "deadline", "metadata")

LONG_BYTES = 12_000
"""How much the programs send and receive for `gzip` at least, before it is compressed."""

PROGRAM_SECONDS = 120


@dataclass
class Counted:
    """An address that passes every byte on, and how many there were."""

    address: str
    target: str
    """Where new connections go, HOST:PORT."""
    sent: int = 0
    received: int = 0


def _pass(source: socket.socket, sink: socket.socket, counted: Counted, way: str) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            setattr(counted, way, getattr(counted, way) + len(data))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def counting(target: str) -> Iterator[Counted]:
    """Pass connections on to a target, HOST:PORT."""
    listener = socket.create_server(("127.0.0.1", 0))
    counted = Counted(f"127.0.0.1:{listener.getsockname()[1]}", target)
    held: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:  # it is over
                return
            host, _, port = counted.target.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:  # nothing listens there now
                caller.close()
                continue
            held.extend((caller, server))
            for ends in ((caller, server, counted, "sent"), (server, caller, counted, "received")):
                threads.append(threading.Thread(target=_pass, args=ends))
                threads[-1].start()

    threads = [threading.Thread(target=take)]
    threads[0].start()
    try:
        yield counted
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for each in held:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in held:
            each.close()


def said(lines: Sequence[str]) -> dict[str, str]:
    """What a program says of each feature."""
    return dict(line.split(": ", 1) for line in lines)


async def outcome(command: Sequence[str | Path]) -> dict[str, str]:
    """Run a program, and give what it says."""
    async with asyncio.timeout(PROGRAM_SECONDS):
        program = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            # With the tools of the environment, as the Makefile has it.
            env=os.environ | {"GRPC_VERBOSITY": "NONE", "PATH": f"{BESIDE}:{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, log = await program.communicate()
    assert program.returncode == 0, (output + log).decode()
    return said(output.decode().splitlines())


def tool(name: str) -> str:
    """A program that `make install` puts beside Python, or that is on the path."""
    beside = BESIDE / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"there is no {name}: make clients, or install it"
    return found


def built(name: str) -> Path:
    """What `make clients` has built."""
    path = BUILT / name
    assert path.exists(), f"there is no {path}: make clients"
    return path


def chromium() -> str:
    """The browser, which `CHROMIUM` may name."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert found, (
        "the tests in a browser need Chromium: apt-get install chromium, or say where one is:"
        " CHROMIUM=/path/to/chromium"
    )
    return found
