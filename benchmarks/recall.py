"""Measure retrieval as callers see it: over gRPC, for every collection given, on both databases.

make bench-recall LOCOMO=locomo10.json BEAM=beam.json FRIENDS=friends.json PRIVATE=chats.json

Any of these, and `DATA="more.json files.json"`; `dialogues.py` says in which forms. The short facts
of `recall_facts.py` that no weight was fitted on come along: every part of theirs is a session.

Turns are stored as memories. Where all of a collection's turns have an episode and a time, they are
in a run of their own appended to conversations and promoted, too. Beside what is found stands what
BM25 alone finds in the same sessions. Figures are per cent, means over questions.

The weights that ship were fitted on parts of such collections: `fit_recall.py` gives the figures
for dialogues, and for collections, that were left out of the fit.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dialogues
import recall_facts
from dialogues import Dialogue, Question, Turn
from harness import KINDS, serving
from locomo import ndcg, recall

from memoryd.client import open_channel
from memoryd.recall.embedders.embedder import load
from memoryd.recall.index import Document, SessionIndex
from memoryd.v1 import conversation_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from grpc.aio import Channel
    from harness import Server

    from memoryd.v1.memory_pb2_grpc import MemoryServiceAsyncStub

EMBEDDERS = ("none", "multilingual", "static", "minilm")
ALONE = "BM25 alone"
FACTS = "facts"
ALL = "all"
"""Of a collection's kinds."""
DEPTH = 50
MEASURES = ("R@5", "R@10", "R@25", "nDCG@10")
HEAD = (
    "collection", "embedder", "turns", "database", "questions", *MEASURES, "server µs", "p50 ms",
    "bytes a memory",
)  # fmt: skip
OF_KINDS = ("R@5", "nDCG@10")
OF_FACTS = ("hit@1", "R@3")
BATCH = 50
"""Memories or messages of a call: of the longest, fewer bytes than a server receives at once."""
MOST_MEMORIES = 100_000
"""That a session may hold."""
CACHE_BYTES = 1 << 30
"""Room for all sessions in memory."""
WARM_SECONDS = 1_800.0
"""So long at most it takes until a session has its vectors."""
BEGIN = "<!-- bench-recall: begin -->"
END = "<!-- bench-recall: end -->"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Collection:
    name: str
    dialogues: list[Dialogue]
    compared: tuple[str, ...] = OF_KINDS
    """The measures that its kinds are shown by."""

    @property
    def questions(self) -> list[Question]:
        return [question for dialogue in self.dialogues for question in dialogue.questions]

    @property
    def is_told(self) -> bool:
        """Whether it can be appended to conversations without losing or gaining metadata."""
        return all(turn.episode and turn.occurred_at for d in self.dialogues for turn in d.turns)


class Outcome(NamedTuple):
    """What one server found for every question, in the collection's order."""

    found: list[list[int]]
    """Places of turns, best first."""
    server_microseconds: float
    """The server's processor time per query."""
    median_milliseconds: float
    """Latencies at the caller, one query at a time."""


class Run(NamedTuple):
    collection: Collection
    embedder: str
    way: str
    """Of `WAYS`."""
    database: str
    outcome: Outcome


def facts() -> Collection:
    """The kept half of the short facts; times are told only where they differ."""
    found = []
    for part in recall_facts.parts():
        label, _, language = part.label.partition(": ")
        if part.half != "kept" or language == "en":  # it is no other language
            continue
        apart = len({document.created_at for document in part.documents}) > 1
        turns = tuple(
            Turn(d.content, "", d.created_at if apart else None, "") for d in part.documents
        )
        place_of = {int(d.memory_id): place for place, d in enumerate(part.documents)}
        questions = tuple(
            Question(q.text, label, frozenset(place_of[n] for n in q.evidence))
            for q in part.questions
        )
        found.append(Dialogue(FACTS, part.label, turns, questions))
    return Collection(FACTS, found, OF_FACTS)


async def store(channel: Channel, session_id: str, turns: Sequence[Turn]) -> list[pb.Memory]:
    """Store turns as memories; give these."""
    memory = MemoryServiceStub(channel)
    made: list[pb.Memory] = []
    for batch in _batches(turns):
        requests = [store_request(session_id, turn) for turn in batch]
        answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
        made += [response.memory for response in answer.responses]
    return made


