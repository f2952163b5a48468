"""The tools of MCP: what each takes, what it does, and what it gives.

The service judges values. What is judged here is that arguments are those of the schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence  # noqa: TC003  pydantic reads annotations
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from memoryd.client import (
    Filter,
    InvalidArgument,
    Memory,
    MemoryClient,
    MemorydError,
    RetrievedMemory,
    SessionClient,
    Unavailable,
)
from memoryd.integrations.sessions import require_session

if TYPE_CHECKING:
    from memoryd.client.answers import SimilarMemory

DEFAULT_MAX_CHARS = 8_000
"""Of the memories of an answer, as JSON: about 2,000 tokens."""

_Found = TypeVar("_Found", bound="Stored")


class Place(NamedTuple):
    """Where the tools work."""

    memories: MemoryClient
    sessions: SessionClient
    session_id: str
    peeks: bool = False
    """Whether to find a memory counts as no access of it."""


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


Moment = Annotated[datetime, Field(strict=False), AfterValidator(_aware)]
Second = Annotated[datetime, AfterValidator(_whole_second)]
ContentType = Literal["user_info", "preference", "fact", "context"]


class _Plain(GenerateJsonSchema):
    """Schemas without titles, which repeat names, and without null.

    Models give null for nothing: it is taken, and they need not be told.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  pydantic gives it
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        found = super().default_schema(schema)
        if found.get("default", ...) is None:
            del found["default"]
        return found


class Shaped(BaseModel):
    """What has a JSON schema."""

    @classmethod
    def schema_of(cls) -> dict[str, Any]:
        schema = cls.model_json_schema(schema_generator=_Plain)
        for each in (schema, *schema.get("$defs", {}).values()):
            each.pop("title", None)
            each.pop("description", None)
        return schema

    def as_json(self) -> dict[str, Any]:
        """What it has, without what it lacks."""
        return self.model_dump(mode="json", exclude_none=True)


# What tools take


class Arguments(Shaped):
    model_config = ConfigDict(extra="forbid", strict=True)


class StoreArguments(Arguments):
    content: str = Field(description="One sentence or paragraph that can be read on its own.")
    type: ContentType | None = Field(
        None, description="user_info: about the user; context: any other. Without it: context."
    )
    importance: float | None = Field(None, description="From 0 to 1. Without it: 0.5.")
    key: str | None = Field(
        None, description="A name such as home-address; replaces the memory that has it."
    )
    tags: list[str] | None = Field(None, description="At most 32.")
    metadata: dict[str, Any] | None = Field(None, description="Any JSON object.")


class Conditions(Arguments):
    """Which memories are meant: those that meet all."""

    types: list[ContentType] | None = Field(None, description="Of one of these types.")
    tags: list[str] | None = Field(None, description="With one of these tags.")
    after: Moment | None = Field(
        None, description="Stored at this time, such as 2026-11-30T12:00:00Z, or later."
    )
    before: Moment | None = Field(None, description="Stored before this time.")
    limit: int | None = Field(None, description="At most so many.")
    max_chars: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="The memories of the answer have at most so many characters together, but the"
        f" first is always there. Without it: {DEFAULT_MAX_CHARS}.",
    )

    @property
    def room(self) -> int:
        return self.max_chars or DEFAULT_MAX_CHARS

    def filter(self) -> Filter:
        given = {
            "content_types": self.types,
            "tags_any": self.tags,
            "created_after": self.after,
            "created_before": self.before,
        }
        return cast("Filter", {name: value for name, value in given.items() if value})


class SearchArguments(Conditions):
    query: str = Field(
        description="What you want to know, in words or as a question; empty: the most important."
    )


class ListArguments(Conditions):
    deleted: bool = Field(default=False, description="Deleted ones too.")
    page_token: str = Field(
        default="", description="The next_page_token of the page before, with its other arguments."
    )


class UpdateArguments(Arguments):
    memory_id: str
    content: str | None = None
    type: ContentType | None = None
    importance: float | None = Field(None, description="From 0 to 1.")
    tags: list[str] | None = Field(None, description="In place of those that it has.")
    metadata: dict[str, Any] | None = Field(None, description="In place of what it has.")
    etag: str = Field(
        default="", description="Of the memory as it was read: refused if it changed since."
    )


class DeleteArguments(Arguments):
    memory_id: str | None = Field(None, description="This, or the key.")
    key: str | None = None


class RestoreArguments(Arguments):
    memory_id: str


class SimilarArguments(Arguments):
    content: str | None = Field(None, description="A text; this, or a memory_id.")
    memory_id: str | None = None
    min_similarity: float | None = Field(None, description="From 0 to 1.")
    limit: int | None = Field(None, description="At most so many.")


# What tools give


