"""flagd.evaluation.v1 and .v2: the tools' settings as flags, and which of them change.

Both versions have the same methods, but for ResolveAll. Their messages are of a pool of the
server's own: the process's pool may have them of a package of OpenFeature's, from another file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass

from memoryd.domain.audit import Audited
from memoryd.domain.errors import FlagNotFound
from memoryd.domain.principals import Scope
from memoryd.rpc import rules
from memoryd.rpc.methods import Method, is_any
from memoryd.tools.flags import FLAGS, FlagType, flags_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations
    from memoryd.tools.configs import ToolConfigs
    from memoryd.tools.flags import Flag, Resolved
    from memoryd.tools.settings import ToolConfig

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    rules.POOL.FindServiceByName(f"flagd.evaluation.{version}.Service") for version in ("v1", "v2")
)

STATIC = "STATIC"
"""Why a flag has its value: no context has a part in it. Providers keep such a value."""

KEEP_ALIVE_SECONDS = 20.0
"""How long a stream of events may have nothing to say."""

_RESOLVES: Mapping[str, tuple[FlagType, ...]] = {
    "ResolveBoolean": (FlagType.BOOLEAN,),
    "ResolveString": (FlagType.STRING,),
    "ResolveInt": (FlagType.INT,),
    "ResolveFloat": (FlagType.FLOAT, FlagType.INT),
    "ResolveObject": (FlagType.OBJECT,),
}
_METHOD_FOR = {types[0]: name for name, types in _RESOLVES.items()}
_ANY_FIELD = {
    FlagType.BOOLEAN: "bool_value",
    FlagType.STRING: "string_value",
    FlagType.INT: "double_value",
    FlagType.FLOAT: "double_value",
    FlagType.OBJECT: "object_value",
}


@dataclass(frozen=True, slots=True)
class Asked:
    tenant: str
    flag: Flag


class FlagService:
    def __init__(self, configs: ToolConfigs, *, idle_seconds: float) -> None:
        """`idle_seconds`: after which a stream that says nothing is ended."""
        self._configs = configs
        self._keep_alive_seconds = min(KEEP_ALIVE_SECONDS, idle_seconds / 2)

    def methods(self, service: ServiceDescriptor) -> Mapping[str, Method[Any]]:
        """The table of one version."""
        table: dict[str, Method[Any]] = {}
        for name, method in service.methods_by_name.items():
            answer = GetMessageClass(method.output_type)
            if name in _RESOLVES:
                row = self._row(partial(_asked, _RESOLVES[name]), partial(self._resolve, answer))
            else:
                handle = {"ResolveAll": self._resolve_all, "EventStream": self._events}[name]
                row = self._row(_tenant, partial(handle, answer))
            table[name] = row
        return table

    def _row(self, parse: Any, handle: Any) -> Method[Any]:
        needs, audited = Scope.TOOLS_READ, Audited.IN_ALL
        return Method(parse, handle, needs, audited, is_plain=is_any, holds=self._held)

    def _held(self, call: Call) -> AbstractAsyncContextManager[None]:
        return self._configs.holding(call.principal.tenant, call.time_remaining())

    async def _resolve(self, answer: type[Any], asked: Asked, call: Call) -> Message:
        del call
        flag, config = asked.flag, self._configs.of(asked.tenant)[asked.flag.tool]
        message: Message = answer()
        self._fill(message, "value", flag.of(config), config, asked.tenant)
        return message

    async def _resolve_all(self, answer: type[Any], tenant: str, call: Call) -> Message:
        del call
        configs, found = self._configs.of(tenant), answer()
        for config in configs:
            for key, resolved in flags_of(config).items():
                field = _ANY_FIELD[FLAGS[key].type]
                self._fill(found.flags[key], field, resolved, config, tenant)
        _describe(found, configs.revision, self._configs.stale_since(tenant))
        message: Message = found
        return message

    async def _events(self, answer: type[Any], tenant: str, call: Call) -> AsyncIterator[Message]:
        """Tell what changes in what calls are answered with, once they are.

        What a caller reads after an event is so no older than it, and need not be told again.
        """
        del call
        with self._configs.feed.subscribed(tenant, is_current=True) as subscription:
            told = {config.tool: config for config in self._configs.of(tenant)}
            yield _change(answer, FLAGS)  # first, so that nobody who is ready has what is old
            yield answer(type="provider_ready")
            while True:
                try:
                    async with asyncio.timeout(self._keep_alive_seconds):
                        await subscription.woken()
                except TimeoutError:
                    yield answer(type="keep_alive")
                    continue
                now = {config.tool: config for config in self._configs.of(tenant)}
                keys = [key for tool in now for key in _changed(told[tool], now[tool])]
                told = now
                if keys:
                    yield _change(answer, keys)

    def _fill(
        self, message: Any, field: str, resolved: Resolved, config: ToolConfig, tenant: str
    ) -> None:
        if isinstance(resolved.value, dict):
            struct = getattr(message, field)
            struct.SetInParent()  # also where it is empty
            struct.update(resolved.value)
        else:
            setattr(message, field, resolved.value)
        message.reason = STATIC
        message.variant = resolved.provenance.name
        _describe(message, config.revision, self._configs.stale_since(tenant))


def _describe(message: Any, revision: int, stale_since: datetime | None) -> None:
    message.metadata["revision"] = revision
    if stale_since is not None:
        message.metadata["stale_since"] = stale_since.isoformat()


def _changed(before: ToolConfig, after: ToolConfig) -> Iterable[str]:
    """The keys of the flags that are others now."""
    if before.revision == after.revision:
        return ()
    old = flags_of(before)
    return [key for key, resolved in flags_of(after).items() if resolved != old[key]]


def _change(answer: type[Any], keys: Iterable[str]) -> Message:
    flags = {"flags": {key: {"type": "update"} for key in keys}}
    message: Message = answer(type="configuration_change", data=flags)
    return message


def _asked(types: Collection[FlagType], request: Any, call: Call, violations: Violations) -> Asked:
    """Raises FlagNotFound."""
    flag = FLAGS.get(request.flag_key)
    if flag is None:
        raise FlagNotFound(request.flag_key)
    if flag.type not in types:
        method = _METHOD_FOR[flag.type]
        violations.add("flag_key", f"is the key of {flag.type.value}; ask for it with {method}")
    return Asked(call.principal.tenant, flag)


def _tenant(request: Message, call: Call, violations: Violations) -> str:
    del request, violations
    return call.principal.tenant
