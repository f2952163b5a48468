"""PurgeMemories and EraseSession, and what the database has afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

TIMEOUT_SECONDS = 60


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: type, memory: pb.Memory) -> object:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id)


def purge(session_id: str = "user-123", *, force: bool = True, **filters: object):
    return pb.PurgeMemoriesRequest(
        session_id=session_id, force=force, filter=pb.MemoryFilter(**filters)
    )


def erase(session_id: str = "user-123") -> pb.EraseSessionRequest:
    return pb.EraseSessionRequest(session_id=session_id)


async def listed(memory: MemoryServiceStub, session_id: str = "user-123") -> list[str]:
    answer = await memory.ListMemories(
        pb.ListMemoriesRequest(session_id=session_id, page_size=1000, show_deleted=True)
    )
    return [m.content for m in answer.memories]


# Purging


async def test_without_force_a_purge_counts_and_samples_only(memory):
    stored = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(3)]
    answer = await memory.PurgeMemories(purge(force=False))
    assert answer.purge_count == 3
    assert list(answer.sample) == stored
    assert await listed(memory) == ["fact 0", "fact 1", "fact 2"]
    (first,) = (
        await memory.ListMemories(pb.ListMemoriesRequest(session_id="user-123", page_size=1))
    ).memories
    assert first.revision == 1


async def test_a_sample_is_the_first_few(memory):
    for session_id in ("user-123", "user-124"):
        requests = [store(f"fact {n}", session_id) for n in range(130)]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    answer = await memory.PurgeMemories(purge(force=False))
    assert answer.purge_count == 130
    assert [m.content for m in answer.sample] == [f"fact {n}" for n in range(20)]


async def test_a_purge_deletes_permanently(memory, tables):
    stored = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(3)]
    answer = await memory.PurgeMemories(purge())
    assert (answer.purge_count, list(answer.sample)) == (3, [])
    assert await listed(memory) == []
    assert await tables.rows("SELECT id FROM memories") == []
    for one in stored:
        for method, request in (
            (memory.GetMemory, pb.GetMemoryRequest),
            (memory.UndeleteMemory, pb.UndeleteMemoryRequest),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(named(request, one))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert (await memory.PurgeMemories(purge())).purge_count == 0


async def test_a_purge_of_an_absent_session_purges_nothing(memory, tables):
    assert (await memory.PurgeMemories(purge())).purge_count == 0
    assert (await memory.PurgeMemories(purge(force=False))).purge_count == 0
    assert sum((await tables.naming("user-123")).values()) == 0


async def test_deleted_and_expired_memories_are_purged_too(memory, clock, running, tables):
    deleted = (await memory.StoreMemory(store("deleted"))).memory
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, deleted))
    await memory.StoreMemory(store("swept", ttl=timedelta(minutes=1)))
    clock.move(timedelta(minutes=1))
    await running.server.sweeper.run_once()
    await memory.StoreMemory(store("expired", ttl=timedelta(minutes=1)))
    clock.move(timedelta(minutes=1))
    await memory.StoreMemory(store("live"))
    dry = await memory.PurgeMemories(purge(force=False))
    assert [m.content for m in dry.sample] == ["deleted", "swept", "expired", "live"]
    assert dry.purge_count == 4
    assert (await memory.PurgeMemories(purge())).purge_count == 4
    assert await tables.rows("SELECT id FROM memories") == []


@pytest.mark.parametrize(
    ("filters", "purged"),
    [
        ({"content_types": [pb.CONTENT_TYPE_FACT, pb.CONTENT_TYPE_PREFERENCE]}, [1, 2]),
        ({"metadata": {"topic": "tea"}}, [0, 2]),
        ({"metadata": {"topic": "tea", "depth": {"a": [1, None]}}}, [2]),
        ({"metadata": {"topic": None}}, [3]),
        ({"min_importance": 0.6}, [1, 3]),
        ({"metadata": {"topic": "tea"}, "content_types": [pb.CONTENT_TYPE_CONTEXT]}, [0]),
        ({"metadata": {"topic": "milk"}}, []),
    ],
)
async def test_only_what_the_filter_matches_is_purged(memory, filters, purged):
    contents = [f"fact {n}" for n in range(4)]
    facts = [
        {"metadata": {"topic": "tea"}, "importance": 0.1},
        {"content_type": pb.CONTENT_TYPE_FACT, "importance": 0.9},
        {
            "content_type": pb.CONTENT_TYPE_PREFERENCE,
            "metadata": {"topic": "tea", "depth": {"a": [1, None]}},
            "importance": 0.5,
        },
        {"metadata": {"topic": None}, "importance": 0.6},
    ]
    for content, fields in zip(contents, facts, strict=True):
        await memory.StoreMemory(store(content, **fields))
    dry = await memory.PurgeMemories(purge(force=False, **filters))
    assert [m.content for m in dry.sample] == [contents[n] for n in purged]
    assert (await memory.PurgeMemories(purge(**filters))).purge_count == len(purged)
    assert await listed(memory) == [c for n, c in enumerate(contents) if n not in purged]


async def test_times_bound_what_is_purged(memory, clock):
    begin = clock.now
    for n in range(3):
        await memory.StoreMemory(store(f"fact {n}"))
        clock.move(timedelta(minutes=1))
    between = {
        "created_after": begin + timedelta(minutes=1),
        "created_before": begin + timedelta(minutes=2),
    }
    assert (await memory.PurgeMemories(purge(**between))).purge_count == 1
    assert await listed(memory) == ["fact 0", "fact 2"]


async def test_more_than_one_transaction_takes_are_purged(memory, tables):
    for start in range(0, 2500, 500):
        requests = [store(f"fact {n}") for n in range(start, start + 500)]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert (await memory.PurgeMemories(purge(force=False))).purge_count == 2500
    assert (await memory.PurgeMemories(purge())).purge_count == 2500
    assert await tables.rows("SELECT id FROM memories") == []


async def test_nothing_keeps_the_text_of_purged_memories(memory, tables):
    request_id = str(uuid.uuid4())
    secret = store("the code is 4711", request_id=request_id, metadata={"hint": "no 4711"})
    stored = (await memory.StoreMemory(secret)).memory
    merged = store("the code is 4711", request_id=str(uuid.uuid4()))
    assert (await memory.StoreMemory(merged)).memory.memory_id == stored.memory_id
    for content in ("the code is 47110", "the code is 471100"):
        await memory.UpdateMemory(
            pb.UpdateMemoryRequest(
                memory=pb.Memory(
                    session_id="user-123",
                    memory_id=stored.memory_id,
                    content=content,
                    metadata={"hint": content},
                )
            )
        )
    kept = store("to be kept", request_id=str(uuid.uuid4()))
    await memory.StoreMemory(kept)
    await memory.StoreMemory(store("to be kept", importance=0.9, request_id=str(uuid.uuid4())))
    before = await tables.everything()
    assert "4711" in before
    assert stored.content_hash in before
    assert (await memory.PurgeMemories(purge(metadata={"hint": "the code is 471100"}))).purge_count
    after = await tables.everything()
    for text_of_it in ("4711", "hint", stored.content_hash, stored.semantic_hash):
        assert text_of_it not in after
    # Memories that were not purged keep their versions and answers.
    assert (await tables.rows("SELECT count(*) FROM memory_history WHERE state IS NOT NULL")) == [
        (1,)
    ]
    assert after.count("to be kept") == before.count("to be kept") == 3


async def test_a_request_retried_after_a_purge_is_answered_and_stores_nothing(memory):
    request = store(
        "Prefers e-mail.", request_id=str(uuid.uuid4()), metadata={"a": [1]}, importance=0.7
    )
    first = await memory.StoreMemory(request)
    await memory.PurgeMemories(purge())
    assert await memory.StoreMemory(request) == first
    assert await listed(memory) == []
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.StoreMemory(store("another", request_id=request.request_id))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_content_that_was_purged_can_be_stored_again(memory):
    first = await memory.StoreMemory(store())
    await memory.PurgeMemories(purge())
    again = await memory.StoreMemory(store())
    assert again.outcome == pb.STORE_OUTCOME_CREATED
    assert again.memory.memory_id != first.memory.memory_id
    assert again.memory.revision == 3


async def test_concurrent_purges_count_each_memory_once(serve):
    servers = [await serve(), await serve()]
    requests = [store(f"fact {n}") for n in range(100)]
    await servers[0].memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    answers = await asyncio.gather(
        *(servers[n % 2].memory.PurgeMemories(purge()) for n in range(16))
    )
    assert sum(answer.purge_count for answer in answers) == 100


# Erasing


async def fill(memory: MemoryServiceStub, tables, session_id: str) -> None:
    """Fill every table with rows of the session."""
    for n in range(4):
        stored = await memory.StoreMemory(
            store(
                *(f"fact {n}", session_id),
                request_id=str(uuid.uuid4()),
                metadata={"n": n},
                tags=["fact", f"number {n}"],
            )
        )
        await memory.UpdateMemory(
            pb.UpdateMemoryRequest(
                memory=pb.Memory(
                    session_id=session_id, memory_id=stored.memory.memory_id, importance=0.9
                )
            )
        )
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, stored.memory))
    # As an earlier release keeps an answer.
    values = f"'{session_id}', '{uuid.uuid4()}', '{stored.memory.memory_id}'"
    await tables.execute(
        "INSERT INTO store_requests (tenant, session_id, request_id, memory_id, fingerprint,"  # noqa: S608  ours
        f" answer, created_at) VALUES ('default', {values}, '', '{{}}',"
        " '2026-03-01 12:00:00.000000+00:00')"
    )
    await memory.PurgeMemories(purge(session_id, metadata={"n": 0}))
    await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id=session_id, query="fact", peek=True)
    )
    async with asyncio.timeout(30):
        while not (await tables.naming(session_id))["memory_vectors"]:  # noqa: ASYNC110  written after the answer
            await asyncio.sleep(0.02)


async def test_erasing_leaves_no_row_and_gives_a_receipt(
    memory, documents, conversations, clock, tables
):
    for session_id in ("user-123", "user-124"):
        await fill(memory, tables, session_id)
        for text in ("one", "two"):
            await documents.PutDocument(
                document_pb2.PutDocumentRequest(
                    document={"session_id": session_id, "key": "k", "text": text},
                    request_id=str(uuid.uuid4()),
                )
            )
        await conversations.AppendMessages(
            conversation_pb2.AppendMessagesRequest(
                session_id=session_id,
                conversation_id="c",
                messages=[{"parts": [{"text": "hello"}]}],
                request_id=str(uuid.uuid4()),
            )
        )
        gone = {"session_id": session_id, "conversation_id": "gone"}
        await conversations.CreateConversation(
            conversation_pb2.CreateConversationRequest(conversation=gone)
        )
        await conversations.DeleteConversation(conversation_pb2.DeleteConversationRequest(**gone))
    before = await tables.naming("user-123")
    assert all(before.values())
    others = await tables.naming("user-124"), await listed(memory, "user-124")
    receipt = await memory.EraseSession(erase())
    assert receipt.erased_memories == 3
    assert dict(receipt.erased_rows) == before
    assert receipt.erase_time.ToDatetime(clock.now.tzinfo) == clock.now
    assert not any((await tables.naming("user-123")).values())
    assert "user-123" not in await tables.everything()
    assert await listed(memory) == []
    assert (await tables.naming("user-124"), await listed(memory, "user-124")) == others


async def test_expired_and_deleted_memories_count_as_erased(memory, clock):
    await memory.StoreMemory(store("expired", ttl=timedelta(minutes=1)))
    stored = await memory.StoreMemory(store("deleted"))
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, stored.memory))
    await memory.StoreMemory(store("live"))
    clock.move(timedelta(minutes=1))
    assert (await memory.EraseSession(erase())).erased_memories == 3


async def test_an_absent_session_is_erased_at_once_and_again(memory, tables):
    for _ in range(2):
        receipt = await memory.EraseSession(erase())
        assert receipt.erased_memories == 0
        assert not any(receipt.erased_rows.values())
        assert receipt.HasField("erase_time")
    assert "user-123" not in await tables.everything()
    await memory.StoreMemory(store())
    assert (await memory.EraseSession(erase())).erased_memories == 1
    assert (await memory.EraseSession(erase())).erased_memories == 0


async def test_erasing_an_absent_session_writes_nothing(memory, tables, database_kind):
    await memory.StoreMemory(store(session_id="somebody"))
    transactions = {
        "sqlite": "PRAGMA data_version",
        "postgresql": "SELECT pg_snapshot_xmax(pg_current_snapshot())::text",
    }[database_kind]
    before = await tables.rows(transactions)
    await asyncio.gather(*(memory.EraseSession(erase(f"user-{n}")) for n in range(10)))
    assert await tables.rows(transactions) == before


async def test_a_session_can_be_used_again_after_it_was_erased(memory):
    before = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(3)]
    await memory.EraseSession(erase())
    again = await memory.StoreMemory(store("fact 0"))
    assert again.outcome == pb.STORE_OUTCOME_CREATED
    assert again.memory.memory_id not in {m.memory_id for m in before}
    assert again.memory.revision > before[-1].revision
    assert await listed(memory) == ["fact 0"]


async def test_other_sessions_do_not_tell_of_an_erasure(memory, tables):
    for n in range(3):
        await memory.StoreMemory(store(f"fact {n}"))
    await memory.EraseSession(erase())
    other = await memory.StoreMemory(store("a fact", session_id="another"))
    assert other.memory.revision == 1
    # What is left of it does not have its name.
    assert "user-123" not in await tables.everything()
    await memory.EraseSession(erase("another"))
    again = await memory.StoreMemory(store("fact 0"))
    assert again.memory.revision == 5


async def test_what_an_earlier_release_has_erased_still_counts(memory, tables):
    await tables.execute("INSERT INTO revision_floors (tenant, revision) VALUES ('default', 40)")
    answer = await memory.StoreMemory(store("a fact"))
    assert answer.memory.revision == 42
    await memory.EraseSession(erase())
    again = await memory.StoreMemory(store("a fact"))
    assert again.memory.revision == 44


async def test_erasing_forgets_request_ids(memory):
    request = store(request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    await memory.EraseSession(erase())
    again = await memory.StoreMemory(request)
    assert again.outcome == pb.STORE_OUTCOME_CREATED
    assert again.memory.memory_id != first.memory.memory_id
    await memory.EraseSession(erase())
    other = store("something else", request_id=request.request_id)
    assert (await memory.StoreMemory(other)).outcome == pb.STORE_OUTCOME_CREATED


async def test_sessions_with_similar_names_are_left_alone(memory):
    names = ["user-12", "user-1234", "User-123", "user-123_", "user_123", "user-123."]
    for name in names:
        await memory.StoreMemory(store(session_id=name))
    await memory.StoreMemory(store())
    await memory.EraseSession(erase())
    for name in names:
        assert await listed(memory, name) == ["prefers e-mail"]


async def test_another_tenants_session_of_the_same_name_is_left_alone(memory, tables):
    await fill(memory, tables, "user-123")
    await tables.copy_to_tenant("another")
    everything = await tables.everything()
    assert everything.count("another") == everything.count("default")
    await memory.PurgeMemories(purge())
    await memory.EraseSession(erase())
    left = await tables.everything()
    assert left.count("another") == everything.count("another")
    assert left.count("fact") == everything.count("fact") / 2
    assert not any((await memory.EraseSession(erase())).erased_rows.values())


async def test_accesses_not_yet_written_do_not_bring_a_session_back(serve, tables):
    running = await serve()
    for n in range(5):
        await running.memory.StoreMemory(store(f"fact {n}"))
    await running.memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="user-123"))
    await running.memory.EraseSession(erase())
    await running.server.stop()
    assert not any((await tables.naming("user-123")).values())


async def test_stores_during_an_erasure_are_erased_or_complete(serve, tables):
    servers = [await serve(), await serve()]

    async def store_all(n: int) -> list[pb.Memory]:
        memory = servers[n % 2].memory
        return [
            (await memory.StoreMemory(store(f"fact {n}/{k}", request_id=str(uuid.uuid4())))).memory
            for k in range(10)
        ]

    async def erase_some() -> int:
        erased = 0
        for n in range(5):
            erased += (await servers[n % 2].memory.EraseSession(erase())).erased_memories
        return erased

    *stored, erased = await asyncio.gather(*(store_all(n) for n in range(8)), erase_some())
    every = [one for by_one in stored for one in by_one]
    left = await tables.rows("SELECT content, revision, created_revision FROM memories")
    assert len(left) + erased == len(every) == 80
    ((revision,),) = await tables.rows("SELECT revision FROM sessions") or [(0,)]
    assert len({row.revision for row in left}) == len(left)
    assert max((row.revision for row in left), default=revision) == revision
    assert await tables.rows("SELECT count(*) FROM store_receipts") == [(len(left),)]
    # No revision was used twice, over all the sessions of this name.
    revisions = [one.revision for one in every]
    assert len(set(revisions)) == len(revisions)


# The files of the embedded database

SESSIONS = ["user-1", "user-2", "user-3"]
in_files = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


LOOK = """
import json, sys
from pathlib import Path
marks = [mark.encode() for mark in json.load(sys.stdin)]
wanted = {(mark * 2)[start : start + 8] for mark in marks for start in range(16)}
found = {}
for file in map(Path, sys.argv[1:]):
    data = file.read_bytes()
    pieces = (data[place : place + 8] for place in range(len(data) - 7))
    found[file.name] = [piece.decode() for piece in pieces if piece in wanted]
