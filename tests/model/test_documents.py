"""Documents against a plain model: random batches, moves, merges of sessions, expiry and sweeps."""

from __future__ import annotations

import random
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.test_documents import batch, delete, get, put

from memoryd.v1 import document_pb2 as pb
from memoryd.v1 import session_pb2 as spb

KEYS = ("a", "b", "Ä")
NAMESPACES = ((), ("n",), ("n", "m"), ("n m",))
STEPS = 60

NOT_FOUND, EXISTS, ABORTED = (
    *(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED),
)


class Refused(Exception):
    def __init__(self, place, code):
        super().__init__(place, code)
        self.place, self.code = place, code


class Entry:
    """A document as the model has it."""

    def __init__(self, text, labels, ttl, *, revision, now, before=None):
        self.text, self.labels, self.ttl, self.revision = text, labels, ttl, revision
        self.created = now if before is None else before.created
        self.earlier = [] if before is None else before.versions
        """Texts, oldest first, with their revisions."""
        self.expires = None if ttl is None else now + timedelta(seconds=ttl)

    @property
    def versions(self):
        return [*self.earlier, (self.text, self.revision)]

    def is_there(self, now):
        return self.expires is None or self.expires > now


class Model:
    """One session."""

    def __init__(self, session_id):
        self.session_id = session_id
        self.entries, self.revision = {}, 0
        self.floor = 0
        """Beyond what it was before it was merged into another."""

    @property
    def exists(self):
        return self.revision > self.floor

    def live(self, name, now):
        entry = self.entries.get(name)
        if entry is not None and not entry.is_there(now):
            self.revision += 1  # its expiry
            del self.entries[name]
            return None
        return entry

    def outcome(self, operations, now):
        """All or none; what a single write has found to be expired stays so."""
        before = (dict(self.entries), self.revision)
        try:
            return [self.one(place, one, now) for place, one in enumerate(operations)]
        except Refused as refusal:
            if len(operations) > 1:
                self.entries, self.revision = before
            return refusal

    def one(self, place, operation, now):
        kind, name, options = operation
        held = self.live(name, now)
        etag = options.get("etag")
        if kind == "put" and held and options.get("if_absent"):
            raise Refused(place, EXISTS)
        if etag and (held is None or etag != f"r{held.revision}"):
            raise Refused(place, ABORTED)
        if kind == "delete" and held is None:
            if options.get("allow_missing"):
                return None
            raise Refused(place, NOT_FOUND)
        self.revision += 1
        if kind == "delete":
            del self.entries[name]
            return None
        values = (options["text"], options["labels"], options["ttl"])
        self.entries[name] = Entry(*values, revision=self.revision, now=now, before=held)
        return self.entries[name]

    def move(self, source, target, now):
        """Give the names that were moved, or the code of the refusal."""
        names = sorted(
            name
            for name, entry in self.entries.items()
            if entry.is_there(now)
            and (name == source if source[1] else name[0][: len(source[0])] == source[0])
        )
        moved = {
            name: target if source[1] else (target[0] + name[0][len(source[0]) :], name[1])
            for name in names
        }
        if not names:
            return NOT_FOUND
        there = [self.entries.get(name) for name in moved.values() if name not in moved]
        if any(entry is not None and entry.is_there(now) for entry in there):
            return EXISTS
        self.revision += sum(entry is not None for entry in there)  # their expiry
        entries = [self.entries.pop(name) for name in names]
        for name, entry in zip(names, entries, strict=True):
            self.revision += 2
            entry.revision = self.revision
            self.entries[moved[name]] = entry
        return [*moved.values()]

    def merge(self, source, now):
        """Take what another session has; give the number of documents, and names of both."""
        there = {name: one for name, one in sorted(source.entries.items()) if one.is_there(now)}
        both = [name for name in there if self.live(name, now) is not None]
        moved = 0
        for name, entry in there.items():
            if name in both:
                continue
            count = len(entry.earlier)
            entry.earlier = [
                (text, self.revision + place)
                for place, (text, _) in enumerate(entry.earlier, start=1)
            ]
            self.revision += count + 1
            entry.revision = self.revision
            self.entries[name] = entry
            moved += 1
        self.revision += 1
        source.revision += 1
        source.entries, source.floor = {}, source.revision
        return moved, both


def names_to_move(dice):
    """A source and a target that may be moved."""
    while True:
        source, target = ((dice.choice(NAMESPACES), dice.choice(KEYS)) for _ in range(2))
        if dice.random() < 0.5:
            source, target = (source[0], ""), (target[0], "")
            if target[0][: len(source[0])] != source[0]:
                return source, target
        elif source != target:
            return source, target


def operation(dice, model):
    name = (dice.choice(NAMESPACES), dice.choice(KEYS))
    held = model.entries.get(name)
    options = {}
    if dice.random() < 0.3:
        options["etag"] = f"r{held.revision}" if held and dice.random() < 0.7 else "r99999"
    if dice.random() < 0.3:
        options["allow_missing"] = True
        return "delete", name, options
    if dice.random() < 0.2:
        return "delete", name, options
    options |= {
        "text": f"text {dice.random()}",
        "labels": {"x": dice.choice("12")},
        "ttl": dice.choice([None, 10, 50]),
        "if_absent": dice.random() < 0.2,
    }
    return "put", name, options


