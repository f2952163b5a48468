"""Conversations against a plain model: appends, pops, rewrites, forks, promotions, merges."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.test_conversation_branches import delete, fork, pop, rewrite, set_head
from tests.rpc.test_conversation_merge import merge
from tests.rpc.test_conversation_settings import create, listing
from tests.rpc.test_conversations import append, get, ids, said
from tests.rpc.test_promote import promote, stored

from memoryd.v1 import session_pb2

STEPS = 90
NAMES = ("a", "b", "c", "d")
IDS = tuple(f"m{n}" for n in range(12))
TTL = 100

NOT_FOUND, EXISTS, ABORTED = (
    *(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED),
)


class Refused(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


@dataclass(eq=False)
class Node:
    """A message."""

    id: str
    text: str
    parent: Node | None

    def way(self):
        node, way = self, []
        while node is not None:
            way.append(node)
            node = node.parent
        return way[::-1]


def way_of(node):
    return [] if node is None else node.way()


@dataclass
class Talk:
    """A conversation as the model has it."""

    head: Node | None = None
    tips: set[Node] = field(default_factory=set)
    """Besides the head."""
    etag: str = ""
    expires: object = None
    slides: bool = False
    gone_over: set[Node] = field(default_factory=set)
    """By promotions of what is new since the last."""
    answered: list = field(default_factory=list)
    """Requests with an id: the method, the request, and the answer."""

    def nodes(self):
        return {node for end in (self.head, *self.tips) for node in way_of(end)}

    def named(self, message_id):
        return next((node for node in self.nodes() if node.id == message_id), None)

    @property
    def is_tip(self):
        return self.head is not None and not any(self.head in tip.way() for tip in self.tips)

    def move(self, node):
        ends = self.tips | ({self.head} if self.is_tip else set())
        self.tips = {end for end in ends if end not in way_of(node)}
        self.head = node


class Model:
    def __init__(self):
        self.talks = {}
        self.memories = {}
        """By content: the message and the conversation that it is of."""

    def live(self, name, now):
        talk = self.talks.get(name)
        if talk is not None and talk.expires is not None and talk.expires <= now:
            del self.talks[name]
            return None
        return talk

    def current(self, name, etag, now):
        talk = self.live(name, now)
        if talk is None:
            raise Refused(NOT_FOUND)
        self.check(talk, etag)
        return talk

    def check(self, talk, etag):
        if etag and (talk is None or talk.etag != etag):  # it is read before it is given
            raise Refused(ABORTED)

    def append(self, name, items, now, *, etag="", after=None):
        """Give what is answered for each item."""
        talk = self.live(name, now)
        if talk is None and after is not None:
            raise Refused(NOT_FOUND)
        self.check(talk, etag)
        talk = talk or Talk()
        start = talk.head
        if after is not None:
            start = talk.named(after) if after else None
            if after and start is None:
                raise Refused(NOT_FOUND)
        answer, last = self.placed(talk, start, items)
        if start is not talk.head:
            talk.move(start)
        if last is not start and talk.slides:
            talk.expires = now + timedelta(seconds=TTL)
        talk.head = last
        self.talks[name] = talk
        return answer

    def placed(self, talk, start, items):
        answer, seen, last = [], {}, start
        for message_id, text in items:
            held = seen.get(message_id)
            if held is None and (there := talk.named(message_id)) is not None:
                if there not in way_of(start):
                    raise Refused(EXISTS)
                held = there
            if held is None:
                last = held = Node(message_id, text, last)
            elif held.text != text:
                raise Refused(EXISTS)
            seen[message_id] = held
            answer.append(held)
        return answer, last

    def pop(self, name, count, now, *, etag=""):
        talk = self.current(name, etag, now)
        way = way_of(talk.head)
        popped = way[max(0, len(way) - count) :]
        talk.head = popped[0].parent if popped else talk.head
        talk.gone_over &= talk.nodes()
        return popped

    def fork(self, name, at, new, now, *, etag=""):
        talk = self.current(name, etag, now)
        if self.live(new, now) is not None:
            raise Refused(EXISTS)
        node = talk.named(at) if at else talk.head
        if at and node is None:
            raise Refused(NOT_FOUND)
        self.talks[new] = Talk(node, gone_over=talk.gone_over & set(way_of(node)))

    def promote(self, name, message_ids, now):
        """Give the messages that become memories; without ids, those that are new."""
        talk = self.current(name, "", now)
        if message_ids:
            nodes = [talk.named(message_id) for message_id in message_ids]
            if None in nodes:
                raise Refused(NOT_FOUND)
        else:
            nodes = [node for node in way_of(talk.head) if node not in talk.gone_over]
            talk.gone_over |= set(nodes)
        for node in nodes:
            self.memories[node.text] = (node.id, name)
        return nodes

    def set_head(self, name, message_id, now, *, etag=""):
        talk = self.current(name, etag, now)
        node = talk.named(message_id)
        if node is None:
            raise Refused(NOT_FOUND)
        if node is not talk.head:
            talk.move(node)

    def delete(self, name, now, *, etag=""):
        talk = self.live(name, now)
        if talk is None and not etag:
            raise Refused(NOT_FOUND)
        self.check(talk, etag)
        del self.talks[name]

    def create(self, name, ttl, now):
        if self.live(name, now) is not None:
            raise Refused(EXISTS)
        expires = None if ttl is None else now + timedelta(seconds=ttl)
        self.talks[name] = Talk(expires=expires, slides=ttl is not None)


class Run:
    """Does at random in both what the service may be asked for, and compares.

    The service is two servers. What is sent again with its request id goes to any of them.
    """

    def __init__(self, servers, clock, seed, rows_of):
        self.servers, self.clock, self.rows_of = servers, clock, rows_of
        self.dice, self.model = random.Random(seed), Model()  # noqa: S311  repeatable

    @property
    def running(self):
        return self.dice.choice(self.servers)

    @property
    def stub(self):
        return self.running.conversations

    async def step(self):
        dice, name = self.dice, self.dice.choice(NAMES)
        named = {"conversation_id": name}
        talk = self.model.talks.get(name)
        etag = await self.given_etag(talk, named) if dice.random() < 0.2 else ""
        known = [node.id for node in talk.nodes()] if talk else []
        one = dice.choice([*known, *known, dice.choice(IDS)])
        items = [(dice.choice(IDS), dice.choice("xyz") * 4) for _ in range(dice.choice([1, 2, 3]))]
        messages = [said(text, message_id) for message_id, text in items]
        kind = dice.choice(
            [
                *(*("append",) * 5, *("rewrite",) * 3, *("promote",) * 4, "pop", "head", "head"),
                *("fork", "delete", "create", "again", "again"),
            ]
        )
        now, checked = self.clock(), {"expected_etag": etag}
        match kind:
            case "append":
                await self.same(
                    lambda: self.model.append(name, items, now, etag=etag),
                    "AppendMessages",
                    append(*messages, request_id=self.request_id(), **named, **checked),
                )
            case "rewrite":
                after = dice.choice([one, ""])
                given = {"request_id": self.request_id(), **named, **checked}
                await self.same(
                    lambda: self.model.append(name, items, now, etag=etag, after=after),
                    "RewriteMessages",
                    rewrite(after, *messages, **given),
                )
            case "pop":
                count = dice.choice([1, 2, 5])
                await self.same(
                    lambda: self.model.pop(name, count, now, etag=etag),
                    "PopMessages",
                    pop(count, request_id=self.request_id(), **named, **checked),
                )
            case "head":
                await self.same(
                    lambda: self.model.set_head(name, one, now, etag=etag),
                    "SetHead",
                    set_head(one, **named, **checked),
                )
            case "fork":
                at, new = dice.choice([one, ""]), dice.choice([n for n in NAMES if n != name])
                await self.same(
                    lambda: self.model.fork(name, at, new, now, etag=etag),
                    "ForkConversation",
                    fork(at, new, **named, **checked),
                )
            case "promote":
                chosen = dice.choice([[], [], [one], [one, *known[:2]]])
                await self.promoted(
                    lambda: self.model.promote(name, [*dict.fromkeys(chosen)], now),
                    "PromoteMessages",
                    promote(*chosen, **named),
                )
            case "again":
                await self.again(name)
            case "delete":
                await self.same(
                    lambda: self.model.delete(name, now, etag=etag),
                    "DeleteConversation",
                    delete(etag=etag, **named),
                )
            case "create":
                ttl = dice.choice([None, TTL])
                given = {} if ttl is None else {"ttl": Duration(seconds=ttl)}
                await self.same(
                    lambda: self.model.create(name, ttl, now),
                    "CreateConversation",
                    create(**named, **given),
                )

    async def given_etag(self, talk, named):
        """A stale one, or the current one."""
        if not talk or is_over(talk, self.clock()) or self.dice.random() >= 0.7:
            return "r999999"
        talk.etag = (await self.stub.GetConversation(get(**named))).etag
        return talk.etag

    def request_id(self):
        """None, or a new one."""
        return self.dice.choice(["", str(uuid.UUID(int=self.dice.getrandbits(128)))])

    async def again(self, name):
        """Send a request again that the conversation has answered, whatever became of it."""
        talk = self.model.live(name, self.clock())
        if talk and talk.answered:
            method, request, answer = self.dice.choice(talk.answered)
            assert await getattr(self.stub, method)(request) == answer

    async def promoted(self, expected, method, request):
        answer, nodes = await self.answered(expected, method, request)
        if answer is not None:
            found = [(one.content, one.metadata["message_id"]) for one in answer.memories]
            assert found == [(node.text, node.id) for node in nodes]

    async def answered(self, expected, method, request):
        """Give the answer and what is expected of it; nothing where both refuse alike."""
        code = nodes = None
        try:
            nodes = expected()
        except Refused as refusal:
            code = refusal.code
        call = getattr(self.stub, method)
        if code is None:
            answer = await call(request)
            if getattr(request, "request_id", ""):
                talk = self.model.talks[request.conversation_id]
                talk.answered.append((method, request, answer))
            return answer, nodes
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is code
        return None, None

    async def same(self, expected, method, request):
        answer, nodes = await self.answered(expected, method, request)
        if nodes is not None:
            found = [(m.message_id, m.parent_message_id, m.parts[0].text) for m in answer.messages]
            assert found == [(n.id, n.parent.id if n.parent else "", n.text) for n in nodes]

    async def check(self, *, swept=False):
        model, now = self.model, self.clock()
        there = {name for name in NAMES if (t := model.talks.get(name)) and not is_over(t, now)}
        assert set(await listing(self.stub)) == there
        for name in there:
            await self.check_talk(name, model.talks[name])
        memories = {
            memory.content: (memory.metadata["message_id"], memory.metadata["episode"])
            for memory in await stored(self.running)
        }
        assert memories == model.memories
        named = session_pb2.GetSessionRequest(session_id="s")
        assert (await self.running.sessions.GetSession(named)).conversation_count == len(there)
        if swept:
            kept = {node for talk in model.talks.values() for node in talk.nodes()}
            assert await self.rows_of("messages") == len(kept)

    async def check_talk(self, name, talk):
        found = await self.stub.GetConversation(get(conversation_id=name))
        way = [node.id for node in way_of(talk.head)]
        assert found.head_message_id == (way[-1] if way else "")
        assert (found.message_count, found.token_count) == (len(way), len(way))
        heads = {tip.id for tip in talk.tips} | ({talk.head.id} if talk.is_tip else set())
        assert (set(found.branch_heads), len(found.branch_heads)) == (heads, len(heads))
        named = {"conversation_id": name}
        assert await ids(self.stub, **named, page_size=self.dice.choice([1, 3, 50])) == way
        most = self.dice.choice([1, 3, 7])
        assert await ids(self.stub, **named, last=most) == way[-most:]
        assert await ids(self.stub, **named, max_tokens=most) == way[-most:]
        for tip in talk.tips:
            found_there = await ids(self.stub, **named, branch_head=tip.id)
            assert found_there == [node.id for node in tip.way()]


def is_over(talk, now):
    return talk.expires is not None and talk.expires <= now


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_conversations_do_as_the_model_does(serve, clock, rows_of, seed):
    running = await serve()
    run = Run((running, await serve()), clock, seed, rows_of)
    await run.stub.AppendMessages(append(said("xxxx", "m0"), conversation_id="a"))
    run.model.append("a", [("m0", "xxxx")], clock())
    for number in range(STEPS):
        clock.move(timedelta(seconds=run.dice.choice([0, 1, 9])))
        await run.step()
        if number % 3 == 0:
            await run.check()
    clock.move(timedelta(seconds=TTL))
    await running.server.sweeper.run_once()
    for name in NAMES:
        run.model.live(name, clock())
    await run.check(swept=True)
    # All of it is the same in another session, beside what that has.
    await run.stub.AppendMessages(append(said("x"), session_id="t", conversation_id="own"))
    await running.sessions.MergeSessions(merge("s", "t"))
    await running.sessions.MergeSessions(merge("t", "s"))
    await run.stub.DeleteConversation(delete(conversation_id="own"))
    await run.check(swept=True)
    for name in sorted(run.model.talks):
        await run.stub.DeleteConversation(delete(conversation_id=name))
    for table in ("messages", "conversations", "conversation_branches"):
        assert await rows_of(table) == 0
