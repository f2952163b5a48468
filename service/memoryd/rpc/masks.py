"""Which fields of a resource an update names (AIP-134)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.field_mask_pb2 import FieldMask
    from google.protobuf.message import Message

    from memoryd.rpc.violations import Violations

MAX_MASK_PATHS = 64


def changed_paths(
    resource: Message, mask: FieldMask, changeable: Sequence[str], violations: Violations
) -> Sequence[str]:
    """The changeable paths of a mask, or of the populated fields where there is none."""
    if not mask.paths:
        populated = {field.name for field, _ in resource.ListFields()}
        return [path for path in changeable if path in populated]
    if len(mask.paths) > MAX_MASK_PATHS:
        violations.add("update_mask", f"must have at most {MAX_MASK_PATHS} paths")
        return []
    if "*" in mask.paths:
        return changeable
    known = resource.DESCRIPTOR.fields_by_name
    for path in mask.paths:
        if path not in known:
            violations.add(
                "update_mask",
                f"has a path that is no field of {resource.DESCRIPTOR.name}; use"
                f" {', '.join(changeable)}, each as a whole",
            )
    return [path for path in changeable if path in mask.paths]
