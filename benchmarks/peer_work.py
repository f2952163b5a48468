"""Run a peer in its own process, in the peers' environment; `peers.py` starts it.

build/peers-venv/bin/python benchmarks/peer_work.py SYSTEM URL POSTMASTER

URL is a PostgreSQL database, or a folder for peers that use files; POSTMASTER is PostgreSQL's
process id, or 0. The first line on standard output names the works that the peer does, or says why
it cannot run. Each line on standard input is a round (work, callers, seconds); the answer is a
sample as JSON.

Embedders return made-up vectors at once: the cost of real ones is not the peer's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
import sys
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Process, Server
from loop import accounted, drive
from texts import DIALOGUE_MESSAGES, DIALOGUES, LAST, METADATA, SEED, Texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    Work = Callable[[int], Awaitable[object]]

DIMENSIONS = 256
VECTORS = 1_000
VALUES = 1_000
"""Made before any round, as the requests to memoryd are; LangGraph does not compare them."""
SMALL, SMALL_SESSIONS = 100, 16
LARGE = 1_000
STORE_SESSIONS = 64
RESULTS = 10
LOADED_AT_ONCE = 100


class CannotRun(Exception):
    """The environment lacks what the peer needs."""


class FixedVectors:
    """Returns precomputed vectors of length 1 in turn.

    They differ, since a nearest-neighbour index cannot distinguish equal vectors.
    """

    def __init__(self) -> None:
        drawn = np.random.default_rng(SEED).normal(size=(VECTORS, DIMENSIONS))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        self._next = itertools.cycle(drawn.tolist())

    def embed(self, _text: str, _action: str | None = None) -> list[float]:
        """mem0's interface."""
        return next(self._next)

    def embed_batch(self, texts: Sequence[str], _action: str | None = None) -> list[list[float]]:
        """mem0's interface for several texts."""
        return [next(self._next) for _ in texts]

    async def embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """LangGraph's interface."""
        return self.embed_batch(texts)


class LangGraph:
    """A LangGraph store, with or without an index."""

    def __init__(self, store: Any, *, indexed: bool) -> None:
        self._store = store
        self._indexed = indexed
        self._texts = Texts(SEED)
        self._known = itertools.cycle(
            [(session, f"{place}") for place in range(SMALL) for session in range(SMALL_SESSIONS)]
        )
        self._numbers = itertools.count()
        self._values = itertools.cycle(
            [
                {
                    "content": self._texts.content(),
                    "importance": self._texts.importance(),
                    "metadata": METADATA,
                }
                for _ in range(VALUES)
            ]
        )
        self._documents = itertools.cycle([self._texts.document() for _ in range(VALUES)])

    async def fill(self) -> None:
        await self._store.setup()
        places = [(f"small-{n}", place) for n in range(SMALL_SESSIONS) for place in range(SMALL)]
        places += [("large", place) for place in range(LARGE)]
        for start in range(0, len(places), LOADED_AT_ONCE):
            await asyncio.gather(
                *(
                    self._store.aput(("memories", session), f"{place}", next(self._values))
                    for session, place in places[start : start + LOADED_AT_ONCE]
                )
            )
        for session in range(SMALL_SESSIONS):
            await self._put_documents(f"small-{session}", map(str, range(SMALL)))

    def work(self) -> dict[str, Work]:
        if self._indexed:
            return {
                "store": self._put,
                "query": self._search_by_query,
                "doc_batch_texts": self._put_batch,
                "doc_search": self._search_documents_by_query,
            }
        return {
            "store": self._put,
            "get": self._get,
            "top_small": self._search,
            "doc_put": self._put_document,
            "doc_batch": self._put_batch,
            "doc_get": self._get_document,
            "doc_top": self._search_documents,
        }

    async def _put(self, _caller: int) -> None:
        session = f"run-{next(self._numbers) % STORE_SESSIONS}"
        await self._store.aput(("memories", session), str(uuid.uuid4()), next(self._values))

    async def _get(self, _caller: int) -> None:
        session, key = next(self._known)
        found = await self._store.aget(("memories", f"small-{session}"), key)
        _require(found)

    async def _search(self, _caller: int) -> None:
        session = f"small-{next(self._numbers) % SMALL_SESSIONS}"
        found = await self._store.asearch(("memories", session), limit=RESULTS)
        _require(len(found) == RESULTS)

    async def _search_by_query(self, _caller: int) -> None:
        found = await self._store.asearch(
            ("memories", "large"), query=self._texts.query(), limit=RESULTS
        )
        _require(len(found) == RESULTS)

    async def _put_documents(self, session: str, keys: Iterable[str]) -> None:
        """Put as many documents with one call."""
        from langgraph.store.base import PutOp  # noqa: PLC0415  in the peers' environment alone

        namespace = ("documents", session)
        await self._store.abatch([PutOp(namespace, key, next(self._documents)) for key in keys])

    async def _put_batch(self, _caller: int) -> None:
        session = f"run-{next(self._numbers) % STORE_SESSIONS}"
        await self._put_documents(session, [str(uuid.uuid4()) for _ in range(LOADED_AT_ONCE)])

    async def _put_document(self, _caller: int) -> None:
        session = f"run-{next(self._numbers) % STORE_SESSIONS}"
        await self._store.aput(("documents", session), str(uuid.uuid4()), next(self._documents))

    async def _get_document(self, _caller: int) -> None:
        session, key = next(self._known)
        _require(await self._store.aget(("documents", f"small-{session}"), key))

    async def _search_documents(self, _caller: int) -> None:
        session = f"small-{next(self._numbers) % SMALL_SESSIONS}"
        found = await self._store.asearch(("documents", session), limit=RESULTS)
        _require(len(found) == RESULTS)

    async def _search_documents_by_query(self, _caller: int) -> None:
        session = f"small-{next(self._numbers) % SMALL_SESSIONS}"
        found = await self._store.asearch(
            ("documents", session), query=self._texts.query(), limit=RESULTS
        )
        _require(len(found) == RESULTS)


