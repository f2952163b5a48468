"""grpcio with the generated stubs, synchronous.

python grpcio_sync.py ADDRESS COUNTED_ADDRESS
"""

from __future__ import annotations

import grpc
from scenario import DEADLINE_SECONDS, LONG, REQUEST_ID, addresses, check_refusal, equal, run

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "grpcio-sync"


class Checks:
    def __init__(self, address: str, counted: str) -> None:
        self.memory = MemoryServiceStub(grpc.insecure_channel(address))
        channel = grpc.insecure_channel(counted, compression=grpc.Compression.Gzip)
        self.counted = MemoryServiceStub(channel)

    def store(self, content: str) -> None:
        self.memory.StoreMemory(pb.StoreMemoryRequest(session_id=SESSION, content=content))

    def unary(self) -> None:
        self.store("prefers e-mail")
        asked = pb.RetrieveMemoriesRequest(session_id=SESSION, query="e-mail")
        equal(self.memory.RetrieveMemories(asked).results[0].memory.content, "prefers e-mail")

    def stream(self) -> None:
        changes = self.memory.WatchMemories(pb.WatchMemoriesRequest(session_id=SESSION))
        equal(next(changes).memory.content, "prefers e-mail")
        self.store("likes tea")
        equal(next(changes).memory.content, "likes tea")
        changes.cancel()

    def errors(self) -> None:
        try:
            self.store("")
        except grpc.RpcError as error:
            check_refusal(error, error.trailing_metadata())
        else:
            raise AssertionError("it is stored")

    def gzip(self) -> str:
        request = pb.StoreMemoryRequest(session_id=SESSION, content=LONG)
        equal(self.counted.StoreMemory(request).memory.content, LONG.strip())
        return "requests"

    def deadline(self) -> None:
        request = pb.WatchMemoriesRequest(session_id=SESSION)
        try:
            list(self.memory.WatchMemories(request, timeout=DEADLINE_SECONDS))
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("it has ended by itself")

    def metadata(self) -> None:
        request = pb.ListMemoriesRequest(session_id=SESSION)
        _, call = self.memory.ListMemories.with_call(
            request, metadata=[("x-request-id", REQUEST_ID)]
        )
        equal(dict(call.trailing_metadata())["x-request-id"], REQUEST_ID)


if __name__ == "__main__":
    run(Checks(*addresses()))
