"""XLA flags that jkd asks for, set in one place before jax looks for devices. What the user set in `XLA_FLAGS` wins."""

import os
import re
import sys
import warnings
from importlib import metadata

from jkd.errors import Notice, UserError

# Both types, or none: with DOT alone every reduction over channels (BatchNorm) becomes far slower.
CPU_FUSION = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# Neither operations that add in no fixed order nor a choice among kernels by their speed (which implies another order).
GPU_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
THREADS = 8  # of XLA's pool on CPU, where it is to be the same everywhere; at least the number of devices
INT32 = 2**31 - 1
LARGEST = 2**16  # characters of a file of flags that are read
AREAS, MOST_AREAS = "/proc/self/maps", "/proc/sys/vm/max_map_count"  # of this process's memory; of any process's
KNOWN_TO = ((0, 10),)  # jaxlib releases that know the flag; others would refuse to start


def set_flags(reduction: str = "plain", deterministic: bool = True, shards: int = 8) -> None:
    """Adds what is missing to `XLA_FLAGS` and `NPROC`, which jax reads when it first looks for devices.

    Args:
      reduction: of the config. With `elastic` the CPU's thread pool gets one size on every machine, since some sums
        (attention's) depend on it.
      shards: virtual shards, and so the number of devices that can share the work: there are as many threads at least.
      deterministic: whether accelerators may only use operations, and choices among them, that repeat to the bit.

    In a session in which jax has computed before, it is too late: a warning says so, and nothing is set. Another
    warning says when what the user set is not what `deterministic` asks for.
    """
    given, wanted = _given(), {}
    if given != os.environ.get("XLA_FLAGS", ""):  # a file, to which nothing can be added
        wanted["XLA_FLAGS"] = given
    missing = []
    if tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2]) in KNOWN_TO:
        missing.append(CPU_FUSION)
    if deterministic:
        missing.append(GPU_DETERMINISTIC)
    if deterministic and (other := _switched_off(given, GPU_DETERMINISTIC)):
        warnings.warn(
            f"XLA_FLAGS has {other}, which wins over deterministic=True of the config: on a GPU this run does not "
            "repeat to the bit. Take it out of XLA_FLAGS, or set deterministic=False.",
            Notice,
            stacklevel=3,
        )
    missing = [flag for flag in missing if flag.split("=")[0] not in given]
    if missing:
        wanted["XLA_FLAGS"] = " ".join([*given.split(), *missing])
    if reduction == "elastic" and pinned() is None:
        wanted["NPROC"] = str(max(THREADS, shards))
    if wanted and _in_use():
        settings = " ".join(f"{key}={value!r}" for key, value in wanted.items())
        warnings.warn(
            "jax was in use before jkd could set its flags: this run is as good, but slower on some networks and not "
            f"bit for bit that of the command line. To have both, start with {settings}.",
            Notice,
            stacklevel=3,
        )
        return
    os.environ.update(wanted)


def flags() -> list[str]:
    """The flags in force, sorted: of several of a name the last, without the number of devices to pretend."""
    last = {flag.partition("=")[0]: flag for flag in _given().split()}
    return sorted(flag for name, flag in last.items() if name != "--xla_force_host_platform_device_count")


def pinned() -> int | None:
    """The number that XLA reads in `NPROC`; None where it reads none and takes that of the cores."""
    given = re.fullmatch(r"\s*([+-]?\d+)\s*", os.environ.get("NPROC", ""), re.ASCII)
    number = int(given[1]) if given and len(given[1]) <= len(str(INT32)) + 1 else INT32 + 1
    return max(0, number) if -INT32 <= number <= INT32 else None


def crowded() -> bool:
    """Whether this process has half of the areas of memory that Linux grants it.

    Every program compiled for the CPU takes tens of them. Where there are no more, however much memory is free, LLVM
    ends the process.
    """
    try:
        with open(AREAS, "rb") as areas, open(MOST_AREAS, "rb") as most:
            return 2 * sum(1 for _ in areas) > int(most.read())
    except (OSError, ValueError):  # no Linux
        return False


def _given() -> str:
    """`XLA_FLAGS`, or, where it names a file as XLA allows, the flags in it."""
    given = os.environ.get("XLA_FLAGS", "")
    if not given.strip() or given.lstrip().startswith("-"):
        return given
    try:
        with open(given, encoding="utf-8") as file:
            return " ".join(file.read(LARGEST).split())
    except (OSError, ValueError) as error:
        raise UserError(f"XLA_FLAGS names a file that cannot be read: {given} ({error}). Give its flags.") from None


def _switched_off(given: str, flag: str) -> str:
    """The last of the flags given that switches off what `flag` switches on; '' where none does."""
    name = flag.split("=")[0]
    own = [each for each in given.split() if each.split("=")[0] == name][-1:]
    return "".join(each for each in own if each.partition("=")[2].lower() in ("false", "0"))


def _in_use() -> bool:
    """Whether jax has looked for devices. Asked of a private module, for want of a public word for it."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "_backends", None))
