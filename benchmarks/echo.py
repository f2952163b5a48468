"""A bare gRPC server for comparison: it decodes a request and answers one fixed message.

python benchmarks/echo.py FOLDER KIND

FOLDER has a file for each of `work.WORK`, named like it, with the bytes of the answer. KIND is
`aio`, gRPC's own server for asyncio, or `core`, memoryd's server over gRPC's core.
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

from memoryd.rpc.core_server import CoreServer, unavailable
from memoryd.rpc.pipeline import Handler
from memoryd.server_options import channel_options
from memoryd.settings.service import load_settings

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from work import Work

    from memoryd.rpc.call import WireCall
    from memoryd.rpc.endpoint import GrpcServer


def aio_handler(work: Work, answer: Message) -> grpc.RpcMethodHandler[Any, Any]:
    """Give `answer` to every request, encoded each time as a service would."""

    async def respond(_request: Message, _context: object) -> Message:
        return answer

    return grpc.unary_unary_rpc_method_handler(
        respond,
        request_deserializer=work.request_type.FromString,
        response_serializer=work.answer_type.SerializeToString,
    )


def core_handler(work: Work, answer: Message) -> Handler:
    """Do the same for the server over gRPC's core."""
    decode = work.request_type.FromString

    async def serve(call: WireCall) -> bytes:
        decode(await call.read())
        return answer.SerializeToString()

    return Handler(serve, answers_once=True)


async def refuse(call: WireCall) -> None:
    await call.abort(grpc.StatusCode.UNIMPLEMENTED)


def echo_server(answers: dict[str, Message], kind: str) -> GrpcServer:
    options = channel_options(load_settings(environ={}, dotenv=None, flags={}))
    works = [(WORK[name], answer) for name, answer in answers.items()]
    if kind == "core":
        if problem := unavailable():
            raise SystemExit(problem)
        paths = {
            f"/{ECHO_SERVICE}/{work.name}".encode(): core_handler(work, answer)
            for work, answer in works
        }
        return CoreServer(paths, Handler(refuse, answers_once=True), options)
    server = grpc.aio.server(options=options)
    handlers = {work.name: aio_handler(work, answer) for work, answer in works}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO_SERVICE, handlers),))
    return server


async def serve(folder: Path, kind: str) -> None:
    answers = {
        work.name: work.answer_type.FromString((folder / work.name).read_bytes())
        for work in WORK.values()
    }
    server = echo_server(answers, kind)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), sys.argv[2]))
