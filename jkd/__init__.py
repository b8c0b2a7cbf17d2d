"""jkd: knowledge distillation through a knowledge graph, in JAX.

`sample -> join -> project -> train`, then explain, replay, compress. Start at `jkd.run.distill`, the whole flow on
one page. This file imports nothing, so that a mistyped config is refused before jax is loaded.
"""

__version__ = "0.1.0"