print(json.dumps({name: pieces for name, pieces in found.items() if pieces}))
"""


class Files:
    """All files of an SQLite database."""

    def __init__(self, database_url: str) -> None:
        self.main = Path(database_url.removeprefix("sqlite+aiosqlite:///"))

    def pieces_of(self, marks: list[bytes]) -> dict[str, list[str]]:
        """The pieces of these marks, rotated in any way, in each file.

        A separate process searches: closing a file releases all locks that this process has on it,
        such as the server's.
        """
        files = sorted(self.main.parent.glob(f"{self.main.name}*"))
        done = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-c", LOOK, *files],
            input=json.dumps([mark.decode() for mark in marks]),
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found


@pytest.fixture
def files(database_url: str) -> Files:
    return Files(database_url)


class Writing:
    """Random work on some sessions; each content and each metadata has its own marks."""

    def __init__(self, memory: MemoryServiceStub, seed: int) -> None:
        self._memory = memory
        self._dice = random.Random(seed)  # noqa: S311  repeatable
        self._ids: dict[str, list[str]] = {}
        self.marks: dict[str, list[bytes]] = {}

    def _text(self, session_id: str, longest: int) -> str:
        """One mark repeated: any 32 bytes of it contain the whole mark, rotated."""
        mark = "".join(self._dice.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=16))
        self.marks.setdefault(session_id, []).append(mark.encode())
        size = int(20 * (longest / 20) ** self._dice.random())
        return (mark * (size // 16 + 1))[:size]

    async def work(self, session_id: str) -> None:
        ids = self._ids.setdefault(session_id, [])
        match self._dice.randrange(10) if ids else 0:
            case 0 | 1 | 2 | 3:
                request = store(
                    self._text(session_id, 16_000),
                    session_id,
                    metadata={"mark": self._text(session_id, 8_000)},
                    request_id=str(uuid.UUID(int=self._dice.getrandbits(128), version=4)),
                    importance=self._dice.random(),
                )
                for _ in range(self._dice.choice((1, 1, 2))):  # merged where twice
                    request.request_id = str(uuid.uuid4())
                    answer = await self._memory.StoreMemory(request)
                    gone = {*answer.evicted_memory_ids, answer.memory.memory_id}
                    ids[:] = [i for i in ids if i not in gone] + [answer.memory.memory_id]
            case 4 | 5 | 6 | 7:
                changed = pb.Memory(
                    session_id=session_id,
                    memory_id=self._dice.choice(ids),
                    content=self._text(session_id, 16_000),
                )
                await self._memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
            case 8:
                which = ids.pop(self._dice.randrange(len(ids)))
                await self._memory.DeleteMemory(
                    pb.DeleteMemoryRequest(session_id=session_id, memory_id=which)
                )
            case _:
                which = ids[self._dice.randrange(len(ids))]
                await self._memory.GetMemory(
                    pb.GetMemoryRequest(session_id=session_id, memory_id=which)
                )

    async def interleave(self, sessions: list[str], steps: int) -> None:
        for _ in range(steps):
            await self.work(self._dice.choice(sessions))

    async def erase(self, session_id: str) -> list[bytes]:
        """Erase a session, and return the marks of everything it ever had."""
        await self._memory.EraseSession(erase(session_id))
        self._ids.pop(session_id, None)
        return self.marks[session_id]


@in_files
@pytest.mark.parametrize("seed", range(4))
async def test_no_byte_of_an_erased_session_stays_in_any_file(serve, files, seed):
    servers = [await serve(MEMORY_MAX_ENTRIES="10") for _ in range(2)]
    writing = Writing(servers[0].memory, seed)
    for session_id in SESSIONS:
        await writing.interleave(SESSIONS, 60)
        # The other server has its own pages in memory.
        await servers[1].memory.ListMemories(pb.ListMemoriesRequest(session_id=session_id))
        assert files.pieces_of(writing.marks[session_id])
        marks = await writing.erase(session_id)
        assert files.pieces_of(marks) == {}
        await servers[1].memory.StoreMemory(store(session_id="somebody"))
        await writing.interleave([s for s in SESSIONS if s != session_id], 20)
        assert files.pieces_of(marks) == {}


@in_files
async def test_small_memories_leave_no_bytes_either(serve, files):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    dice = random.Random(7)  # noqa: S311  repeatable
    marks: list[bytes] = []
    for _ in range(12):
        requests = []
        for _ in range(60):
            session_id = dice.choice(SESSIONS)
            mark = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=16))
            if session_id == SESSIONS[0]:
                marks.append(mark.encode())
            requests.append(store((mark * 20)[: dice.randrange(20, 300)], session_id))
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
        listing = pb.ListMemoriesRequest(session_id=dice.choice(SESSIONS), page_size=1000)
        memories = (await memory.ListMemories(listing)).memories
        for one in dice.sample(list(memories), len(memories) // 4):
            await memory.PurgeMemories(purge(one.session_id, created_before=one.create_time))
            longer = pb.Memory(
                session_id=one.session_id, memory_id=one.memory_id, content=one.content * 2
            )
            await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=longer))
    await memory.EraseSession(erase(SESSIONS[0]))
    assert files.pieces_of(marks) == {}


@in_files
async def test_concurrent_erasures_leave_no_byte_of_any(serve, files):
    servers = [await serve() for _ in range(2)]
    writing = Writing(servers[0].memory, 11)
    sessions = [f"user-{n}" for n in range(16)]
    await writing.interleave(sessions, 100)
    await asyncio.gather(
        *(servers[n % 2].memory.EraseSession(erase(s)) for n, s in enumerate(sessions))
    )
    assert files.pieces_of([m for marks in writing.marks.values() for m in marks]) == {}


@in_files
async def test_an_erasure_waits_for_readers_of_the_old_state(serve, files):
    memory = (await serve()).memory
    writing = Writing(memory, 12)
    await writing.interleave(SESSIONS, 40)
    with closing(sqlite3.connect(files.main, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM memories").fetchone() > (0,)
        erasing = asyncio.create_task(writing.erase("user-1"))
        done, _ = await asyncio.wait([erasing], timeout=0.5)
        assert not done
        assert reader.execute("SELECT count(*) FROM memories").fetchone() > (0,)
        reader.execute("COMMIT")
        assert files.pieces_of(await erasing) == {}


@in_files
async def test_an_erasure_blocked_by_a_reader_is_refused_and_can_be_repeated(serve, files, refused):
    memory = (await serve(MEMORYD_DATABASE_TIMEOUT_SECONDS="2")).memory
    writing = Writing(memory, 13)
    await writing.interleave(SESSIONS, 40)
    with closing(sqlite3.connect(files.main, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM memories").fetchone() > (0,)
        refusal = await refused(memory.EraseSession(erase("user-1")))
        assert refusal.code == grpc.StatusCode.UNAVAILABLE
        await memory.StoreMemory(store())  # other callers are not hindered
        reader.execute("COMMIT")
    assert files.pieces_of(await writing.erase("user-1")) == {}


def mark_of(files: Files) -> int:
    with closing(sqlite3.connect(files.main)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@in_files
async def test_an_erasure_does_not_rewrite_the_file(serve, files):
    memory = (await serve()).memory
    writing = Writing(memory, 14)
    await writing.interleave(SESSIONS, 60)
    with closing(sqlite3.connect(files.main)) as connection:
        before = connection.execute("PRAGMA page_count").fetchone()
        await writing.erase("user-1")
        # Its pages are free for new memories.
        assert connection.execute("PRAGMA page_count").fetchone() == before
        assert connection.execute("PRAGMA freelist_count").fetchone() > (0,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert mark_of(files) == 2


@in_files
@pytest.mark.parametrize("kind", ["free pages that were never overwritten", "auto_vacuum"])
async def test_files_made_by_other_programs_are_left_clean_too(serve, files, kind):
    mark = b"0123456789abcdef"
    with closing(sqlite3.connect(files.main, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        if kind == "auto_vacuum":
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
        connection.execute("CREATE TABLE others (content TEXT)")
        rows = [(mark.decode() * 200,) for _ in range(500)]
        connection.executemany("INSERT INTO others VALUES (?)", rows)
        connection.execute("DROP TABLE others")
    assert files.pieces_of([mark])
    writing = Writing((await serve()).memory, 15)
    await writing.interleave(SESSIONS, 40)
    assert files.pieces_of([*await writing.erase("user-1"), mark]) == {}
    with closing(sqlite3.connect(files.main)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
