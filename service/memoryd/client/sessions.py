"""The client for sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.client import arguments as args
from memoryd.client.answers import MergeSessionsResponse, Session
from memoryd.client.channel import Client
from memoryd.client.messages import request_id_or_new
from memoryd.v1 import session_pb2
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from datetime import timedelta

    import grpc.aio

    from memoryd.client.messages import JsonValue
    from memoryd.v1.session_pb2_grpc import SessionServiceAsyncStub


class SessionClient(Client["SessionServiceAsyncStub"]):
    """The sessions of the caller's tenant: which there are, what they hold, what is set for each.

    Every method may raise any `MemorydError`; its docstring names the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> SessionServiceAsyncStub:
        return SessionServiceStub(channel)

    def list(
        self,
        session_id_prefix: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Session, None]:
        """Iterate over sessions by their ids; `timeout` applies to each page.

        Only those whose ids begin with `session_id_prefix`, and that have all of the `labels`.
        """
        request = session_pb2.ListSessionsRequest(
            session_id_prefix=args.text("session_id_prefix", session_id_prefix),
            labels=args.labels("labels", labels),
            page_size=args.int32("page_size", page_size),
        )
        return self._pages(self._stub.ListSessions, request, _sessions_of, timeout)

    async def get(self, session_id: str, *, timeout: float | None = None) -> Session:
        """Read one session.

        Raises NotFound where nothing was ever stored in it or set for it, or it was erased.
        """
        request = session_pb2.GetSessionRequest(session_id=args.text("session_id", session_id))
        return await self._answer(self._stub.GetSession, request, Session, timeout)

    async def update(
        self,
        session_id: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        state: Mapping[str, JsonValue] | None = None,
        memory_limit: int | None = None,
        memory_ttl: timedelta | None = None,
        memories_never_expire: bool | None = None,
        clear: Iterable[str] = (),
        etag: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
    ) -> Session:
        """Set what is given, and clear the fields that `clear` names: `["memory_limit"]`.

        `labels` and `state` are replaced as a whole. `etag`: of the session as it was read; the
        change is refused if something was set since. `allow_missing` makes a session that is not
        there.

        Raises InvalidArgument, NotFound, EtagMismatch.
        """
        args.at_most_one(memory_ttl=memory_ttl, memories_never_expire=memories_never_expire)
        given: dict[str, Any] = {
            "display_name": args.optional_text("display_name", display_name),
            "labels": None if labels is None else args.labels("labels", labels),
            "state": args.struct("state", state),
            "memory_limit": args.optional_int32("memory_limit", memory_limit),
            "memory_ttl": args.duration("memory_ttl", memory_ttl),
            "memories_never_expire": args.optional_flag(
                "memories_never_expire", memories_never_expire
            ),
        }
        values = {name: value for name, value in given.items() if value is not None}
        request = session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(
                session_id=args.text("session_id", session_id),
                etag=args.text("etag", etag),
                **values,
            ),
            # A mask that names nothing stands for the populated fields: here, for none.
            update_mask=FieldMask(paths=[*values, *args.texts("clear", clear)]),
            allow_missing=args.flag("allow_missing", allow_missing),
        )
        return await self._answer(self._stub.UpdateSession, request, Session, timeout)

    async def merge(
        self,
        source_session_id: str,
        target_session_id: str,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> MergeSessionsResponse:
        """Make everything of the source the target's; the source is then as if erased.

        Without a `request_id` the call gets its own, so that it is safe to retry.

        Raises InvalidArgument, NotFound where there is no source, and MemorydError where it is
        larger than one merge moves.
        """
        request = session_pb2.MergeSessionsRequest(
            source_session_id=args.text("source_session_id", source_session_id),
            target_session_id=args.text("target_session_id", target_session_id),
            request_id=request_id_or_new(request_id),
        )
        return await self._answer(self._stub.MergeSessions, request, MergeSessionsResponse, timeout)


def _sessions_of(page: session_pb2.ListSessionsResponse) -> Iterable[Session]:
    return map(Session.from_proto, page.sessions)
