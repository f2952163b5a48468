"""The settings of the tools as feature flags: each under a key of its own, and of one type.

`rag.enabled` and `rag.search_k` are settings, `rag` is all of a tool. Secrets are in none.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from memoryd.tools.overrides import ENABLED
from memoryd.tools.settings import SETTINGS_OF, Provenance, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memoryd.tools.settings import ToolConfig


class FlagType(enum.Enum):
    BOOLEAN = "a boolean"
    STRING = "a text"
    INT = "a whole number"
    FLOAT = "a number"
    OBJECT = "an object"


_TYPE_OF: Mapping[Any, FlagType] = {
    bool: FlagType.BOOLEAN,
    str: FlagType.STRING,
    int: FlagType.INT,
    float: FlagType.FLOAT,
}


class Resolved(NamedTuple):
    """What a flag is in one configuration."""

    value: Any
    """Plain JSON."""
    provenance: Provenance
    """Where it comes from; of an object, the uppermost layer that any member comes from."""


@dataclass(frozen=True, slots=True)
class Flag:
    key: str
    tool: str
    type: FlagType
    setting: str | None
    """`enabled` or a setting's name; None: all of the tool."""

    def of(self, config: ToolConfig) -> Resolved:
        """Resolve it in a configuration of its tool."""
        names = _NAMES_OF[self.tool] if self.setting is None else (self.setting,)
        settings = config.settings.model_dump(mode="json", include={*names})
        values = {name: settings.get(name, config.enabled) for name in names}
        value: Any = values
        if self.setting is not None and not isinstance(values[self.setting], list):
            value = values[self.setting]  # of lists there are no flags; an object may have one
        paths = (name if name == ENABLED else f"{self.tool}.{name}" for name in names)
        layers = (config.provenance[path] for path in paths)
        return Resolved(value, max(layers, key=lambda layer: layer.value))


_NAMES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    tool: (ENABLED, *(name for name in model.model_fields if not is_secret(model, name)))
    for tool, model in SETTINGS_OF.items()
}


def _flags() -> Iterator[Flag]:
    for tool, names in _NAMES_OF.items():
        yield Flag(tool, tool, FlagType.OBJECT, None)
        fields = SETTINGS_OF[tool].model_fields
        for name in names:
            annotation = bool if name == ENABLED else fields[name].annotation
            kind = _TYPE_OF.get(annotation, FlagType.OBJECT)
            yield Flag(f"{tool}.{name}", tool, kind, name)


FLAGS: Final[Mapping[str, Flag]] = MappingProxyType({flag.key: flag for flag in _flags()})
"""Every flag by its key, in the order of the tools and their settings."""


def flags_of(config: ToolConfig) -> dict[str, Resolved]:
    """Resolve the flags of a configuration, by their keys."""
    return {flag.key: flag.of(config) for flag in FLAGS.values() if flag.tool == config.tool}
