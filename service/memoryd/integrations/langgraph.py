"""LangGraph's long-term store over memoryd's documents.

    from memoryd.integrations.langgraph import MemorydStore

    with MemorydStore("localhost:50051") as store:
        graph = builder.compile(store=store)

It does what https://docs.langchain.com/oss/python/langgraph/stores says of a store. An item is a
document: its value is JSON text that comes back to the digit, and it never expires unless it has a
TTL. The first labels of a namespace name a session, so that erasing a user's session removes all of
a user's items.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    get_text_at_path,
)

from memoryd.client import DocumentClient, Put, Remove
from memoryd.client.background import background
from memoryd.integrations.batches import MAX_BATCH, batches, whole
from memoryd.integrations.json_filters import conditions_of
from memoryd.integrations.names import prefix_of, session_id
from memoryd.integrations.threads import Threaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from langgraph.store.base import MatchCondition, Op, Result, TTLConfig

    from memoryd.client import Document

MAX_FOUND = 100
"""Documents in one answer of a search."""

MAX_TEXTS, MAX_TEXT_CHARACTERS = 64, 16_384
"""Of what an item is found by; what is more is left out."""

WHOLE = "$"
"""The path of the whole value as JSON, as LangGraph has it."""


class _Partition(NamedTuple):
    """Where documents of a namespace prefix are: one session, or all that begin with a prefix."""

    session_id: str | None
    session_id_prefix: str | None


class MemorydStore(Threaded, BaseStore):
    """A store of a LangGraph application, for threads and for any event loop.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`. The
    synchronous methods raise asyncio.InvalidStateError in a thread whose event loop is running.
    """

    supports_ttl = True

    __slots__ = ("_client", "_depth", "_fields", "_loop", "_prefix", "ttl_config")

    def __init__(
        self,
        target: str | None = None,
        *,
        prefix: str = "lg",
        partition_depth: int = 2,
        fields: Sequence[str] | None = None,
        ttl: TTLConfig | None = None,
        **connection: Any,
    ) -> None:
        """Prepare the store; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `prefix`: what the sessions of
        this store begin with. `partition_depth`: how many labels of a namespace name its session,
        1-19. `fields`: the paths whose texts items are found by, unless `index` says otherwise;
        None: the whole value. `ttl`: LangGraph's TTLConfig, of which `default_ttl` and
        `refresh_on_read` count. `connection`: `api_key`, `tls`, `timeout` and the other arguments
        of `memoryd.client.DocumentClient`.
        """
        if not 1 <= partition_depth <= 19:  # noqa: PLR2004  the labels of a namespace
            raise ValueError(
                f"partition_depth: expected a number from 1 to 19, not {partition_depth}"
            )
        self._prefix = prefix_of(prefix)
        self._depth = partition_depth
        self._fields = [WHOLE] if fields is None else list(fields)
        self.ttl_config = ttl
        self._loop = background()

        async def made() -> DocumentClient:
            return DocumentClient(target, **connection)

        self._client = self._loop.run(made())

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do some operations: all reads see what was there before the writes."""
        return self._run(self._batch(list(ops)))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do some operations: all reads see what was there before the writes."""
        return await self._loop.wait(self._batch(list(ops)))

    async def _close(self) -> None:
        await self._client.close()

    async def _batch(self, ops: list[Op]) -> list[Result]:
        results: list[Any] = [None] * len(ops)
        gets: dict[tuple[str, bool], list[int]] = defaultdict(list)
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        others: list[tuple[int, Any, Any]] = []
        for place, op in enumerate(ops):
            match op:
                case GetOp():
                    gets[self._session(op.namespace), op.refresh_ttl].append(place)
                case PutOp():
                    puts.pop((tuple(op.namespace), op.key), None)  # the last one's place counts too
                    puts[tuple(op.namespace), op.key] = op
                case SearchOp():
                    others.append((place, self._search, op))
                case ListNamespacesOp():
                    others.append((place, self._namespaces, op))
                case _:
                    raise ValueError(
                        f"ops[{place}]: {type(op).__name__} is no operation of a store"
                    )
        writes: dict[str, list[Put | Remove]] = defaultdict(list)
        for put in puts.values():
            writes[self._session(put.namespace)].append(self._write_of(put))
        await asyncio.gather(
            *(self._answer(results, *each) for each in others),
            *(
                self._get(session, ops, places, results, refresh=refresh)
                for (session, refresh), places in gets.items()
            ),
        )
        await asyncio.gather(*(self._write(session, each) for session, each in writes.items()))
        return results

    @staticmethod
    async def _answer(results: list[Any], place: int, read: Any, op: object) -> None:
        results[place] = await read(op)

    async def _get(
        self,
        session: str,
        ops: Sequence[Any],
        places: list[int],
        results: list[Any],
        *,
        refresh: bool,
    ) -> None:
        while places:
            names = [(ops[place].namespace, ops[place].key) for place in places[:MAX_BATCH]]
            entries = whole(await self._client.get_many(session, names, refresh_ttl=refresh))
            for place, entry in zip(places, entries, strict=False):
                if entry.document is not None:
                    results[place] = _item(entry.document)
            places = places[len(entries) :]

    async def _write(self, session: str, writes: list[Put | Remove]) -> None:
        for some in batches(writes):
            await self._client.write_many(session, some)

    def _write_of(self, op: PutOp) -> Put | Remove:
        if op.value is None:
            return Remove(op.key, op.namespace, allow_missing=True)
        return Put(
            op.key,
            op.namespace,
            json=_json(op.value),
            ttl=None if op.ttl is None else timedelta(minutes=op.ttl),
            search_texts=self._texts(op),
        )

    def _texts(self, op: PutOp) -> list[str]:
        if op.index is False:
            return []
        paths = self._fields if op.index is None else op.index
        texts = (text for path in paths for text in get_text_at_path(op.value, path))
        found = islice(filter(str.strip, texts), MAX_TEXTS)
        # JSON may have half a surrogate pair, which no text can be found by.
        return [text[:MAX_TEXT_CHARACTERS].encode(errors="replace").decode() for text in found]

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        conditions, may_have = conditions_of(op.filter or {})
        wanted = _bounded(op.limit)
        skip = _bounded(op.offset)
        # What the service does not judge is judged here, and counted here too.
        passed, taken = (0, skip) if may_have is None else (skip, 0)
        found: list[SearchItem] = []
        where = self._partition(op.namespace_prefix)
        while len(found) < wanted:
            room = wanted - len(found) if may_have is None else MAX_FOUND
            answer = await self._client.search(
                **where._asdict(),
                namespace_prefix=op.namespace_prefix,
                query=op.query or "",
                conditions=conditions,
                limit=min(room, MAX_FOUND),
                skip=taken,
                refresh_ttl=op.refresh_ttl,
            )
            taken += len(answer.results)
            for result in answer.results:
                item = _search_item(result.document, result.score)
                if may_have is not None and not may_have(item.value):
                    continue
                if passed:
                    passed -= 1
                elif len(found) < wanted:
                    found.append(item)
            if not answer.results or (
                len(answer.results) < min(room, MAX_FOUND) and not answer.truncated
            ):
                break
        return found

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        sent: dict[str, tuple[str, ...]] = {}
        rest: list[MatchCondition] = []
        for condition in conditions:
            if condition.match_type in sent or condition.match_type not in {"prefix", "suffix"}:
                rest.append(condition)
            else:
                sent[condition.match_type] = _labels(condition.path)
        where = self._partition(_literal(sent.get("prefix", ())))
        depth = 0 if op.max_depth is None or rest else op.max_depth
        found: dict[tuple[str, ...], None] = {}
        end = _bounded(op.offset) + _bounded(op.limit)
        namespaces = self._client.namespaces(
            **where._asdict(),
            prefix=sent.get("prefix", ()),
            suffix=sent.get("suffix", ()),
            max_depth=depth,
            page_size=MAX_BATCH,
        )
        async for namespace in namespaces:
            if all(_fits(condition, namespace) for condition in rest):
                found[namespace[: op.max_depth]] = None
            if len(found) >= end and not rest:
                break
        await namespaces.aclose()
        return sorted(found)[_bounded(op.offset) : end]

    def _session(self, namespace: tuple[str, ...]) -> str:
        return session_id(self._prefix, namespace[: self._depth])

    def _partition(self, namespace_prefix: tuple[str, ...]) -> _Partition:
        if len(namespace_prefix) >= self._depth:
            return _Partition(self._session(namespace_prefix), None)
        if not namespace_prefix:
            return _Partition(None, f"{self._prefix}:")
        # It may be the beginning of another label too; the namespace itself says.
        return _Partition(None, session_id(self._prefix, namespace_prefix))


def _bounded(number: int) -> int:
    if number < 0:
        raise ValueError(f"limit and offset: expected numbers from 0 on, not {number}")
    return number


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), allow_nan=False)


def _always(moment: datetime | None) -> datetime:
    if moment is None:
        raise ValueError("the service says of no document when it was put")
    return moment


def _item(document: Document) -> Item:
    return Item(
        value=json.loads(document.json or "null"),
        key=document.key,
        namespace=document.namespace,
        created_at=_always(document.create_time),
        updated_at=_always(document.update_time),
    )


def _search_item(document: Document, score: float | None) -> SearchItem:
    item = _item(document)
    return SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, score)


def _labels(path: Sequence[str]) -> tuple[str, ...]:
    """The labels of a path, which may be given as one label."""
    return (path,) if isinstance(path, str) else tuple(path)


def _literal(path: Sequence[str]) -> tuple[str, ...]:
    """The labels of a path before its first wildcard."""
    labels: list[str] = []
    for label in path:
        if label == "*":
            break
        labels.append(label)
    return tuple(labels)


def _fits(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = _labels(condition.path)
    if len(namespace) < len(path):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise ValueError(f"match_type: expected prefix or suffix, not {condition.match_type!r}")
    return all(wanted in {"*", label} for wanted, label in zip(path, part, strict=True))
