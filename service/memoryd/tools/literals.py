"""Literal secrets that were given at run time. They are nowhere but in this process."""

from __future__ import annotations

import secrets as random_tokens
from typing import TYPE_CHECKING

from memoryd.tools.settings import LOST_LITERAL
from memoryd.tools.stored import PERMANENT

if TYPE_CHECKING:
    from memoryd.tools.secrets import SecretReference
    from memoryd.tools.settings import ToolConfig

KEPT_OWNERS = 1_000
"""Owners whose literal secrets are remembered, those that gave one last."""


class Literals:
    """The literal secrets of each owner and tool, by the tokens that stand for them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, dict[str, SecretReference]]] = {}

    def keep(self, owner: str, config: ToolConfig, reference: SecretReference, *, most: int) -> str:
        """Remember it, and give the token that stands for it; the same for the same literal.

        The latest `most` of the tool are kept, and the one that holds by `config` in any case.
        """
        tools = self._kept.pop(owner, {})
        self._kept[owner] = tools  # as the latest
        if len(self._kept) > KEPT_OWNERS:
            del self._kept[next(o for o in self._kept if o not in PERMANENT)]
        kept = tools.setdefault(config.tool, {})
        token = next((t for t, known in kept.items() if known == reference), None)
        token = token or random_tokens.token_hex(16)
        kept.pop(token, None)
        kept[token] = reference  # as the latest
        if len(kept) > most:
            held = config.values["api_key"]
            del kept[next(t for t, known in kept.items() if known != held)]
        return token

    def get(self, owner: str, tool: str, token: str) -> SecretReference:
        return self._kept.get(owner, {}).get(tool, {}).get(token, LOST_LITERAL)
