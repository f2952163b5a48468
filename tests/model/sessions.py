"""SessionService in the model: settings of a session, and one session that becomes another's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memoryd.v1 import session_pb2 as spb

from .model import (
    CREATED,
    DELETED,
    EXPIRED,
    MAX_METADATA_BYTES,
    UPDATED,
    Event,
    FirstAnswer,
    Model,
    Refusal,
    Row,
    Session,
    Settings,
    content_hash,
    id_reused,
    invalid,
    json_bytes,
)


class SessionModel(Model):
    """Memories, and the sessions that they are in."""

    def refusal(self, request: Any) -> Refusal | None:
        match request:
            case spb.UpdateSessionRequest():
                session_id = request.session.session_id
                is_there = request.allow_missing or session_id in self.sessions
                return None if is_there else _absent(session_id)
            case spb.MergeSessionsRequest():
                return self._merge_refusal(request)
        return super().refusal(request)

    def _merge_refusal(self, request: spb.MergeSessionsRequest) -> Refusal | None:
        first = self._first(request)
        if first is not None:
            return None if first.arguments == _arguments_of(request) else id_reused("request_id")
        if request.source_session_id not in self.sessions:
            return _absent(request.source_session_id)
        for row in self.live(request.source_session_id):
            held = self.holder_of(request.target_session_id, row.identity)
            if held is None or not _is_same(held, row):
                continue
            if json_bytes({**held.metadata, **row.metadata}) > MAX_METADATA_BYTES:
                return invalid(["source_session_id.metadata"])
        return None

    def _first(self, request: spb.MergeSessionsRequest) -> FirstAnswer | None:
        target = self.sessions.get(request.target_session_id, Session())
        return target.requests.get(request.request_id.lower())

    def update_session(self, request: spb.UpdateSessionRequest, answer: spb.Session) -> None:
        given, paths = request.session, set(request.update_mask.paths)
        session = self.sessions.get(given.session_id)
        if session is None:
            session = self.begin(given.session_id, answer.revision)
        settings = session.settings
        if "display_name" in paths:
            settings = replace(settings, display_name=given.display_name or None)
        if "memory_limit" in paths:
            limit = given.memory_limit if given.HasField("memory_limit") else None
            settings = replace(settings, memory_limit=limit)
        if "memory_ttl" in paths:  # never without the other
            ttl = given.memory_ttl.ToTimedelta() if given.HasField("memory_ttl") else None
            never = given.memories_never_expire or None
            settings = replace(settings, memory_ttl=ttl, never_expire=never)
        session.settings = settings
        session.revision += 1
        self.check_session(answer)

    def check_session(self, answer: spb.Session) -> None:
        session = self.sessions[answer.session_id]
        settings = session.settings
        ttl = answer.memory_ttl.ToTimedelta() if answer.HasField("memory_ttl") else None
        assert (answer.revision, answer.memory_count) == (
            session.revision,
            len(self.live(answer.session_id)),
        )
        assert settings == Settings(
            answer.display_name or None,
            answer.memory_limit if answer.HasField("memory_limit") else None,
            ttl,
            answer.memories_never_expire or None,
        )

    def merge(
        self, request: spb.MergeSessionsRequest, answer: spb.MergeSessionsResponse, revision: int
    ) -> bool:
        """Check a merge; `revision`: the target's after it. Say whether it was not a retry."""
        first = self._first(request)
        if first is not None:
            assert answer == first.answer
            return False
        source_id, target_id = request.source_session_id, request.target_session_id
        rows = self.rows(source_id)
        source = self.sessions[source_id]
        target = self.sessions.get(target_id)
        if target is None:  # it has all versions, and the merge itself as a revision
            taken = sum(len(source.versions(row.memory_id)) for row in rows) + 1
            target = self.begin(target_id, revision - taken + 1)
        moved = merged = 0
        for row in rows:
            if not row.is_live(self.now):
                self._move(source, target, row, target_id)
                continue
            self.make_room(target, row.identity)
            held = self.holder_of(target_id, row.identity)
            if held is not None and _is_same(held, row):
                self._merge_into(target, held, row)
                merged += 1
                continue
            if held is not None:
                self.put(target, DELETED, replace(held, delete_time=self.now))
            self._move(source, target, row, target_id)
            moved += 1
        assert answer == spb.MergeSessionsResponse(moved_memories=moved, merged_memories=merged)
        target.settings = _settled(target.settings, source.settings)
        target.revision += 1
        if request.request_id:
            target.requests[request.request_id.lower()] = FirstAnswer(
                _arguments_of(request), answer, self.now
            )
        del self.sessions[source_id]
        self.erased[source_id] = source.revision
        return True

    def _merge_into(self, target: Session, held: Row, row: Row) -> None:
        latest = None
        if held.expire_time is not None and row.expire_time is not None:
            latest = max(held.expire_time, row.expire_time)
        both = replace(
            held,
            importance=max(held.importance, row.importance),
            metadata={**held.metadata, **row.metadata},
            tags=tuple(sorted({*held.tags, *row.tags})),
            expire_time=latest,
            update_time=self.now,
        )
        self.put(target, UPDATED, both)

    def _move(self, source: Session, target: Session, row: Row, target_id: str) -> None:
        """Each version takes a revision of the target, the oldest first and the row itself last."""
        assert row.memory_id not in target.rows
        times = {event.revision: event.at for event in source.events}
        kept = source.versions(row.memory_id)[::-1]
        last, _ = kept.pop()
        if row.delete_time is None and row.is_expired(self.now):
            last, row = EXPIRED, replace(row, delete_time=self.now)
        first = target.revision + 1
        for place, (change, was) in enumerate([*kept, (last, row)]):
            begins = not place and was.delete_time is None
            target.revision += 1
            version = replace(
                was,
                session_id=target_id,
                revision=target.revision,
                created_revision=first,
            )
            target.events.append(
                Event(
                    target.revision,
                    CREATED if begins else change,
                    row.memory_id,
                    version,
                    times[was.revision],
                )
            )
        target.rows[row.memory_id] = version


def _settled(own: Settings, given: Settings) -> Settings:
    """What is set for the target, completed by what is set for the source alone."""
    expires = own.memory_ttl is not None or own.never_expire
    return Settings(
        own.display_name or given.display_name,
        own.memory_limit or given.memory_limit,
        own.memory_ttl if expires else given.memory_ttl,
        own.never_expire if expires else given.never_expire,
    )


def _is_same(held: Row, row: Row) -> bool:
    same_type = held.content_type == row.content_type
    return same_type and content_hash(held.content) == content_hash(row.content)


def _arguments_of(request: spb.MergeSessionsRequest) -> bytes:
    arguments = spb.MergeSessionsRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("request_id")
    return b"merge " + arguments.SerializeToString(deterministic=True)


def _absent(session_id: str) -> Refusal:
    return Refusal("NOT_FOUND", "SESSION_NOT_FOUND", session_id)