class Stored(Shaped):
    """A memory, as it is."""

    memory_id: str
    content: str
    type: str
    importance: float | None = None
    key: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    created: Second | None = None
    expires: Second | None = None
    deleted: Second | None = None
    etag: str


class Found(Stored):
    score: float
    relevance: float | None = Field(None, description="From 0 to 1: how sure recall is of it.")


class Similar(Stored):
    similarity: float | None = Field(None, description="From 0 to 1.")


class StoreResult(Shaped):
    outcome: str = Field(
        description="created; merged with one that said the same; or replaced the one of its key."
    )
    memory: Stored
    replaced_memory_id: str | None = None
    evicted_memory_ids: list[str] | None = Field(
        None, description="What was deleted since the session is full."
    )


class SearchResult(Shaped):
    memories: list[Found] = Field(description="The best first.")
    truncated: bool = Field(description="Whether there was room for some of them only.")


class ListResult(Shaped):
    memories: list[Stored] = Field(description="The oldest first.")
    next_page_token: str | None = Field(None, description="There are more.")


class SimilarResult(Shaped):
    memories: list[Similar] = Field(description="The most similar first.")
    truncated: bool = Field(description="Whether there was room for some of them only.")


class MemoryResult(Shaped):
    memory: Stored


class DeleteResult(Shaped):
    memory_id: str = Field(description="By which memory_restore brings it back.")


def stored(memory: Memory) -> Stored:
    return Stored(**_fields(memory))


def _found(result: RetrievedMemory) -> Found:
    relevance = None if result.relevance is None else round(result.relevance, 3)
    return Found(**_fields(result.memory), score=round(result.score, 3), relevance=relevance)


def _similar(result: SimilarMemory) -> Similar:
    similarity = None if result.similarity is None else round(result.similarity, 3)
    return Similar(**_fields(result.memory), similarity=similarity)


def _fields(memory: Memory) -> dict[str, Any]:
    return {
        "memory_id": memory.memory_id,
        "content": memory.content,
        "type": str(memory.content_type),
        "importance": memory.importance,
        "key": memory.key or None,
        "tags": list(memory.tags) or None,
        "metadata": memory.metadata or None,
        "created": memory.create_time,
        "expires": memory.expire_time,
        "deleted": memory.delete_time,
        "etag": memory.etag,
    }


def _within(room: int, memories: Sequence[_Found]) -> list[_Found]:
    """The first ones, as many as fit, and at least one."""
    fitting: list[_Found] = []
    for memory in memories:
        room -= len(json.dumps(memory.as_json(), ensure_ascii=False))
        if fitting and room < 0:
            break
        fitting.append(memory)
    return fitting


# What tools do


async def _store(place: Place, given: StoreArguments) -> StoreResult:
    await require_session(place.sessions, place.session_id)
    answer = await place.memories.store(
        place.session_id,
        given.content,
        content_type=given.type,
        importance=given.importance,
        key=given.key or "",
        tags=given.tags or (),
        metadata=given.metadata,
    )
    return StoreResult(
        outcome=str(answer.outcome),
        memory=stored(answer.memory),
        replaced_memory_id=answer.replaced_memory_id or None,
        evicted_memory_ids=list(answer.evicted_memory_ids) or None,
    )


async def _search(place: Place, given: SearchArguments) -> SearchResult:
    answer = await place.memories.retrieve(
        place.session_id,
        given.query,
        limit=given.limit or 0,
        peek=place.peeks,
        max_chars=given.room,
        **given.filter(),
    )
    memories = _within(given.room, [_found(result) for result in answer.results])
    is_cut = answer.truncated or len(memories) < len(answer.results)
    return SearchResult(memories=memories, truncated=is_cut)


async def _list(place: Place, given: ListArguments) -> ListResult:
    async def page(size: int) -> tuple[list[Stored], str]:
        answer = await place.memories.list_page(
            place.session_id,
            show_deleted=given.deleted,
            page_size=size,
            page_token=given.page_token,
            **given.filter(),
        )
        return [stored(memory) for memory in answer.memories], answer.next_page_token

    memories, token = await page(given.limit or 0)
    fitting = _within(given.room, memories)
    if len(fitting) < len(memories):  # the page that ends where the room does has the right token
        memories, token = await page(len(fitting))
    return ListResult(memories=memories, next_page_token=token or None)


async def _update(place: Place, given: UpdateArguments) -> MemoryResult:
    memory = await place.memories.update(
        place.session_id,
        given.memory_id,
        content=given.content,
        content_type=given.type,
        importance=given.importance,
        tags=given.tags,
        metadata=given.metadata,
        etag=given.etag,
    )
    return MemoryResult(memory=stored(memory))


async def _delete(place: Place, given: DeleteArguments) -> DeleteResult:
    memory = await place.memories.delete(place.session_id, given.memory_id, key=given.key)
    return DeleteResult(memory_id=memory.memory_id)