def request(session_id, kind, name, options):
    namespace, key = name
    if kind == "delete":
        return delete(key, namespace, session_id=session_id, **options)
    given = {**options, "session_id": session_id}
    ttl = given.pop("ttl")
    if ttl is not None:
        given["ttl"] = Duration(seconds=ttl)
    return put(key, namespace, **given)


def same(document, entry):
    return (
        document.text == entry.text
        and dict(document.labels) == entry.labels
        and document.revision == entry.revision
        and document.create_time.ToDatetime(entry.created.tzinfo) == entry.created
        and document.HasField("expire_time") == (entry.expires is not None)
        and (
            entry.expires is None
            or document.expire_time.ToDatetime(entry.expires.tzinfo) == entry.expires
        )
    )


async def check(documents, model, now):
    listed = await documents.ListDocuments(pb.ListDocumentsRequest(session_id=model.session_id))
    expected = {name: one for name, one in model.entries.items() if one.is_there(now)}
    assert [(tuple(one.namespace), one.key) for one in listed.documents] == sorted(expected)
    assert all(same(one, expected[tuple(one.namespace), one.key]) for one in listed.documents)


async def check_versions(documents, model, now):
    """Check those of each document."""
    for (namespace, key), entry in model.entries.items():
        if entry.is_there(now):
            name = {"session_id": model.session_id, "namespace": namespace, "key": key}
            listing = pb.ListDocumentRevisionsRequest(page_size=1000, **name)
            found = (await documents.ListDocumentRevisions(listing)).revisions
            assert [(one.document.text, one.revision) for one in found] == entry.versions[::-1]


async def write(documents, session_id, operations):
    requests = [request(session_id, *one) for one in operations]
    if len(operations) == 1 and operations[0][0] == "delete":
        await documents.DeleteDocument(requests[0])
        return [None]
    if len(operations) == 1:
        return [await documents.PutDocument(requests[0])]
    answer = await documents.BatchWriteDocuments(batch(*requests, session_id=session_id))
    return list(answer.documents)


async def move(documents, dice, model, now):
    source, target = names_to_move(dice)
    outcome = model.move(source, target, now)
    named = [pb.DocumentName(namespace=one[0], key=one[1]) for one in (source, target)]
    request = pb.MoveDocumentsRequest(
        session_id=model.session_id, to=named[1], **{"from": named[0]}
    )
    if isinstance(outcome, grpc.StatusCode):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await documents.MoveDocuments(request)
        assert caught.value.code() is outcome, (source, target)
    else:
        answer = await documents.MoveDocuments(request)
        assert [(tuple(one.namespace), one.key) for one in answer.documents] == outcome


async def merge(running, source, target, now):
    request = spb.MergeSessionsRequest(
        source_session_id=source.session_id, target_session_id=target.session_id
    )
    if not source.exists:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.sessions.MergeSessions(request)
        assert caught.value.code() is NOT_FOUND
        return
    moved, both = target.merge(source, now)
    answer = await running.sessions.MergeSessions(request)
    assert answer.moved_documents == moved
    assert [(tuple(one.namespace), one.key) for one in answer.conflicts] == both
    await check_versions(running.documents, target, now)
    await check(running.documents, source, now)


async def write_some(documents, dice, model, now):
    """Make a random write, or a batch."""
    operations = [operation(dice, model) for _ in range(dice.choice([1, 1, 2, 5]))]
    expected = model.outcome(operations, now)
    if isinstance(expected, Refused):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write(documents, model.session_id, operations)
        assert caught.value.code() is expected.code, operations
        if len(operations) > 1:
            assert caught.value.details().startswith(f"writes[{expected.place}]")
    else:
        written = await write(documents, model.session_id, operations)
        for document, entry in zip(written, expected, strict=True):
            assert entry is None or same(document, entry)


@pytest.mark.parametrize("seed", [1, 2])
async def test_documents_do_as_the_model_does(running, documents, clock, seed):
    dice = random.Random(seed)  # noqa: S311  repeatable
    models = model, visitor = Model("s"), Model("visitor")
    await documents.PutDocument(put("first", text="x"))
    await documents.DeleteDocument(delete("first"))
    model.revision = 2
    for _ in range(STEPS):
        clock.move(timedelta(seconds=dice.choice([0, 1, 5])))
        one = dice.choice([model, model, visitor])
        await write_some(documents, dice, one, clock())
        if dice.random() < 0.5:
            await move(documents, dice, one, clock())
        if dice.random() < 0.2:
            name, entry = dice.choice([*one.entries.items()] or [(((), "a"), None)])
            if entry is not None and entry.is_there(clock()):
                named = get(name[1], name[0], session_id=one.session_id, refresh_ttl=True)
                await documents.GetDocument(named)
                if entry.ttl is not None:
                    entry.expires = clock() + timedelta(seconds=entry.ttl)
        if dice.random() < 0.15:
            await merge(running, visitor, model, clock())
        await check(documents, one, clock())
    clock.move(timedelta(seconds=60))
    await running.server.sweeper.run_once()
    for one in models:
        due = [name for name, entry in one.entries.items() if not entry.is_there(clock())]
        for name in due:
            one.live(name, clock())
        await check(documents, one, clock())
        await check_versions(documents, one, clock())
        last = await documents.PutDocument(put("last", session_id=one.session_id))
        assert last.revision == one.revision + 1
