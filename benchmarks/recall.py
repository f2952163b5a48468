"""Measure retrieval on LoCoMo as callers see it: over gRPC, on both databases.

make bench-recall LOCOMO=path/to/locomo10.json

Turns are stored as memories, and in a run of their own appended to conversations and promoted.

The weights that ship were fitted on the first four conversations; `python benchmarks/fit_recall.py`
gives the figures for held-out conversations.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import TYPE_CHECKING

import locomo
from harness import KINDS, serving
from matplotlib import pyplot as plt

from memoryd.client import open_channel
from memoryd.recall.embedders.embedder import load
from memoryd.recall.index import Document, SessionIndex
from memoryd.v1 import conversation_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from grpc.aio import Channel
    from harness import Server

EMBEDDERS = ("none", "multilingual", "static", "minilm")
DEPTH = 50
BATCH = 100
CUTS = (5, 10, 25, 50)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one server for every question, in the data's order."""

    found: list[list[str]]
    """Ids of turns, best first."""
    server_microseconds: float
    """The server's processor time per query."""
    median_milliseconds: float
    """Latencies at the caller, one query at a time."""


async def store(channel: Channel, session_id: str, turns: Sequence[locomo.Turn]) -> list[str]:
    """Store turns as memories; give the ids of these."""
    memory = MemoryServiceStub(channel)
    ids: list[str] = []
    for start in range(0, len(turns), BATCH):
        requests = [store_request(session_id, turn) for turn in turns[start : start + BATCH]]
        answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
        ids += [response.memory.memory_id for response in answer.responses]
    return ids


async def promote(channel: Channel, session_id: str, turns: Sequence[locomo.Turn]) -> list[str]:
    """Append turns to a conversation for each episode, and promote them; as `store`."""
    stub = ConversationServiceStub(channel)
    ids: list[str] = []
    for episode, said in groupby(turns, lambda turn: turn.episode):
        named = {"session_id": session_id, "conversation_id": episode}
        messages = [message_of(turn) for turn in said]
        await stub.AppendMessages(
            conversation_pb2.AppendMessagesRequest(**named, messages=messages)
        )
        answer = await stub.PromoteMessages(
            conversation_pb2.PromoteMessagesRequest(**named, since_last=True, never_expires=True)
        )
        ids += [memory.memory_id for memory in answer.memories]
    return ids


WAYS: dict[str, Callable[[Channel, str, Sequence[locomo.Turn]], Awaitable[list[str]]]] = {
    "stored": store,
    "promoted": promote,
}


async def run(
    server: Server, conversations: Sequence[locomo.Conversation], embedder: str, way: str
) -> Outcome:
    """Put every conversation into a session, and ask every question."""
    found: list[list[str]] = []
    times: list[float] = []
    async with open_channel(server.address) as channel:
        memory = MemoryServiceStub(channel)
        turns: dict[str, list[str]] = {}
        for number, conversation in enumerate(conversations):
            session_id = f"conversation-{number}"
            ids = await WAYS[way](channel, session_id, conversation.turns)
            for turn, memory_id in zip(conversation.turns, ids, strict=True):
                turns.setdefault(memory_id, []).append(turn.turn_id)
            last = conversation.turns[-1].content
            await warm(memory, session_id, last, vectors=embedder != "none")
        before = server.process.cpu_seconds()
        for number, conversation in enumerate(conversations):
            for question in conversation.questions:
                began = time.perf_counter()
                answer = await memory.RetrieveMemories(
                    pb.RetrieveMemoriesRequest(
                        session_id=f"conversation-{number}",
                        query=question.text,
                        limit=DEPTH,
                        peek=True,
                    )
                )
                times.append(time.perf_counter() - began)
                found.append([i for r in answer.results for i in turns[r.memory.memory_id]])
        used = server.process.cpu_seconds() - before
    return Outcome(found, used / len(found) * 1e6, statistics.median(times) * 1e3)


def store_request(session_id: str, turn: locomo.Turn) -> pb.StoreMemoryRequest:
    request = pb.StoreMemoryRequest(session_id=session_id, content=turn.content, never_expires=True)
    request.metadata.update(
        {
            "speaker": turn.speaker,
            "occurred_at": turn.occurred_at.isoformat(),
            "episode": turn.episode,
        }
    )
    return request


def message_of(turn: locomo.Turn) -> conversation_pb2.Message:
    message = conversation_pb2.Message(author=turn.speaker, parts=[{"text": turn.content}])
    message.occur_time.FromDatetime(turn.occurred_at)
    return message


