"""List the files of the service that one call of each kind enters.

python benchmarks/walks.py

Records every Python function that runs during a call, in all threads, except health checks, which
query the database in the background.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

import memoryd
from memoryd.server import Server
from memoryd.tools.secrets import Secrets
from memoryd.tools.settings import load_configuration
from memoryd.v1 import memory_pb2, memory_pb2_grpc, tool_config_pb2, tool_config_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

ROOT = f"{Path(memoryd.__file__).parent}/"
LEFT_OUT = ("v1/", "rpc/health.py")
SESSION = "user-123"


class Walk:
    """Records the files entered while it is on."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.is_on = False

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Receive a call from `sys.setprofile`."""
        file = frame.f_code.co_filename
        if self.is_on and event == "call" and file.startswith(ROOT):
            self.files.add(file.removeprefix(ROOT))

    async def during(self, call: Callable[[], Awaitable[Any]]) -> list[str]:
        """The files that a call enters, sorted."""
        self.files.clear()
        self.is_on = True
        await call()
        self.is_on = False
        return sorted(file for file in self.files if not file.startswith(LEFT_OUT))


async def walk(address: str, notes: Walk) -> None:
    """Make each call once to warm up, then once to record."""
    retrieval = memory_pb2.RetrieveMemoriesRequest(session_id=SESSION, query="by e-mail?")
    tool = tool_config_pb2.ToolConfig(tool="rag", rag=tool_config_pb2.RagSettings(chunk_size=700))
    async with grpc.aio.insecure_channel(address) as channel:
        memory = memory_pb2_grpc.MemoryServiceStub(channel)
        tools = tool_config_pb2_grpc.ToolConfigServiceStub(channel)

        def store(content: str) -> Awaitable[Any]:
            request = memory_pb2.StoreMemoryRequest(session_id=SESSION, content=content)
            return memory.StoreMemory(request)

        await store("likes tea")
        await memory.RetrieveMemories(retrieval)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "StoreMemory": lambda: store("prefers e-mail"),
            "RetrieveMemories, with a query": lambda: memory.RetrieveMemories(retrieval),
            "UpdateToolConfig": lambda: tools.UpdateToolConfig(
                tool_config_pb2.UpdateToolConfigRequest(tool_config=tool)
            ),
            "WatchMemories, its first change": lambda: memory.WatchMemories(
                memory_pb2.WatchMemoriesRequest(session_id=SESSION)
            ).read(),
        }
        for name, call in calls.items():
            files = await notes.during(call)
            print(f"{name}: {len(files)} files\n  {' '.join(files)}")


async def main() -> None:
    notes = Walk()
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/memoryd.db",
            "MEMORYD_PORT": "0",
        }
        settings, tools = load_configuration(environ=environ, dotenv=None, flags={})
        server = Server(settings, tools, Secrets.built_in(environ))
        address = await server.start()
        sys.setprofile(notes.note)
        threading.setprofile(notes.note)
        await walk(address, notes)
        await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
