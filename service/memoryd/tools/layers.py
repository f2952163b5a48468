"""The layers of each owner's settings: defaults, environment, the instance's, the tenant's."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from memoryd.tools.literals import Literals
from memoryd.tools.overrides import document, layered
from memoryd.tools.secrets.names import SecretRules
from memoryd.tools.settings import Provenance, references_of
from memoryd.tools.stored import INSTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from memoryd.tools.settings import ToolConfig
    from memoryd.tools.stored import Overrides, Revision, Stored, StoredTools


class Layers:
    """Makes configurations of what is stored."""

    def __init__(
        self,
        base: Mapping[str, ToolConfig],
        *,
        production: bool,
        secret_names: Sequence[str],
        secret_references: Sequence[str],
    ) -> None:
        """`base`: what environment and defaults make.

        `secret_names`, `secret_references`: patterns of the secrets that callers may name, as
        SecretRules has them.
        """
        self.base = base
        self.production = production
        self.literals = Literals()
        self.secret_rules = SecretRules(
            secret_names, secret_references, references_of(base.values())
        )
        self.instance_now: Callable[[str], Overrides] = lambda _: {}
        """Gives the instance's overrides of a tool as they are known now."""

    def config(self, owner: str, tool: str, stored: Stored) -> ToolConfig:
        """The configuration of an owner's tool."""
        below = self.base[tool]
        if owner != INSTANCE:
            instance = stored.instance
            if instance is None:  # what holds by now is what its watchers need to end up with
                instance = self.instance_now(tool)
            if instance:
                below = self._laid(INSTANCE, below, instance, Provenance.INSTANCE)
        layer = Provenance.INSTANCE if owner == INSTANCE else Provenance.OVERRIDE
        laid = self._laid(owner, below, stored.overrides, layer) if stored.overrides else below
        return dataclasses.replace(laid, revision=stored.revision)

    def documented(self, owner: str, revision: Revision) -> Revision:
        """A change with the configurations before and after it, where it has none."""
        if revision.after is not None:
            return revision
        before = self.config(owner, revision.tool, revision.stored_before)
        after = self.config(owner, revision.tool, revision.stored)
        return dataclasses.replace(revision, before=document(before), after=document(after))

    def _laid(
        self, owner: str, below: ToolConfig, overrides: Mapping[str, Any], layer: Provenance
    ) -> ToolConfig:
        return layered(
            below,
            overrides,
            layer,
            literal=functools.partial(self.literals.get, owner, below.tool),
            production=self.production,
            secret_names=self.secret_rules.of(owner, references_of((below,))),
        )


class Snapshot:
    """All tools of an owner at one moment.

    Each configuration is made when it is first asked for: of most tenants that are known, few are.
    """

    def __init__(self, layers: Layers, owner: str, stored: StoredTools) -> None:
        self._layers = layers
        self._owner = owner
        self._stored = stored
        self._made: dict[str, ToolConfig] = {}
        self.revision = stored.revision
        """Of the last change of any tool."""

    def __getitem__(self, tool: str) -> ToolConfig:
        config = self._made.get(tool)
        if config is None:
            config = self._layers.config(self._owner, tool, self._stored.of(tool))
            self._made[tool] = config
        return config

    def __iter__(self) -> Iterator[ToolConfig]:
        """All seven, in their order."""
        return (self[tool] for tool in self._layers.base)