class Mem0:
    """mem0 without its language model."""

    def __init__(self, vector_store: dict[str, Any], folder: Path) -> None:
        from mem0 import Memory  # noqa: PLC0415  only one peer needs it

        settings = {"provider": "openai", "config": {"api_key": "never used"}}
        self._memory = Memory.from_config(
            {
                "vector_store": vector_store,
                "llm": settings,
                "embedder": settings,
                "history_db_path": str(folder / "history.db"),
            }
        )
        self._memory.embedding_model = FixedVectors()
        self._texts = Texts(SEED)
        self._numbers = itertools.count()
        self._known: list[str] = []

    async def fill(self) -> None:
        for number in range(SMALL_SESSIONS):
            for _ in range(SMALL):
                self._known.append(self._add(f"small-{number}"))
        for _ in range(LARGE):
            self._add("large")

    def work(self) -> dict[str, Work]:
        return {
            "store": self._store,
            "get": self._get,
            "top_small": self._search,
            "query": self._search_by_query,
        }

    def _add(self, session: str) -> str:
        found = self._memory.add(
            self._texts.content(), user_id=session, metadata=METADATA, infer=False
        )
        memory_id: str = found["results"][0]["id"]
        return memory_id

    async def _store(self, _caller: int) -> None:
        self._add(f"run-{next(self._numbers) % STORE_SESSIONS}")

    async def _get(self, _caller: int) -> None:
        _require(self._memory.get(self._known[next(self._numbers) % len(self._known)]))

    async def _search(self, _caller: int) -> None:
        session = f"small-{next(self._numbers) % SMALL_SESSIONS}"
        found = self._memory.get_all(filters={"user_id": session}, top_k=RESULTS)
        _require(len(found["results"]) == RESULTS)

    async def _search_by_query(self, _caller: int) -> None:
        self._memory.search(
            self._texts.query(), filters={"user_id": "large"}, top_k=RESULTS, threshold=0.0
        )


