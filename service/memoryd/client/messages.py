"""What callers give, and the request messages that are made of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.client import arguments as args
from memoryd.v1 import condition_pb2, memory_pb2
from memoryd.v1.memory_pb2 import MemoryFilter
from memoryd.v1.tool_config_pb2 import ToolConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime, timedelta

    from memoryd.client.answers import ConditionOpName, ContentTypeName

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
"""A JSON value. Numbers are doubles, so a double must hold an int exactly."""

SettingValue: TypeAlias = "bool | int | float | str | Sequence[str] | Mapping[str, float]"
"""A setting of a tool. Lists and maps are replaced as a whole."""


def new_request_id() -> str:
    return str(uuid.uuid4())


def request_id_or_new(given: str | None) -> str:
    """The caller's, or a new one, with which the call is safe to repeat."""
    return new_request_id() if given in (None, "") else args.text("request_id", given)


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to store."""

    session_id: str
    """1-255 characters of `A-Z a-z 0-9 . _ : @ -`, a letter or digit first, no `..`."""
    content: str
    """1-16,384 characters after sanitising."""
    content_type: ContentTypeName | None = None
    """`user_info`, `preference`, `fact` or `context`. None: `context`."""
    importance: float | None = None
    """0.0-1.0. None: 0.5."""
    metadata: Mapping[str, JsonValue] | None = None
    """At most 16 KiB as JSON, nesting at most 8."""
    ttl: timedelta | None = None
    """How long it lives from now. Give at most one of `ttl`, `expire_time` and `never_expires`;
    without any it lives for the tool configuration's `memory.ttl_hours`."""
    expire_time: datetime | None = None
    """When it ends; aware, and in the future."""
    never_expires: bool = False
    key: str = ""
    """The caller's name for it: 1-255 characters of `A-Z a-z 0-9 . _ : @ / -`. A live memory that
    has the key is merged with where type and content are the same, and else replaced."""
    tags: Collection[str] = ()
    """At most 32 different ones, each 1-64 characters without control characters."""
    request_id: str = field(default_factory=new_request_id)
    """A UUID. To store the same NewMemory again, after a lost answer, changes nothing and returns
    the first answer again."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on JSON. Values compare by their JSON type: numbers with numbers, and so on."""

    path: Sequence[str] | str
    """The keys that lead to the value, from the outermost object on; a text is one key. 1-8."""
    op: ConditionOpName
    """`eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in`, `not_in`, `contains` or `exists`."""
    value: JsonValue
    """What the value there is compared with; a list for `in` and `not_in`, a bool for `exists`."""


class Filter(TypedDict, total=False):
    """Conditions on memories, as keyword arguments; a memory must meet all that are given."""

    content_types: Iterable[ContentTypeName]
    """Any of these; at least one."""
    min_importance: float
    """Effective importance, at least this. 0.0-1.0."""
    metadata: Mapping[str, JsonValue]
    """The memory has every key, with an equal value."""
    conditions: Iterable[Condition]
    """They all hold for the metadata. At most 32."""
    created_after: datetime
    """Created then or later. Aware."""
    created_before: datetime
    """Created earlier. Aware."""
    tags_any: Iterable[str]
    """It has one of these; at least one."""
    tags_all: Iterable[str]
    """It has all of these; at least one."""
    key_prefix: str
    """Its key begins with this."""


def store_request(new: NewMemory, place: str = "") -> memory_pb2.StoreMemoryRequest:
    """`place` precedes the names of arguments in errors."""
    never_expires = args.flag(f"{place}never_expires", new.never_expires)
    args.at_most_one(
        **{
            f"{place}ttl": new.ttl,
            f"{place}expire_time": new.expire_time,
            f"{place}never_expires": never_expires,
        }
    )
    request = memory_pb2.StoreMemoryRequest(
        session_id=args.text(f"{place}session_id", new.session_id),
        content=args.text(f"{place}content", new.content),
        content_type=args.content_type(f"{place}content_type", new.content_type),
        importance=args.optional_double(f"{place}importance", new.importance),
        metadata=args.struct(f"{place}metadata", new.metadata),
        ttl=args.duration(f"{place}ttl", new.ttl),
        expire_time=args.timestamp(f"{place}expire_time", new.expire_time),
        key=args.text(f"{place}key", new.key),
        tags=args.texts(f"{place}tags", new.tags),
        request_id=args.text(f"{place}request_id", new.request_id),
    )
    if never_expires:
        request.never_expires = True
    return request


