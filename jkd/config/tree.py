"""A config as plain data: nested dicts, and `{path: value}`."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def as_dict(config: ConfigDict) -> dict[str, Any]:
    """Plain nested dicts with lists for tuples: what is digested, printed and written to the manifest."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: plain(value[key]) for key in value}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(config)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": value}` of nested dicts; an empty group stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat
