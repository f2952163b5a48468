"""Many writes in one transaction: lock the sessions, read what matters, decide in Python, write.

Deciding is the same code for both databases, and sees one session's changes one after the other:
the lock on the session's row keeps other writers out until the commit. Revisions are therefore
given out in commit order. The unique index on live contents stands behind it all the same.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from memoryd.conversations.changes import ConversationChanges
from memoryd.conversations.writes import KINDS as OF_CONVERSATIONS
from memoryd.conversations.writes import PromoteMessages, memories_of
from memoryd.documents.changes import DocumentChanges
from memoryd.documents.writes import (
    ExpireDocument,
    MoveDocuments,
    OnNames,
    WriteDocuments,
)
from memoryd.domain.errors import MemorydError
from memoryd.domain.quotas import NOTHING
from memoryd.memories.cached_session import SessionNews
from memoryd.memories.changes import MemoryChanges
from memoryd.memories.known_sessions import KnownSession, KnownSessions
from memoryd.memories.session_changes import SessionWork
from memoryd.memories.writes import Outcome, Store, Write, sessions_of, tenant_of
from memoryd.sessions.accounts import open_accounts, open_known, save_accounts
from memoryd.sessions.create import drop_unused, lock_or_create
from memoryd.sessions.lock import LockedSession
from memoryd.sessions.revisions import raise_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect, Insertion, Update
    from memoryd.domain.quotas import Account, Quotas
    from memoryd.domain.records import Session

_OF_DOCUMENTS = (
    WriteDocuments,
    ExpireDocument,
    OnNames,
    MoveDocuments,
)


class UnitOfWork:
    """Some writes, applied in their order within one transaction."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        known: KnownSessions | None = None,
        *,
        quotas_of: Callable[[str], Quotas] | None = None,
        on_unranked: Callable[[Mapping[Session, float]], None] = lambda _: None,
        absent: set[Session] | None = None,
    ) -> None:
        """`quotas_of` gives those of a tenant; None: what is done needs none of a quota.

        `on_unranked`: see Crowding; `absent`: see `lock_or_create`.
        """
        self._quotas_of = quotas_of
        self._accounts: Mapping[str, Account] = {}
        self._connection = connection
        self._known_sessions = known or KnownSessions()
        self._dialect = dialect
        self._now = now
        self._work: dict[Session, SessionWork] = {}
        self._known: dict[Session, KnownSession | None] = {}
        """What the sessions may have; None where that is unknown."""
        self._absent = absent
        self._new: set[Session] = set()
        """Sessions that have had no change before."""
        self._memories = MemoryChanges(
            connection, dialect, now, self._work, known=self._known, on_unranked=on_unranked
        )
        self._documents: DocumentChanges | None = None
        """None where no write is about documents of a session that is there."""
        self._conversations: ConversationChanges | None = None
        """The same of conversations."""

    def apply(self, writes: Sequence[Write]) -> list[Outcome | MemorydError]:
        """Apply each write or none of it; answer in their order, an error for what was refused."""
        self._lock(writes)
        self._memories.load([*writes, *self._stores_of(writes)])
        outcomes = [self._attempt(write) for write in writes]
        self._save()
        return outcomes

    def remember(self) -> None:
        """Keep what the next plan can use; to be called when this one is committed."""
        self._memories.remember()
        if self._conversations is not None:
            for session, request_id in self._conversations.answered:
                if (known := self._known[session]) is not None:
                    known.add_request(request_id)
        for session, work in self._work.items():
            known = self._known[session]
            if known is not None:
                self._known_sessions.put(session, work.revision, known)

    @property
    def changed(self) -> list[Session]:
        """The sessions that have a new revision."""
        return [work.session for work in self._work.values() if work.has_changed]

    @property
    def news(self) -> Iterator[SessionNews]:
        """What has become of each of those sessions."""
        for work in self._work.values():
            if work.has_changed:
                yield SessionNews(
                    work.session,
                    before=work.found.revision,
                    revision=work.revision,
                    access_revision=work.found.access_revision,
                    changed=[work.rows[i] for i in work.added | work.changed],
                )

    @property
    def inserted(self) -> Counter[str]:
        """How many memories and documents are new, and how many conversations and messages."""
        counted = Counter(memories=sum(len(work.added) for work in self._work.values()))
        if self._documents is not None:
            counted["documents"] = self._documents.inserted
        if self._conversations is not None:
            counted["conversations"] = self._conversations.inserted
        return counted

    def _lock(self, writes: Sequence[Write]) -> None:
        """Lock the sessions, in one order for all, and make those that stores need."""
        wanted = (session for write in writes for session in sessions_of(write))
        storing = {item.session for w in writes if isinstance(w, Store) for item in w.items}
        of_documents = [write for write in writes if isinstance(write, _OF_DOCUMENTS)]
        of_conversations = [write for write in writes if isinstance(write, OF_CONVERSATIONS)]
        others = (*of_documents, *of_conversations)
        storing |= {write.session for write in others if write.makes_session}
        locked, self._new = lock_or_create(
            self._connection, self._dialect, wanted, storing, self._now, absent=self._absent
        )
        self._accounts = self._open_accounts({session.tenant for session in locked})
        for session, row in locked.items():
            self._work[session] = SessionWork(
                session,
                row,
                self._now,
                self._accounts.get(session.tenant),
                is_new=session in self._new,
            )
            self._memories.open(self._work[session])
            self._known[session] = (
                KnownSession()
                if session in self._new
                else self._known_sessions.get(session, row.revision)
            )
        if of_documents := [write for write in of_documents if write.session in locked]:
            self._documents = DocumentChanges(
                self._connection, self._dialect, self._now, self._work
            )
            self._documents.load(of_documents)
        if of_conversations := [write for write in of_conversations if write.session in locked]:
            self._conversations = ConversationChanges(
                *(self._connection, self._dialect, self._now, self._work), self._may_have_answered
            )
            self._conversations.load(of_conversations)

    def _may_have_answered(self, session: Session, request_id: str) -> bool:
        known = self._known[session]
        return known is None or known.may_have_answered(request_id)

    def _stores_of(self, writes: Sequence[Write]) -> Iterator[Store]:
        """What is stored along with other things, in sessions that are there."""
        for write in writes:
            if isinstance(write, PromoteMessages) and write.session in self._work:
                yield Store(memories_of(write.candidates), write.capacity)

    def _open_accounts(self, tenants: Iterable[str]) -> Mapping[str, Account]:
        if self._quotas_of is None:
            return open_known(self._connection, self._dialect, tenants)
        limits = {t: limit for t in tenants if any(limit := self._quotas_of(t).stored)}
        return open_accounts(self._connection, self._dialect, limits, self._new, self._now)

    def _attempt(self, write: Write) -> Outcome | MemorydError:
        if isinstance(write, PromoteMessages):
            return self._promote(write)
        changes, works = self._changes_of(write)
        state = changes.state(write)
        if state is None:
            before, account, used = {}, None, NOTHING
        else:
            before = {session: works[session].copy() for session in set(sessions_of(write))}
            account = self._accounts.get(tenant_of(write))
            used = NOTHING if account is None else account.used
        try:
            outcome: Outcome = changes.apply(write)
        except MemorydError as error:
            if state is not None:
                changes.go_back(state)
                works.update(before)
                if account is not None:
                    account.used = used
            return error
        return outcome

    def _promote(self, write: PromoteMessages) -> Outcome | MemorydError:
        changes, _ = self._changes_of(write)
        try:
            chosen = changes.promotable(write)
        except MemorydError as error:
            return error
        stored: Any = ()
        if memories := memories_of(chosen):
            stored = self._attempt(Store(memories, write.capacity))
            if isinstance(stored, MemorydError):
                return stored
        outcome: Outcome = changes.promoted(write, chosen, stored)
        return outcome

    def _changes_of(self, write: Write) -> tuple[Any, dict[Session, SessionWork]]:
        """Give what a write belongs to, and the sessions of it."""
        changes: DocumentChanges | ConversationChanges | None
        kind: type[DocumentChanges | ConversationChanges]
        if isinstance(write, _OF_DOCUMENTS):
            changes, kind = self._documents, DocumentChanges
        elif isinstance(write, OF_CONVERSATIONS):
            changes, kind = self._conversations, ConversationChanges
        else:
            return self._memories, self._work
        if changes is not None and write.session in self._work:
            return changes, self._work
        # Of a session that is not there: whatever comes of it, nothing is written.
        works = {write.session: SessionWork(write.session, LockedSession(0, 0, 0), self._now)}
        nothing: Any = kind(self._connection, self._dialect, self._now, works)
        nothing.load([write])
        return nothing, works

    def _save(self) -> None:
        pending: list[Insertion | Update] = [*self._memories.save()]
        if self._documents is not None:
            pending += self._documents.save()
        if self._conversations is not None:
            pending += self._conversations.save()
        self._save_sessions(pending)

    def _save_sessions(self, pending: Sequence[Insertion | Update]) -> None:
        documents, conversations = self._documents, self._conversations
        changed = {
            session: self._work[session].totals(
                documents=0 if documents is None else documents.count_change(session),
                conversations=0 if conversations is None else conversations.count_change(session),
            )
            for session in self.changed
        }
        if changed:
            raise_revisions(self._connection, self._dialect, changed, self._now, pending)
        else:  # such as the request id of a batch that found nothing to delete
            self._dialect.write(self._connection, pending)
        self._memories.save_ranks()
        save_accounts(self._connection, self._dialect, self._accounts.values())
        drop_unused(self._connection, self._dialect, self._new - changed.keys())
