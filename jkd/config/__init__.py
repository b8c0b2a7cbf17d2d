"""Defaults, overrides and checks of configs. Imports no jax: a mistyped key is refused before anything is loaded."""

from jkd.config.defaults import AUTO, default
from jkd.config.resolve import difference, from_dict, load, override, resolve, show, variant
from jkd.config.tree import as_dict, flatten

__all__ = [
    "AUTO",
    "as_dict",
    "default",
    "difference",
    "flatten",
    "from_dict",
    "load",
    "override",
    "resolve",
    "show",
    "variant",
]
