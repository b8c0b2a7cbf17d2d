"""XLA flags that jkd asks for, set in one place before jax looks for devices. What the user set in `XLA_FLAGS` wins."""

import os
from importlib import metadata

# Both types, or none: with DOT alone every reduction over channels (BatchNorm) becomes far slower.
CPU_FUSION = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
KNOWN_TO = ((0, 10),)  # jaxlib releases that know the flag; others would refuse to start


def set_flags() -> None:
    """Adds the flags to `XLA_FLAGS`, which jax reads when it first looks for devices. Only what this jaxlib knows."""
    given = os.environ.get("XLA_FLAGS", "")
    name = CPU_FUSION.split("=")[0]
    if name in given:
        return
    release = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if release in KNOWN_TO:
        os.environ["XLA_FLAGS"] = f"{given} {CPU_FUSION}".strip()


def flags() -> list[str]:
    """The flags in force, sorted, without those that only say how many devices to pretend."""
    given = os.environ.get("XLA_FLAGS", "").split()
    return sorted(flag for flag in given if not flag.startswith("--xla_force_host_platform_device_count"))
