"""The settings of the service: flags beat `MEMORYD_…` variables beat `.env` beat defaults.

Every problem is collected and raised at once. A problem shows a value only where the setting takes
no secret, and the value looks like none: no URL, and nothing long.
"""

from __future__ import annotations

import difflib
import enum
import importlib.util
import io
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from memoryd.database.urls import UrlError, check_url, has_password
from memoryd.domain.records import MAX_BATCH, ContentPolicy
from memoryd.domain.unpicklable import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo

_MAX_DIGITS = 18  # of a whole number that surely fits 64 bits
_WHOLE_NUMBER = re.compile(rf"[+-]?[0-9]{{1,{_MAX_DIGITS}}}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that stops the start."""

    name: str
    """The variable, the flag, or the line of `.env`."""
    where: str
    """`environment`, `command line`, or the name of the `.env` file."""
    found: str
    """The shape of what is there; its text where that can be no secret."""
    expected: str
    """What is accepted instead, or the remedy."""

    def __str__(self) -> str:
        return f"{self.name} ({self.where}): {self.found}; {self.expected}"


class SettingsError(Exception):
    """The service cannot start with these settings. `str()` has a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # Two readers of one `.env` file meet the same unreadable line.
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        if count == 1:
            return str(self.problems[0])
        return "\n  ".join([f"{count} problems with the settings:", *map(str, self.problems)])


@dataclass(frozen=True, slots=True)
class Fault:
    """One refused value, by the field of its model."""

    field: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Accepts:
    """Metadata of a field: what it accepts, as a phrase, and whether its values are secret."""

    phrase: str
    secret: bool = False


_HARMLESS = re.compile(r"[A-Za-z]{1,12}|[+-]?[0-9][0-9.,_]{0,11} ?[A-Za-z%]{0,3}", re.ASCII)
"""A word, or a number with a unit: what is shown where it is refused. A secret that got into the
wrong variable is longer, or mixes letters and digits."""

_COMMAND_LINE = "command line"
_NO_VALUE = "no value, or one that refers to a variable that is not set"

_REFUSED = "refused"


def refusal(expected: str) -> PydanticCustomError:
    """Build what a validator raises to say more than its field's `accepts` phrase."""
    return PydanticCustomError(_REFUSED, "{expected}", {"expected": expected})


def _integer(value: object) -> object:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _number(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError


Integer = Annotated[int, BeforeValidator(_integer)]
"""A whole number, or its digits as text; `5.0` is refused."""
Number = Annotated[float, BeforeValidator(_number)]
"""A finite number, or its decimal digits as text."""
Boolean = Annotated[bool, BeforeValidator(_boolean)]
"""A bool, or the text `true` or `false`; nothing else, in no other case."""


class SettingsModel(Unpicklable, BaseSettings):
    """Settings that are read from variables; built by hand, it reads nothing but its arguments."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    @classmethod
    @abstractmethod
    def variable(cls, field_name: str) -> str:
        """Name the variable that sets a field. Names are in capitals and matched exactly."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The readers below pass the variables in; `os.environ` is read at the edge only.
        return (init_settings,)


class VariablesSource(PydanticBaseSettingsSource):
    """The fields of a model that a given mapping of variables sets."""

    def __init__(
        self, settings_cls: type[SettingsModel], variables: Mapping[str, str | None]
    ) -> None:
        super().__init__(settings_cls)
        self._names = {name: settings_cls.variable(name) for name in settings_cls.model_fields}
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the signature is pydantic-settings'
        value = self._variables.get(self._names[field_name])
        return (None if value is None else value.strip()), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {
            name: self.get_field_value(self.settings_cls.model_fields[name], name)[0]
            for name, variable in self._names.items()
            if variable in self._variables
        }


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of one place; None is a variable without a usable value."""

    where: str
    values: Mapping[str, str | None] = field(repr=False)
    unset: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names that a variable refers to and that are not set, by the variable's own."""


def read_variables(
    *, environ: Mapping[str, str], dotenv: Path | None
) -> tuple[list[Variables], list[Problem]]:
    """Read both places that variables come from, the weaker first.

    A `.env` file that is not there is an empty one; one that cannot be read is a problem, and so
    is each of its lines that cannot be. `${NAME}` and `${NAME:-default}` in it are expanded.
    """
    problems: list[Problem] = []
    places = [Variables("environment", environ)]
    if dotenv is not None:
        values, unset, problems = _read_dotenv(dotenv, environ)
        places.insert(0, Variables(dotenv.name, values, unset))
    return places, problems


def merge_variables(*, environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """Answer every variable there is, the environment's over those of `.env`: what `env://` reads.

    Raises `SettingsError` where `.env` cannot be read.
    """
    places, problems = read_variables(environ=environ, dotenv=dotenv)
    if problems:
        raise SettingsError(problems)
    return {
        name: value for place in places for name, value in place.values.items() if value is not None
    }


def _read_dotenv(
    path: Path, environ: Mapping[str, str]
) -> tuple[dict[str, str | None], dict[str, tuple[str, ...]], list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, {}, []
    except UnicodeDecodeError:
        return {}, {}, [Problem(path.name, "file", "not UTF-8", "save it as UTF-8")]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        remedy = "make it a file that can be read, or none"
        return {}, {}, [Problem(path.name, "file", reason, remedy)]
    values: dict[str, str | None] = {}
    unset: dict[str, tuple[str, ...]] = {}
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # It may be meant for another program, but also for this one.
            line = f"line {binding.original.line}"
            problems.append(Problem(line, path.name, "not readable", "expected NAME=value"))
        elif binding.key is not None:
            set_so_far = {n: value for n, value in values.items() if value is not None}
            known: dict[str, str | None] = {**set_so_far, **environ}
            parts = list(parse_variables(binding.value or ""))
            unset[binding.key] = tuple(
                part.name
                for part in parts
                if isinstance(part, Variable) and part.default is None and part.name not in known
            )
            no_value = binding.value is None or unset[binding.key]
            values[binding.key] = None if no_value else "".join(p.resolve(known) for p in parts)
    return values, {name: names for name, names in unset.items() if names}, problems


def unset_references(
    *, environ: Mapping[str, str], dotenv: Path | None
) -> dict[str, tuple[str, ...]]:
    """Which names the variables of `.env` refer to that are not set, by the variable's own name.

    A variable that the environment sets itself is left out.
    """
    places, _ = read_variables(environ=environ, dotenv=dotenv)
    return {
        name: names
        for place in places
        for name, names in place.unset.items()
        if name not in environ
    }


def refers_to(names: Sequence[str]) -> tuple[str, str]:
    """Say that a variable refers to names that are not set, and what to do."""
    first, several = names[0], ", ".join(names)
    return (
        f"refers to {several}, which is not set",
        f"set {first}; for nothing write ${{{first}:-}}, for the text itself ${{X:-$}}{{{first}}}",
    )


def without_value(found: str, variable: str, places: Iterable[Variables]) -> str:
    """What is found of a refused variable; where it refers to nothing, to what."""
    for place in places:
        if found == _NO_VALUE and variable in place.unset:
            return "; ".join(refers_to(place.unset[variable]))
    return found


def accepts(info: FieldInfo) -> str:
    """Say in a phrase which values a field accepts."""
    for item in info.metadata:
        if isinstance(item, Accepts):
            return item.phrase
    kind = info.annotation
    if kind is bool:
        return "true or false"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        *most, last = (str(member.value) for member in kind)
        return f"{', '.join(most)} or {last}"
    return _accepted_range("a whole number" if kind is int else "a number", info)


def _accepted_range(noun: str, info: FieldInfo) -> str:
    limits = {
        name: limit
        for item in info.metadata
        for name in ("ge", "gt", "le")
        if (limit := getattr(item, name, None)) is not None
    }
    low, above, high = (limits.get(name) for name in ("ge", "gt", "le"))
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    if above is not None:
        return f"{noun} above {above}" + ("" if high is None else f", at most {high}")
    return noun


def _shape(value: object, info: FieldInfo) -> str:
    """Describe a value: itself where the field takes no secret, and it looks like none."""
    numeric = info.annotation in (int, float)
    match value:
        case None:
            shape = _NO_VALUE
        case "":
            shape = "empty"
        case bool():
            shape = str(value).lower()
        case int() | float():
            short = numeric and abs(value) < 10**_MAX_DIGITS
            shape = str(value) if short else "a number"
        case str() if numeric and len(value) <= _MAX_DIGITS and _NUMBER.fullmatch(value):
            shape = value
        case str() if _takes_choice(info) and _HARMLESS.fullmatch(value):
            shape = f'"{value}"'
        case str():
            shape = "a text"
        case _:
            shape = f"a value of type {type(value).__name__}"
    return shape


def _takes_choice(info: FieldInfo) -> bool:
    """Whether a field takes a number or one of a few words, and so never a secret."""
    kind = info.annotation
    return kind in (int, float, bool) or (isinstance(kind, type) and issubclass(kind, enum.Enum))


M = TypeVar("M", bound=SettingsModel)


def validate(model: type[M], values: Mapping[str, object]) -> M | list[Fault]:
    """Build a model, or list everything that is wrong, one fault a field."""
    fields = model.model_fields
    faults = {
        name: Fault(name, "no such setting", _suggestion(name, fields))
        for name in values
        if name not in fields
    }
    try:
        # Only known names: BaseSettings takes names such as `_env_file` as orders to itself.
        built = model.model_validate({name: values[name] for name in fields if name in values})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0])
            refused = detail["type"] == _REFUSED
            expected = detail["msg"] if refused else f"expected {accepts(fields[name])}"
            faults.setdefault(name, Fault(name, _shape(values[name], fields[name]), expected))
        return list(faults.values())
    return list(faults.values()) or built


def _suggestion(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {match[0]}?" if match else "remove it"


class Environment(enum.StrEnum):
    """How strict the service is; `PRODUCTION` refuses literal secrets."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _database_url(url: SecretStr) -> SecretStr:
    try:
        check_url(url.get_secret_value())
    except UrlError as error:
        raise refusal(str(error)) from None
    return url


def _read_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value():
        return url
    if _is_sqlite(url):
        raise refusal("SQLite has no standbys; leave it empty")
    return _database_url(url)


def _is_sqlite(url: SecretStr) -> bool:
    return url.get_secret_value().startswith("sqlite")


def _host(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+|\[[A-Za-z0-9.:%-]+\]", host):
        raise ValueError
    return host.strip("[]")


def _embedder(choice: str) -> str:
    if choice not in ("none", "static", "minilm") and not re.fullmatch(
        r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", choice
    ):
        raise ValueError
    return choice


def _installed_embedder() -> str:
    return "none" if importlib.util.find_spec("wordllama") is None else "static"


def _language(name: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", name):
        raise ValueError
    return name


_SECRET_NAME = re.compile(r"(env|secretsmanager)://[!-+\--~]{1,512}")
_MAX_SECRET_NAMES = 100


def _secret_names(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > _MAX_SECRET_NAMES:
        raise ValueError
    names = tuple(item.strip() for item in items if isinstance(item, str) and item.strip())
    if not all(map(_SECRET_NAME.fullmatch, names)):
        raise ValueError
    return names


_SecretNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_secret_names),
    Accepts(
        "references such as env://CRM_* or secretsmanager://aws/memoryd/*, with commas between;"
        " or nothing"
    ),
]
_DatabaseUrl = Annotated[
    SecretStr,
    AfterValidator(_database_url),
    Accepts(
        "sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE",
        secret=True,
    ),
]
_ReadUrl = Annotated[
    SecretStr,
    AfterValidator(_read_url),
    Accepts("nothing, or postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE", secret=True),
]
_Embedder = Annotated[
    str, AfterValidator(_embedder), Accepts("none, static, minilm or package.module:Class")
]
_Language = Annotated[
    str,
    BeforeValidator(_lower_case),
    AfterValidator(_language),
    Accepts("a language's code by ISO 639, such as de"),
]
_Host = Annotated[str, AfterValidator(_host), Accepts("an IP address or a host name")]

DEFAULT_SECRET_NAMES: Final = (
    *("env://CRM_*", "env://BILLING_*", "env://INVENTORY_*", "env://*_API_KEY"),
    "secretsmanager://aws/memoryd/*",
)
"""What callers may name unless the operator says otherwise: what is the tools' by its name."""


class Settings(SettingsModel):
    """The service's own settings, one `MEMORYD_…` variable each."""

    database_url: _DatabaseUrl = Field(
        default=SecretStr("sqlite+aiosqlite:///memoryd.db"),
        description="Where memories are kept; a file name is relative to the working folder.",
    )
    database_read_url: _ReadUrl = Field(
        default=SecretStr(""),
        description=(
            "A standby, which gives the rows of listings, exports and retrievals wherever it is as "
            "far as the primary; empty: there is none."
        ),
    )
    host: _Host = Field(
        default="127.0.0.1",
        description="The address to listen on; 0.0.0.0 is every IPv4 address of the machine.",
    )
    port: Integer = Field(
        default=50051, ge=0, le=65535, description="The port to listen on; 0 is any free one."
    )
    workers: Integer = Field(
        default=1,
        ge=1,
        le=256,
        description=(
            "How many processes serve on the port; more than one on PostgreSQL only, since on "
            "SQLite one process writes."
        ),
    )
    environment: Environment = Field(
        default=Environment.DEVELOPMENT,
        description="production refuses literal secrets, and those that resolve to nothing.",
    )
    secret_names: _SecretNames = Field(
        default=DEFAULT_SECRET_NAMES,
        description=(
            "The secrets that callers may name as a tool's key, beside those that the environment "
            "names; * is any text."
        ),
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower_case)] = Field(
        default=LogLevel.INFO, description="The least level that is logged, in any case."
    )
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="Lines for people, or one JSON object a line."
    )
    content_policy: ContentPolicy = Field(
        default=ContentPolicy.SANITIZE,
        description=(
            "What happens to markup and control characters in contents: sanitize removes them, "
            "strict refuses the content, verbatim stores what came."
        ),
    )
    drain_seconds: Number = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How long calls under way may take to end after SIGTERM, in seconds.",
    )
    importance_half_life_days: Number = Field(
        default=30.0, gt=0, description="The age at which importance has halved, in days."
    )
    database_pool_size: Integer = Field(
        default=10, ge=1, le=1000, description="The most connections that read; one more writes."
    )
    database_timeout_seconds: Number = Field(
        default=4.0,
        gt=0,
        le=3600,
        description=(
            "How long a transaction may take, waiting for a connection included, in seconds; after "
            "it the call is refused with UNAVAILABLE."
        ),
    )
    database_statement_timeout_seconds: Number = Field(
        default=4.0,
        gt=0,
        le=3600,
        description="How long one statement may run on PostgreSQL, in seconds.",
    )
    database_lock_timeout_seconds: Number = Field(
        default=3.0,
        gt=0,
        le=3600,
        description="How long a statement may wait for another process's lock, in seconds.",
    )
    database_pgbouncer: Boolean = Field(
        default=False,
        description=(
            "Whether PgBouncer in transaction pooling stands before PostgreSQL; no prepared "
            "statement is kept then."
        ),
    )
    sweep_seconds: Number = Field(
        default=15.0,
        gt=0,
        le=60,
        description="How often expired memories are looked for and removed, in seconds.",
    )
    deleted_retention_hours: Number = Field(
        default=168.0,
        ge=0,
        le=87_600,
        description="How long deleted and expired memories are kept before a purge, in hours.",
    )
    stream_stall_seconds: Number = Field(
        default=10.0,
        gt=0,
        le=3600,
        description=(
            "How long a stream may go unread before it is ended with RESOURCE_EXHAUSTED, in "
            "seconds."
        ),
    )
    stream_idle_seconds: Number = Field(
        default=3600.0,
        gt=0,
        le=86400,
        description=(
            "How long a stream may have nothing to tell before it is ended with UNAVAILABLE, in "
            "seconds; its caller resumes."
        ),
    )
    max_calls: Integer = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="The most calls under way; beyond it a call is refused.",
    )
    max_calls_per_client: Integer = Field(
        default=2000, ge=1, le=1_000_000, description="The same for one client address."
    )
    max_streams: Integer = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="The most streams (watches, exports) under way; beyond it one is refused.",
    )
    max_streams_per_client: Integer = Field(
        default=1000, ge=1, le=1_000_000, description="The same for one client address."
    )
    write_queue_limit: Integer = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Waiting writes; beyond it a write is refused with RESOURCE_EXHAUSTED.",
    )
    write_batch_limit: Integer = Field(
        default=500, ge=1, le=10_000, description="The most writes of one group commit."
    )
    embedder: _Embedder = Field(
        default_factory=_installed_embedder,
        description=(
            "What makes vectors of contents and queries: static (the extra semantic; where it is "
            "missing, none is the default), minilm (the extra minilm), a class by its import path "
            "(not from .env), or none, so that words alone decide what is relevant."
        ),
    )
    recall_language: _Language = Field(
        default="en",
        description=(
            "The language of contents and queries, for stop words and stemming; in one without a "
            "stemmer words are taken as they are."
        ),
    )
    session_cache_bytes: Integer = Field(
        default=32 * 1024 * 1024,
        ge=0,
        le=1024**4,
        description=(
            "How much memory sessions that are kept for retrieval may take, in bytes; the longest "
            "unused go first."
        ),
    )
    max_message_bytes: Integer = Field(
        default=4 * 1024 * 1024,
        ge=128 * 1024,
        le=1024 * 1024 * 1024,
        description="The largest message the server receives, in bytes.",
    )
    request_seconds: Number = Field(
        default=5.0,
        gt=0,
        le=3600,
        description=(
            "How long the request of a call may take to arrive before the call is refused with "
            "DEADLINE_EXCEEDED, in seconds."
        ),
    )
    max_batch_size: Integer = Field(
        default=MAX_BATCH, ge=1, le=MAX_BATCH, description="The most memories in one batch."
    )
    max_streams_per_connection: Integer = Field(
        default=256,
        ge=1,
        le=1_000_000,
        description=(
            "The most calls and streams under way on one connection; a client's gRPC library keeps "
            "more waiting until others end, or opens another connection."
        ),
    )
    connection_age_seconds: Number = Field(
        default=3600.0,
        ge=1,
        le=1_000_000,
        description=(
            "How old a connection gets before its client is asked to make a new one, in seconds; "
            "so that clients spread over the servers there are."
        ),
    )
    connection_grace_seconds: Number = Field(
        default=60.0,
        ge=1,
        le=86400,
        description="How long calls and streams on such a connection may go on, in seconds.",
    )
    keepalive_seconds: Number = Field(
        default=60.0,
        ge=1,
        le=86400,
        description="How long a connection may be silent before the server pings, in seconds.",
    )

    @field_validator("workers")
    @classmethod
    def _alone_on_sqlite(cls, workers: int, given: ValidationInfo) -> int:
        url = given.data.get("database_url")  # not there if it was refused itself
        if workers > 1 and url is not None and _is_sqlite(url):
            raise refusal(
                "on SQLite one process writes: set it to 1, or keep memories on PostgreSQL"
            )
        return workers

    @classmethod
    def variable(cls, field_name: str) -> str:
        return f"MEMORYD_{field_name.upper()}"

    @property
    def is_embedded(self) -> bool:
        """Whether memories are kept in a file of this process's own."""
        return _is_sqlite(self.database_url)

    def has_new_file(self) -> bool:
        """Whether memories are to be kept in a file that is not there yet, or empty."""
        if not self.is_embedded:
            return False
        file = Path(self.database_url.get_secret_value().partition(":///")[2].partition("?")[0])
        try:
            return file.stat().st_size == 0
        except FileNotFoundError:
            return True
        except OSError:
            return False  # what stands in the way is told by whoever opens it

    def address(self, port: int) -> str:
        """The host with a port, as HOST:PORT."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def load_settings(
    *, environ: Mapping[str, str], dotenv: Path | None, flags: Mapping[str, object]
) -> Settings:
    """Read the service's settings.

    `flags` has values by field name; None is a flag that was not given. Raises `SettingsError`
    with every problem: a bad value, or a variable that begins with `MEMORYD_` and is none of ours
    (in any case of letters).
    """
    places, problems = read_variables(environ=environ, dotenv=dotenv)
    for place in places:
        problems += _unknown_variables(place)
    values, origins = given_values(Settings, places)
    for name, value in flags.items():
        if value is not None:
            values[name] = value
            origins[name] = _COMMAND_LINE
    misplaced = _misplaced(values, origins, dotenv.name if dotenv else None)
    problems += misplaced.values()
    result = validate(Settings, values)
    if isinstance(result, Settings) and not problems:
        return result
    for fault in [] if isinstance(result, Settings) else result:
        if fault.field in misplaced:
            continue
        by_flag = origins[fault.field] == _COMMAND_LINE
        name = f"--{fault.field.replace('_', '-')}" if by_flag else Settings.variable(fault.field)
        found = without_value(fault.found, name, places)
        problems.append(Problem(name, origins[fault.field], found, fault.expected))
    raise SettingsError(problems)


def _misplaced(
    values: Mapping[str, object], origins: Mapping[str, str], dotenv: str | None
) -> dict[str, Problem]:
    """What is given where it may not be, by the setting's name."""
    found = {}
    url = values.get("database_url")
    if origins.get("database_url") == _COMMAND_LINE and has_password(str(url)):
        found["database_url"] = Problem(
            "--database-url",
            _COMMAND_LINE,
            "a URL with a password, which every user of the machine can read in the list of"
            " processes",
            f"set {Settings.variable('database_url')} in the environment or in .env, or leave the"
            " password out of the flag and keep it in PGPASSWORD or a password file (~/.pgpass)",
        )
    # Whoever may write into the working folder is not to decide what code runs.
    if dotenv and origins.get("embedder") == dotenv and ":" in str(values["embedder"]):
        name = Settings.variable("embedder")
        found["embedder"] = Problem(
            name,
            dotenv,
            "an import path, which runs code",
            f"set {name} in the environment of the service",
        )
    return found


