"""Callers that hold conversations of their own, with branches and forks.

What is in doubt a caller looks up, and a call must have made all of its changes or none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.json_format import MessageToDict

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub

from .appenders import Messages
from .callers import Caller
from .conversation_faults import SEPARATOR
from .history import History
from .promises import Broken
from .talks import Said, Talk, Way, are_linked, said_of

NAMES = 4
"""Conversations of one caller at the most."""

LONG = 30
"""Messages of a branch; a longer one has its conversation deleted."""

WITH_PATCH = 0.3
"""The share of appends that change the state."""


class Holder(Caller):
    """Every body is unique."""

    def __init__(
        self, name: str, stub: ConversationServiceStub, history: History, session_id: str
    ) -> None:
        self.journal = history.talk_journal(name, session_id)
        super().__init__(self.journal, stub, history, "conversations")
        self._names = [f"{name}{SEPARATOR}{n}" for n in range(NAMES)]
        self._messages = Messages(name, self._random)

    async def run(self, stop: asyncio.Event) -> None:
        writes = (self._append, self._append, self._append, self._pop, self._rewrite)
        others = (self._set_head, self._fork, self._summarise, self._delete)
        reads = (self._get, self._list, self._export, self._list_all)
        while not stop.is_set():
            await self._random.choice((*writes, *others, *reads))()

    def _named(self, name: str) -> dict[str, str]:
        return {"session_id": self._session_id, "conversation_id": name}

    def _pick(self) -> tuple[str, Talk]:
        """One that is there, or that is to be made."""
        name = self._random.choice(self._names)
        return name, self.journal.held.get(name, Talk())

    def _somewhere(self, talk: Talk) -> Way:
        """The way to a message of any branch; to none before the first."""
        return self._random.choice([(), *talk.places.values()])

    def _record(self, name: str, talk: Talk | None, revisions: int = 1) -> None:
        held = {key: value for key, value in self.journal.held.items() if key != name}
        if talk is not None:
            held[name] = talk
        self.journal.add(self._history.now(), held, revisions)

    def _is_refused(self, what: str, answer: Any, *, absent: bool = False) -> bool:
        """Record a refusal, unless it is since the conversation is `absent`."""
        if absent:
            self.journal.compare(what, answer, "NOT_FOUND", kind=Broken.UNWANTED)
            return True
        if isinstance(answer, str):
            self.journal.compare(f"{what} is refused", answer, kind=Broken.LOST)
            return True
        return False

    # Messages

    async def _append(self) -> None:
        name, before = self._pick()
        request = pb.AppendMessagesRequest(**self._named(name), messages=self._messages.some())
        state = before.state
        if self._random.random() < WITH_PATCH:
            state = said_of(request.messages[0]).body.hex()[:40]
            request.state_patch.update({"last": state})
        if not request.messages[0].message_id or self._random.random() < 0.5:
            request.request_id = self._request_id()
        await self._follow("AppendMessages", request, name, before._replace(state=state))

    async def _rewrite(self) -> None:
        name, before = self._pick()
        to = self._somewhere(before)
        request = pb.RewriteMessagesRequest(
            **self._named(name),
            after_message_id=to[-1].message_id if to else "",
            messages=self._messages.some(least=0),
            request_id=self._request_id(),
        )
        await self._follow("RewriteMessages", request, name, before.moved(to))

    async def _follow(self, method: str, request: Any, name: str, moved: Talk) -> None:
        """Have messages follow the head of `moved`."""
        before = self.journal.held.get(name)
        is_absent = before is None and method == "RewriteMessages"
        after = moved.appended(map(said_of, request.messages))
        answer = await self.attempt(method, request)
        if answer is None:
            found = await self._bodies(name)
            allowed = [_bodies_of(talk.head) for talk in (before or Talk(), after)]
            self.journal.compare(f"{method} in doubt", found, *allowed, kind=Broken.HALF)
            answer = await self.answer(method, request)
        if self._is_refused(method, answer, absent=is_absent):
            return
        said = tuple(map(said_of, answer.messages))
        talk = moved.appended(said)
        shown = _bodies_of(talk.head)
        self.journal.compare(method, shown, _bodies_of(after.head), kind=Broken.PHANTOM)
        is_linked = are_linked([*_as_messages(moved.head[-1:]), *answer.messages])
        self.journal.compare(f"{method} links", is_linked, True, kind=Broken.UNLINKED)  # noqa: FBT003  the value
        self._compare(method, answer.conversation, talk)
        self._record(name, talk, revisions=talk != before)
        if request.request_id:
            await self._repeat(method, request, answer)

    async def _pop(self) -> None:
        name, before = self._pick()
        count = self._random.randint(1, 3)
        request = pb.PopMessagesRequest(
            **self._named(name), count=count, request_id=self._request_id()
        )
        answer = await self.answer("PopMessages", request)
        if self._is_refused("a pop", answer, absent=name not in self.journal.held):
            return
        popped = tuple(map(said_of, answer.messages))
        self.journal.compare("a pop", popped, before.head[-count:], kind=Broken.LOST)
        self._record(name, before.popped(count), revisions=bool(popped))
        await self._repeat("PopMessages", request, answer)

    # Conversations

    async def _set_head(self) -> None:
        name, before = self._pick()
        to = self._somewhere(before)
        if not to:
            return
        request = pb.SetHeadRequest(**self._named(name), message_id=to[-1].message_id)
        answer = await self.answer("SetHead", request)
        if not self._is_refused("a set head", answer):
            talk = before.moved(to) if to != before.head else before
            self._compare("a set head", answer, talk)
            self._record(name, talk, revisions=talk != before)

    async def _fork(self) -> None:
        name, source = self._pick()
        new = next((one for one in self._names if one not in self.journal.held), None)
        if name not in self.journal.held or new is None:
            return
        at = self._somewhere(source) or source.head
        request = pb.ForkConversationRequest(
            **self._named(name),
            at_message_id=at[-1].message_id if at else "",
            new_conversation_id=new,
        )
        answer = await self._changed("ForkConversation", request, done="ALREADY_EXISTS")
        if not self._is_refused("a fork", answer):
            self._record(new, source.forked(at))
            if answer is not None:
                self._compare("a fork", answer, source.forked(at))

    async def _summarise(self) -> None:
        name, before = self._pick()
        if not before.head:
            return
        named = pb.GetConversationRequest(**self._named(name))
        there = await self.answer("GetConversation", named)
        if self._is_refused("a get before a summary", there):
            return
        through = self._random.choice(before.head).message_id
        text = f"until {through} at {there.revision}"
        summary = pb.Summary(text=text, through_message_id=through)
        request = pb.SetSummaryRequest(
            **self._named(name), summary=summary, expected_etag=there.etag
        )
        answer = await self._changed("SetSummary", request, done="ABORTED")
        if not self._is_refused("a summary", answer):
            self._record(name, before._replace(summary=(text, through)))

    async def _changed(self, method: str, request: Any, *, done: str) -> Any:
        """The answer of a call that cannot be repeated once it was made; None if it is lost."""
        answer = await self.attempt(method, request)
        if answer is not None:
            return answer
        answer = await self.answer(method, request, done=done)
        return None if answer == done else answer

    async def _delete(self) -> None:
        name = self._random.choice(self._names)
        long = [one for one, talk in self.journal.held.items() if len(talk.head) > LONG]
        if not long and self._random.random() < 0.5:
            return
        name = long[0] if long else name
        request = pb.DeleteConversationRequest(**self._named(name), allow_missing=True)
        answer = await self.answer("DeleteConversation", request)
        if not self._is_refused("a delete", answer) and name in self.journal.held:
            self._record(name, None)

    # Reads

    def _compare(self, what: str, shown: pb.Conversation, talk: Talk) -> None:
        """Compare an answer with what a conversation must be by then."""
        found = (
            shown.message_count,
            shown.head_message_id,
            sorted(shown.branch_heads),
            shown.summary.through_message_id,
            MessageToDict(shown.state).get("last", ""),
        )
        wanted = (
            len(talk.head),
            talk.head[-1].message_id if talk.head else "",
            sorted(way[-1].message_id for way in talk.ends),
            talk.summary[1] if talk.summary else "",
            talk.state,
        )
        self.journal.compare(f"{what} shows", found, wanted, kind=Broken.BACKWARDS)

    async def _bodies(self, name: str, **window: Any) -> tuple[bytes, ...]:
        """What a list shows of a conversation."""
        request = pb.ListMessagesRequest(**self._named(name), page_size=1000, **window)
        answer = await self.answer("ListMessages", request)
        if isinstance(answer, str):
            return ()
        return tuple(said_of(message).body for message in answer.messages)

    async def _get(self) -> None:
        name, talk = self._pick()
        request = pb.GetConversationRequest(**self._named(name))
        answer = await self.answer("GetConversation", request)
        is_absent = name not in self.journal.held
        if not self._is_refused("a get", answer, absent=is_absent):
            self._compare("a get", answer, talk)
            text = talk.summary[0] if talk.summary else ""
            self.journal.compare("a get", answer.summary.text, text, kind=Broken.BACKWARDS)

    async def _list(self) -> None:
        name, talk = self._pick()
        wanted, window = talk.head, {}
        way = self._random.choice([*talk.ways])
        match self._random.randrange(3):
            case 0:
                wanted, window = talk.head[-3:], {"last": 3}
            case 1 if talk.head:
                at = self._random.randrange(len(talk.head))
                after = talk.head[at].message_id
                wanted, window = talk.head[at + 1 :], {"after_message_id": after}
            case 2 if way:
                wanted, window = way, {"branch_head": way[-1].message_id}
        found = await self._bodies(name, **window)
        what = f"a list of {name} with {window}"
        self.journal.compare(what, found, _bodies_of(wanted), kind=Broken.BACKWARDS)

    async def _export(self) -> None:
        name, talk = self._pick()
        if name not in self.journal.held:
            return
        answer = await self.answer("ExportMessages", pb.ExportMessagesRequest(**self._named(name)))
        if self._is_refused("an export", answer):
            return
        sent = [message for one in answer for message in one.messages]
        found = sorted(map(said_of, sent))
        wanted = sorted(way[-1] for way in talk.places.values())
        self.journal.compare("an export", found, wanted, kind=Broken.BACKWARDS)
        before = {""}
        for message in sent:
            self.journal.compare("parent", message.parent_message_id, *before, kind=Broken.UNLINKED)
            before.add(message.message_id)

    async def _list_all(self) -> None:
        request = pb.ListConversationsRequest(session_id=self._session_id, page_size=1000)
        answer = await self.answer("ListConversations", request)
        shown = {one.conversation_id for one in answer.conversations}
        found = shown.intersection(self._names)
        wanted = self.journal.held.keys()
        self.journal.compare("a list of all", found, wanted, kind=Broken.BACKWARDS)


def _bodies_of(way: Way) -> tuple[bytes, ...]:
    return tuple(said.body for said in way)


def _as_messages(way: tuple[Said, ...]) -> list[pb.Message]:
    return [pb.Message(message_id=said.message_id) for said in way]
