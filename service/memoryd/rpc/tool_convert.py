"""The seven tools' settings as protos, and back. Fields are named as the settings are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.secrets import SecretReference
from memoryd.v1 import tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from memoryd.tool_settings import ToolSettings

MESSAGE_OF: Mapping[str, type[Message]] = {
    "rag": tool_config_pb2.RagSettings,
    "memory": tool_config_pb2.MemorySettings,
    "escalation": tool_config_pb2.EscalationSettings,
    "attachment": tool_config_pb2.AttachmentSettings,
    "crm": tool_config_pb2.CrmSettings,
    "billing": tool_config_pb2.BillingSettings,
    "inventory": tool_config_pb2.InventorySettings,
}


def settings_message(settings: ToolSettings) -> Message:
    """What callers see: of a secret only whether there is one, and where it comes from."""
    values: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretReference):
            values[f"has_{name}"] = bool(value)
            values[f"{name}_source"] = value.source
        elif value != "":  # a text that is not given stays absent
            values[name] = value
    return MESSAGE_OF[settings.tool](**values)


def given_settings(message: Message) -> dict[str, Any]:
    """What a caller gave, by the setting's name; what is output only is not looked at."""
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name.startswith("has_") or field.name.endswith("_source"):
            continue
        if field.is_repeated:
            is_map = field.message_type is not None
            given[field.name] = dict(value) if is_map else list(value)
        else:
            given[field.name] = value
    return given
