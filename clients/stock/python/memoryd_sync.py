"""Our own client for Python, without an event loop.

python memoryd_sync.py ADDRESS COUNTED_ADDRESS
"""

from __future__ import annotations

from scenario import DEADLINE_SECONDS, FIELD, LONG, REASON, REQUEST_ID, addresses, equal, run

from memoryd.client import DeadlineExceeded, InvalidArgument
from memoryd.client.sync import MemoryClient

SESSION = "memoryd-sync"
GZIP = {"grpc.default_compression_algorithm": 2}


class Checks:
    def __init__(self, memory: MemoryClient, counted: MemoryClient, named: MemoryClient) -> None:
        self.memory = memory
        self.counted = counted
        self.named = named

    def unary(self) -> None:
        self.memory.store(SESSION, "prefers e-mail")
        answer = self.memory.retrieve(SESSION, "e-mail")
        equal(answer.results[0].memory.content, "prefers e-mail")

    def stream(self) -> None:
        changes = self.memory.watch(SESSION)
        equal(next(changes).memory.content, "prefers e-mail")
        self.memory.store(SESSION, "likes tea")
        equal(next(changes).memory.content, "likes tea")
        changes.close()

    def errors(self) -> None:
        try:
            self.memory.store(SESSION, "")
        except InvalidArgument as error:
            equal((error.reason, error.violations[0].field), (REASON, FIELD))
        else:
            raise AssertionError("it is stored")

    def gzip(self) -> str:
        equal(self.counted.store(SESSION, LONG).memory.content, LONG.strip())
        return "requests"

    def deadline(self) -> None:
        try:
            list(self.memory.watch(SESSION, timeout=DEADLINE_SECONDS))
        except DeadlineExceeded:
            return
        raise AssertionError("it has ended by itself")

    def metadata(self) -> str:
        list(self.named.list(SESSION))
        return "sent"  # it gives no trailers


def main() -> None:
    address, counted = addresses()
    with (
        MemoryClient(address) as memory,
        MemoryClient(counted, options=GZIP) as other,
        MemoryClient(address, metadata={"x-request-id": REQUEST_ID}) as named,
    ):
        run(Checks(memory, other, named))


if __name__ == "__main__":
    main()