async def warm(memory: MemoryServiceStub, session_id: str, last: str, *, vectors: bool) -> None:
    """Query until all vectors exist; before, only words count."""
    request = pb.RetrieveMemoriesRequest(session_id=session_id, query=last, peek=True)
    while True:
        answer = await memory.RetrieveMemories(request)
        if not vectors or any(
            result.memory.content == last and result.breakdown.semantic for result in answer.results
        ):
            return
        await asyncio.sleep(0.2)


def figures(
    conversations: Sequence[locomo.Conversation], found: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Percentages, averaged over questions."""
    questions = [q for conversation in conversations for q in conversation.questions]
    asked = list(zip(questions, found, strict=True))
    result = {
        f"R@{cut}": statistics.mean(locomo.recall(ids, q.evidence, cut) for q, ids in asked)
        for cut in CUTS
    }
    result["nDCG@10"] = statistics.mean(locomo.ndcg(ids, q.evidence, 10) for q, ids in asked)
    for category, name in locomo.CATEGORIES.items():
        of_category = [(q, ids) for q, ids in asked if q.category == category]
        if of_category:
            result[f"R@10 {name}"] = statistics.mean(
                locomo.recall(ids, q.evidence, 10) for q, ids in of_category
            )
    return {name: 100 * value for name, value in result.items()}


def index_bytes(conversations: Sequence[locomo.Conversation], choice: str) -> float:
    """The size of the index with vectors, in bytes per memory."""
    embedder = load(choice)
    total = 0
    for conversation in conversations:
        documents = [
            Document(
                str(place),
                turn.content,
                place,
                turn.occurred_at,
                speaker=turn.speaker,
                occurred_at=turn.occurred_at,
                episode=turn.episode,
            )
            for place, turn in enumerate(conversation.turns)
        ]
        dimensions = embedder.dimensions if embedder else 0
        total += SessionIndex(documents, dimensions=dimensions).nbytes
    return total / sum(len(conversation.turns) for conversation in conversations)


def plot(rows: dict[str, dict[str, float]], file: Path) -> None:
    """Plot recall against depth, one line per system."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, row in rows.items():
        axes.plot(CUTS, [row[f"R@{cut}"] for cut in CUTS], marker="o", label=name)
    axes.set(xlabel="results", ylabel="evidence found, %", title="LoCoMo", xticks=CUTS)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--embedders", nargs="+", default=EMBEDDERS)
    parser.add_argument("--ways", nargs="+", default=[*WAYS])
    parser.add_argument("--plot", type=Path, default=Path("build/recall.png"))
    arguments = parser.parse_args()
    conversations = locomo.load(arguments.data)
    count = sum(len(conversation.questions) for conversation in conversations)
    print(f"{len(conversations)} conversations, {count} questions; % of the evidence found")
    measures = [*(f"R@{cut}" for cut in CUTS), "nDCG@10"]
    print(
        f"{'embedder':10}{'turns':10}{'database':12}", *(f"{name:>8}" for name in measures), end=""
    )
    print(f"{'server µs':>11}{'p50 ms':>8}{'bytes':>7}")
    rows: dict[str, dict[str, float]] = {}
    for embedder in arguments.embedders:
        outcomes = {}
        for way, kind in product(arguments.ways, KINDS):
            with serving(kind, MEMORYD_EMBEDDER=embedder, MEMORY_MAX_ENTRIES="1000") as server:
                outcome = asyncio.run(run(server, conversations, embedder, way))
            outcomes[way, kind] = outcome
            row = figures(conversations, outcome.found)
            rows.setdefault(embedder, row)
            print(
                f"{embedder:10}{way:10}{kind:12}",
                *(f"{row[name]:8.1f}" for name in measures),
                end="",
            )
            print(
                f"{outcome.server_microseconds:11,.0f}{outcome.median_milliseconds:8.2f}"
                f"{index_bytes(conversations, embedder):7,.0f}",
                flush=True,
            )
        rankings = {tuple(map(tuple, outcome.found)) for outcome in outcomes.values()}
        print(f"{'':10}the same rankings in all runs: {'yes' if len(rankings) == 1 else 'NO'}")
    for embedder, row in rows.items():
        kinds = [name for name in row if " " in name]
        print(f"{embedder}:", ", ".join(f"{name} {row[name]:.1f}" for name in kinds))
    arguments.plot.parent.mkdir(exist_ok=True)
    plot(rows, arguments.plot)
    print(f"plot: {arguments.plot}")


if __name__ == "__main__":
    main()
