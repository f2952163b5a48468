"""Coverage-guided fuzzing of requests, from bytes to the rows of an SQLite file.

python -m tests.fuzz.target FOLDER [SECONDS]

An input is a method (its first byte) and a request (the rest). The server is real except for the
network: gRPC's own server is left out, so that everything runs in one traceable thread. Useful
inputs are kept in FOLDER/corpus, and an input that fails is written to FOLDER.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import atheris
import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

# SQL building is left out: atheris keeps everything that it has seen compared.
with atheris.instrument_imports(
    include=["memoryd"],
    exclude=[
        "memoryd.database.dialect",
        "memoryd.database.postgresql",
        "memoryd.database.sqlite",
        "memoryd.memories.store",
        "memoryd.memories.deletion",
        "memoryd.memories.rows",
        "memoryd.tools.store",
    ],
):
    from memoryd.server import Server
    from memoryd.tools.secrets import Secrets
    from memoryd.tools.settings import load_configuration
    from memoryd.v1 import memory_pb2

from .messages import ALLOWED, METHODS, SESSION, VALID, filled, is_endless, path_of

if TYPE_CHECKING:
    from memoryd.rpc.pipeline import Handler

OURS = tuple(
    m for m in METHODS if m.containing_service.full_name.startswith(("memoryd.", "flagd."))
)
MAX_BYTES = 4096
TEXTS_SHARE = 0.7
"""The share of mutations within a text; random other bytes are rarely a message."""
TIMEOUT_SECONDS = 10
"""After this many seconds an input counts as hanging."""
WATCHED_SECONDS = 0.01
"""How long an endless stream is read."""


class Network:
    """Replaces gRPC's server: keeps the handlers, and does not listen."""

    def __init__(self, handlers: Mapping[bytes, Handler], unknown: object, options: object) -> None:
        del unknown, options
        self.handlers = handlers

    def add_insecure_port(self, address: str) -> int:
        del address
        return 0

    async def start(self) -> None:
        pass

    async def wait_for_termination(self, timeout: float) -> bool:
        """Wait as gRPC's server does; return that it has not ended."""
        await asyncio.sleep(timeout)
        return True


class Context:
    """The context of one call: its answers, or its refusal."""

    def __init__(self, request: bytes) -> None:
        self.refused: grpc.StatusCode | None = None
        self._request: object = request

    async def read(self) -> object:
        request, self._request = self._request, grpc.aio.EOF
        return request

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def code(self) -> grpc.StatusCode | None:
        return self.refused

    async def abort(self, code: grpc.StatusCode, *details: object) -> None:
        del details
        self.refused = code
        raise grpc.aio.AbortError

    async def send_initial_metadata(self, metadata: object) -> None:
        pass

    async def write(self, answer: object) -> None:
        pass


class Target:
    """A server that handles one request after the other."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._memory_ids: deque[str] = deque(maxlen=3)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._loop.run_until_complete(self._start(folder / "memoryd.db"))

    async def _start(self, file: Path) -> None:
        environ = {"MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{file}"}
        settings, tools = load_configuration(environ=environ, dotenv=None, flags={})
        made: list[Network] = []

        def make(*arguments: Any) -> Network:
            made.append(Network(*arguments))
            return made[0]

        with mock.patch("memoryd.server.CoreServer", make):
            await Server(settings, tools, Secrets.built_in(environ)).start()
        (network,) = made
        self._handlers = [network.handlers[path_of(method).encode()] for method in OURS]

    def __call__(self, data: bytes) -> None:
        """Fail if the request causes an unhandled exception."""
        if data:
            number = data[0] % len(OURS)
            self._loop.run_until_complete(self._call(number, filled(data[1:], self._memory_ids)))

    async def _call(self, number: int, data: bytes) -> None:
        method, handler, context = OURS[number], self._handlers[number], Context(data)
        task = asyncio.ensure_future(handler.serve(context))
        await asyncio.wait([task], timeout=WATCHED_SECONDS if is_endless(method) else None)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            return
        if task.cancelled():
            raise AssertionError(f"{method.name} timed out")
        error = task.exception()
        if isinstance(error, grpc.aio.AbortError):
            if context.refused not in ALLOWED:
                raise AssertionError(f"{method.name} ended with {context.refused}")
        elif error is not None:
            raise error
        elif method.name == "StoreMemory":
            stored = memory_pb2.StoreMemoryResponse.FromString(task.result()).memory
            if stored.session_id == SESSION:
                self._memory_ids.append(stored.memory_id)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Valid requests of every method, by name."""
    for number, method in enumerate(OURS):
        for place, request in enumerate(VALID[method.name]):
            yield f"{method.name}-{place}", bytes([number]) + request.SerializeToString()


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one text of the request, with all lengths around it, or any of its bytes."""
    dice = random.Random(seed)  # noqa: S311  repeatable, not secret
    if data and dice.random() < TEXTS_SHARE:
        request = GetMessageClass(OURS[data[0] % len(OURS)].input_type)()
        with contextlib.suppress(DecodeError):
            request.ParseFromString(data[1:])
            texts = list(_texts(request))
            if texts:
                message, name = dice.choice(texts)
                before = getattr(message, name).encode()
                after = atheris.Mutate(before, max(1, max_size - len(data) + len(before)))
                setattr(message, name, after.decode(errors="ignore"))
                return (data[:1] + request.SerializeToString())[:max_size]
    return bytes(atheris.Mutate(data, max_size))


def _texts(message: Message) -> Iterator[tuple[Message, str]]:
    """Yield every text that is set, as its message and field name."""
    for field, value in message.ListFields():
        if field.message_type is None:
            if field.type == field.TYPE_STRING and not field.is_repeated:
                yield message, field.name
        elif isinstance(value, Message):
            yield from _texts(value)
        else:
            for item in value.values() if isinstance(value, Mapping) else value:
                if isinstance(item, Message):
                    yield from _texts(item)


def main() -> None:
    folder, *seconds = sys.argv[1:]
    corpus = Path(folder) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (corpus / name).write_bytes(data)
    options = [
        f"-artifact_prefix={folder}/",
        f"-max_len={MAX_BYTES}",
        "-verbosity=0",
        "-print_final_stats=1",
        f"-timeout={TIMEOUT_SECONDS}",
        *(f"-max_total_time={number}" for number in seconds),
    ]
    target = Target(Path(folder) / "database")
    atheris.Setup([sys.argv[0], *options, str(corpus)], target, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
