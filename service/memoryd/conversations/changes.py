"""The conversations of one transaction.

It reads what matters, applies writes in their order, and writes what came out in a constant number
of statements. What removes messages is written at once. The unit of work holds the locks, and gives
out revisions.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from memoryd.conversations import placing, promotion, reading, replies
from memoryd.conversations.branches import Branch
from memoryd.conversations.removal import Unneeded
from memoryd.conversations.trees import tree_of
from memoryd.conversations.working_set import WorkingSet
from memoryd.conversations.writes import (
    Appended,
    AppendMessages,
    ChangeConversation,
    CreateConversation,
    DeleteConversation,
    Expiration,
    ExpireConversation,
    ForkConversation,
    MoveHead,
    PopMessages,
    Promoted,
    SetSummary,
)
from memoryd.domain.conversations import (
    MAX_BRANCHES,
    NOWHERE,
    Conversation,
    Head,
    NewMessage,
    Place,
    Summary,
    patched,
)
from memoryd.domain.errors import (
    ConversationAlreadyExists,
    ConversationNotFound,
    EtagMismatch,
    InvalidRequest,
    MessageNotFound,
    TooManyBranches,
    Violation,
)
from memoryd.domain.metadata import problem_with
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change, Session, expiry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.conversations.writes import (
        Candidate,
        ConversationOutcome,
        ConversationWrite,
        Named,
        PromoteMessages,
    )
    from memoryd.database.dialect import Dialect, Insertion, Update
    from memoryd.domain.conversations import Message, Tip
    from memoryd.domain.records import Stored
    from memoryd.sessions.revisions import Revisions


class ConversationChanges:
    """Conversations in one transaction."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        revisions: Mapping[Session, Revisions],
        may_have_answered: Callable[[Session, str], bool] = lambda *_: True,
    ) -> None:
        """`revisions`: those of the sessions that writes are about.

        `may_have_answered`: whether a session may have answered to a `request_id`.
        """
        self._now = now
        self._revisions = revisions
        self._rows = WorkingSet(connection, dialect, now, may_have_answered)
        self._trees = self._rows.trees

    def load(self, writes: Sequence[ConversationWrite]) -> None:
        """Read what writes are about. Their sessions are locked."""
        self._rows.load(writes)

    def count_change(self, session: Session) -> int:
        """How many conversations more a session has after the transaction than before."""
        return self._rows.added[session]

    @property
    def inserted(self) -> int:
        """How many conversations and messages are new."""
        return self._rows.inserted

    @property
    def answered(self) -> Iterable[tuple[Session, str]]:
        """The `request_id`s with new answers."""
        return self._rows.answered

    def save(self) -> list[Insertion | Update]:
        """Give what is still to be written."""
        return self._rows.save()

    def state(self, write: ConversationWrite) -> None:
        """Give nothing: what a write is refused for is found before it changes anything."""

    def apply(self, write: ConversationWrite) -> ConversationOutcome:
        """Apply a write, or nothing of it but that what has expired is gone.

        Raises ConversationNotFound, ConversationAlreadyExists, MessageNotFound,
        MessageAlreadyExists, TooManyBranches, EtagMismatch, RequestIdReused, QuotaExceeded, and
        InvalidRequest where the state grows too large or a summary ends on another branch.
        """
        revisions = self._revisions[write.session]
        outcome: ConversationOutcome = None
        match write:
            case AppendMessages():
                outcome = self._append(write, revisions)
            case PopMessages():
                outcome = self._pop(write, revisions)
            case CreateConversation():
                outcome = self._create(write, revisions)
            case ChangeConversation():
                outcome = self._change(write, revisions)
            case ForkConversation():
                outcome = self._fork(write, revisions)
            case MoveHead():
                outcome = self._move_head(write, revisions)
            case SetSummary():
                outcome = self._set_summary(write, revisions)
            case DeleteConversation():
                self._delete(write, revisions)
            case ExpireConversation():
                self._live(write.of, revisions)
        return outcome

    # Conversations

    def _create(self, write: CreateConversation, revisions: Revisions) -> Conversation:
        if self._live(write.of, revisions) is not None:
            raise ConversationAlreadyExists(write.of.conversation_id)
        revision = revisions.take(Usage(conversations=1))
        made = self._new(write.of, revision)
        return self._rows.add(_expiring(made._replace(**write.values), write.expiration, self._now))

    def _change(self, write: ChangeConversation, revisions: Revisions) -> Conversation:
        row = self._current(write.of, revisions)
        after = row._replace(**write.values)
        if write.expiration is not None:
            after = _expiring(after, write.expiration, self._now)
        elif _kind_of_expiration(row) in write.cleared:
            after = _expiring(after, Expiration(), self._now)
        elif not write.values:
            return row
        return self._rows.put(after, revisions.take(Usage()))

    def _fork(self, write: ForkConversation, revisions: Revisions) -> Conversation:
        row = self._current(write.of, revisions)
        fork = write.of._replace(conversation_id=write.new_id, etag="")
        if self._live(fork, revisions) is not None:
            raise ConversationAlreadyExists(write.new_id)
        head = row.head
        if write.at:
            head = self._trees.head_at(row, self._message(row, write.at))
        revision = revisions.take(Usage(conversations=1))
        made = self._new(fork, revision)._replace(
            tree=row.tree,
            head=head._replace(is_end=False),
            head_is_tip=head.place != NOWHERE,
            forked_from=row.conversation_id,
            forked_at=head.message_id,
            labels=row.labels,
            state=row.state,
        )
        marks = promotion.kept(row.promoted, [head.place], promotion.shared_in(self._trees, row))
        return self._rows.add(made._replace(promoted=marks))

    def _move_head(self, write: MoveHead, revisions: Revisions) -> Conversation:
        row = self._current(write.of, revisions)
        target = self._message(row, write.message_id)
        if target.place == row.head.place:
            return row
        moved = self._moved(row, self._trees.head_at(row, target))
        return self._rows.put(moved, revisions.take(Usage()))

    def _set_summary(self, write: SetSummary, revisions: Revisions) -> Conversation:
        row = self._current(write.of, revisions)
        summary = None
        if write.text or write.through:
            through = self._trees.find(row, write.through)
            if through is None or not self._trees.leads_to(row, row.head.place, through.place):
                raise InvalidRequest(Violation("summary.through_message_id", NOT_ON_BRANCH))
            summary = Summary(write.text, write.through, write.tokens, self._now)
        return self._rows.put(row._replace(summary=summary), revisions.take(Usage()))

    def _delete(self, write: DeleteConversation, revisions: Revisions) -> None:
        row = self._live(write.of, revisions)
        if row is None and not write.of.etag:
            if write.allow_missing:
                return
            raise ConversationNotFound(write.of.conversation_id)
        _check_etag(row, write.of)
        if row is not None:
            self._rows.remove(row, Change.DELETED, revisions)
            self._rows.dialect.owe_scrubbing(self._rows.connection)

    # Messages

    def _append(self, write: AppendMessages, revisions: Revisions) -> Appended:
        reply = self._rows.reply(write.of, write.retry)
        if reply is not None:
            return replies.appended(reply, write)
        row = self._live(write.of, revisions)
        if row is None and write.after is not None:
            raise ConversationNotFound(write.of.conversation_id)
        _check_etag(row, write.of)
        appended = self._appended(write, row, revisions)
        if write.retry.request_id:
            reply = replies.of_append(appended, write)
            self._rows.keep(write.of.session, write.retry.request_id, reply)
        return appended

    def _appended(
        self, write: AppendMessages, row: Conversation | None, revisions: Revisions
    ) -> Appended:
        base = row
        if row is not None and write.after is not None:
            base = self._rewound(row, write.after)
        planned = self._planned(write, row, base)
        added = [item for item in planned if isinstance(item, NewMessage)]
        state = self._patched({} if row is None else row.state, write.patch)
        if row is not None and base is row and not added and state == row.state:
            return Appended(placing.placed(planned, row.head, 0, 0, self._now).answered, row)
        size = sum(len(item.body) for item in added)
        added_usage = Usage(conversations=row is None, messages=len(added), bytes=size)
        revision = revisions.take(added_usage)
        if base is None:
            base = self._new(write.of, revision)
        placed = self._place(base, planned, revision)
        after = base._replace(state=state)
        if placed.added:
            after = after._replace(head=placed.head, head_is_tip=True)
            if base.ttl is not None:
                after = after._replace(expires_at=expiry(self._now, base.ttl))
        after = self._rows.add(after) if row is None else self._rows.put(after, revision)
        return Appended(placed.answered, after)

    def _patched(self, state: Mapping[str, Any], patch: Mapping[str, Any]) -> Mapping[str, Any]:
        after = patched(state, patch) if patch else state
        if after != state and (problem := problem_with(after)):
            raise InvalidRequest(Violation("state_patch", f"the state that it makes {problem}"))
        return after

    def _planned(
        self, write: AppendMessages, row: Conversation | None, base: Conversation | None
    ) -> list[placing.Planned]:
        def find(message_id: str) -> Message | None:
            return None if row is None else self._trees.find(row, message_id)

        def is_on_branch(place: Place) -> bool:
            return base is not None and self._trees.leads_to(base, base.head.place, place)

        return placing.plan(write.items, find, is_on_branch)

    def _place(
        self, row: Conversation, planned: Sequence[placing.Planned], revision: int
    ) -> placing.Placed:
        """Have new messages follow the head of a conversation."""
        tree, head = tree_of(row), row.head
        branch = head.place.branch if head.is_end else revision
        placed = placing.placed(planned, head, branch, revision, self._now)
        if placed.added and not head.is_end:
            first_depth = head.depth + 1
            made = Branch(branch, row.number, head.place.branch, first_depth, head.tokens)
            self._trees.add_branch(tree, made)
        for message in placed.added:
            self._trees.add(tree, message)
        self._rows.inserted += len(placed.added)
        return placed

    def _pop(self, write: PopMessages, revisions: Revisions) -> tuple[Message, ...]:
        reply = self._rows.reply(write.of, write.retry)
        if reply is not None:
            return replies.removed(reply)
        row = self._current(write.of, revisions)
        popped = self._take_newest(row, write.count, revisions)
        if write.retry.request_id:
            named, fingerprint = write.of.conversation_id, write.retry.fingerprint
            reply = replies.of_removal(popped, named, fingerprint)
            self._rows.keep(write.of.session, write.retry.request_id, reply)
        return popped

    def _take_newest(
        self, row: Conversation, count: int, revisions: Revisions
    ) -> tuple[Message, ...]:
        self._rows.flush()
        branches = self._trees.branches(tree_of(row))
        places = [*islice(branches.back_from(row.head.place), count + 1)]
        connection, dialect, session = self._rows.connection, self._rows.dialect, row.session
        outlines = reading.outlines_at(connection, dialect, session, places)
        fitting = reading.fitting(outlines[:count])
        if not fitting:
            return ()
        popped = reading.messages_at(connection, dialect, session, [m.place for m in fitting])
        head = Head()
        if len(fitting) < len(outlines):
            head = self._trees.head_at(row, outlines[len(fitting)])
        marks = promotion.kept(
            row.promoted,
            [head.place, *(tip.place for tip in row.tips)],
            promotion.shared_in(self._trees, row),
        )
        after = row._replace(
            head=head,
            head_is_tip=self._is_tip(row, row.tips, head),
            promoted=marks,
            summary=self._summary_without(fitting, row),
        )
        unneeded = Unneeded(connection, self._trees, row, after)
        revision = revisions.take(unneeded.usage())
        unneeded.delete()
        is_end = self._trees.is_end(row, head.place)
        self._rows.put(after._replace(head=head._replace(is_end=is_end)), revision)
        return tuple(reversed(popped))

    def _summary_without(self, popped: Iterable[Message], row: Conversation) -> Summary | None:
        """The summary, which names no message that is no longer there: another may get its id."""
        summary = row.summary
        for message in popped:
            if summary is not None and message.message_id == summary.through_message_id:
                ends = (tip.place for tip in row.tips)
                if not any(self._trees.leads_to(row, end, message.place) for end in ends):
                    summary = summary._replace(through_message_id="")
        return summary

    def promotable(self, write: PromoteMessages) -> list[Candidate]:
        """What of a promotion is to be stored and gone over, as the conversation is now.

        Raises ConversationNotFound and MessageNotFound; nothing changes but that what has expired
        is gone.
        """
        row = self._current(write.of, self._revisions[write.session])
        rows = self._rows
        there = promotion.still_there(
            write.candidates, rows.connection, rows.dialect, row, self._trees
        )
        if write.since_last:
            return promotion.next_in_line(there, row, self._trees, self._reached(row))
        if len(there) < len(write.candidates):
            left = {candidate.place for candidate in there}
            gone = next(c for c in write.candidates if c.place not in left)
            raise MessageNotFound(gone.message_id)
        return there

    def promoted(
        self, write: PromoteMessages, gone_over: Sequence[Candidate], stored: Sequence[Stored]
    ) -> Promoted:
        """Note that what `promotable` gave is stored. That is no change to callers."""
        row = self._current(write.of, self._revisions[write.session])
        if not write.since_last:
            return Promoted(stored, has_more=False)
        if gone_over:
            marks = promotion.advanced(
                row.promoted, gone_over[-1].place, promotion.shared_in(self._trees, row)
            )
            row = row._replace(promoted=marks)
            self._rows.amend(row)
        return Promoted(stored, has_more=self._reached(row).depth < row.head.depth)

    def _reached(self, row: Conversation) -> Place:
        shared = promotion.shared_in(self._trees, row)
        return promotion.reached(row.promoted, row.head.place, shared)

    def _rewound(self, row: Conversation, after: str) -> Conversation:
        """A conversation whose head is another message; empty: there is none."""
        if after == row.head.message_id:
            return row
        return self._moved(
            row, self._trees.head_at(row, self._message(row, after)) if after else Head()
        )

    def _message(self, row: Conversation, message_id: str) -> Message:
        found = self._trees.find(row, message_id)
        if found is None:
            raise MessageNotFound(message_id)
        return found

    def _moved(self, row: Conversation, head: Head) -> Conversation:
        """A conversation with another head; what the one before ends stays as a branch."""
        ends = [*row.tips, row.head.tip] if row.head_is_tip else [*row.tips]
        tips = [tip for tip in ends if not self._trees.leads_to(row, head.place, tip.place)]
        if len(tips) > MAX_BRANCHES:
            raise TooManyBranches(MAX_BRANCHES)
        is_tip = self._is_tip(row, tips, head)
        return row._replace(head=head, head_is_tip=is_tip, tips=tuple(tips))

    def _is_tip(self, row: Conversation, tips: Iterable[Tip], head: Head) -> bool:
        return head.place != NOWHERE and not any(
            self._trees.leads_to(row, tip.place, head.place) for tip in tips
        )

    def _live(self, of: Named, revisions: Revisions) -> Conversation | None:
        """What is there. One that has expired makes room."""
        row = self._rows.row(of)
        if row is not None and row.is_expired(self._now):
            self._rows.remove(row, Change.EXPIRED, revisions)
            return None
        return row

    def _current(self, of: Named, revisions: Revisions) -> Conversation:
        row = self._live(of, revisions)
        if row is None:
            raise ConversationNotFound(of.conversation_id)
        _check_etag(row, of)
        return row

    def _new(self, of: Named, revision: int) -> Conversation:
        return Conversation(
            of.session,
            of.conversation_id,
            revision,
            revision,
            revision,
            Change.CREATED,
            self._now,
            self._now,
        )


NOT_ON_BRANCH = "must be the id of a message on the head's branch; list the messages"


def _expiring(row: Conversation, expiration: Expiration, now: datetime) -> Conversation:
    ttl, expires_at = expiration
    return row._replace(ttl=ttl, expires_at=expires_at if ttl is None else expiry(now, ttl))


def _kind_of_expiration(row: Conversation) -> str:
    """The field of the protos that says when it expires."""
    if row.ttl is not None:
        return "ttl"
    return "never_expires" if row.expires_at is None else "expire_time"


def _check_etag(row: Conversation | None, of: Named) -> None:
    if of.etag and (row is None or row.etag != of.etag):
        raise EtagMismatch("the conversation")