class AgentsSession:
    """A conversation for each session of the OpenAI Agents SDK, in SQLAlchemy's tables."""

    def __init__(self, url: str) -> None:
        from agents.extensions.memory import SQLAlchemySession  # noqa: PLC0415  one peer
        from sqlalchemy import make_url  # noqa: PLC0415  in the peers' environment alone
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415  the same

        engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
        self._session: Callable[[str], Any] = partial(SQLAlchemySession, engine=engine)
        self._tables = SQLAlchemySession("", engine=engine, create_tables=True)
        texts = Texts(SEED)
        self._exchanges = itertools.cycle([_items(texts) for _ in range(VALUES)])
        self._numbers = itertools.count()

    async def fill(self) -> None:
        await self._tables.get_items()
        for number in range(DIALOGUES):
            items = [next(self._exchanges) for _ in range(DIALOGUE_MESSAGES // 2)]
            await self._session(f"dialogue-{number}").add_items([*itertools.chain(*items)])

    def work(self) -> dict[str, Work]:
        return {"append": self._append, "window": self._window}

    async def _append(self, _caller: int) -> None:
        session = self._session(f"run-{next(self._numbers) % STORE_SESSIONS}")
        await session.add_items(next(self._exchanges))

    async def _window(self, _caller: int) -> None:
        session = self._session(f"dialogue-{next(self._numbers) % DIALOGUES}")
        _require(len(await session.get_items(limit=LAST)) == LAST)


class Checkpoints:
    """LangGraph's checkpoints, each of a state that has two messages.

    That of a thread has all of its messages, which are written again with each checkpoint; here a
    checkpoint costs what the first of a thread does.
    """

    def __init__(self, saver: Any) -> None:
        from langchain_core.messages import AIMessage, HumanMessage  # noqa: PLC0415  one peer

        self._saver = saver
        texts = Texts(SEED)
        said = [texts.exchange() for _ in range(VALUES)]
        self._states = itertools.cycle(
            [
                [
                    HumanMessage(question, id=str(uuid.uuid4())),
                    AIMessage(answer, id=str(uuid.uuid4())),
                ]
                for question, answer in said
            ]
        )
        self._numbers = itertools.count()

    async def fill(self) -> None:
        await self._saver.setup()

    def work(self) -> dict[str, Work]:
        return {"append": self._put}

    async def _put(self, _caller: int) -> None:
        from langgraph.checkpoint.base import empty_checkpoint  # noqa: PLC0415  one peer

        number = next(self._numbers)
        thread = {"thread_id": f"run-{number % STORE_SESSIONS}", "checkpoint_ns": ""}
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": next(self._states)}
        checkpoint["channel_versions"] = versions = {"messages": f"{number:032}.0"}
        metadata = {"source": "loop", "step": number, "parents": {}}
        await self._saver.aput({"configurable": thread}, checkpoint, metadata, versions)


def _items(texts: Texts) -> list[dict[str, str]]:
    """Two messages as the OpenAI Agents SDK has them."""
    question, answer = texts.exchange()
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _require(found: object) -> None:
    """Check that a call found something, since otherwise it did no work."""
    if not found:
        raise SystemExit("the peer found nothing")


async def opened(
    system: str, url: str, stack: AsyncExitStack
) -> LangGraph | Mem0 | AgentsSession | Checkpoints:
    """Open a peer by name, on its own database or folder."""
    name, _, variant = system.partition(" ")
    indexed = variant == "index"
    vectors = FixedVectors()
    index = {"dims": DIMENSIONS, "embed": vectors.embed_texts, "fields": ["content"]}
    match name:
        case "AsyncPostgresStore":
            from langgraph.store.postgres import AsyncPostgresStore  # noqa: PLC0415  one peer

            made = AsyncPostgresStore.from_conn_string(url, index=index if indexed else None)
            return LangGraph(await stack.enter_async_context(made), indexed=indexed)
        case "AsyncSqliteStore":
            if not hasattr(sqlite3.Connection, "enable_load_extension"):
                raise CannotRun("this Python's sqlite3 loads no extensions")
            from langgraph.store.sqlite import AsyncSqliteStore  # noqa: PLC0415  one peer

            file = f"{url}/store.db"
            made = AsyncSqliteStore.from_conn_string(file, index=index if indexed else None)
            return LangGraph(await stack.enter_async_context(made), indexed=indexed)
        case "SQLAlchemySession":
            return AgentsSession(url)
        case "AsyncPostgresSaver":
            from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415

            saver = AsyncPostgresSaver.from_conn_string(url)
            return Checkpoints(await stack.enter_async_context(saver))
        case "mem0":
            folder = Path(os.environ["MEM0_DIR"])
            if variant == "Qdrant":
                kept_in = {"path": f"{url}/qdrant", "on_disk": True}
            else:
                kept_in = {"connection_string": url}
            config = {
                **kept_in, "collection_name": "memories", "embedding_model_dims": DIMENSIONS,
            }  # fmt: skip
            provider = "qdrant" if variant == "Qdrant" else "pgvector"
            return Mem0({"provider": provider, "config": config}, folder)
    raise SystemExit(f"unknown peer {system}")


async def main(system: str, url: str, postmaster: int) -> None:
    here = Server("", Process(os.getpid()), Process(postmaster) if postmaster else None)
    async with AsyncExitStack() as stack:
        try:
            peer = await opened(system, url, stack)
        except CannotRun as error:
            print(json.dumps({"cannot": str(error)}), flush=True)
            return
        await peer.fill()
        print(json.dumps(sorted(peer.work())), flush=True)
        for line in sys.stdin:
            work, callers, seconds = json.loads(line)
            call = peer.work()[work]

            async def once(caller: int, call: Work = call) -> float:
                start = time.perf_counter()
                await call(caller)
                return time.perf_counter() - start

            await drive(once, callers=callers, seconds=seconds / 4)
            sample = await accounted(
                here,
                partial(drive, once, callers=callers, seconds=seconds),
            )
            print(json.dumps(asdict(sample)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
