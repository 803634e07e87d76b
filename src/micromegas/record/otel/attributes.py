"""Attributes of OpenTelemetry as our properties, which are texts."""

import json
from collections.abc import Mapping
from typing import Any


def text_of(value: object) -> str:
    """Texts as they are, truth values as `true` and `false`, sequences and mappings as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, Mapping)):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            pass
    try:
        return str(value)
    except Exception:
        return f"<unprintable {type(value).__name__} object>"


def properties_of(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    """All attributes but those that are None."""
    if not attributes:
        return {}
    return {str(name): text_of(value) for name, value in attributes.items() if value is not None}
