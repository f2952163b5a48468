"""What one transaction has read of conversations, and what it writes of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from memoryd.conversations import replies, rows
from memoryd.conversations.removal import Unneeded, forget_requests
from memoryd.conversations.trees import Tree, Trees, tree_of
from memoryd.conversations.writes import (
    AppendMessages,
    ForkConversation,
    MoveHead,
    PopMessages,
    PromoteMessages,
    SetSummary,
)
from memoryd.database.dialect import Insertion, Update, columns_of
from memoryd.database.keyed import fetch_keyed
from memoryd.database.tables import (
    conversation_history,
    conversation_requests,
    conversations,
)
from memoryd.domain.errors import RequestIdReused
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change, Session
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.conversations.replies import Reply
    from memoryd.conversations.writes import ConversationWrite, Named, Retry
    from memoryd.database.dialect import Dialect, Row
    from memoryd.domain.conversations import Conversation
    from memoryd.sessions.revisions import Revisions

_REQUEST = (*SHARD_KEY, "request_id")
_REQUEST_KEY = tuple(conversation_requests.c[name] for name in _REQUEST)


class _Rows:
    """The rows of one session's conversations, as they are after the changes so far."""

    def __init__(self) -> None:
        self.by_id: dict[str, Conversation | None] = {}
        """None: there is none."""
        self.stored: set[str] = set()
        """Those that the database has a row of."""
        self.changed: set[str] = set()

    def put(self, row: Conversation) -> None:
        self.by_id[row.conversation_id] = row
        self.changed.add(row.conversation_id)


class WorkingSet:
    """The conversations that writes are about. Their sessions are locked."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        may_have_answered: Callable[[Session, str], bool],
    ) -> None:
        self._may_have_answered = may_have_answered
        self.connection = connection
        self.dialect = dialect
        self.now = now
        self._sessions: defaultdict[Session, _Rows] = defaultdict(_Rows)
        self.trees = Trees(connection, dialect)
        self._replies: dict[tuple[Session, str], Reply] = {}
        self._gone: list[Row] = []
        """That conversations are no longer there."""
        self.added: Counter[Session] = Counter()
        """How many conversations more a session has."""
        self.inserted = 0
        """How many conversations and messages are new."""

    def load(self, writes: Sequence[ConversationWrite]) -> None:
        """Read what writes are about. Their sessions are locked."""
        names = {(*session, i) for write in writes for session, i in _names(write)}
        # These do not answer the texts of summaries, which may be long.
        full = {
            (*session, i)
            for write in writes
            if not isinstance(write, AppendMessages | PopMessages | PromoteMessages)
            for session, i in _names(write)
        }
        self._take_in(rows.outlines_by_name(self.dialect), names - full)
        self._take_in(rows.full_by_name(self.dialect), full)
        self.trees.look_for(self._wanted_messages(writes))
        requests = {
            (*write.of.session, write.retry.request_id)
            for write in writes
            if isinstance(write, AppendMessages | PopMessages) and self._may_be_retry(write)
        }
        for found in fetch_keyed(
            self.connection, self.dialect, _by_request(self.dialect), _REQUEST_KEY, requests
        ):
            tenant, session_id, request_id, *answered = found
            reply = replies.Reply(*answered)
            self._replies[Session(tenant, session_id), request_id] = reply

    def _may_be_retry(self, write: AppendMessages | PopMessages) -> bool:
        of, request_id = write.of, write.retry.request_id
        if not request_id:
            return False
        # A call that changes nothing raises no revision, so another process does not know of its
        # answer. Its retry changes nothing either, but would be refused for a former etag.
        return bool(of.etag) or self._may_have_answered(of.session, request_id)

    def _take_in(self, statement: Select[Any], names: Iterable[tuple[str, str, str]]) -> None:
        wanted = sorted(names)
        for tenant, session_id, conversation_id in wanted:
            self._sessions[Session(tenant, session_id)].by_id[conversation_id] = None
        for row in map(
            rows.conversation_of,
            fetch_keyed(self.connection, self.dialect, statement, rows.KEY, wanted),
        ):
            of_session = self._sessions[row.session]
            of_session.by_id[row.conversation_id] = row
            of_session.stored.add(row.conversation_id)

    def _wanted_messages(self, writes: Sequence[ConversationWrite]) -> Iterable[tuple[Tree, str]]:
        for write in writes:
            row = self._sessions[write.of.session].by_id[write.of.conversation_id]
            if row is not None:
                yield from ((tree_of(row), i) for i in _message_ids(write))

    def row(self, of: Named) -> Conversation | None:
        """A conversation as it is after the changes so far."""
        return self._sessions[of.session].by_id[of.conversation_id]

    def add(self, row: Conversation) -> Conversation:
        self._sessions[row.session].put(row)
        self.added[row.session] += 1
        self.inserted += 1
        return row

    def put(self, row: Conversation, revision: int) -> Conversation:
        row = row._replace(revision=revision, change=Change.UPDATED, updated_at=self.now)
        self._sessions[row.session].put(row)
        return row

    def amend(self, row: Conversation) -> None:
        """Put what callers do not see as a change."""
        self._sessions[row.session].put(row)

    def remove(self, row: Conversation, change: Change, revisions: Revisions) -> None:
        """Delete a conversation, the messages that no other one needs, and what retries get."""
        self.flush()
        unneeded = Unneeded(self.connection, self.trees, row, None)
        revision = revisions.take(unneeded.usage().plus(Usage(conversations=-1)))
        unneeded.delete()
        session, conversation_id = row.session, row.conversation_id
        self.dialect.delete_many(self.connection, conversations, rows.NAME, [rows.key_of(row)])
        forget_requests(self.connection, session, conversation_id)
        gone = {"conversation_id": conversation_id, "revision": revision, "change": change.value}
        self._gone.append({**session._asdict(), **gone})
        self._replies = {
            place: reply
            for place, reply in self._replies.items()
            if (place[0], reply.conversation_id) != (session, conversation_id)
        }
        of_session = self._sessions[session]
        of_session.by_id[conversation_id] = None
        of_session.stored.discard(conversation_id)
        self.added[session] -= 1

    def reply(self, of: Named, retry: Retry) -> Reply | None:
        found = self._replies.get((of.session, retry.request_id)) if retry.request_id else None
        if found is not None and found.fingerprint != retry.fingerprint:
            raise RequestIdReused("request_id")
        return found

    def keep(self, session: Session, request_id: str, reply: Reply) -> None:
        """Keep an answer for a retry."""
        self._replies[session, request_id] = reply

    def save(self) -> list[Insertion | Update]:
        """Give what is still to be written."""
        return [*self._save_rows(), *self._history(), *self._answers()]

    def flush(self) -> None:
        """Write what has changed, for what goes by the rows of the database."""
        self.dialect.write(self.connection, self._save_rows())

    def _save_rows(self) -> list[Insertion | Update]:
        added: list[Row] = []
        updated: defaultdict[bool, list[Row]] = defaultdict(list)
        for of_session in self._sessions.values():
            for conversation_id in sorted(of_session.changed):
                row = of_session.by_id[conversation_id]
                if row is None:
                    continue
                values = rows.values_of(row)
                if conversation_id in of_session.stored:
                    updated["summary" in values].append(values)
                else:
                    added.append(values)
                    of_session.stored.add(conversation_id)
            of_session.changed.clear()
        pending: list[Insertion | Update] = [
            Update(conversations, rows.NAME, changed) for changed in updated.values()
        ]
        if added:
            pending.append(Insertion(conversations, columns_of(added), {}))
        return [*pending, *self.trees.insertions()]

    def _history(self) -> list[Insertion]:
        if not self._gone:
            return []
        recorded = {"recorded_at": self.now}
        return [Insertion(conversation_history, columns_of(self._gone), recorded)]

    @property
    def answered(self) -> Iterable[tuple[Session, str]]:
        """The `request_id`s with new answers."""
        return (place for place, reply in self._replies.items() if reply.is_new)

    def _answers(self) -> list[Insertion]:
        new = [
            {
                **session._asdict(),
                "request_id": request_id,
                "conversation_id": reply.conversation_id,
                "fingerprint": reply.fingerprint,
                "answer": reply.answer,
                "bodies": reply.bodies,
            }
            for (session, request_id), reply in self._replies.items()
            if reply.is_new
        ]
        if not new:
            return []
        return [Insertion(conversation_requests, columns_of(new), {"created_at": self.now})]


def _names(write: ConversationWrite) -> Iterable[tuple[Session, str]]:
    yield write.of.session, write.of.conversation_id
    if isinstance(write, ForkConversation):
        yield write.of.session, write.new_id


def _message_ids(write: ConversationWrite) -> Iterable[str]:
    """The ids of messages that a write is about."""
    match write:
        case AppendMessages(items=items, after=after):
            named = [item.message_id for item in items]
            return filter(None, [*named, after or ""])
        case ForkConversation(at=message_id) | MoveHead(message_id=message_id):
            return filter(None, [message_id])
        case SetSummary(through=message_id):
            return filter(None, [message_id])
        case _:
            return ()


@cache
def _by_request(dialect: Dialect) -> Select[Any]:
    r = conversation_requests.c
    columns = (r.conversation_id, r.fingerprint, r.answer, r.bodies)
    return dialect.look_up(_REQUEST_KEY, (*_REQUEST_KEY, *columns))