async def _restore(place: Place, given: RestoreArguments) -> MemoryResult:
    return MemoryResult(
        memory=stored(await place.memories.undelete(place.session_id, given.memory_id))
    )


async def _find_similar(place: Place, given: SimilarArguments) -> SimilarResult:
    answer = await place.memories.find_similar(
        place.session_id,
        given.content,
        memory_id=given.memory_id,
        min_similarity=given.min_similarity,
        limit=given.limit or 0,
    )
    memories = _within(DEFAULT_MAX_CHARS, [_similar(result) for result in answer.results])
    is_cut = answer.truncated or len(memories) < len(answer.results)
    return SimilarResult(memories=memories, truncated=is_cut)


class Tool(NamedTuple):
    """A tool, for every session."""

    title: str
    description: str
    takes: type[Arguments]
    gives: type[Shaped]
    work: Callable[[Place, Any], Awaitable[Shaped]]
    reads: bool = False
    """It changes nothing."""
    deletes: bool = False
    destroys: bool = False
    """It does not only add."""


TOOLS: Mapping[str, Tool] = {
    "memory_store": Tool(
        "Store a memory",
        "Store what will matter in later conversations: who the user is, what they prefer, what"
        " was decided. One thing a call. What is known already is merged.",
        StoreArguments,
        StoreResult,
        _store,
    ),
    "memory_search": Tool(
        "Search memories",
        "Find what is remembered and bears on a query, best first. Use it before you answer what"
        " earlier conversations may have settled.",
        SearchArguments,
        SearchResult,
        _search,
        reads=True,
    ),
    "memory_list": Tool(
        "List memories",
        "List memories in the order they were stored, page by page.",
        ListArguments,
        ListResult,
        _list,
        reads=True,
    ),
    "memory_update": Tool(
        "Update a memory",
        "Change the given fields of a memory, and no others.",
        UpdateArguments,
        MemoryResult,
        _update,
        destroys=True,
    ),
    "memory_delete": Tool(
        "Delete a memory",
        "Delete a memory that is wrong or no longer wanted. memory_restore brings it back.",
        DeleteArguments,
        DeleteResult,
        _delete,
        deletes=True,
        destroys=True,
    ),
    "memory_restore": Tool(
        "Restore a memory",
        "Bring back a memory that was deleted.",
        RestoreArguments,
        MemoryResult,
        _restore,
    ),
    "memory_similar": Tool(
        "Find similar memories",
        "Find memories that say nearly the same as a text or as another memory.",
        SimilarArguments,
        SimilarResult,
        _find_similar,
        reads=True,
    ),
}


# What is said of a refusal

_NAMES = {
    "content_type": "type",
    "content_types": "types",
    "tags_any": "tags",
    "created_after": "after",
    "created_before": "before",
    "page_size": "limit",
}
"""What arguments are called here, by their names in the service."""

_FIELD = re.compile(r"(?:memory\.|filter\.)?(\w+)(.*)", re.DOTALL)


class WrongArguments(Exception):
    """Arguments that are not those of a schema. The text says which, and what to do."""


def arguments_of(kind: type[Arguments], given: Mapping[str, Any]) -> Arguments:
    """Raises WrongArguments."""
    try:
        return kind.model_validate_json(json.dumps(given))
    except RecursionError:
        raise WrongArguments("arguments: nested too deeply; give fewer levels") from None
    except ValidationError as error:
        lines = [_line(problem, kind) for problem in error.errors(include_url=False)]
        raise WrongArguments("\n".join(lines)) from None


def _line(problem: Any, kind: type[Arguments]) -> str:
    name = ".".join(map(str, problem["loc"])) or "arguments"
    match problem["type"]:
        case "missing":
            return f"{name}: is missing; give it"
        case "extra_forbidden":
            known = ", ".join(kind.model_fields)
            return f"{name}: there is no such argument; there are {known}"
    return f"{name}: {problem['msg']}"


def refusal(error: MemorydError | ValueError | TypeError) -> str:
    """What a model has to know: which argument is wrong or what is in the way, and the remedy."""
    if not isinstance(error, MemorydError):
        return _renamed(str(error))
    if isinstance(error, InvalidArgument) and error.violations:
        lines = (f"{_renamed(each.field)}: {each.description}" for each in error.violations)
        return "\n".join(lines)
    if isinstance(error, Unavailable) and not error.reason:
        return f"the memory server does not answer; try again later: {error.message}"
    if error.retry_after:
        return f"{error.message}. Try again in {error.retry_after.total_seconds():g} s."
    return error.message


def _renamed(text: str) -> str:
    """With the argument that it begins with called as the tool calls it."""
    found = _FIELD.fullmatch(text)
    return f"{_NAMES.get(found[1], found[1])}{found[2]}" if found else text
