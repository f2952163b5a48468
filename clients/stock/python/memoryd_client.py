"""Our own client for Python.

python memoryd_client.py ADDRESS COUNTED_ADDRESS
"""

from __future__ import annotations

import asyncio

from scenario import DEADLINE_SECONDS, FIELD, LONG, REASON, REQUEST_ID, addresses, equal, run_async

from memoryd.client import DeadlineExceeded, InvalidArgument, MemoryClient

SESSION = "memoryd-client"
GZIP = {"grpc.default_compression_algorithm": 2}


class Checks:
    def __init__(self, memory: MemoryClient, counted: MemoryClient, named: MemoryClient) -> None:
        self.memory = memory
        self.counted = counted
        self.named = named

    async def unary(self) -> None:
        await self.memory.store(SESSION, "prefers e-mail")
        answer = await self.memory.retrieve(SESSION, "e-mail")
        equal(answer.results[0].memory.content, "prefers e-mail")

    async def stream(self) -> None:
        changes = self.memory.watch(SESSION)
        equal((await anext(changes)).memory.content, "prefers e-mail")
        await self.memory.store(SESSION, "likes tea")
        equal((await anext(changes)).memory.content, "likes tea")
        await changes.aclose()

    async def errors(self) -> None:
        try:
            await self.memory.store(SESSION, "")
        except InvalidArgument as error:
            equal((error.reason, error.violations[0].field), (REASON, FIELD))
        else:
            raise AssertionError("it is stored")

    async def gzip(self) -> str:
        stored = await self.counted.store(SESSION, LONG)
        equal(stored.memory.content, LONG.strip())
        return "requests"

    async def deadline(self) -> None:
        try:
            async for _ in self.memory.watch(SESSION, timeout=DEADLINE_SECONDS):
                pass
        except DeadlineExceeded:
            return
        raise AssertionError("it has ended by itself")

    async def metadata(self) -> str:
        async for _ in self.named.list(SESSION):
            pass
        return "sent"  # it gives no trailers


async def main() -> None:
    address, counted = addresses()
    async with (
        MemoryClient(address) as memory,
        MemoryClient(counted, options=GZIP) as other,
        MemoryClient(address, metadata={"x-request-id": REQUEST_ID}) as named,
    ):
        await run_async(Checks(memory, other, named))


if __name__ == "__main__":
    asyncio.run(main())
