"""The receipt: what a network costs to store, to compute, and in time. All but the time is exact."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jkd.compress.variables import flat_float32
from jkd.models import depthwise

Apply = Callable[..., tuple[Any, dict[str, Any]]]


def receipt(apply: Apply, variables: dict[str, Any], example: np.ndarray) -> dict[str, int | float | None]:
    """What one network costs.

    Args:
      apply: `(variables, input) -> (logits, taps)` in evaluation mode: a module's, or a user's function.
      variables: `{"params": ..., "batch_stats": ...}`, or any tree of arrays of a user's function.
      example: the input of one sample, `[1, ...]`; only its shape and type count.

    Returns:
      `params`: trained numbers; batch statistics are not among them.
      `embedding`: those of the parameters that are tables of words or n-grams.
      `state`: other stored numbers, which are the batch statistics.
      `bytes`: size of both as one float32 safetensors file, header included.
      `macs`: multiply-adds of the matrix products and convolutions for one sample.
      `latency_ms`: `None`, the place for what `latency` measures.
    """
    params, state = parameters(variables)
    return {
        "params": params,
        "embedding": embedding(variables),
        "state": state,
        "bytes": file_bytes(variables),
        "macs": macs(apply, variables, example),
        "latency_ms": None,
    }


def parameters(variables: dict[str, Any]) -> tuple[int, int]:
    """Numbers in `params` (in the whole tree, where it has no such collection), and numbers outside it."""
    total = _size(variables)
    params = _size(variables["params"]) if "params" in variables else total
    return params, total - params


def embedding(variables: dict[str, Any]) -> int:
    """Numbers in tables that are looked up in: leaves called `embedding`, as Flax calls them."""
    flat = flat_float32(variables)
    return sum(array.size for name, array in flat.items() if name.rsplit("/", 1)[-1] == "embedding")


def file_bytes(variables: dict[str, Any]) -> int:
    """Length of the file that `save_variables` would write."""
    from safetensors.numpy import save

    return len(save({name: np.ascontiguousarray(array) for name, array in flat_float32(variables).items()}))


def macs(apply: Apply, variables: dict[str, Any], example: np.ndarray) -> int:
    """Multiply-adds of one sample's logits, counted in the traced program; nothing is run.

    Matrix products and convolutions, also depthwise ones, count in full (a padded border multiplies too), the same on
    every backend; element-wise work, pooling and reductions do not. A `scan` counts as often as it runs, a `while`
    once, a `cond` by its dearest branch.
    """
    with depthwise.formulated("lax"):  # shifted products would not be seen as a convolution
        program = jax.make_jaxpr(lambda tree, fed: apply(tree, fed)[0])(
            variables, jax.ShapeDtypeStruct(example.shape, example.dtype)
        )
    return _count(program.jaxpr)


def latency(apply: Apply, variables: dict[str, Any], example: np.ndarray, budget_s: float = 0.3) -> float:
    """Median milliseconds of one sample's outputs, compiled, waited for; some `budget_s` seconds of repeats.

    At least 3 and at most 200 repeats, after two runs for warmth. The only measured figure of a receipt.
    """
    compiled = jax.jit(lambda tree, fed: apply(tree, fed)[0])
    tree, fed = jax.device_put((variables, example))
    for _ in range(2):
        jax.block_until_ready(compiled(tree, fed))
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget_s and len(times) < 200):
        start = time.perf_counter()
        jax.block_until_ready(compiled(tree, fed))
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _size(tree: Any) -> int:
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += math.prod(out) * math.prod(left[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
            features = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += math.prod(out) * math.prod(kernel) // features  # [I / groups, kh, kw] per output value
        elif name == "cond":
            total += max(map(_count, _inner(params)))
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(map(_count, _inner(params)))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an equation: of a jitted call, a loop, a custom gradient."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)  # a closed program holds the program
            if hasattr(item, "eqns"):
                yield item
