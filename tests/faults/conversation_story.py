"""Conversations whose every promise was kept, for tests that break one."""

from __future__ import annotations

from dataclasses import replace

from memoryd.v1 import conversation_pb2 as pb

from .appends import Append, Appends, Pop
from .checker import find_faults
from .history import History
from .promises import Broken
from .stored import Stored
from .stored_conversations import Conversation, Conversations, Message
from .talks import Said, Talk, said_of

SESSION = "user-123"
SHARED = "queue"
OWN = "holder:0"


def message(text: str) -> pb.Message:
    return pb.Message(message_id=text, parts=[pb.Part(text=text)])


def said(text: str) -> Said:
    return said_of(message(text))


class Story:
    """A conversation that two callers share, one of a single caller, and what is stored."""

    def __init__(self) -> None:
        self.history = History()
        self.one = self.history.shared_conversations("one", SESSION)
        self.two = self.history.shared_conversations("two", SESSION)
        self.journal = self.history.talk_journal("holder", SESSION)
        self.events = self.history.watch_conversations(SESSION).events
        self.lines: dict[str, list[Message]] = {SHARED: []}
        self.changed: dict[str, int] = {}
        self.revision = 0
        self.time = 0.0
        self.conversations = 0
        """How many more than there are the session has by its row."""

    @property
    def stored(self) -> Stored:
        held = [
            Conversation(SESSION, name, self.changed[name], tuple(line), counted=(len(line),) * 2)
            for name, line in self.lines.items()
        ]
        rows = [row for line in self.lines.values() for row in line]
        return Stored(
            {SESSION: self.revision},
            [],
            conversations=Conversations(
                held,
                {SESSION: rows},
                {SESSION: {*self.changed.values(), *(row.revision for row in rows)}},
                {SESSION: self.revision},
                {SESSION: len(held) + self.conversations},
            ),
        )

    def change(self, name: str, *texts: str) -> None:
        self.revision += 1
        self.time += 1
        line = self.lines.setdefault(name, [])
        for text in texts:
            parent = line[-1].said.message_id if line else ""
            line.append(Message(said(text), parent, self.revision, 1))
        self.changed[name] = self.revision
        event = pb.WatchConversationsResponse(revision=self.revision)
        event.conversation.conversation_id = name
        event.conversation.revision = self.revision
        event.conversation.message_count = event.conversation.token_count = len(line)
        event.conversation.head_message_id = line[-1].said.message_id if line else ""
        for row in line[len(line) - len(texts) :]:
            sent = event.messages.add()
            sent.CopyFrom(message(row.said.message_id))
            sent.parent_message_id, sent.revision = row.parent_id, row.revision
        self.events.append(event)

    def append(self, caller: Appends, *texts: str, is_answered: bool = True) -> None:
        append = Append(SHARED, tuple(said(text).body for text in texts))
        caller.appends.append(append)
        self.change(SHARED, *texts)
        if is_answered:
            append.revision, append.answered = self.revision, self.time

    def pop(self, caller: Appends, count: int) -> None:
        line = self.lines[SHARED]
        bodies = tuple(row.said.body for row in line[-count:])
        del line[-count:]
        self.change(SHARED)
        caller.pops.append(Pop(SHARED, bodies, self.time))

    def say(self, *texts: str) -> None:
        self.change(OWN, *texts)
        talk = self.journal.held.get(OWN, Talk()).appended(map(said, texts))
        self.journal.add(self.time, {OWN: talk}, revisions=1)

    def broken(self, **changed: object) -> set[Broken]:
        """With what is stored of conversations changed."""
        stored = self.stored
        conversations = replace(stored.conversations, **changed)
        return broken(self.history, replace(stored, conversations=conversations))


def broken(history: History, stored: Stored) -> set[Broken]:
    return {fault.kind for fault in find_faults(history, stored)}


def told() -> Story:
    """Some messages that were popped, an append that was given up, and one that was refused."""
    story = Story()
    story.append(story.one, "a", "b", "c")
    story.say("x", "y")
    story.append(story.two, "d", "e")
    story.pop(story.one, 1)
    story.append(story.one, "f", "g", is_answered=False)
    story.two.appends.append(Append(SHARED, (said("h").body, said("i").body)))
    story.append(story.two, "j", "k")
    story.say("z")
    return story
