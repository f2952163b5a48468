"""What is kept of answers for retries, as JSON: what the request of a retry does not say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from memoryd.conversations.writes import Appended
from memoryd.domain.conversations import Conversation, Head, Message, Place, Summary, Tip
from memoryd.domain.records import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memoryd.conversations.writes import AppendMessages
    from memoryd.domain.records import Session


@dataclass(frozen=True, slots=True)
class Reply:
    """A `request_id` with its first answer."""

    conversation_id: str
    fingerprint: str
    answer: Mapping[str, Any]
    bodies: bytes | None
    is_new: bool = False


def of_append(appended: Appended, write: AppendMessages) -> Reply:
    answer = {
        "messages": [_outline(message) for message in appended.messages],
        "conversation": _snapshot(appended.conversation),
    }
    named = write.of.conversation_id
    return Reply(named, write.retry.fingerprint, answer, None, is_new=True)


def of_removal(removed: Sequence[Message], conversation_id: str, fingerprint: str) -> Reply:
    """Of messages with bodies, which may be nowhere else any more."""
    answer = {"messages": [_outline(message) for message in removed]}
    bodies = b"".join(message.body or b"" for message in removed)
    return Reply(conversation_id, fingerprint, answer, bodies, is_new=True)


def appended(reply: Reply, write: AppendMessages) -> Appended:
    """The first answer, with what the retry says."""
    outlines = reply.answer["messages"]
    return Appended(
        [_message(outline, item.body) for outline, item in zip(outlines, write.items, strict=True)],
        _conversation(reply.answer["conversation"], write.of.session, reply.conversation_id),
    )


def removed(reply: Reply) -> tuple[Message, ...]:
    found, start = [], 0
    for outline in reply.answer["messages"]:
        end = start + outline["size"]
        found.append(_message(outline, (reply.bodies or b"")[start:end]))
        start = end
    return tuple(found)


def _outline(message: Message) -> dict[str, Any]:
    outline = message._asdict()
    del outline["body"], outline["sha256"]
    return {**outline, "place": [*message.place], "created_at": message.created_at.isoformat()}


def _message(outline: Mapping[str, Any], body: bytes) -> Message:
    values = {
        **outline,
        "place": Place(*outline["place"]),
        "created_at": datetime.fromisoformat(outline["created_at"]),
    }
    return Message(**values, sha256="", body=body)


def _snapshot(row: Conversation) -> dict[str, Any]:
    """A conversation as it was, without the text of its summary."""
    values = row._asdict()
    del values["session"], values["conversation_id"], values["promoted"]
    ttl, summary = row.ttl, row.summary
    return {
        **values,
        "change": row.change.value,
        "ttl": None if ttl is None else ttl // _MICROSECOND,
        **{name: _text(values[name]) for name in _TIMES},
        "head": {
            **row.head._asdict(),
            "place": [*row.head.place],
            "created_at": _text(row.head.created_at),
        },
        "tips": [[*tip] for tip in row.tips],
        "summary": None
        if summary is None
        else {**summary._asdict(), "text": None, "updated_at": _text(summary.updated_at)},
    }


def _conversation(
    snapshot: Mapping[str, Any], session: Session, conversation_id: str
) -> Conversation:
    values = dict(snapshot)
    ttl, head, summary = values["ttl"], values["head"], values["summary"]
    values |= {
        "change": Change(values["change"]),
        "ttl": None if ttl is None else timedelta(microseconds=ttl),
        **{name: _moment(values[name]) for name in _TIMES},
        "head": Head(
            **{**head, "place": Place(*head["place"]), "created_at": _moment(head["created_at"])}
        ),
        "tips": tuple(Tip(*tip) for tip in values["tips"]),
        "summary": None
        if summary is None
        else Summary(**{**summary, "updated_at": _moment(summary["updated_at"])}),
    }
    return Conversation(session=session, conversation_id=conversation_id, **values)


_TIMES = ("created_at", "updated_at", "expires_at")
_MICROSECOND = timedelta(microseconds=1)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
