"""A bare grpc.aio server for comparison: it decodes a request and answers one fixed message.

python benchmarks/echo.py FOLDER

FOLDER has a file for each of `work.WORK`, named like it, with the bytes of the answer.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from harness import READY
from work import ECHO_SERVICE, WORK

from memoryd.server import channel_options
from memoryd.settings.service import load_settings

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from work import Work


def handler(work: Work, answer: bytes) -> grpc.RpcMethodHandler[Any, Any]:
    """Give `answer` to every request, encoded each time as a service would."""
    message = work.answer_type.FromString(answer)

    async def respond(_request: Message, _context: object) -> Message:
        return message

    return grpc.unary_unary_rpc_method_handler(
        respond,
        request_deserializer=work.request_type.FromString,
        response_serializer=work.answer_type.SerializeToString,
    )


async def serve(folder: Path) -> None:
    settings = load_settings(environ={}, dotenv=None, flags={})
    server = grpc.aio.server(options=channel_options(settings))
    handlers = {
        work.name: handler(work, (folder / work.name).read_bytes()) for work in WORK.values()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
