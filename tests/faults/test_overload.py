"""Ten times the load that a server can carry."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .appends import Append
from .checker import find_faults
from .harness import TIMEOUT_SECONDS, ServerProcess, open_channel
from .history import History, Kind, details_of
from .resources import children, cpu_seconds, peak_bytes
from .scale import SCALE
from .stored import Body, read_stored
from .talks import said_of

pytestmark = pytest.mark.whole

BATCH = 250
"""Memories, documents or messages per call. Refusing a call costs as much as the smallest call; ten
times the load of such calls would take all the server's time."""

CHANNELS = 4
MOST_UNDER_WAY = CHANNELS * 512
"""As many calls as gRPC admits on the connections for certain: what it refuses, nobody counts."""
FACTOR = 10
CALLERS_AT_PEAK = 8
MOST_BYTES = 300 * 1024 * 1024
"""More than ten times the load can ever use."""


class Measured(NamedTuple):
    """The answered calls and the time used."""

    per_second: float
    per_cpu_second: float


class Crowd:
    """Callers that store batches, each in its own sessions so that none are evicted.

    A third of them are of documents, and a third of messages.
    """

    def __init__(self, history: History, channels: list[grpc.aio.Channel]) -> None:
        self._history = history
        self._channels = itertools.cycle(channels)
        self._numbers = itertools.count()
        self.answered: list[float] = []
        """The times at which calls were answered."""
        self.refusals: list[bytes] = []
        """The encoded `google.rpc.Status` of each refusal."""
        self._under_way = 0

    async def call(self) -> None:
        number, channel = next(self._numbers), next(self._channels)
        store = (self._store, self._put, self._append)[number % 3]
        self._under_way += 1
        if await store(number, channel):
            self.answered.append(time.monotonic())
        self._under_way -= 1

    async def _store(self, number: int, channel: grpc.aio.Channel) -> bool:
        requests = [
            pb.StoreMemoryRequest(
                session_id=f"crowd-{number}", content=f"fact {number}-{n}", never_expires=True
            )
            for n in range(BATCH)
        ]
        batch = pb.BatchStoreMemoriesRequest(requests=requests)
        memory = MemoryServiceStub(channel)
        call = await self._history.call(f"{number}", memory, batch, TIMEOUT_SECONDS)
        if call.details:
            self.refusals.append(call.details)
        return call.answer is not None

    async def _put(self, number: int, channel: grpc.aio.Channel) -> bool:
        journal = self._history.document_journal(f"{number}", f"crowd-{number}")
        texts = {f"fact {n}": f"document {number}-{n}" for n in range(BATCH)}
        puts = [
            document_pb2.PutDocumentRequest(
                document=document_pb2.Document(namespace=[journal.caller], key=key, text=text)
            )
            for key, text in texts.items()
        ]
        batch = document_pb2.BatchWriteDocumentsRequest(
            session_id=journal.session_id,
            writes=[document_pb2.DocumentWrite(put=put) for put in puts],
        )
        answer = await self._made(
            DocumentServiceStub(channel).BatchWriteDocuments, batch, "documents"
        )
        if answer is None:
            return False
        bodies = {((journal.caller,), key): Body("text", t.encode()) for key, t in texts.items()}
        journal.add_puts(self._history.now(), bodies)
        return True

    async def _append(self, number: int, channel: grpc.aio.Channel) -> bool:
        calls = self._history.shared_conversations(f"{number}", f"crowd-{number}")
        messages = [
            conversation_pb2.Message(parts=[{"text": f"message {number}-{n}"}])
            for n in range(BATCH)
        ]
        request = conversation_pb2.AppendMessagesRequest(
            session_id=calls.session_id, conversation_id="talk", messages=messages
        )
        conversations = ConversationServiceStub(channel)
        answer = await self._made(conversations.AppendMessages, request, "conversations")
        if answer is None:
            return False
        bodies = tuple(said_of(message).body for message in messages)
        revision = answer.conversation.revision
        calls.appends.append(Append("talk", bodies, revision, self._history.now()))
        return True

    async def _made(self, method: Callable[..., Awaitable[Any]], request: Any, kind: Kind) -> Any:
        """The answer; None where it is refused."""
        try:
            answer = await method(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._history.end_of(kind, error)
            self.refusals.append(details_of(error))
            return None
        self._history.end_of(kind, None)
        return answer

    async def in_turn(self, end: float) -> None:
        """Call repeatedly until a moment."""
        while time.monotonic() < end:
            await self.call()

    async def at_a_rate(self, rate: float, end: float) -> None:
        """Start this many calls per second, regardless of earlier ones, and until one is refused.

        A busy machine takes longer to have too many calls at once, and where its peak was measured
        in a slow second, ten times that is none: after the end, the rate doubles each second.
        """
        calls, due, last = [], 0.0, time.monotonic()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (now := time.monotonic()) < end or not self.refusals:
                if now >= end:
                    rate *= 2 ** (now - last)
                due += (now - last) * rate
                last = now
                count = min(int(due) - len(calls), MOST_UNDER_WAY - self._under_way)
                calls += [asyncio.create_task(self.call()) for _ in range(count)]
                await asyncio.sleep(0.005)
        await asyncio.gather(*calls)


def retry_delays(details: list[bytes]) -> list[float]:
    """The delays in RetryInfo of the refusals, in seconds."""
    found = []
    for data in details:
        for detail in status_pb2.Status.FromString(data).details:
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                found.append(retry.retry_delay.ToMilliseconds() / 1000)
    return found


async def test_ten_times_the_load_is_refused_at_once_and_the_rest_is_done(
    request, command_line, database_url, database_kind, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    await server.start()
    span = SCALE.overload_milliseconds / 1000
    pid = server.process.pid
    # The database's processes do part of the work.
    database = (
        request.getfixturevalue("postgres_server").pid if "postgres" in database_url else None
    )

    def used() -> float:
        """Processor seconds used, which other processes on the machine do not change."""
        others = children(database) if database else []
        return sum(map(cpu_seconds, (pid, *others)))

    async def measured(load: Awaitable[object]) -> Measured:
        answered, processors, begin = len(crowd.answered), used(), time.monotonic()
        await load
        count = len(crowd.answered) - answered
        return Measured(count / (time.monotonic() - begin), count / (used() - processors))

    def at_peak() -> Awaitable[object]:
        end = time.monotonic() + span
        return asyncio.gather(*(crowd.in_turn(end) for _ in range(CALLERS_AT_PEAK)))

    channels = [open_channel(server.address) for _ in range(CHANNELS)]
    crowd = Crowd(history, channels)
    await crowd.in_turn(time.monotonic() + 0.5)

    # Before and after, since writing to a larger database takes longer.
    before = await measured(at_peak())
    rate = FACTOR * before.per_second
    overloaded = await measured(crowd.at_a_rate(rate, time.monotonic() + span))
    after = await measured(at_peak())
    peak = (before.per_cpu_second + after.per_cpu_second) / 2
    goodput = overloaded.per_cpu_second / peak

    assert peak_bytes(pid) < MOST_BYTES
    stored = await read_stored(database_url)
    await asyncio.gather(*(channel.close() for channel in channels))
    await server.stop()
    faults = find_faults(history, stored)
    fault_report(f"overload, {database_kind}: {goodput:.2f} of peak", FACTOR, history, faults)
    assert not faults
    assert not history.refusals_besides({"RESOURCE_EXHAUSTED"})
    assert history.answered.keys() == {"documents", "conversations"}
    delays = retry_delays(crowd.refusals)
    assert len(delays) == history.codes["RESOURCE_EXHAUSTED"]
    assert min(delays) >= 0.5
    assert goodput * 100 >= SCALE.overload_percent
