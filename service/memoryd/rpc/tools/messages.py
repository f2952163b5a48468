"""The seven tools' settings as protos, and back. Fields are named as the settings are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from memoryd.rpc.memories.messages import timestamp
from memoryd.tools.field_types import MAX_ITEMS
from memoryd.tools.settings import Provenance, shown_settings
from memoryd.v1 import tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from google.protobuf.message import Message

    from memoryd.tools.settings import ToolConfig
    from memoryd.tools.stored import Revision

_PROTO_PROVENANCE = {
    Provenance.DEFAULT: tool_config_pb2.PROVENANCE_DEFAULT,
    Provenance.ENVIRONMENT: tool_config_pb2.PROVENANCE_ENVIRONMENT,
    Provenance.INSTANCE: tool_config_pb2.PROVENANCE_INSTANCE,
    Provenance.OVERRIDE: tool_config_pb2.PROVENANCE_OVERRIDE,
}

MESSAGE_OF: Mapping[str, type[Message]] = {
    "rag": tool_config_pb2.RagSettings,
    "memory": tool_config_pb2.MemorySettings,
    "escalation": tool_config_pb2.EscalationSettings,
    "attachment": tool_config_pb2.AttachmentSettings,
    "crm": tool_config_pb2.CrmSettings,
    "billing": tool_config_pb2.BillingSettings,
    "inventory": tool_config_pb2.InventorySettings,
}


def config_message(
    config: ToolConfig, *, stale_since: datetime | None
) -> tool_config_pb2.ToolConfig:
    """All that callers see but the warnings.

    `stale_since`: when it was last known to be current; None where it is.
    """
    message = tool_config_pb2.ToolConfig(
        tool=config.tool,
        enabled=config.enabled,
        provenance={path: _PROTO_PROVENANCE[layer] for path, layer in config.provenance.items()},
        revision=config.revision,
        etag=config.etag,
    )
    getattr(message, config.tool).CopyFrom(
        MESSAGE_OF[config.tool](**shown_settings(config.settings))
    )
    if stale_since is not None:
        message.stale = True
        message.stale_since.CopyFrom(timestamp(stale_since))
    return message


def revision_message(revision: Revision) -> tool_config_pb2.ToolConfigRevision:
    """A change as it was recorded; what another release knew and this one does not is left out."""
    message = tool_config_pb2.ToolConfigRevision(
        revision=revision.revision,
        tool=revision.tool,
        change_time=timestamp(revision.change_time),
        actor=revision.actor,
        reason=revision.reason,
    )
    for shown, part in ((revision.before, message.before), (revision.after, message.after)):
        json_format.ParseDict(dict(shown or {}), part, ignore_unknown_fields=True)
    return message


def given_settings(message: Message) -> dict[str, Any]:
    """What a caller gave, by the setting's name; what is output only is not looked at.

    Of a list or map longer than there may be, as much as shows it.
    """
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name.startswith("has_") or field.name.endswith("_source"):
            continue
        if field.is_repeated:
            is_map = field.message_type is not None
            given[field.name] = (
                dict(islice(value.items(), MAX_ITEMS + 1)) if is_map else value[: MAX_ITEMS + 1]
            )
        else:
            given[field.name] = value
    return given
