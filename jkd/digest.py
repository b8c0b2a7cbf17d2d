"""SHA-256 of bytes, files, JSON values and trees of arrays: how jkd knows that two things are the same thing."""

import hashlib
import json
from typing import Any

import numpy as np

from jkd import places
from jkd.places import Path


def of_bytes(*parts: bytes) -> str:
    """SHA-256 hex of `parts`, each preceded by its length, so that a boundary cannot be moved unnoticed."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def of_file(path: str | Path) -> str:
    """SHA-256 hex of a file's bytes, read in pieces."""
    with places.open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def of_json(value: Any) -> str:
    """SHA-256 hex of `canonical_json(value)`."""
    return of_bytes(canonical_json(value).encode())


def signed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with its own digest under "digest"; one that is there already is taken anew."""
    rest = {key: entry for key, entry in value.items() if key != "digest"}
    return rest | {"digest": of_json(rest)}


def of_array(array: Any) -> str:
    """SHA-256 hex of an array's dtype, shape and bits (little endian, C order)."""
    array = np.asarray(array)
    head = f"{array.dtype.name}{list(array.shape)}".encode()
    return of_bytes(head, np.ascontiguousarray(array).tobytes())


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts, tuples and lists to `{"a/b/0": leaf}`, dict keys sorted. `None` and empties vanish."""
    if isinstance(tree, dict):
        items = [(str(key), tree[key]) for key in sorted(tree)]
    elif hasattr(tree, "_asdict"):
        items = list(tree._asdict().items())
    elif isinstance(tree, tuple | list):
        items = [(str(index), value) for index, value in enumerate(tree)]
    elif tree is None:
        return {}
    else:
        return {prefix or ".": tree}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}/{key}" if prefix else key)
    return flat


def of_leaves(tree: Any) -> dict[str, str]:
    """`{path: SHA-256}` of every leaf of a tree of arrays."""
    return {path: of_array(leaf) for path, leaf in flatten(tree).items()}


def of_tree(tree: Any) -> str:
    """One SHA-256 for a whole tree of arrays: the digest of its leaves' digests by path."""
    return of_json(of_leaves(tree))
