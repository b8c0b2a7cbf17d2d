"""XLA flags that jkd asks for, set in one place before jax looks for devices. What the user set in `XLA_FLAGS` wins."""

import os
import sys
import warnings
from importlib import metadata

# Both types, or none: with DOT alone every reduction over channels (BatchNorm) becomes far slower.
CPU_FUSION = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
KNOWN_TO = ((0, 10),)  # jaxlib releases that know the flag; others would refuse to start


def set_flags() -> None:
    """Adds the flags to `XLA_FLAGS`, which jax reads when it first looks for devices. Only what this jaxlib knows.

    In a session in which jax has computed before, it is too late: a warning says so, and nothing is set.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if CPU_FUSION.split("=")[0] in given:
        return
    release = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if release not in KNOWN_TO:
        return
    if _in_use():
        warnings.warn(
            "jax was in use before jkd could set its XLA flags: this run is as good, but slower on some networks and "
            f"not bit for bit that of the command line. To have both, start with XLA_FLAGS={CPU_FUSION}.",
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{given} {CPU_FUSION}".strip()


def flags() -> list[str]:
    """The flags in force, sorted, without those that only say how many devices to pretend."""
    given = os.environ.get("XLA_FLAGS", "").split()
    return sorted(flag for flag in given if not flag.startswith("--xla_force_host_platform_device_count"))


def _in_use() -> bool:
    """Whether jax has looked for devices. Asked of a private module, for want of a public word for it."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "_backends", None))