async def promote(channel: Channel, session_id: str, turns: Sequence[Turn]) -> list[pb.Memory]:
    """Append turns to a conversation for each episode, and promote them; as `store`."""
    stub = ConversationServiceStub(channel)
    made: list[pb.Memory] = []
    for episode, said in groupby(turns, lambda turn: turn.episode):
        named = {"session_id": session_id, "conversation_id": episode}
        for batch in _batches([*said]):
            messages = [message_of(turn) for turn in batch]
            await stub.AppendMessages(
                conversation_pb2.AppendMessagesRequest(**named, messages=messages)
            )
            answer = await stub.PromoteMessages(
                conversation_pb2.PromoteMessagesRequest(
                    **named, since_last=True, never_expires=True
                )
            )
            made += answer.memories
    return made


WAYS: dict[str, Callable[[Channel, str, Sequence[Turn]], Awaitable[list[pb.Memory]]]] = {
    "stored": store,
    "promoted": promote,
}


def _batches(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    return (turns[start : start + BATCH] for start in range(0, len(turns), BATCH))


async def ask(server: Server, collection: Collection, embedder: str, way: str) -> Outcome:
    """Put every dialogue into a session, and ask every question."""
    found: list[list[int]] = []
    times: list[float] = []
    sessions: list[tuple[str, dict[str, list[int]]]] = []
    async with open_channel(server.address) as channel:
        memory = MemoryServiceStub(channel)
        for number, dialogue in enumerate(collection.dialogues):
            session_id = f"{way}-{collection.name}-{number}"
            await make_room(channel, session_id)
            made = await WAYS[way](channel, session_id, dialogue.turns)
            places: dict[str, list[int]] = {}
            for place, one in zip(range(len(dialogue.turns)), made, strict=True):
                places.setdefault(one.memory_id, []).append(place)
            sessions.append((session_id, places))
            await warm(memory, dialogue, made[-1], vectors=embedder != "none")
        before = server.process.cpu_seconds()
        for dialogue, (session_id, places) in zip(collection.dialogues, sessions, strict=True):
            for question in dialogue.questions:
                # All are as important: what was stored a second later has only faded less.
                request = pb.RetrieveMemoriesRequest(
                    session_id=session_id,
                    query=question.text,
                    limit=DEPTH,
                    peek=True,
                    importance_weight=0.0,
                )
                began = time.perf_counter()
                answer = await memory.RetrieveMemories(request)
                times.append(time.perf_counter() - began)
                found.append([i for r in answer.results for i in places[r.memory.memory_id]])
        used = server.process.cpu_seconds() - before
    return Outcome(found, used / len(found) * 1e6, statistics.median(times) * 1e3)


async def make_room(channel: Channel, session_id: str) -> None:
    """Let a new session hold a dialogue of any length."""
    request = session_pb2.UpdateSessionRequest(allow_missing=True)
    request.session.session_id = session_id
    request.session.memory_limit = MOST_MEMORIES
    request.update_mask.paths.append("memory_limit")
    await SessionServiceStub(channel).UpdateSession(request)


def store_request(session_id: str, turn: Turn) -> pb.StoreMemoryRequest:
    """A turn with the metadata it has."""
    request = pb.StoreMemoryRequest(session_id=session_id, content=turn.content, never_expires=True)
    metadata = {
        "speaker": turn.speaker,
        "occurred_at": turn.occurred_at.isoformat() if turn.occurred_at else "",
        "episode": turn.episode,
    }
    request.metadata.update({name: value for name, value in metadata.items() if value})
    return request


def message_of(turn: Turn) -> conversation_pb2.Message:
    part = conversation_pb2.Part(text=turn.content)
    message = conversation_pb2.Message(author=turn.speaker, parts=[part])
    if turn.occurred_at:
        message.occur_time.FromDatetime(turn.occurred_at)
    return message


async def warm(
    memory: MemoryServiceAsyncStub, dialogue: Dialogue, last: pb.Memory, *, vectors: bool
) -> None:
    """Query until the last memory has its vector, as all before it then have."""
    # One question may have stop words alone, which an embedder that adds up words does not embed.
    every = " ".join(question.text for question in dialogue.questions)
    request = pb.RetrieveMemoriesRequest(
        session_id=last.session_id,
        query=every[: dialogues.MAX_CHARACTERS],
        filter=pb.MemoryFilter(created_after=last.create_time),
        limit=DEPTH,
        peek=True,
        diversify=False,
    )
    until = time.monotonic() + WARM_SECONDS
    while time.monotonic() < until:
        answer = await memory.RetrieveMemories(request)
        if not vectors or any(
            result.memory.memory_id == last.memory_id and result.breakdown.semantic
            for result in answer.results
        ):
            return
        await asyncio.sleep(0.2)
    raise SystemExit(
        f"session {last.session_id} lacks vectors after {WARM_SECONDS:g} s; see the server's log"
    )


def documents_of(dialogue: Dialogue) -> Iterator[Document]:
    """A dialogue's turns as the index has them, with their places as ids."""
    for n, turn in enumerate(dialogue.turns):
        yield Document(str(n), turn.content, n, NOW, turn.speaker, turn.occurred_at, turn.episode)


def index_bytes(collection: Collection, embedder: str) -> float:
    """The size of the indexes with vectors, by their own estimate, in bytes per memory."""
    loaded = load(embedder)
    dimensions = loaded.dimensions if loaded else 0
    indexes = [SessionIndex(documents_of(d), dimensions=dimensions) for d in collection.dialogues]
    return sum(index.nbytes for index in indexes) / sum(map(len, indexes))


def by_bm25(collection: Collection) -> list[list[int]]:
    """What this signal alone finds for every question, as `Outcome.found`."""
    found = []
    for dialogue in collection.dialogues:
        index = SessionIndex(documents_of(dialogue))
        found += [
            [int(i) for i in recall_facts.by_bm25(question.text, index)]
            for question in dialogue.questions
        ]
    return found


def measured(found: Sequence[int], evidence: frozenset[int]) -> dict[str, float]:
    """Every measure of what was found for a question, in per cent."""
    shares = {f"R@{k}": recall(found, evidence, k) for k in (3, 5, 10, 25)}
    shares["nDCG@10"] = ndcg(found, evidence, 10)
    shares["hit@1"] = float(not evidence.isdisjoint(found[:1]))
    return {name: 100 * share for name, share in shares.items()}


def figures(collection: Collection, found: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
    """The mean of every measure, by kind of question; first of `ALL`. Rounded as they are shown."""
    by_kind: dict[str, list[dict[str, float]]] = {ALL: []}
    for question, ids in zip(collection.questions, found, strict=True):
        row = measured(ids, question.evidence)
        by_kind[ALL].append(row)
        if question.kind:
            by_kind.setdefault(question.kind, []).append(row)
    return {
        kind: {name: round(statistics.mean(row[name] for row in rows), 1) for name in rows[0]}
        for kind, rows in by_kind.items()
    }


@dataclass(slots=True)
class Report:
    """Tables in Markdown, and what is below BM25 alone in them."""

    lines: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    def show(self, collections: Sequence[Collection], runs: Sequence[Run]) -> None:
        """A table of all runs, one of the kinds of each collection, and what does not hold."""
        rows: list[list[str]] = []
        found: list[dict[str, list[list[int]]]] = []
        for collection in collections:
            by_system = {ALONE: by_bm25(collection)}
            rows.append([*_row(collection, ALONE, "", "", by_system[ALONE]), "", "", ""])
            for run in runs:
                if run.collection is collection:
                    rows.append(_row_of(run))
                    by_system.setdefault(run.embedder, run.outcome.found)
            found.append(by_system)
        self.lines += [f"Measured on {datetime.now(UTC):%Y-%m-%d}; per cent.", ""]
        self._table(HEAD, rows)
        for collection, by_system in zip(collections, found, strict=True):
            self._kinds(collection, by_system)
        self.lines += [f"The same rankings in all runs: {_differing(runs) or 'yes'}.", ""]
        self.lines += [f"Below {ALONE}: {'; '.join(self.below) or 'no collection and no kind'}."]

    def _kinds(self, collection: Collection, by_system: dict[str, list[list[int]]]) -> None:
        every = {system: figures(collection, ids) for system, ids in by_system.items()}
        kinds = [question.kind for question in collection.questions]
        rows = []
        for kind, plain in every[ALONE].items():
            count = len(kinds) if kind == ALL else kinds.count(kind)
            rows.append([kind, f"{count:,}"])
            for system, by_kind in every.items():
                got = by_kind[kind]
                rows[-1].append(" / ".join(f"{got[name]:.1f}" for name in collection.compared))
                self.below += [
                    f"{collection.name}, {kind}, {system}: {name} {got[name]:.1f},"
                    f" not {plain[name]:.1f}"
                    for name in collection.compared
                    if got[name] < plain[name]
                ]
        head = f"{collection.name}: {' / '.join(collection.compared)}"
        self._table((head, "questions", *every), rows)

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        ruled = [head, ["---"] * len(head), *rows]
        self.lines += [f"| {' | '.join(cells)} |" for cells in ruled] + [""]


def _row(
    collection: Collection, system: str, way: str, database: str, found: Sequence[Sequence[int]]
) -> list[str]:
    of_all = figures(collection, found)[ALL]
    counts = f"{len(collection.questions):,}"
    means = [f"{of_all[name]:.1f}" for name in MEASURES]
    return [collection.name, system, way, database, counts, *means]


def _row_of(run: Run) -> list[str]:
    cells = _row(run.collection, run.embedder, run.way, run.database, run.outcome.found)
    return [
        *cells,
        f"{run.outcome.server_microseconds:,.0f}",
        f"{run.outcome.median_milliseconds:.2f}",
        f"{index_bytes(run.collection, run.embedder):,.0f}",
    ]


def _differing(runs: Sequence[Run]) -> str:
    """What is not ranked alike by all runs with the same embedder."""
    every: dict[str, list[list[list[int]]]] = {}
    for run in runs:
        name = f"{run.collection.name} with {run.embedder}"
        every.setdefault(name, []).append(run.outcome.found)
    counts = {
        name: sum(
            any(ids != first for ids in others) for first, *others in zip(*found, strict=True)
        )
        for name, found in every.items()
    }
    told = ", ".join(f"{count:,} questions of {name}" for name, count in counts.items() if count)
    return f"not for {told}" if told else ""


def measure(
    collections: Sequence[Collection],
    embedders: Sequence[str],
    databases: Sequence[str],
    ways: Sequence[str],
) -> Iterator[Run]:
    """Every collection with every embedder on every database, in every way it can be put there."""
    for embedder in embedders:
        for database in databases:
            settings = {
                "MEMORYD_EMBEDDER": embedder,
                "MEMORYD_SESSION_CACHE_BYTES": str(CACHE_BYTES),
            }
            with serving(database, **settings) as server:
                for collection in collections:
                    for way in ways:
                        if way == "promoted" and not collection.is_told:
                            continue
                        outcome = asyncio.run(ask(server, collection, embedder, way))
                        yield Run(collection, embedder, way, database, outcome)


def written(document: str, lines: Sequence[str]) -> str:
    """A document with lines in place of what stands between its markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the file to write to needs the lines {BEGIN} and {END}, in this order")
    return "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="collections, as JSON")
    parser.add_argument("--embedders", nargs="+", default=EMBEDDERS, help="names, or package:Class")
    parser.add_argument("--databases", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--without-facts", action="store_true")
    parser.add_argument("--write", type=Path, help="a document that gets the tables")
    parser.add_argument("--gate", action="store_true", help="fail if anything is below BM25 alone")
    given = parser.parse_args()
    if given.write:
        written(given.write.read_text(encoding="utf-8"), ())  # rather than after hours
    collections = [Collection(path.stem, dialogues.load(path)) for path in given.paths]
    collections += [] if given.without_facts else [facts()]
    names = [collection.name for collection in collections]
    if len({*names}) < len(names) or not names:
        parser.error(f"name files that differ in their names, not {', '.join(names) or 'none'}")
    runs = []
    for each in measure(collections, given.embedders, given.databases, given.ways):
        print(*_row_of(each), sep="  ", file=sys.stderr, flush=True)
        runs.append(each)
    report = Report()
    report.show(collections, runs)
    print("\n".join(report.lines))
    if given.write:
        document = given.write.read_text(encoding="utf-8")
        given.write.write_text(written(document, report.lines), encoding="utf-8")
    if given.gate and report.below:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
