"""A worker that makes memories of what is said: follow conversations, extract facts, store them.

    python examples/extract.py localhost:50051 [SESSION]

`facts` stands for your language model. The worker may be killed at any time and started again: it
resumes from the revision that it keeps in a document, and what it stores twice changes nothing.
"""

from __future__ import annotations

import asyncio
import re
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.client import (
    ConversationChange,
    ConversationClient,
    DeadlineExceeded,
    DocumentClient,
    InvalidArgument,
    MemoryClient,
    NotFound,
    OutOfRange,
    Put,
    ResourceExhausted,
    Role,
    Unavailable,
    open_channel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memoryd.client import Conversation, Message
    from memoryd.client.answers import WatchConversationsResponse

PLACE = ("extractor",)
"""The namespace of the worker's document."""
KEY = "revision"
PAUSE_SECONDS = 0.5
"""Before it watches again."""
NAMES = uuid.UUID("6f6c9a3e-7d0b-4c55-9a3f-0f6a3c1f5b1e")
"""A UUID of this worker's own, from which it makes its request ids."""

FACT = re.compile(r"\b[Mm]y (?P<what>[a-z0-9]+(?: [a-z0-9]+){0,3}) (?:is|are) (?P<rest>[^.!?]+)")


@dataclass(frozen=True)
class Fact:
    """Something worth keeping, under a name, so that what is said of it later replaces it."""

    key: str
    content: str


def facts(said: str) -> Iterator[Fact]:
    """Find the facts in a text; a language model would find more."""
    for found in FACT.finditer(said):
        yield Fact(found["what"].replace(" ", "_"), found[0][0].upper() + found[0][1:])


class Worker:
    def __init__(
        self,
        conversations: ConversationClient,
        memory: MemoryClient,
        documents: DocumentClient,
        session: str,
    ) -> None:
        self._conversations, self._memory = conversations, memory
        self._documents, self._session = documents, session

    async def run(self) -> None:
        """Follow the session until the process ends."""
        revision = await self._load()
        while True:
            try:
                async for event in self._conversations.watch(self._session, revision):
                    if event.change is ConversationChange.PURGED:
                        continue  # the session is erased; to save anything would make it again
                    for message in await self._messages(event):
                        await self._learn(event.conversation, message)
                    # Only now: after a kill before this the event comes again.
                    revision = event.revision
                    await self._save(revision)
            except OutOfRange:
                revision = 0  # too long ago; every message that is still there comes again
            except (Unavailable, DeadlineExceeded, ResourceExhausted) as error:
                print(f"({error.message}; watching again)", flush=True)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _messages(self, event: WatchConversationsResponse) -> Sequence[Message]:
        """Give the messages of an event; those that were too large for it are read."""
        if not event.truncated:
            return event.messages
        try:
            window = await self._conversations.window(
                self._session,
                event.conversation.conversation_id,
                branch_head=event.messages[-1].message_id,
                after_message_id=event.messages[0].parent_message_id or None,
            )
        except NotFound:
            return event.messages  # removed meanwhile
        return window.messages

    async def _learn(self, conversation: Conversation, message: Message) -> None:
        if message.role is not Role.USER:
            return
        said = "\n".join(part.text for part in message.parts if part.text)
        episode = conversation.conversation_id
        for fact in facts(said):
            try:
                stored = await self._memory.store(
                    self._session,
                    fact.content,
                    content_type="fact",
                    key=fact.key,
                    metadata={
                        "episode": episode,
                        "message_id": message.message_id,
                        "speaker": message.author or "user",
                    },
                    # The same for the same message, however often it comes.
                    request_id=str(uuid.uuid5(NAMES, f"{episode}/{message.message_id}/{fact.key}")),
                )
            except InvalidArgument as error:
                print(f"not stored: {error.message}", flush=True)  # nor would it be another time
            else:
                print(f"{stored.outcome}: {fact.key}: {fact.content}", flush=True)

    async def _load(self) -> int:
        try:
            document = await self._documents.get(self._session, KEY, namespace=PLACE)
        except NotFound:
            return 0
        return int(document.text or 0)

    async def _save(self, revision: int) -> None:
        await self._documents.put(self._session, Put(KEY, PLACE, text=str(revision)))


async def follow(target: str, session: str) -> None:
    async with open_channel(target) as channel:
        await Worker(
            ConversationClient(channel=channel),
            MemoryClient(channel=channel),
            DocumentClient(channel=channel),
            session,
        ).run()


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1], *(sys.argv[2:] or ["ada"])))
