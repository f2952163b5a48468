"""Reads variables from the environment and `.env`, and collects every problem with them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from memoryd.settings.model import Fault, SettingsModel

ENVIRONMENT: Final = "environment"
COMMAND_LINE: Final = "command line"

_NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why the service cannot start."""

    name: str
    """The variable, the flag, or the line of `.env`."""
    where: str
    """`environment`, `command line`, or the name of the `.env` file."""
    found: str
    """A description of the value; the value itself where it can be no secret."""
    expected: str
    """What is accepted instead, or the remedy."""

    def __str__(self) -> str:
        return f"{self.name} ({self.where}): {self.found}; {self.expected}"


class SettingsError(Exception):
    """The service cannot start with these settings. `str()` has a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        if count == 1:
            return str(self.problems[0])
        return "\n  ".join([f"{count} problems with the settings:", *map(str, self.problems)])


@dataclass(frozen=True, slots=True)
class Source:
    """The variables of one place; None is a variable without a usable value."""

    name: str
    variables: Mapping[str, str | None] = field(repr=False)
    unset: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names that a variable refers to and that are not set, by the variable's own name."""


@dataclass(frozen=True, slots=True)
class Given:
    """The values given to the fields of a model, and the name of each value's source."""

    values: dict[str, object] = field(default_factory=dict, repr=False)
    origins: dict[str, str] = field(default_factory=dict)


class VariableReader:
    """Reads both sources once and gives their values to models. `problems` has what it found."""

    def __init__(self, *, environ: Mapping[str, str], dotenv: Path | None) -> None:
        """Read `environ` and the `.env` file, which may be missing.

        A file that cannot be read is a problem, and so is each unreadable line. `${NAME}` and
        `${NAME:-default}` in the file are expanded.
        """
        self.problems: list[Problem] = []
        self.sources = [Source(ENVIRONMENT, environ)]
        """The weaker first."""
        if dotenv is not None:
            self.sources.insert(0, self._dotenv(dotenv, environ))

    def _dotenv(self, path: Path, environ: Mapping[str, str]) -> Source:
        text, problem = _text_of(path)
        if problem is not None:
            self.problems.append(problem)
        values: dict[str, str | None] = {}
        unset: dict[str, tuple[str, ...]] = {}
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                # The line may be meant for another program, but also for this one.
                line = f"line {binding.original.line}"
                self.problems.append(
                    Problem(line, path.name, "not readable", "expected NAME=value")
                )
            elif binding.key is not None:
                set_so_far = {name: value for name, value in values.items() if value is not None}
                known: dict[str, str | None] = {**set_so_far, **environ}
                parts = list(parse_variables(binding.value or ""))
                unset[binding.key] = tuple(
                    part.name
                    for part in parts
                    if isinstance(part, Variable)
                    and part.default is None
                    and part.name not in known
                )
                no_value = binding.value is None or unset[binding.key]
                values[binding.key] = None if no_value else "".join(p.resolve(known) for p in parts)
        return Source(path.name, values, {name: names for name, names in unset.items() if names})

    def given(self, model: type[SettingsModel], flags: Mapping[str, object] = _NO_FLAGS) -> Given:
        """The values for a model's fields; flags beat the environment, which beats `.env`.

        `flags` has values by the names of fields; None is a flag that was not given.
        """
        given = Given()
        for source in self.sources:
            for name in model.model_fields:
                if (variable := model.variable(name)) in source.variables:
                    value = source.variables[variable]
                    given.values[name] = None if value is None else value.strip()
                    given.origins[name] = source.name
        for name, flag in flags.items():
            if flag is not None:
                given.values[name] = flag
                given.origins[name] = COMMAND_LINE
        return given

    def refuse(self, model: type[SettingsModel], given: Given, faults: Iterable[Fault]) -> None:
        """Add the faults of a model to the problems, each by the name of its variable or flag."""
        for fault in faults:
            origin, found = given.origins[fault.field], fault.found
            name = model.variable(fault.field)
            if origin == COMMAND_LINE:
                name = f"--{fault.field.replace('_', '-')}"
            for source in self.sources:
                if given.values[fault.field] is None and name in source.unset:
                    found = "; ".join(refers_to(source.unset[name]))
            self.problems.append(Problem(name, origin, found, fault.expected))

    def raise_problems(self) -> None:
        """Raise `SettingsError` if there is any problem."""
        if self.problems:
            raise SettingsError(self.problems)


def _text_of(path: Path) -> tuple[str, Problem | None]:
    try:
        return path.read_text(encoding="utf-8-sig"), None
    except FileNotFoundError:
        return "", None
    except UnicodeDecodeError:
        return "", Problem(path.name, "file", "not UTF-8", "save it as UTF-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return "", Problem(path.name, "file", reason, "make the file readable, or remove it")


def merge_variables(*, environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """Every variable, the environment's over those of `.env`: what `env://` reads.

    Raises `SettingsError` where `.env` cannot be read.
    """
    reader = VariableReader(environ=environ, dotenv=dotenv)
    reader.raise_problems()
    return {
        name: value
        for source in reader.sources
        for name, value in source.variables.items()
        if value is not None
    }


def unset_references(
    *, environ: Mapping[str, str], dotenv: Path | None
) -> dict[str, tuple[str, ...]]:
    """The unset names that variables of `.env` refer to, by the variable's own name.

    A variable that the environment sets itself is left out.
    """
    return {
        name: names
        for source in VariableReader(environ=environ, dotenv=dotenv).sources
        for name, names in source.unset.items()
        if name not in environ
    }


def refers_to(names: Sequence[str]) -> tuple[str, str]:
    """The sentence for a variable that refers to unset names, and the remedy."""
    first, several = names[0], ", ".join(names)
    return (
        f"refers to {several}, which is not set",
        f"set {first}; for nothing write ${{{first}:-}}, for the text itself ${{X:-$}}{{{first}}}",
    )
