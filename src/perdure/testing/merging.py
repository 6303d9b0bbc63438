"""How JSON documents are merged, for models that the product is compared with: never its own code."""

from __future__ import annotations

from typing import Any


def merge(target: object, patch: object) -> Any:  # Any: JSON of any shape
    """RFC 7396 section 2, as it reads there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result