def given_values(
    model: type[SettingsModel], places: Sequence[Variables]
) -> tuple[dict[str, object], dict[str, str]]:
    """Answer the values that variables give to a model's fields, and from where; later ones win."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for place in places:
        given = VariablesSource(model, place.values)()
        values |= given
        origins |= dict.fromkeys(given, place.where)
    return values, origins


_NAME = re.compile(r"[A-Za-z0-9_]+")
_KUBERNETES_VARIABLE = re.compile(r"MEMORYD_(SERVICE_(HOST|PORT.*)|PORT_[0-9]+_.+)")


def _unknown_variables(place: Variables) -> list[Problem]:
    prefix = Settings.variable("")
    known = {Settings.variable(name): name.upper() for name in Settings.model_fields}
    problems = []
    for name in place.values:
        if name in known or not name.upper().startswith(prefix):
            continue
        if not _NAME.fullmatch(name):  # a line without a clean `=`, so it may hold a secret
            shown = f"{prefix}…"
            problems.append(
                Problem(shown, place.where, "no name of a variable", "write NAME=value on its line")
            )
            continue
        if _KUBERNETES_VARIABLE.fullmatch(name):
            remedy = "Kubernetes made it: give the pod enableServiceLinks: false"
        else:
            # Without the prefix, which would make any two names alike.
            remedy = _suggestion(name.upper().removeprefix(prefix), known.values())
            remedy = remedy.replace("did you mean ", f"did you mean {prefix}")
        problems.append(Problem(name, place.where, "no such setting", remedy))
    return problems


def settings_table() -> list[tuple[str, str, str]]:
    """Answer `(variable, default, description)` of every setting, for the README."""
    return describe(Settings)


def describe(model: type[SettingsModel]) -> list[tuple[str, str, str]]:
    """Answer `(variable, default, description)` of a model's fields, in their order."""
    return [
        (
            model.variable(name),
            _as_text(info.get_default(call_default_factory=True, validated_data={})),
            f"{info.description} Accepts {accepts(info)}.",
        )
        for name, info in model.model_fields.items()
    ]


def _as_text(default: object) -> str:
    """Write a default as its variable would give it."""
    match default:
        case SecretStr():
            return default.get_secret_value()
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case Mapping():
            return ",".join(f"{name}={_as_text(value)}" for name, value in default.items())
        case tuple():
            return ",".join(default)
        case _:
            return str(default)
