"""Which messages become memories, and how they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from memoryd.client import arguments as args
from memoryd.client.windows import name_of
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from memoryd.client.answers import ContentTypeName, RoleName


class PromoteOptions(TypedDict, total=False):
    """How messages are promoted, as keyword arguments; of the last three at most one."""

    since_last: bool
    """In place of ids: the messages of the head's branch that no such call has gone over yet."""
    roles: Iterable[RoleName]
    """Only messages of these roles; none: of any."""
    exclude_message_ids: Iterable[str]
    """Messages to leave out. At most 1,000."""
    content_type: ContentTypeName | None
    """As of NewMemory, as the others."""
    importance: float | None
    ttl: timedelta | None
    expire_time: datetime | None
    never_expires: bool


def promote_request(
    session_id: str, conversation_id: str, message_ids: Iterable[str], options: PromoteOptions
) -> conversation_pb2.PromoteMessagesRequest:
    args.only_known(options, PromoteOptions, "option")
    never_expires = args.flag("never_expires", options.get("never_expires", False))
    ttl, expire_time = options.get("ttl"), options.get("expire_time")
    args.at_most_one(ttl=ttl, expire_time=expire_time, never_expires=never_expires)
    roles = args.items("roles", options.get("roles", ()))
    request = conversation_pb2.PromoteMessagesRequest(
        **name_of(session_id, conversation_id),
        message_ids=args.texts("message_ids", message_ids),
        since_last=args.flag("since_last", options.get("since_last", False)),
        roles=[args.role(f"roles[{index}]", role) for index, role in enumerate(roles)],
        exclude_message_ids=args.texts(
            "exclude_message_ids", options.get("exclude_message_ids", ())
        ),
        content_type=args.content_type("content_type", options.get("content_type")),
        importance=args.optional_double("importance", options.get("importance")),
        ttl=args.duration("ttl", ttl),
        expire_time=args.timestamp("expire_time", expire_time),
    )
    if never_expires:
        request.never_expires = True
    return request
