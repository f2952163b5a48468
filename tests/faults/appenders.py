"""Callers that append to the same conversations, and pop from one of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterable
from typing import Any

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub

from .appends import Append, Pop, Read
from .callers import Caller
from .harness import Watcher
from .history import History
from .promises import Broken
from .talks import are_linked, said_of

LOG = "log"
"""Callers only append to it."""

QUEUE = "queue"
"""Callers also pop from it."""

MOST_MESSAGES = 4
"""Of one append."""

GIVEN_UP = 0.3
"""The share of appends in doubt that are not repeated."""

LARGE = 4096
"""Bytes of some bodies, which lie outside their row on PostgreSQL."""


class Messages:
    """Makes the messages of a caller; every body is unique, and so is every id."""

    def __init__(self, caller: str, dice: random.Random) -> None:
        self._caller = caller
        self._random = dice
        self._numbers = itertools.count()

    def some(self, least: int = 1, most: int = MOST_MESSAGES) -> list[pb.Message]:
        has_ids = self._random.random() < 0.5
        return [self._one(has_ids=has_ids) for _ in range(self._random.randint(least, most))]

    def _one(self, *, has_ids: bool) -> pb.Message:
        """A message that callers could not get back if anything read more into it."""
        number = next(self._numbers)
        text = f"{self._caller} says {number}"
        message = pb.Message(
            message_id=f"{self._caller}:{number}" if has_ids else "",
            role=self._random.choice(pb.Role.values()),
            author=self._caller,
            parts=[pb.Part(text=f"{text}: \ufeff größer, 数, 🙂 \r\n")],
        )
        match self._random.randrange(5):
            case 0:
                message.raw_json = f' {{"n" : 9007199254740993, "n":1E2,"t":{json.dumps(text)} }}\n'
                message.raw_format = "openai.item"
            case 1:
                call = pb.ToolCall(call_id=text, name="look", arguments_json='{"n" : 1.0e2}')
                message.parts.append(pb.Part(tool_call=call))
                message.turn_id = text
            case 2:
                size = self._random.choice((16, 16, 16, LARGE))
                blob = pb.Blob(mime_type="a/b", data=self._random.randbytes(size))
                message.parts.append(pb.Part(blob=blob))
                message.token_count = number
            case 3:
                message.metadata.update({"n": number, "deep": {"list": [1, 2.5, None, True]}})
        return message


class Appender(Caller):
    """Makes calls on conversations that others use, too."""

    def __init__(
        self, name: str, stub: ConversationServiceStub, history: History, session_id: str
    ) -> None:
        self._calls = history.shared_conversations(name, session_id)
        super().__init__(self._calls, stub, history, "conversations")
        self._messages = Messages(name, self._random)
        self._first: pb.Message | None = None
        """The last one of its messages in the log that it has not listed from yet."""
        self._since: list[bytes] = []
        """The bodies that it has appended to the log after that one."""

    async def run(self, stop: asyncio.Event) -> None:
        kinds = (self._append_to_log, self._append_to_log, self._append_to_queue, self._pop)
        while not stop.is_set():
            await self._random.choice((*kinds, self._list))()

    def _named(self, conversation_id: str) -> dict[str, str]:
        return {"session_id": self._session_id, "conversation_id": conversation_id}

    async def _append(self, conversation_id: str, *, is_retried_by_ids: bool) -> Any:
        """The answer; None where it was given up."""
        messages = self._messages.some()
        append = Append(conversation_id, tuple(said_of(message).body for message in messages))
        self._calls.appends.append(append)
        request = pb.AppendMessagesRequest(**self._named(conversation_id), messages=messages)
        if not (is_retried_by_ids and messages[0].message_id):
            request.request_id = self._request_id()
        answer = await self.attempt("AppendMessages", request)
        if answer is None:
            if self._random.random() < GIVEN_UP:
                return None
            answer = await self.answer("AppendMessages", request)
        if isinstance(answer, str):
            self._calls.compare("an append is refused", answer, kind=Broken.LOST)
            return None
        bodies = tuple(said_of(message).body for message in answer.messages)
        self._calls.compare("an append", bodies, append.bodies, kind=Broken.PHANTOM)
        is_linked = are_linked(answer.messages)
        self._calls.compare("an append is linked", is_linked, True, kind=Broken.UNLINKED)  # noqa: FBT003  the value
        append.revision, append.answered = answer.messages[0].revision, self._history.now()
        if request.request_id:
            await self._repeat("AppendMessages", request, answer)
        return answer

    async def _append_to_log(self) -> None:
        answer = await self._append(LOG, is_retried_by_ids=self._random.random() < 0.5)
        if answer is None:
            return
        if self._first is None:
            self._first, self._since = answer.messages[-1], []
        else:
            self._since += (said_of(message).body for message in answer.messages)

    async def _append_to_queue(self) -> None:
        # What is popped before a retry by ids alone is appended again.
        await self._append(QUEUE, is_retried_by_ids=False)

    async def _pop(self) -> None:
        count = self._random.randint(1, MOST_MESSAGES)
        request = pb.PopMessagesRequest(
            **self._named(QUEUE), count=count, request_id=self._request_id()
        )
        answer = await self.answer("PopMessages", request)
        if isinstance(answer, str):
            self._calls.compare("a pop is refused", answer, "NOT_FOUND", kind=Broken.LOST)
            return
        is_linked = are_linked(answer.messages)
        self._calls.compare("a pop is linked", is_linked, True, kind=Broken.UNLINKED)  # noqa: FBT003  the value
        bodies = tuple(said_of(message).body for message in answer.messages)
        self._calls.pops.append(Pop(QUEUE, bodies, self._history.now()))
        await self._repeat("PopMessages", request, answer)

    async def _list(self) -> None:
        """List the log from a message of its own on, with all that it has appended since."""
        if self._first is None:
            return
        first, since = self._first, self._since
        request = pb.ListMessagesRequest(**self._named(LOG), after_message_id=first.message_id)
        answer = await self.answer("ListMessages", request)
        if isinstance(answer, str):
            self._calls.compare("a list is refused", answer, kind=Broken.BACKWARDS)
            return
        shown = tuple(said_of(message).body for message in answer.messages)
        is_linked = are_linked([first, *answer.messages])
        self._calls.compare("a list is linked", is_linked, True, kind=Broken.UNLINKED)  # noqa: FBT003  the value
        if not answer.next_page_token:
            own = [body for body in shown if body in since]
            self._calls.compare("what it has appended since", own, since, kind=Broken.BACKWARDS)
        read = Read(LOG, said_of(first).body, shown, self._history.now())
        self._calls.reads.append(read)
        self._first = None


def watch_conversations(
    stub: ConversationServiceStub, history: History, session_id: str
) -> Watcher:
    """Follow the conversations of a session."""

    def stream(last: int) -> AsyncIterable[pb.WatchConversationsResponse]:
        request = pb.WatchConversationsRequest(session_id=session_id, start_revision=last)
        return stub.WatchConversations(request)

    return Watcher(history.watch_conversations(session_id), stream)
