"""Documents against a plain model: random batches, conditions, moves, expiry and sweeps."""

from __future__ import annotations

import random
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.test_documents import batch, delete, get, put

from memoryd.v1 import document_pb2 as pb

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

    def __init__(self, text, labels, ttl, *, revision, now, created=None):
        self.text, self.labels, self.ttl, self.revision = text, labels, ttl, revision
        self.created = created or now
        self.expires = None if ttl is None else now + timedelta(seconds=ttl)

    def is_there(self, now):
        return self.expires is None or self.expires > now


class Model:
    def __init__(self):
        self.entries, self.revision = {}, 0

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
        created = held.created if held else None
        values = (options["text"], options["labels"], options["ttl"])
        self.entries[name] = Entry(*values, revision=self.revision, now=now, created=created)
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


def request(kind, name, options):
    namespace, key = name
    if kind == "delete":
        return delete(key, namespace, **options)
    given = dict(options)
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
    listed = await documents.ListDocuments(pb.ListDocumentsRequest(session_id="s"))
    expected = {name: one for name, one in model.entries.items() if one.is_there(now)}
    assert [(tuple(one.namespace), one.key) for one in listed.documents] == sorted(expected)
    assert all(same(one, expected[tuple(one.namespace), one.key]) for one in listed.documents)


async def write(documents, operations):
    if len(operations) == 1 and operations[0][0] == "delete":
        await documents.DeleteDocument(request(*operations[0]))
        return [None]
    if len(operations) == 1:
        return [await documents.PutDocument(request(*operations[0]))]
    answer = await documents.BatchWriteDocuments(batch(*(request(*one) for one in operations)))
    return list(answer.documents)


async def move(documents, dice, model, now):
    source, target = names_to_move(dice)
    outcome = model.move(source, target, now)
    named = [pb.DocumentName(namespace=one[0], key=one[1]) for one in (source, target)]
    request = pb.MoveDocumentsRequest(session_id="s", to=named[1], **{"from": named[0]})
    if isinstance(outcome, grpc.StatusCode):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await documents.MoveDocuments(request)
        assert caught.value.code() is outcome, (source, target)
    else:
        answer = await documents.MoveDocuments(request)
        assert [(tuple(one.namespace), one.key) for one in answer.documents] == outcome


@pytest.mark.parametrize("seed", [1, 2])
async def test_documents_do_as_the_model_does(running, documents, clock, seed):
    dice, model = random.Random(seed), Model()  # noqa: S311  repeatable
    await documents.PutDocument(put("first", text="x"))
    await documents.DeleteDocument(delete("first"))
    model.revision = 2
    for _ in range(STEPS):
        clock.move(timedelta(seconds=dice.choice([0, 1, 5])))
        operations = [operation(dice, model) for _ in range(dice.choice([1, 1, 2, 5]))]
        expected = model.outcome(operations, clock())
        if isinstance(expected, Refused):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await write(documents, operations)
            assert caught.value.code() is expected.code, operations
            if len(operations) > 1:
                assert caught.value.details().startswith(f"writes[{expected.place}]")
        else:
            for document, entry in zip(await write(documents, operations), expected, strict=True):
                assert entry is None or same(document, entry)
        if dice.random() < 0.5:
            await move(documents, dice, model, clock())
        if dice.random() < 0.2:
            name, entry = dice.choice([*model.entries.items()] or [(((), "a"), None)])
            if entry is not None and entry.is_there(clock()):
                await documents.GetDocument(get(name[1], name[0], refresh_ttl=True))
                if entry.ttl is not None:
                    entry.expires = clock() + timedelta(seconds=entry.ttl)
        await check(documents, model, clock())
    clock.move(timedelta(seconds=60))
    await running.server.sweeper.run_once()
    due = [name for name, one in model.entries.items() if not one.is_there(clock())]
    for name in due:
        model.live(name, clock())
    await check(documents, model, clock())
    assert (await documents.PutDocument(put("last"))).revision == model.revision + 1
