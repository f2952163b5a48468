"""grpcio with the generated stubs, for asyncio.

python grpcio_aio.py ADDRESS COUNTED_ADDRESS
"""

from __future__ import annotations

import asyncio

import grpc
from scenario import DEADLINE_SECONDS, LONG, REQUEST_ID, addresses, check_refusal, equal, run_async

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "grpcio-aio"


class Checks:
    def __init__(self, channel: grpc.aio.Channel, counted: grpc.aio.Channel) -> None:
        self.memory = MemoryServiceStub(channel)
        self.counted = MemoryServiceStub(counted)

    async def store(self, content: str) -> None:
        await self.memory.StoreMemory(pb.StoreMemoryRequest(session_id=SESSION, content=content))

    async def unary(self) -> None:
        await self.store("prefers e-mail")
        asked = pb.RetrieveMemoriesRequest(session_id=SESSION, query="e-mail")
        answer = await self.memory.RetrieveMemories(asked)
        equal(answer.results[0].memory.content, "prefers e-mail")

    async def stream(self) -> None:
        changes = self.memory.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION))
        equal((await changes.read()).memory.content, "prefers e-mail")
        await self.store("likes tea")
        equal((await changes.read()).memory.content, "likes tea")
        changes.cancel()

    async def errors(self) -> None:
        try:
            await self.store("")
        except grpc.aio.AioRpcError as error:
            check_refusal(error, error.trailing_metadata())
        else:
            raise AssertionError("it is stored")

    async def gzip(self) -> str:
        request = pb.StoreMemoryRequest(session_id=SESSION, content=LONG)
        equal((await self.counted.StoreMemory(request)).memory.content, LONG.strip())
        return "requests"

    async def deadline(self) -> None:
        request = pb.WatchMemoriesRequest(session_id=SESSION)
        try:
            async for _ in self.memory.WatchMemories(request, timeout=DEADLINE_SECONDS):
                pass
        except grpc.aio.AioRpcError as error:
            equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("it has ended by itself")

    async def metadata(self) -> None:
        request = pb.ListMemoriesRequest(session_id=SESSION)
        call = self.memory.ListMemories(request, metadata=[("x-request-id", REQUEST_ID)])
        await call
        equal(dict(await call.trailing_metadata())["x-request-id"], REQUEST_ID)


async def main() -> None:
    address, counted = addresses()
    async with (
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(counted, compression=grpc.Compression.Gzip) as other,
    ):
        await run_async(Checks(channel, other))


if __name__ == "__main__":
    asyncio.run(main())