def memory_filter(which: Filter) -> MemoryFilter:
    args.only_known(which, Filter, "condition")
    types = args.items("content_types", which.get("content_types") or ())
    conditions = MemoryFilter(
        content_types=[
            args.content_type(f"content_types[{index}]", each) for index, each in enumerate(types)
        ],
        min_importance=args.optional_double("min_importance", which.get("min_importance")),
        metadata=args.struct("metadata", which.get("metadata")),
        conditions=condition_messages("conditions", which.get("conditions") or ()),
        created_after=args.timestamp("created_after", which.get("created_after")),
        created_before=args.timestamp("created_before", which.get("created_before")),
        tags_any=args.texts("tags_any", which.get("tags_any", ())),
        tags_all=args.texts("tags_all", which.get("tags_all", ())),
        key_prefix=args.text("key_prefix", which.get("key_prefix", "")),
    )
    if not conditions.metadata.fields:
        conditions.ClearField("metadata")
    # An empty condition would be sent as none and match everything: a purge would remove too much.
    empty = which.keys() - {descriptor.name for descriptor, _ in conditions.ListFields()}
    if empty:
        raise ValueError(f"{', '.join(sorted(empty))}: empty; leave it out to match everything")
    return conditions


def condition_messages(name: str, given: Iterable[Condition]) -> list[condition_pb2.Condition]:
    messages = []
    for index, each in enumerate(args.items(name, given)):
        at = f"{name}[{index}]"
        if not isinstance(each, Condition):
            raise TypeError(f"{at}: expected a Condition, not {args.shown(each)}")
        path = [each.path] if isinstance(each.path, str) else each.path
        messages.append(
            condition_pb2.Condition(
                path=args.texts(f"{at}.path", path),
                op=args.condition_op(f"{at}.op", each.op),
                value=args.value(f"{at}.value", each.value),
            )
        )
    return messages


def list_request(
    session_id: str, *, show_deleted: bool, page_size: int, which: Filter, page_token: str = ""
) -> memory_pb2.ListMemoriesRequest:
    return memory_pb2.ListMemoriesRequest(
        session_id=args.text("session_id", session_id),
        filter=memory_filter(which),
        page_size=args.int32("page_size", page_size),
        page_token=args.text("page_token", page_token),
        show_deleted=args.flag("show_deleted", show_deleted),
    )


def tool_config(
    tool: str, settings: Mapping[str, SettingValue] | None, *, enabled: bool | None, etag: str = ""
) -> tuple[ToolConfig, FieldMask]:
    """A ToolConfig with these values, and the mask that names them."""
    config = ToolConfig(
        tool=args.text("tool", tool),
        enabled=args.optional_flag("enabled", enabled),
        etag=args.text("etag", etag),
    )
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings: expected a dict, not {args.shown(settings)}")
    paths = [] if enabled is None else ["enabled"]
    for name, value in (settings or {}).items():
        path = f"{tool}.{args.text('settings: a key', name)}"
        if value is None:
            raise ValueError(f"settings: {path}: None is not a value; reset() drops an override")
        setting: dict[str, Any] = {tool: {name: value}}
        try:
            config.MergeFrom(ToolConfig(**setting))
        # A UnicodeEncodeError is a ValueError; for some lists protobuf raises an AttributeError.
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"settings: {path}: {ascii(str(error))[1:-1]}") from error
        paths.append(path)
    return config, FieldMask(paths=paths)
