"""What callers and watchers know of conversations, compared with what the database holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from memoryd.v1 import conversation_pb2 as pb

from .appends import Appends, branches_of, find_append_faults, shared_by
from .journals import Events, Findings, Journal, Span, compare_journals
from .promises import Broken, Fault, shortened
from .stored import Stored
from .stored_conversations import Conversation, Conversations
from .talks import Talk, are_linked, said_of

SEPARATOR = ":"
"""Between a caller and the rest of the id of a conversation of its own."""


class TalkJournal(Journal[str, Talk]):
    """What one caller knows of its own conversations in a session, by their ids."""


class ConversationWatch(Events):
    """Of conversations."""

    def newest_of(self, stored: Stored) -> int:
        """The revision of the last event that it has to receive."""
        return stored.conversations.newest.get(self.session_id, 0)


def find_conversation_faults(
    journals: Sequence[TalkJournal],
    callers: Sequence[Appends],
    watches: Iterable[ConversationWatch],
    stored: Conversations,
) -> Findings:
    """Find every broken promise about conversations."""
    shared = shared_by(callers)
    own: defaultdict[tuple[str, str], dict[str, Talk]] = defaultdict(dict)
    faults: list[Fault] = []
    for one in stored.held:
        faults += _check_conversation(one)
        if (one.session_id, one.conversation_id) in shared:
            faults += branches_of(one)
        else:
            caller = one.conversation_id.partition(SEPARATOR)[0]
            own[one.session_id, caller][one.conversation_id] = one.talk
    faults += _check_rows(stored)
    used: dict[str, Span] = {}
    for found in (compare_journals(journals, own), find_append_faults(callers, stored)):
        faults += found.faults
        for session_id, span in found.used.items():
            used[session_id] = used.get(session_id, Span()).plus(span)
    for watch in watches:
        faults += _check_watch(watch, stored)
    return Findings(faults, used)


def _check_conversation(one: Conversation) -> Iterator[Fault]:
    named = f"{one.session_id}/{one.conversation_id}"
    for line in one.lines:
        last = ""
        for message in line:
            if message.parent_id != last:
                what = f"{named}: {message.said} follows {last}, not {message.parent_id}"
                yield Fault(Broken.UNLINKED, what)
            last = message.said.message_id
    counts = len(one.head), sum(message.tokens for message in one.head)
    if one.counted != counts:
        what = f"{named}: {one.counted} messages and tokens by its row, {counts} in truth"
        yield Fault(Broken.COUNT, what)


def _check_rows(stored: Conversations) -> Iterator[Fault]:
    there = Counter(one.session_id for one in stored.held)
    for session_id, count in stored.counts.items():
        if count != there[session_id]:
            what = f"{session_id}: {count} conversations by its row, {there[session_id]} in truth"
            yield Fault(Broken.COUNT, what)
    needed = {
        (one.session_id, message.said)
        for one in stored.held
        for line in one.lines
        for message in line
    }
    for session_id, messages in stored.messages.items():
        for body, count in Counter(message.said.body for message in messages).items():
            if count > 1:
                what = f"{session_id}: {shortened(body)} is stored {count} times"
                yield Fault(Broken.DOUBLED, what)
        for message in messages:
            if (session_id, message.said) not in needed:
                what = f"{session_id}: {message.said} is of no conversation"
                yield Fault(Broken.UNWANTED, what)


def _check_watch(watch: ConversationWatch, stored: Conversations) -> Iterator[Fault]:
    newest = stored.newest.get(watch.session_id, 0)
    wrong = [
        *_check_order(watch, newest),
        *_check_messages(watch, stored),
        *_check_last(watch, stored),
    ]
    return (Fault(Broken.WATCH, f"{watch.session_id}: {what}") for what in wrong)


def _check_order(watch: ConversationWatch, newest: int) -> Iterator[str]:
    last = 0
    for event in watch.events:
        if event.revision <= last:
            yield f"got {event.revision} after {last}"
        last = event.revision
    if last != newest:
        yield f"received up to {last}, stored up to {newest}"


def _check_messages(watch: ConversationWatch, stored: Conversations) -> Iterator[str]:
    """Each message comes once, with the revision of its append; others may be gone by now."""
    seen = Counter(m.message_id for event in watch.events for m in event.messages)
    there = {m.said.message_id: m for m in stored.messages.get(watch.session_id, ())}
    for message_id, row in there.items():
        if seen[message_id] != 1:
            yield f"{row.said} was received {seen[message_id]} times"
    for event in watch.events:
        if not are_linked(event.messages):
            yield f"the messages of {event.revision} do not follow each other"
        for message in event.messages:
            if message.revision != event.revision:
                yield f"got {message.message_id} of {message.revision} at {event.revision}"
            kept = there.get(message.message_id)
            if kept is not None and kept.said != said_of(message):
                yield f"got {said_of(message)}, stored is {kept.said}"


def _check_last(watch: ConversationWatch, stored: Conversations) -> Iterator[str]:
    """What the last events show of each conversation is what there is."""
    state: dict[str, pb.Conversation] = {}
    for event in watch.events:
        state[event.conversation.conversation_id] = event.conversation
        if event.change == pb.CONVERSATION_CHANGE_DELETED:
            del state[event.conversation.conversation_id]
    shown = {
        name: (one.revision, one.message_count, one.token_count, one.head_message_id)
        for name, one in state.items()
    }
    there = {
        one.conversation_id: (one.revision, *one.counted, _id_of_head(one))
        for one in stored.held
        if one.session_id == watch.session_id
    }
    for name in shown.keys() | there.keys():
        if shown.get(name) != there.get(name):
            yield f"{name} is shown as {shown.get(name)}, stored is {there.get(name)}"


def _id_of_head(one: Conversation) -> str:
    return one.head[-1].said.message_id if one.head else ""
